"""The calls of a merchant's server: logins, app tokens and links, at api.weixin.qq.com's own paths.

    GET  /sns/jscode2session /sns/oauth2/access_token /sns/oauth2/refresh_token /sns/userinfo      JSON as text/plain
    GET  /cgi-bin/token    POST /cgi-bin/stable_token /wxa/generatescheme /wxa/generate_urllink    JSON

Always HTTP 200; what went wrong is `errcode`. Good answers of /sns have none.
"""

import asyncio
import base64
import json
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.sandbox.faults import Fault, FaultKind
from app.sandbox.wechat.open_platform_apps import AppKind, Apps
from app.sandbox.wechat.open_platform_codes import ACCESS_TOKEN_LIFE, BASE, Codes, Grant
from app.sandbox.wechat.open_platform_errors import BUSY, OpenPlatformRefusal
from app.sandbox.wechat.open_platform_json import read_json
from app.sandbox.wechat.open_platform_links import Link, Links
from app.sandbox.wechat.open_platform_tokens import TOKEN_LIFE, AppTokens
from app.sandbox.wire import DroppedConnection, SilentConnection
from app.sandbox.world import Ground

MAX_BODY_BYTES = 1 << 16
_TEXT = "text/plain"
_JSON = "application/json; encoding=utf-8"

Answer = dict[str, object]


@dataclass(frozen=True, slots=True)
class _Call:
    parameters: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class _Endpoint:
    """`name` is what faults and counts call it."""

    name: str
    verb: str
    media_type: str
    work: Callable[[_Call], Answer]


class OpenPlatformApi:
    def __init__(self, ground: Ground, *, apps: Apps, codes: Codes, tokens: AppTokens, links: Links) -> None:
        self._ground = ground
        self._apps = apps
        self._codes = codes
        self._tokens = tokens
        self._links = links

    def routes(self) -> list[Route]:
        endpoints = {
            "/sns/jscode2session": _Endpoint("wechat.jscode2session", "GET", _TEXT, self._jscode2session),
            "/sns/oauth2/access_token": _Endpoint("wechat.oauth2.access_token", "GET", _TEXT, self._access_token),
            "/sns/oauth2/refresh_token": _Endpoint("wechat.oauth2.refresh_token", "GET", _TEXT, self._refresh_token),
            "/sns/userinfo": _Endpoint("wechat.oauth2.userinfo", "GET", _TEXT, self._userinfo),
            "/cgi-bin/token": _Endpoint("wechat.token", "GET", _JSON, self._token),
            "/cgi-bin/stable_token": _Endpoint("wechat.token", "POST", _JSON, self._stable_token),
            "/wxa/generatescheme": _Endpoint("wechat.generatescheme", "POST", _JSON, self._generatescheme),
            "/wxa/generate_urllink": _Endpoint("wechat.generate_urllink", "POST", _JSON, self._generate_urllink),
        }
        return [Route(path, self._served(endpoint), methods=["GET", "POST"]) for path, endpoint in endpoints.items()]

    def _served(self, endpoint: _Endpoint) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            call = _Call(request.query_params, await _read_body(request))
            self._ground.calls.record(endpoint.name, "")
            if request.method != endpoint.verb:
                return _refused(endpoint, OpenPlatformRefusal(43002 if endpoint.verb == "POST" else 43001))
            fault = self._ground.faults.take(endpoint.name, "")
            return _worked(endpoint, call) if fault is None else await _go_wrong(endpoint, call, fault)

        return answer

    # Logging in.

    def _jscode2session(self, call: _Call) -> Answer:
        _check_grant_type(call.parameters, "authorization_code")
        app = self._apps.authenticate(call.parameters, AppKind.MINI_PROGRAM, wrong_secret=40125, needs_code="js_code")
        login = self._codes.redeem(app, call.parameters["js_code"])
        session_key = base64.b64encode(secrets.token_bytes(16)).decode()
        answer: Answer = {"session_key": session_key, "openid": login.openid}
        return answer | ({"unionid": login.unionid} if login.unionid else {})

    def _access_token(self, call: _Call) -> Answer:
        _check_grant_type(call.parameters, "authorization_code")
        app = self._apps.authenticate(call.parameters, AppKind.OFFICIAL_ACCOUNT, wrong_secret=40125, needs_code="code")
        return _grant_answer(self._codes.grant(self._codes.redeem(app, call.parameters["code"])))

    def _refresh_token(self, call: _Call) -> Answer:
        """Needs no secret, as at WeChat."""
        _check_grant_type(call.parameters, "refresh_token")
        for name, errcode in (("appid", 41002), ("refresh_token", 41003)):
            if not call.parameters.get(name):
                raise OpenPlatformRefusal(errcode)
        if self._apps.find(call.parameters["appid"], AppKind.OFFICIAL_ACCOUNT) is None:
            raise OpenPlatformRefusal(40013)
        return _grant_answer(self._codes.refresh(call.parameters["appid"], call.parameters["refresh_token"]))

    def _userinfo(self, call: _Call) -> Answer:
        for name, errcode in (("access_token", 41001), ("openid", 41009)):
            if not call.parameters.get(name):
                raise OpenPlatformRefusal(errcode)
        login = self._codes.find_login(call.parameters["access_token"])
        if login.openid != call.parameters["openid"]:
            raise OpenPlatformRefusal(40003)
        if login.scope == BASE:
            raise OpenPlatformRefusal(48001)
        answer: Answer = {"openid": login.openid, "nickname": login.nickname, "sex": 0, "language": ""}
        answer |= {"city": "", "province": "", "country": "", "headimgurl": "", "privilege": []}
        return answer | ({"unionid": login.unionid} if login.unionid else {})

    # The app's own token, and what needs it.

    def _token(self, call: _Call) -> Answer:
        _check_grant_type(call.parameters, "client_credential")
        app = self._apps.authenticate(call.parameters, None, wrong_secret=40001)
        token = self._tokens.issue(app.app_id)
        return {"access_token": token.text, "expires_in": int(TOKEN_LIFE.total_seconds())}

    def _stable_token(self, call: _Call) -> Answer:
        fields = _json_object(call.body)
        texts = {name: value for name, value in fields.items() if isinstance(value, str)}
        force = fields.get("force_refresh", False)
        if not isinstance(force, bool):
            raise OpenPlatformRefusal(47001)
        _check_grant_type(texts, "client_credential")
        app = self._apps.authenticate(texts, None, wrong_secret=40001)
        token, seconds_left = self._tokens.issue_stable(app.app_id, force=force)
        return {"access_token": token.text, "expires_in": seconds_left}

    def _generatescheme(self, call: _Call) -> Answer:
        return {"errcode": 0, "errmsg": "ok", "openlink": self._linked(call, self._links.make_scheme).openlink}

    def _generate_urllink(self, call: _Call) -> Answer:
        link = self._linked(call, self._links.make_url_link)
        return {"errcode": 0, "errmsg": "ok", "url_link": f"{self._ground.public_url}/wechat/link/{link.ticket}"}

    def _linked(self, call: _Call, make: Callable[[str, Mapping[str, Any]], Link]) -> Link:
        app_id = self._tokens.app_id_of(call.parameters.get("access_token", ""))
        if self._apps.find(app_id, AppKind.MINI_PROGRAM) is None:
            raise OpenPlatformRefusal(48001)
        return make(app_id, _json_object(call.body))


