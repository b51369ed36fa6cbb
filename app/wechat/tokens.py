"""One access token per application for all processes, fetched by one of them at a time.

It stands sealed in the application's row. Who finds it missing, nearly over or refused takes a lease on the row, asks
WeChat without any transaction open, and stores what came; the others wait for that, or go on with a token that is still
good. A lease ends by itself, so that a process that died holds nobody up for longer than one call to WeChat takes.
"""

import asyncio
import secrets
from datetime import timedelta
from typing import Final

from app.clock import Clock
from app.config import Secret
from app.db import Database, Row
from app.errors import ProviderUnavailable
from app.providers.wechat.open_platform import OpenApp, OpenPlatform, OpenPlatformRefused, OpenPlatformSilent
from app.vault import Vault, VaultError
from app.wechat.refusals import explain, unavailable

# In its last five minutes WeChat gives a new one to who asks, and takes the old one until its end.
_RENEW_BEFORE: Final = timedelta(minutes=5)
_USABLE_BEFORE: Final = timedelta(seconds=30)
_LOOK_EVERY_S: Final = 0.05


class AccessTokens:
    """The access tokens of all applications. One a process; keeps nothing in memory."""

    def __init__(
        self, database: Database, vault: Vault, clock: Clock, platform: OpenPlatform, *, timeout_s: float
    ) -> None:
        self._db = database
        self._vault = vault
        self._clock = clock
        self._platform = platform
        # two calls, where the first gives the token that was refused
        self._lease = timedelta(seconds=2 * timeout_s + 2)

    async def find(self, app: OpenApp, *, refused: Secret | None = None) -> Secret:
        """A token that WeChat should take, and not `refused`. Waits for another process's call while one may last.

        Raises what `explain` makes of WeChat's numbers, and ProviderUnavailable."""
        for _ in range(int(2 * self._lease.total_seconds() / _LOOK_EVERY_S)):
            row = await self._db.one("wechat_app.token", app.app_id)
            if row is None:
                break
            kept = self._open(app, row)
            if kept is not None and refused is not None and kept.reveal() == refused.reveal():
                kept = None
            left = row["token_expires_at"] - self._clock.now() if kept is not None else timedelta()
            if kept is not None and left > _RENEW_BEFORE:
                return kept
            lease = secrets.token_hex(8)
            now = self._clock.machine_now()
            if await self._db.change(
                "wechat_app.lease_token", app.app_id, row["token_sealed"], lease, now, now + self._lease
            ):
                spare = kept if left > _USABLE_BEFORE else None
                return await self._fetch(app, lease, spare=spare, refused=refused)
            if kept is not None and left > _USABLE_BEFORE:
                return kept
            await asyncio.sleep(_LOOK_EVERY_S)
        raise ProviderUnavailable("no access token of WeChat's could be had: try again")

    def _open(self, app: OpenApp, row: Row) -> Secret | None:
        """The kept token; None where there is none, or its master key is gone."""
        if row["token_sealed"] is None:
            return None
        try:
            return Secret(self._vault.open(row["token_sealed"], row=_row_name(app))["token"])
        except VaultError:
            return None

    async def _fetch(self, app: OpenApp, lease: str, *, spare: Secret | None, refused: Secret | None) -> Secret:
        """Asks WeChat under the lease; `spare` is a token that is still good, for when it does not answer."""
        try:
            token = await self._platform.fetch_access_token(app, force=False)
            if refused is not None and token.text.reveal() == refused.reveal():
                token = await self._platform.fetch_access_token(app, force=True)
        except (OpenPlatformRefused, OpenPlatformSilent) as exc:
            await self._db.change("wechat_app.release_token", app.app_id, lease)
            error = explain(exc, app.app_id) if isinstance(exc, OpenPlatformRefused) else unavailable(exc, app.app_id)
            if spare is not None:
                return spare
            raise error from exc
        sealed = self._vault.seal({"token": token.text.reveal()}, row=_row_name(app))
        ends = self._clock.now() + timedelta(seconds=token.expires_in_s)
        await self._db.change("wechat_app.store_token", app.app_id, lease, sealed, ends)
        return token.text


def _row_name(app: OpenApp) -> str:
    return f"wechat_app:{app.app_id}:access_token"
