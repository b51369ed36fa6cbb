"""One signed call of APIv3, and what its answer is worth: verified on the received bytes first, read afterwards.

    200, 204, signed by WeChat's key       → Answered
    429                                    → TurnedAway   by a rate limit, before anything was done
    4xx with a code                        → Refused      it said no; such answers may come without a signature
    4xx SYSTEM_ERROR, BANK_ERROR, no code  → Unknown      it may have acted
    5xx                                    → Unknown      but for OPENID_MISMATCH, signed: that is a refusal
    2xx unsigned, anything wrongly signed  → Unknown
    redirects, no answer                   → Unknown, NotReached: see transport

A refusal need not be signed because it moves no money: an order that was refused has no prepay_id anybody could pay
with, and "closed" or "paid" are believed only when a signed query says so.

Source: https://pay.weixin.qq.com/doc/v3/merchant/4012365342, /4013053249 and /4012551764, read 2026-09-11.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any

import httpx
import structlog

from app.clock import Clock
from app.providers.contract import NotReached, Rejected, Unknown
from app.providers.transport import ExchangeOutcome, RawAnswer, exchange
from app.providers.wechat.explanations import explain
from app.providers.wechat.v3.account import V3Account
from app.providers.wechat.v3.platform_keys import Downloaded, KeysUnavailable
from app.providers.wechat.v3.resources import OtherKey, opened_certificates
from app.providers.wechat.v3.signing import authorization, new_nonce, verifies
from app.providers.wechat.v3.strict_json import Unreadable, read_object, text_of

# The official SDKs refuse from exactly this distance on.
CLOCK_BOUND = timedelta(seconds=300)
USER_AGENT = "shouyin (APIv3)"
CERTIFICATES_TARGET = "/v3/certificates"

_MAY_HAVE_ACTED = frozenset({"SYSTEM_ERROR", "SYSTEMERROR", "BANK_ERROR", "BANKERROR", "BIZERR_NEED_RETRY"})
# WeChat documents it with status 500; nothing was done, and the payer's openid will be as wrong next time.
_REFUSED_AS_SERVER_ERROR = frozenset({"OPENID_MISMATCH"})
_WORDS_LIMIT = 500

_TIMESTAMP = re.compile(r"[0-9]{1,12}", re.ASCII)
_NONCE = re.compile(r"[!-~]{1,128}", re.ASCII)
_SERIAL = re.compile(r"[0-9A-Za-z_]{8,128}", re.ASCII)
_SIGNATURE = re.compile(r"[!-~]{1,2048}", re.ASCII)

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Stamp:
    """WeChat's four headers on an answer or a notification, complete and of the right form."""

    timestamp: str
    nonce: str
    serial: str
    signature: str

    def is_near(self, now: datetime) -> bool:
        """Whether it was made less than five minutes from now, in either direction."""
        return abs(now.timestamp() - int(self.timestamp)) < CLOCK_BOUND.total_seconds()


@dataclass(frozen=True, slots=True)
class Answered:
    """A verified success; no fields where the body is empty."""

    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Refused:
    """It said no, perhaps unsigned."""

    words: Rejected


@dataclass(frozen=True, slots=True)
class TurnedAway:
    """A rate limit stood in the way; nothing was done."""

    words: Rejected


Judgement = Answered | Refused | TurnedAway | NotReached | Unknown


def read_stamp(headers: Mapping[str, str]) -> Stamp | None:
    """The stamp in `headers`, whose names are lower case; None when a part is missing or misformed."""
    timestamp, nonce = headers.get("wechatpay-timestamp", ""), headers.get("wechatpay-nonce", "")
    serial, signature = headers.get("wechatpay-serial", ""), headers.get("wechatpay-signature", "")
    if not _TIMESTAMP.fullmatch(timestamp) or not _NONCE.fullmatch(nonce):
        return None
    if not _SERIAL.fullmatch(serial) or not _SIGNATURE.fullmatch(signature):
        return None
    return Stamp(timestamp, nonce, serial, signature)


