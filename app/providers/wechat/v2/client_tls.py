"""The TLS of one opened account with its client certificate, which APIv2 demands for refunds and nothing else.

Building it takes some tens of milliseconds: that is done when the first refund asks for it, beside the event loop, and
kept as long as the opened account. A connection is opened for each refund and closed with it: refunds are rare, and a
pool for each merchant would have nobody to close it when its account changes.
"""

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.x509 import Certificate

from app.providers.transport import tls_with_certificate

KeyPair = tuple[RSAPrivateKey, Certificate]


@dataclass(frozen=True, slots=True)
class CertifiedTls:
    """A context that shows the merchant's certificate, and when that ends."""

    context: ssl.SSLContext
    expires_at: datetime


class ClientTls:
    """Kept with an opened account. Two first refunds at once build it twice, which costs only time."""

    def __init__(self) -> None:
        self._built: CertifiedTls | None = None

    async def build(self, open_pair: Callable[[], KeyPair | None]) -> CertifiedTls | None:
        """The account's TLS; None where it has no certificate."""
        if self._built is None:
            self._built = await asyncio.to_thread(_built, open_pair)
        return self._built


def _built(open_pair: Callable[[], KeyPair | None]) -> CertifiedTls | None:
    pair = open_pair()
    if pair is None:
        return None
    key, certificate = pair
    return CertifiedTls(tls_with_certificate(key, certificate), certificate.not_valid_after_utc)
