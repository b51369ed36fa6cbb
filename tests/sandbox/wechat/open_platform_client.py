"""A merchant's server at WeChat's open platform, and a person's browser: raw HTTP, for these tests alone."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import httpx

from tests.sandbox.handle import SandboxHandle

RETURN_URL = "http://127.0.0.1:8000/wechat/login/return?next=%2Fshop"


@dataclass(frozen=True, slots=True)
class OpenPlatformClient:
    """One app. Every answer is HTTP 200; `refused` is the errcode alone, `answered` all of an answer."""

    app: dict[str, str]
    sandbox: SandboxHandle

    @property
    def base_url(self) -> str:
        return self.app["gateway"]

    @property
    def named(self) -> dict[str, str]:
        return {"appid": self.app["app_id"], "secret": self.app["secret"]}

    async def get(self, path: str, **parameters: str | None) -> httpx.Response:
        """None leaves a parameter out."""
        kept = {name: value for name, value in parameters.items() if value is not None}
        return await self.sandbox.http.get(self.base_url + path, params=kept)

    async def answered(self, path: str, **parameters: str | None) -> dict[str, Any]:
        return read(await self.get(path, **parameters))

    async def refused(self, path: str, **parameters: str | None) -> int:
        return refusal(await self.get(path, **parameters))

    async def session(self, code: str, **changes: str | None) -> dict[str, Any]:
        wanted = {**self.named, "js_code": code, "grant_type": "authorization_code", **changes}
        return await self.answered("/sns/jscode2session", **wanted)

    async def web_token(self, code: str, **changes: str | None) -> dict[str, Any]:
        wanted = {**self.named, "code": code, "grant_type": "authorization_code", **changes}
        return await self.answered("/sns/oauth2/access_token", **wanted)

    async def code(self, **options: object) -> str:
        """What `wx.login` would give."""
        answer = await self.sandbox.control(
            "POST", "/wechat/codes", {"app_id": self.app["app_id"], **options}, status=201
        )
        code: str = answer["code"]
        return code

    async def openid(self, user: str = "lin") -> str:
        users = (await self.sandbox.control("GET", f"/wechat/users?app_id={self.app['app_id']}"))["users"]
        openids: dict[str, str] = {known["user"]: known["openid"] for known in users}
        return openids[user]

    def authorize_url(self, scope: str | None = "snsapi_base", **changes: str | None) -> str:
        """The link of an official account's page, parameters in WeChat's order."""
        parameters: dict[str, str | None] = {
            "appid": self.app["app_id"],
            "redirect_uri": RETURN_URL,
            "response_type": "code",
            "scope": scope,
            "state": "Abc123",
            **changes,
        }
        query = "&".join(f"{name}={quote(value, safe='')}" for name, value in parameters.items() if value is not None)
        return f"{self.app['authorize_gateway']}/connect/oauth2/authorize?{query}"

    async def app_token(self) -> str:
        answer = await self.answered("/cgi-bin/token", grant_type="client_credential", **self.named)
        token: str = answer["access_token"]
        return token

    async def post(self, path: str, body: object, **parameters: str) -> httpx.Response:
        return await self.sandbox.http.post(self.base_url + path, params=parameters, json=body)

    async def stable_token(self, **changes: object) -> dict[str, Any]:
        wanted = {**self.named, "grant_type": "client_credential", **changes}
        return read(await self.post("/cgi-bin/stable_token", wanted))


def read(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200
    fields: dict[str, Any] = response.json()
    return fields


def refusal(response: httpx.Response) -> int:
    """The errcode of an answer that holds nothing else."""
    fields = read(response)
    assert fields.keys() == {"errcode", "errmsg"}
    assert ", rid: " in fields["errmsg"]
    errcode: int = fields["errcode"]
    return errcode


def way_back(response: httpx.Response, *, status: int = 302) -> dict[str, list[str]]:
    """The query the browser comes back to the merchant with."""
    assert response.status_code == status
    location = response.headers["location"]
    parts = urlsplit(location)
    assert f"{parts.scheme}://{parts.netloc}{parts.path}" == RETURN_URL.partition("?")[0]
    return parse_qs(parts.query, keep_blank_values=True)
