"""The keys with which WeChat signs what it says to one merchant, chosen by the serial it names.

    PUB_KEY_ID_…   the WeChat Pay public key: typed in, never downloaded, never expires
    hexadecimal    a platform certificate: typed in or downloaded, valid between its two dates

A merchant who moves from certificates to the public key gets messages signed by either for some days, and so does one
whose certificate is being renewed; both are accepted all the time. An unknown certificate is asked for at once. Anybody
can name one, though: a download that did not bring the serial it was made for is followed by a pause.

Source: https://pay.weixin.qq.com/doc/v3/merchant/4012551764 and /4013053249, read 2026-09-11.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from app.clock import Clock
from app.providers.contract import NotReached, Rejected, Unknown
from app.providers.wechat.v3 import keys

PUBLIC_KEY_PREFIX = "PUB_KEY_ID_"
REFRESHED_EVERY = timedelta(hours=12)
# After a download in vain. WeChat publishes a certificate days before it signs with it, so that whatever is genuine is
# found by the first.
PAUSE = timedelta(seconds=5)

_CERTIFICATE_SERIAL = re.compile(r"[0-9A-F]{8,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class PlatformKey:
    """A key of WeChat's and when it may be used; without dates, always."""

    key: RSAPublicKey
    not_before: datetime | None = None
    not_after: datetime | None = None

    def is_valid(self, now: datetime) -> bool:
        """Whether `now` lies between its dates."""
        if self.not_before is None or self.not_after is None:
            return True
        return self.not_before <= now < self.not_after


DownloadFailure = Rejected | NotReached | Unknown
# None: WeChat has none for this merchant, who uses the public key; those once downloaded stay until they expire.
Downloaded = Mapping[str, PlatformKey] | None | DownloadFailure
Download = Callable[[], Awaitable[Downloaded]]


class KeysUnavailable(Exception):
    """The key may exist, but could not be fetched now: what it signed proves nothing yet, and should be repeated."""

    def __init__(self, failure: DownloadFailure) -> None:
        super().__init__("the platform certificates cannot be fetched now")
        self.failure = failure


def from_certificates(certificates: Sequence[keys.Certificate]) -> dict[str, PlatformKey]:
    """The keys of certificates by their serials."""
    return {
        keys.serial_of(one): PlatformKey(keys.rsa_key(one), one.not_valid_before_utc, one.not_valid_after_utc)
        for one in certificates
    }


class PlatformKeys:
    """The keys of one opened account. Lives as long as that, in one process; forgets nothing that was typed in."""

    def __init__(self, typed: Mapping[str, PlatformKey], clock: Clock) -> None:
        self._typed = dict(typed)
        self._clock = clock
        self._downloaded: Mapping[str, PlatformKey] = {}
        self._downloaded_at: datetime | None = None
        self._paused_until: datetime | None = None
        self._failure: DownloadFailure | None = None
        # One download at a time, however many messages wait for it.
        self._downloading = asyncio.Lock()

    @property
    def has_public_key(self) -> bool:
        """Whether the WeChat Pay public key was typed in."""
        return any(serial.startswith(PUBLIC_KEY_PREFIX) for serial in self._typed)

    def has_any(self) -> bool:
        """Whether anything that WeChat signs now could be verified."""
        now = self._clock.now()
        return any(one.is_valid(now) for one in (*self._typed.values(), *self._downloaded.values()))

    async def find(self, serial: str, download: Download) -> RSAPublicKey | None:
        """The valid key of this serial; None when WeChat does not have it. Raises KeysUnavailable."""
        if self.known(serial) is None:
            if _CERTIFICATE_SERIAL.fullmatch(serial) is None:
                return None
            await self._fetch(download, lambda: self.known(serial) is not None)
        elif self._is_stale() and not self._downloading.locked():
            # In passing: whoever comes meanwhile uses what is there, and a failure changes nothing.
            async with self._downloading:
                if self._is_stale():
                    await self._download(download)
        return self.known(serial)

    async def ensure_any(self, download: Download) -> DownloadFailure | None:
        """Why nothing that WeChat says now could be verified; None when something can be."""
        try:
            await self._fetch(download, self.has_any)
        except KeysUnavailable as exc:
            return exc.failure
        return None if self.has_any() else NotReached("WeChat has no platform certificate in force for this merchant")

    def known(self, serial: str) -> RSAPublicKey | None:
        """The key of this serial, if it is here and valid now."""
        found = self._typed.get(serial) or self._downloaded.get(serial)
        return found.key if found is not None and found.is_valid(self._clock.now()) else None

    async def _fetch(self, download: Download, is_here: Callable[[], bool]) -> None:
        if is_here():
            return
        async with self._downloading:
            if not is_here() and not self._is_paused():
                await self._download(download)
                if not is_here():
                    self._paused_until = self._clock.now() + PAUSE
            if self._failure is not None and not is_here():
                raise KeysUnavailable(self._failure)

    async def _download(self, download: Download) -> None:
        outcome = await download()
        now = self._clock.now()
        if isinstance(outcome, Rejected | NotReached | Unknown):
            self._failure, self._paused_until = outcome, now + PAUSE
            return
        self._downloaded_at, self._failure = now, None
        if outcome is not None:
            self._downloaded = outcome

    def _is_paused(self) -> bool:
        # A clock that was set back must not make the pause endless.
        return self._paused_until is not None and timedelta() < self._paused_until - self._clock.now() <= PAUSE

    def _is_stale(self) -> bool:
        """Old certificates that were downloaded; those typed in have no age and are renewed by hand."""
        if self._downloaded_at is None or self._is_paused():
            return False
        return not timedelta() <= self._clock.now() - self._downloaded_at < REFRESHED_EVERY
