"""Which key WeChat signs with, for whom, and what time it writes: the choices /_control/wechat makes.

A merchant's answers and notices are signed with the platform certificate or with the public key, or with the two in
turn, as happens to a merchant who migrates. A rotated certificate is published beside the old one and signs when it is
told to. A merchant who never had a platform certificate has the public key only.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from app.sandbox.clock import SandboxClock
from app.sandbox.wechat.accounts import Merchant, SigningKey, V3Keys, new_key, new_platform_certificate
from app.sandbox.wechat.accounts import signing_certificate as certificate_key
from app.sandbox.wechat.signing import SCHEME, answer_message, new_nonce, sign

PROBE_PREFIX = "WECHATPAY/SIGNTEST/"


class KeyKind(StrEnum):
    CERTIFICATE = "certificate"
    PUBLIC_KEY = "public_key"
    ALTERNATING = "alternating"


class SignatureKind(StrEnum):
    """BROKEN is a well-formed signature of something else; a PROBE must fail and be answered with 4xx or 5xx."""

    TRUE = "true"
    BROKEN = "broken"
    PROBE = "probe"


class KeyUnknown(LookupError):
    """The merchant has no such key."""


@dataclass(slots=True)
class _Kept:
    """`certificates` are those published, oldest first. `by_machine_clock`: see `Signers.saw_caller`."""

    certificates: list[SigningKey]
    kind: KeyKind
    serial: str
    turns: int = 0
    by_machine_clock: bool = False


@dataclass(slots=True)
class Signers:
    """`skew` is how wrong the time is that WeChat writes and reads; zero unless a test asks."""

    clock: SandboxClock
    skew: timedelta = timedelta(0)
    _kept: dict[str, _Kept] = field(default_factory=dict)

    def public_key(self, merchant: Merchant) -> SigningKey:
        return v3_keys(merchant).public_key

    def certificates(self, merchant: Merchant) -> list[SigningKey]:
        """Those published at the moment, oldest first; none for a merchant with the public key only."""
        return list(self._of(merchant).certificates)

    def described(self, merchant: Merchant) -> dict[str, object]:
        kept = self._of(merchant)
        return {
            "mchid": merchant.mchid,
            "signs_with": kept.kind.value,
            "certificates": [key.key_id for key in kept.certificates],
            "signing_certificate": kept.serial or None,
            "public_key_id": self.public_key(merchant).key_id,
            "public_key": self.public_key(merchant).public_pem,
        }

    def pick(self, merchant: Merchant, wanted: str = "") -> SigningKey:
        """The key for the next message: the one the caller names, else the merchant's own. Raises KeyUnknown."""
        kept = self._of(merchant)
        if wanted:
            for key in (*kept.certificates, self.public_key(merchant)):
                if key.key_id == wanted:
                    return key
            raise KeyUnknown(wanted)
        kept.turns += 1
        uses_certificate = kept.kind is KeyKind.CERTIFICATE or (
            kept.kind is KeyKind.ALTERNATING and kept.turns % 2 == 1
        )
        if not uses_certificate:
            return self.public_key(merchant)
        return next(key for key in kept.certificates if key.key_id == kept.serial)

    def new_certificate(self) -> SigningKey:
        """A certificate nobody has yet. Takes some tenths of a second."""
        private_key = new_key()
        return certificate_key(private_key, new_platform_certificate(private_key))

    def publish(self, merchant: Merchant, key: SigningKey) -> None:
        """Show a certificate beside the others; it does not sign yet."""
        self._of(merchant).certificates.append(key)

    def retire(self, merchant: Merchant, serial: str) -> None:
        """Publish a certificate no more. Raises KeyUnknown for one that is not there or that signs."""
        kept = self._of(merchant)
        if serial == kept.serial or serial not in [key.key_id for key in kept.certificates]:
            raise KeyUnknown(serial)
        kept.certificates = [key for key in kept.certificates if key.key_id != serial]

    def choose(self, merchant: Merchant, kind: KeyKind, serial: str = "") -> None:
        """From now on sign with this kind of key, and among certificates with this one. Raises KeyUnknown."""
        kept = self._of(merchant)
        serials = [key.key_id for key in kept.certificates]
        if serial and serial not in serials:
            raise KeyUnknown(serial)
        if kind is not KeyKind.PUBLIC_KEY and not serials:
            raise KeyUnknown("certificate")
        kept.kind = kind
        kept.serial = serial or kept.serial

    def is_fresh(self, timestamp: datetime, bound: timedelta) -> bool:
        """Whether a caller's timestamp is within `bound` of the clock.

        Once a test moved the sandbox clock, the machine's clock is right as well: the caller is not the one who moved.
        `strict_timestamps` on the clock switches that off.
        """
        clocks = [self.clock.now()] if self.clock.strict_timestamps else [self.clock.now(), self.clock.machine_now()]
        return any(abs(timestamp - now - self.skew) <= bound for now in clocks)

    def saw_caller(self, merchant: Merchant, timestamp: datetime, bound: timedelta) -> None:
        """Remember which clock a verified caller lives by: what WeChat sends him has to be fresh by that one."""
        self._of(merchant).by_machine_clock = abs(timestamp - self.clock.now() - self.skew) > bound

    def headers(
        self,
        merchant: Merchant,
        key: SigningKey,
        body: bytes,
        *,
        at: datetime | None = None,
        kind: SignatureKind = SignatureKind.TRUE,
    ) -> dict[str, str]:
        """The headers that sign `body` as sent at `at` (now), by the clock the merchant lives by."""
        instant = (at or self.clock.now()) + self.skew
        if self._of(merchant).by_machine_clock and not self.clock.strict_timestamps:
            instant -= self.clock.offset
        timestamp, nonce = str(int(instant.timestamp())), new_nonce()
        message = answer_message(timestamp, nonce, body)
        signature = sign(key.private_key, message if kind is not SignatureKind.BROKEN else message + b"broken\n")
        if kind is SignatureKind.PROBE:
            signature = PROBE_PREFIX + signature[len(PROBE_PREFIX) :]
        return {
            "Wechatpay-Timestamp": timestamp,
            "Wechatpay-Nonce": nonce,
            "Wechatpay-Signature": signature,
            "Wechatpay-Serial": key.key_id,
            "Wechatpay-Signature-Type": SCHEME,
        }

    def reset(self) -> None:
        self._kept.clear()
        self.skew = timedelta(0)

    def _of(self, merchant: Merchant) -> _Kept:
        kept = self._kept.get(merchant.mchid)
        if kept is None:
            certificate = v3_keys(merchant).certificate
            if certificate is None:
                kept = _Kept([], KeyKind.PUBLIC_KEY, "")
            else:
                kept = _Kept([certificate], KeyKind.CERTIFICATE, certificate.key_id)
            self._kept[merchant.mchid] = kept
        return kept


def v3_keys(merchant: Merchant) -> V3Keys:
    assert merchant.v3 is not None, "only merchants of APIv3 come here"
    return merchant.v3
