"""A login code is exchanged once, and the answer is kept for a minute for whoever asked.

WeChat takes a code once. A page whose answer was lost, or a WeChat browser that loads the way back twice, sends it
again and would be told that it was used. So the first exchange leaves a row: hashes, and what came of it.

    nobody asked before                     → one request to WeChat
    the same asker, within a minute         → the first answer, or the wait for it; no request
    another asker, or later                 → WECHAT_CODE_INVALID; no request
    WeChat was not reached, gave no answer  → the row goes, and the next one asks again

Whoever learns a used code, from a history or a log, must not get a token for it: the asker is the subject of a caller
with a token, the address of one without, and in the OAuth flow the state that only the browser's cookie holds.
"""

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from app.clock import Clock
from app.db import Database
from app.errors import ProviderUnavailable, WechatCodeInvalid
from app.providers.wechat.open_platform import OpenPlatformRefused, OpenPlatformSilent
from app.wechat.refusals import explain, explain_number, unavailable

_CODE: Final = re.compile(r"[A-Za-z0-9_-]{1,256}", re.ASCII)
_REMEMBERED: Final = timedelta(seconds=60)
# Longer than a state's life: a state that was used stays used.
_KEPT: Final = timedelta(minutes=15)
_FORGOTTEN_AT_ONCE: Final = 20
# WeChat usually answers within the first looks; where it does not, anybody may make us wait, often and in vain.
_FIRST_LOOK_S: Final = 0.05
_LOOKS_SLOW_TO_S: Final = 0.8


@dataclass(frozen=True, slots=True)
class WechatUser:
    """Who a code belongs to."""

    openid: str = field(repr=False)
    nickname: str | None = field(default=None, repr=False)


class Codes:
    """The exchange of codes, over all processes of the deployment."""

    def __init__(self, database: Database, clock: Clock, *, wait_s: float) -> None:
        self._db = database
        self._clock = clock
        self._wait_s = wait_s

    async def exchange(
        self,
        app_id: str,
        code: str,
        ask: Callable[[], Awaitable[WechatUser]],
        *,
        asker: str,
        state: str | None = None,
    ) -> WechatUser:
        """Who `code` belongs to; `ask` asks WeChat and is called once at most.

        `state` is good for one code. Raises what `explain` makes of WeChat's numbers, and ProviderUnavailable."""
        if not _CODE.fullmatch(code):
            raise WechatCodeInvalid("the code is no code of WeChat's: send it as it came, without changes")
        code_hash, asker_hash = _digest("code", app_id, code), _digest("asker", asker)
        state_hash = None if state is None else _digest("state", state)
        now = self._clock.machine_now()
        row = await self._db.change("wechat_app.begin_code", code_hash, asker_hash, state_hash, now)
        if row is None:
            return await self._first_answer(app_id, code_hash, asker_hash)
        await self._db.change_all("wechat_app.forget_codes", now - _KEPT, _FORGOTTEN_AT_ONCE)
        return await self._ask(app_id, code_hash, row["asked_at"], ask)

    async def _ask(
        self, app_id: str, code_hash: bytes, asked_at: datetime, ask: Callable[[], Awaitable[WechatUser]]
    ) -> WechatUser:
        try:
            user = await ask()
        except OpenPlatformRefused as exc:
            await self._db.change("wechat_app.answer_code", code_hash, asked_at, None, None, exc.errcode)
            raise explain(exc, app_id) from exc
        except OpenPlatformSilent as exc:
            await self._db.change("wechat_app.forget_code", code_hash, asked_at)
            raise unavailable(exc, app_id) from exc
        await self._db.change("wechat_app.answer_code", code_hash, asked_at, user.openid, user.nickname, None)
        return user

    async def _first_answer(self, app_id: str, code_hash: bytes, asker_hash: bytes) -> WechatUser:
        """What the first exchange of this code gave, waiting for it where it is under way."""
        waited, gap = 0.0, _FIRST_LOOK_S
        while waited <= self._wait_s:
            row = await self._db.one("wechat_app.code", code_hash)
            if row is None and not waited:
                raise WechatCodeInvalid("this login was finished with another code: begin it again")
            if row is None:
                raise ProviderUnavailable("WeChat gave no answer: try again, with a new code")
            old = self._clock.machine_now() - row["asked_at"] > _REMEMBERED
            if old or row["asker_hash"] != asker_hash:
                raise explain_number(40163, app_id)
            if row["errcode"] is not None:
                raise explain_number(row["errcode"], app_id)
            if row["openid"] is not None:
                return WechatUser(row["openid"], row["nickname"])
            await asyncio.sleep(gap)
            waited, gap = waited + gap, min(2 * gap, _LOOKS_SLOW_TO_S)
        raise explain_number(40163, app_id)


def _digest(kind: str, *parts: str) -> bytes:
    return hashlib.sha256("\0".join((kind, *parts)).encode("utf-8", "surrogatepass")).digest()
