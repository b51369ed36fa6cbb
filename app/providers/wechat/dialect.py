"""What one of WeChat's interfaces has to be able to do. The provider picks it by the mode of the merchant account.

v3      v3, v3_certificate, v3_partner   JSON, RSA signatures, AES-GCM notifications
v2      v2, v2_partner                   XML, MD5 or HMAC-SHA256
cloud   cloud                            keyless calls from a container in WeChat's own cloud
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from app.providers.contract import (
    Account,
    Acknowledgement,
    CloseOutcome,
    CreateOutcome,
    Notification,
    PaymentRequest,
    QueryOutcome,
    RefundOutcome,
    RefundRequest,
    Rejected,
)
from app.providers.wechat.explanations import explain


class Dialect(Protocol):
    """The methods mean what those of `contract.Provider` with the same beginning mean."""

    modes: Sequence[str]

    def seal(self, *, mode: str, fields: Mapping[str, str], now: datetime) -> tuple[dict[str, Any], dict[str, str]]: ...

    def open(self, *, mode: str, settings: Mapping[str, Any], credentials: Mapping[str, str]) -> Account: ...

    async def create(self, account: Account, request: PaymentRequest) -> CreateOutcome: ...

    async def query(self, account: Account, out_trade_no: str) -> QueryOutcome: ...

    async def close(self, account: Account, out_trade_no: str) -> CloseOutcome: ...

    async def create_refund(self, account: Account, request: RefundRequest) -> RefundOutcome: ...

    async def query_refund(self, account: Account, request: RefundRequest) -> RefundOutcome: ...

    async def read_notification(
        self, account: Account, headers: Mapping[str, str], body: bytes, tail: str
    ) -> Notification: ...

    def acknowledge(self, account: Account, *, accepted: bool) -> Acknowledgement: ...


def not_offered(app_id: str) -> Rejected:
    """An application that was taken out of the account meanwhile: WeChat need not be asked."""
    english, chinese = explain("APPID_MCHID_NOT_MATCH", "")
    return Rejected("APPID_MCHID_NOT_MATCH", f"{app_id} is no application of this merchant account", english, chinese)