def _worked(endpoint: _Endpoint, call: _Call) -> Response:
    try:
        return _answered(endpoint, endpoint.work(call))
    except OpenPlatformRefusal as refusal:
        return _refused(endpoint, refusal)


async def _go_wrong(endpoint: _Endpoint, call: _Call, fault: Fault) -> Response:
    """The call as it goes with a fault, whose `code` is the errcode, -1 without, and whose `message` the errmsg."""
    match fault.kind:
        case FaultKind.TIMEOUT:
            return SilentConnection(fault.latency_s)
        case FaultKind.HTTP_500 | FaultKind.UNAVAILABLE:
            return Response("Internal Server Error", status_code=500, media_type="text/plain")
        case FaultKind.ERROR_RESPONSE | FaultKind.BUSINESS_ERROR:
            return _refused(endpoint, OpenPlatformRefusal(_errcode_of(fault), fault.message))
        case FaultKind.LOST_REPLY:
            _worked(endpoint, call)
            return DroppedConnection()
        case FaultKind.LATENCY:
            await asyncio.sleep(fault.latency_s)
        case _:
            pass  # these answers carry no signature that could be broken
    return _worked(endpoint, call)


def _errcode_of(fault: Fault) -> int:
    try:
        return int(fault.code or BUSY)
    except ValueError:
        return BUSY


def _answered(endpoint: _Endpoint, fields: Answer) -> Response:
    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
    return Response(text.encode(), headers={"content-type": endpoint.media_type})


def _refused(endpoint: _Endpoint, refusal: OpenPlatformRefusal) -> Response:
    return _answered(endpoint, refusal.fields())


def _grant_answer(grant: Grant) -> Answer:
    login = grant.login
    answer: Answer = {
        "access_token": grant.access_token,
        "expires_in": int(ACCESS_TOKEN_LIFE.total_seconds()),
        "refresh_token": grant.refresh_token,
        "openid": login.openid,
        "scope": login.scope,
    }
    if login.is_snapshot:
        answer["is_snapshotuser"] = 1
    return answer | ({"unionid": login.unionid} if login.unionid else {})


def _check_grant_type(parameters: Mapping[str, str], wanted: str) -> None:
    if parameters.get("grant_type") != wanted:
        raise OpenPlatformRefusal(40002)


async def _read_body(request: Request) -> bytes:
    """The body as far as any of these calls may need it; what is longer is no JSON afterwards."""
    body = b""
    async for chunk in request.stream():
        body = (body + chunk)[: MAX_BODY_BYTES + 1]
    return body


def _json_object(body: bytes) -> dict[str, Any]:
    if not body.strip():
        raise OpenPlatformRefusal(44002)
    fields = read_json(body, MAX_BODY_BYTES)
    if not isinstance(fields, dict):
        raise OpenPlatformRefusal(47001)
    return fields