class Calls:
    """Calls of APIv3 for any account. Stateless but for its tools."""

    def __init__(self, client: httpx.AsyncClient, clock: Clock, *, timeout_s: float) -> None:
        self._client = client
        self._clock = clock
        self._timeout_s = timeout_s

    async def execute(
        self, account: V3Account, method: str, target: str, content: Mapping[str, Any] | None = None
    ) -> Judgement:
        """One call, judged. Not sent at all where no answer to it could be verified."""
        failure = await account.platform_keys.ensure_any(partial(self._download_certificates, account))
        if isinstance(failure, Rejected):
            return Refused(failure)
        if failure is not None:
            return NotReached(f"platform certificates: {failure.detail}")
        body = b"" if content is None else _json(content)
        answer = await self._send(account, method, target, body)
        return await self._judge(account, answer) if isinstance(answer, RawAnswer) else answer

    async def is_genuine(self, account: V3Account, stamp: Stamp, body: bytes) -> bool:
        """Whether one of WeChat's keys for this account signed these bytes. Raises KeysUnavailable.

        Says nothing about when: see `Stamp.is_near`."""
        key = await account.platform_keys.find(stamp.serial, partial(self._download_certificates, account))
        return key is not None and verifies(
            key, timestamp=stamp.timestamp, nonce=stamp.nonce, body=body, signature=stamp.signature
        )

    async def _send(self, account: V3Account, method: str, target: str, body: bytes) -> ExchangeOutcome:
        url = httpx.URL(account.gateway + target)
        headers = {
            "Authorization": authorization(
                account.private_key,
                mchid=account.mchid,
                serial_no=account.serial_no,
                method=method,
                # What the client will send, which is what WeChat sees.
                target=url.raw_path.decode("ascii"),
                timestamp=str(int(self._clock.now().timestamp())),
                nonce=new_nonce(),
                body=body,
            ),
            "Accept": "application/json",
            "User-Agent": USER_AGENT,
        }
        if body:
            headers["Content-Type"] = "application/json"
        if account.answers_with is not None:
            headers["Wechatpay-Serial"] = account.answers_with
        return await exchange(
            self._client, method, url, headers=headers, body=body, timeout_s=self._timeout_s, server_errors=True
        )

    async def _judge(self, account: V3Account, answer: RawAnswer) -> Judgement:
        succeeded = answer.status_code < 300
        if answer.status_code >= 500 and _words(answer)[0] not in _REFUSED_AS_SERVER_ERROR:
            return self._judge_refusal(answer)
        if succeeded or answer.status_code >= 500 or "wechatpay-signature" in answer.headers:
            doubt = await self._doubt(account, answer, any_time=not succeeded)
            if doubt is not None:
                return _unknown(answer, f": {doubt}")
        if not succeeded:
            return self._judge_refusal(answer)
        if answer.status_code not in (200, 204):
            return _unknown(answer, " is no documented success")
        try:
            return Answered(read_object(answer.body) if answer.body else {})
        except Unreadable as exc:
            return _unknown(answer, f": the answer is {exc}")

    async def _doubt(self, account: V3Account, answer: RawAnswer, *, any_time: bool) -> str | None:
        """Why an answer is not proven to be WeChat's; None when it is.

        A refusal is taken at any distance in time: that is what a wrong clock gets."""
        stamp = read_stamp(answer.headers)
        if stamp is None:
            return "the answer is not signed"
        if not any_time and not stamp.is_near(self._clock.now()):
            return "the answer's time is five minutes or more from ours: is this server's clock right?"
        try:
            genuine = await self.is_genuine(account, stamp, answer.body)
        except KeysUnavailable as exc:
            return str(exc)
        return None if genuine else "the answer's signature does not verify: are the keys of this account WeChat's?"

    def _judge_refusal(self, answer: RawAnswer) -> Judgement:
        """What an answer of 400 and above means; whether it may be believed is checked before."""
        code, message, place = _words(answer)
        _log.info(
            "wechat.refused",
            code=code[:32],
            status_code=answer.status_code,
            request_id=_request_id(answer),
        )
        if answer.status_code == 429:
            return TurnedAway(Rejected(code or "429", message, *explain(code or "FREQUENCY_LIMITED", message)))
        is_server_error = answer.status_code >= 500 and code not in _REFUSED_AS_SERVER_ERROR
        if is_server_error or not code or code in _MAY_HAVE_ACTED:
            return _unknown(answer, f" {code[:32]}".rstrip())
        english, chinese = explain(code, message, clock_differs=self._clock_differs(answer))
        return Refused(Rejected(code, f"{message} ({place})" if place else message, english, chinese))

    def _clock_differs(self, answer: RawAnswer) -> bool:
        """Whether the answer's own time is further from ours than WeChat allows. Only for the words about a refusal."""
        stamp = read_stamp(answer.headers)
        if stamp is not None:
            return not stamp.is_near(self._clock.now())
        try:
            distance = parsedate_to_datetime(answer.headers["date"]) - self._clock.now()
        except (KeyError, ValueError, TypeError, OverflowError):
            return False
        return abs(distance) >= CLOCK_BOUND

    # --- platform certificates ------------------------------------------------------------------------------------

    async def _download_certificates(self, account: V3Account) -> Downloaded:
        """The certificates WeChat signs with now. The answer proves itself: it can only be read with the APIv3 key,
        and is signed with one of the keys in it or with the public key."""
        answer = await self._send(account, "GET", CERTIFICATES_TARGET, b"")
        if not isinstance(answer, RawAnswer):
            return answer
        if answer.status_code != 200:
            return self._without_certificates(account, answer)
        stamp = read_stamp(answer.headers)
        if stamp is None or not stamp.is_near(self._clock.now()):
            return Unknown("the certificates came unsigned, or at another time than ours")
        try:
            found = opened_certificates(account.apiv3_key, read_object(answer.body))
        except Unreadable as exc:
            return Unknown(f"the certificates cannot be read: {exc}")
        except OtherKey:
            _log.error("wechat.apiv3_key_wrong", mchid=account.mchid)
            english, chinese = explain("APIV3_KEY_WRONG", "")
            return Rejected("APIV3_KEY_WRONG", "the platform certificates cannot be decrypted", english, chinese)
        brought = found.get(stamp.serial)
        if brought is None:
            key = account.platform_keys.known(stamp.serial)
        else:
            key = brought.key if brought.is_valid(self._clock.now()) else None
        if key is None or not verifies(
            key, timestamp=stamp.timestamp, nonce=stamp.nonce, body=answer.body, signature=stamp.signature
        ):
            return Unknown("the certificates are not signed by a key they bring")
        return found

    def _without_certificates(self, account: V3Account, answer: RawAnswer) -> Downloaded:
        if answer.status_code < 300:
            return _unknown(answer, " is no documented success")
        judged = self._judge_refusal(answer)
        if isinstance(judged, Refused):
            # A merchant who came after the public key has none, and needs none.
            none_needed = judged.words.code == "RESOURCE_NOT_EXISTS" and account.platform_keys.has_public_key
            return None if none_needed else judged.words
        if isinstance(judged, TurnedAway):
            return NotReached(f"turned away by a rate limit: {judged.words.code[:32]}", judged.words)
        assert not isinstance(judged, Answered)
        return judged


def _unknown(answer: RawAnswer, why: str) -> Unknown:
    """With WeChat's own number of the call, by which its support finds it."""
    request_id = _request_id(answer)
    return Unknown(f"HTTP {answer.status_code}{why}" + (f" (Request-ID {request_id})" if request_id else ""))


def _request_id(answer: RawAnswer) -> str:
    return answer.headers.get("request-id", "")[:96]


def _words(answer: RawAnswer) -> tuple[str, str, str]:
    """Code, message and the field at fault of an error answer; empty where there are none."""
    try:
        fields = read_object(answer.body)
    except Unreadable:
        fields = {}
    detail = fields.get("detail")
    place = text_of(detail, "field") if isinstance(detail, dict) else None
    code, message = text_of(fields, "code") or "", text_of(fields, "message") or ""
    return code[:100], message[:_WORDS_LIMIT], (place or "")[:100]


def _json(content: Mapping[str, Any]) -> bytes:
    """Serialised once: these bytes are signed and these bytes are sent."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
