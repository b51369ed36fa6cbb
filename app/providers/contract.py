"""What a payment provider is, in our words.

An adapter is a stateless translator: it builds and verifies messages and never touches the database. Everything a
provider says about one object arrives as a report, whichever way it came; every call ends as one of

    Accepted   it took the order            → PENDING, with what the page does next
    Rejected   it said no                   → FAILED, nothing was charged
    NotReached nothing was sent             → safe to repeat
    Unknown    it may have acted            → ask; repeat only under the same number
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any, Literal, Protocol


class PaymentMethod(StrEnum):
    """The ways to pay, as on the API."""

    WECHAT_MINI_PROGRAM = "WECHAT_MINI_PROGRAM"
    WECHAT_JSAPI = "WECHAT_JSAPI"
    WECHAT_H5 = "WECHAT_H5"
    WECHAT_NATIVE = "WECHAT_NATIVE"
    WECHAT_CLOUD = "WECHAT_CLOUD"
    ALIPAY_PAGE = "ALIPAY_PAGE"
    ALIPAY_WAP = "ALIPAY_WAP"
    ALIPAY_QR = "ALIPAY_QR"
    ALIPAY_CYCLE = "ALIPAY_CYCLE"
    HUIFU_WECHAT_JSAPI = "HUIFU_WECHAT_JSAPI"
    HUIFU_WECHAT_MINI_PROGRAM = "HUIFU_WECHAT_MINI_PROGRAM"
    HUIFU_ALIPAY_QR = "HUIFU_ALIPAY_QR"
    HUIFU_ALIPAY_JSAPI = "HUIFU_ALIPAY_JSAPI"
    HUIFU_UNIONPAY_QR = "HUIFU_UNIONPAY_QR"
    HUIFU_UNIONPAY_JSAPI = "HUIFU_UNIONPAY_JSAPI"


class ReportedStatus(StrEnum):
    """What a provider says of a payment. An unknown word of theirs is PENDING, and logged."""

    PENDING = "PENDING"
    SUCCESSFUL = "SUCCESSFUL"
    CLOSED = "CLOSED"
    FAILED = "FAILED"
    # The provider has no such trade. Not a failure: a page that was issued may still be paid.
    NOT_FOUND = "NOT_FOUND"


class AccountInvalid(ValueError):
    """A merchant account's settings or keys cannot work; `field` names the culprit and the message the fix."""

    def __init__(self, field_name: str, message: str) -> None:
        super().__init__(message)
        self.field = field_name


class NotificationRefused(Exception):
    """A notification that proves nothing: unsigned, wrongly signed, malformed, or not for this account.

    `reason` is a short stable word for the metric and the log: "signature", "decryption", "malformed", "encoding",
    "timestamp" …
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class PaymentRequest:
    """One payment to open. `notify_url` is ours and absolute; `expires_at` is aware UTC.

    `openid` is the payer's under `app_id`, where the provider knows payers by application; `client_address` the payer's
    own IP address as far as we saw it. The same payment gives the same request however often it is sent."""

    method: PaymentMethod
    out_trade_no: str
    amount_fen: int
    subject: str
    notify_url: str
    created_at: datetime
    expires_at: datetime
    return_url: str | None = None
    openid: str | None = None
    app_id: str | None = None
    client_address: str | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """The provider took the order. `action` is the page's next step as stored JSON.

    {"kind": "Redirect", "url": …} · {"kind": "QrCode", "codeUrl": …, "deepLink": …} ·
    {"kind": "WechatPayParams", …} · {"kind": "AlipayJsapiParams", …}, with the API's field names.
    """

    action: Mapping[str, Any]
    transaction_id: str | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """The provider said no; its own code and words, and what to do about it (English, Chinese)."""

    code: str
    message: str
    explanation: str
    explanation_zh: str


@dataclass(frozen=True, slots=True)
class NotReached:
    """Nothing was sent, or it was turned away unread (rate limit): repeat when convenient.

    `detail` is for the log, `words` is what a provider said that was reached."""

    detail: str
    words: Rejected | None = None


@dataclass(frozen=True, slots=True)
class Unknown:
    """The provider may have acted. `detail` is for the log.

    `words` is what it said where that is worth showing while it is asked, such as that it knows the number already."""

    detail: str
    words: Rejected | None = None


CreateOutcome = Accepted | Rejected | NotReached | Unknown


@dataclass(frozen=True, slots=True)
class Closed:
    """The provider will take no money for this number any more."""


@dataclass(frozen=True, slots=True)
class NotClosed:
    """It cannot be closed now, because it may be paid: query it."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class NeverOpened:
    """The provider has no trade of this number, yet what was issued may still be paid until its own expiry."""


CloseOutcome = Closed | NotClosed | NeverOpened | Rejected | NotReached | Unknown


@dataclass(frozen=True, slots=True)
class PaymentReport:
    """What a provider says about one payment. Amounts are fen before fees; None where it did not say.

    `account_claims` are the identifiers by which the message names its receiver, such as {"app_id": …, "seller_id": …}:
    compared with ours before anything counts as paid. `source` is "notification", "query" or "answer".
    """

    out_trade_no: str
    status: ReportedStatus
    source: Literal["notification", "query", "answer"]
    amount_fen: int | None = None
    currency: str = "CNY"
    transaction_id: str | None = None
    payer_id: str | None = None
    paid_at: datetime | None = None
    refunded_fen: int | None = None
    account_claims: Mapping[str, str] = field(default_factory=dict)
    failure: Rejected | None = None


QueryOutcome = PaymentReport | Rejected | NotReached | Unknown


class ReportedRefund(StrEnum):
    """What a provider says of a refund. An unknown word of theirs is PENDING, and logged."""

    PENDING = "PENDING"
    REFUNDED = "REFUNDED"
    # It will not happen under this number; the money stays with the merchant.
    FAILED = "FAILED"
    # The provider has no such refund. It may be asked for again under the same number.
    NOT_FOUND = "NOT_FOUND"


@dataclass(frozen=True, slots=True)
class RefundRequest:
    """One refund to ask for. The same refund gives the same request however often it is sent.

    `out_refund_no` is ours and makes repeating harmless; `total_fen` is what the payment's order came to. `notify_url`
    is ours and absolute."""

    out_trade_no: str
    out_refund_no: str
    amount_fen: int
    total_fen: int
    notify_url: str
    created_at: datetime
    transaction_id: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class RefundReport:
    """What a provider says about one refund. Amounts are fen; None where it did not say.

    A notification may name only the payment and the amount: then `out_refund_no` is None. `failure` says why it failed,
    or, while PENDING, what stands in its way and needs a person."""

    out_trade_no: str
    out_refund_no: str | None
    status: ReportedRefund
    source: Literal["notification", "query", "answer"]
    amount_fen: int | None = None
    provider_refund_id: str | None = None
    refunded_at: datetime | None = None
    account_claims: Mapping[str, str] = field(default_factory=dict)
    failure: Rejected | None = None


# PENDING: taken, and worked on. REFUNDED: done at once. Rejected: it said no, no money moves under this number.
RefundOutcome = RefundReport | Rejected | NotReached | Unknown


class ReportedAgreement(StrEnum):
    """What a provider says of an agreement. An unknown word of theirs is PENDING, and logged."""

    # Signing has begun and is not finished.
    PENDING = "PENDING"
    # Money may be taken under it.
    ACTIVE = "ACTIVE"
    # Cancelled by either side, or run out.
    ENDED = "ENDED"
    # The provider has no such agreement. A link that was handed out may still be signed until its own end.
    NOT_FOUND = "NOT_FOUND"


@dataclass(frozen=True, slots=True)
class AgreementTerms:
    """What a merchant account may agree on with a payer. Providers change these: each is an account's setting."""

    scenes: frozenset[str]
    largest_deduction_fen: int
    shortest_interval_days: int
    # Money may be taken from this many days before a planned date until that date.
    window_days: int
    # How often the plan of one agreement may be put off; None is without a bound.
    plan_changes: int | None


@dataclass(frozen=True, slots=True)
class FirstPayment:
    """The payment that a payer makes while signing (支付并签约); a payment of its own in every other respect."""

    out_trade_no: str
    amount_fen: int


@dataclass(frozen=True, slots=True)
class AgreementRequest:
    """One agreement to sign. The same request gives the same next step however often it is made.

    `external_agreement_no` is ours, letters and digits, at most 32. `ceiling_fen` is the most one deduction may come
    to; `payer_name` the payer's account in the shop, shown while signing. `notify_url` is ours and absolute,
    `expires_at` the end of the link. With a `first_payment` the deductions begin with the second one."""

    external_agreement_no: str
    scene: str
    subject: str
    ceiling_fen: int
    interval_days: int
    first_deduction_on: date
    payer_name: str
    notify_url: str
    created_at: datetime
    expires_at: datetime
    return_url: str | None = None
    first_payment: FirstPayment | None = None


@dataclass(frozen=True, slots=True)
class AgreementKey:
    """By what a provider knows an agreement. `agreement_no` is theirs, None before it is signed."""

    external_agreement_no: str
    scene: str
    agreement_no: str | None
    notify_url: str


@dataclass(frozen=True, slots=True)
class AgreementReport:
    """What a provider says about one agreement; None where it did not say.

    A report names the agreement by our number or by theirs, or by both. `next_deduction_on` is the date its plan stands
    at, `valid_until` when it runs out by itself."""

    status: ReportedAgreement
    source: Literal["notification", "query", "answer"]
    external_agreement_no: str | None = None
    agreement_no: str | None = None
    scene: str | None = None
    payer_id: str | None = None
    signed_at: datetime | None = None
    ended_at: datetime | None = None
    valid_until: datetime | None = None
    next_deduction_on: date | None = None
    account_claims: Mapping[str, str] = field(default_factory=dict)


AgreementOutcome = AgreementReport | Rejected | NotReached | Unknown


@dataclass(frozen=True, slots=True)
class PutOff:
    """The plan stands at this date now."""

    deduct_on: date


PutOffOutcome = PutOff | Rejected | NotReached | Unknown


class DeductionRefusal(StrEnum):
    """Why a deduction was refused, by what helps. Nothing was taken under its number."""

    # The payer lacks the money or the means: another day, and the payer should know.
    PAYER = "PAYER"
    # A limit of today or this month: another day.
    LIMIT = "LIMIT"
    # The plan does not let money be taken today: ask for the plan's date, or put it off.
    WINDOW = "WINDOW"
    # More than was agreed on: only a new agreement helps.
    RULE = "RULE"
    # The agreement is over or not in force: ask about it.
    AGREEMENT = "AGREEMENT"
    # The merchant's own contract: no payer is at fault, and every other deduction would meet the same.
    MERCHANT = "MERCHANT"
    # Nothing that can be tried again.
    FINAL = "FINAL"


@dataclass(frozen=True, slots=True)
class DeductionRequest:
    """One deduction to make. The same deduction gives the same request however often it is sent.

    `out_trade_no` is ours and makes repeating harmless; `expires_at` is when the provider gives up by itself."""

    out_trade_no: str
    agreement_no: str
    amount_fen: int
    subject: str
    notify_url: str
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class DeductionRefused:
    """The provider said no; nothing was or will be taken under this number."""

    kind: DeductionRefusal
    words: Rejected


# SUCCESSFUL: taken. PENDING: accepted and worked on, ask or wait.
DeductionOutcome = PaymentReport | DeductionRefused | NotReached | Unknown


@dataclass(frozen=True, slots=True)
class Notification:
    """A verified notification. `event_key` is equal for repeats of one event and for nothing else.

    `refund_hint` is the number of a refund of ours that a payment's notice mentions: worth asking about now."""

    event_key: str
    report: PaymentReport | RefundReport | AgreementReport
    refund_hint: str | None = None


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """The exact bytes a provider wants to read back."""

    status_code: int
    body: bytes
    content_type: str


class Account(Protocol):
    """A merchant account, opened: parsed settings and keys of one provider."""

    @property
    def expected_claims(self) -> Mapping[str, frozenset[str]]:
        """The identifiers a message for this account must carry where it carries them at all; any of each set."""
        ...

    @property
    def offers(self) -> Mapping[PaymentMethod, Sequence[str]]:
        """The ways to pay this account can be used for, each with the application ids it may run under.

        The first id is used where a payment names none; none at all where the provider does not tell applications
        apart."""
        ...


class Agreements(Protocol):
    """How a provider lets a merchant charge a payer again without asking. May be called again with the same input."""

    # what a deduction, and a first payment, is as a payment; no caller chooses it
    method: PaymentMethod
    # how long a link for signing can be used
    signing_life: timedelta
    # Ages of an unfinished signing at which it is asked about; after the last one the last gap repeats until its end.
    query_schedule: Sequence[timedelta]

    def terms(self, account: Account) -> AgreementTerms:
        """What this account may agree on; no scenes at all where it signs none."""
        ...

    def check_agreement(self, account: Account, request: AgreementRequest) -> None:
        """Raises InvalidInput, InvalidAmount or SceneNotAllowed, with the API's field name, for what the provider could
        never accept from this account."""
        ...

    async def sign(self, account: Account, request: AgreementRequest) -> CreateOutcome:
        """The payer's next step towards signing, and towards the first payment where there is one."""
        ...

    async def query_agreement(self, account: Account, key: AgreementKey) -> AgreementOutcome:
        """Asks what became of an agreement. "No such agreement" is a report with NOT_FOUND."""
        ...

    async def cancel_agreement(self, account: Account, key: AgreementKey) -> AgreementOutcome:
        """Ends an agreement; one that is over already is ENDED too."""
        ...

    async def put_off(self, account: Account, key: AgreementKey, deduct_on: date) -> PutOffOutcome:
        """Moves the plan's next date back to a later one."""
        ...

    async def deduct(self, account: Account, request: DeductionRequest) -> DeductionOutcome:
        """Takes money under an agreement; repeating it with the same `out_trade_no` must not take it twice.

        A refusal is given only where it is certain that nothing was taken under this number."""
        ...


class Provider(Protocol):
    """One payment provider. Every method may be called again with the same input."""

    name: str
    # The ways to pay that a caller may choose; deductions under an agreement are not among them.
    methods: frozenset[PaymentMethod]
    agreements: Agreements | None
    # those of them whose payer is named when the payment is opened
    methods_with_payer: frozenset[PaymentMethod]
    modes: Sequence[str]
    # Ages of a payment at which it is asked about; after the last one the last gap repeats until it expires.
    query_schedule: Sequence[timedelta]
    # The same for a refund, from when it was asked for; the last gap repeats until it is known.
    refund_schedule: Sequence[timedelta]
    # How long after its payment money can be given back.
    refund_window: timedelta
    minimum_expiry: timedelta
    maximum_expiry: timedelta

    def seal_input(self, *, mode: str, fields: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
        """Splits what an operator typed into public settings and secret credentials, normalised.

        Keys may be PEM or bare base64, PKCS#1 or PKCS#8. Self-test included. What it returned, both parts together,
        is valid input again: so an account is changed. Raises AccountInvalid."""
        ...

    def open_account(self, *, mode: str, settings: Mapping[str, Any], credentials: Mapping[str, str]) -> Account:
        """Parses a stored account for use; called once per account version. Raises AccountInvalid."""
        ...

    def check_request(self, request: PaymentRequest) -> None:
        """Raises InvalidInput with the API's field name when the provider could never accept this request."""
        ...

    async def create_payment(self, account: Account, request: PaymentRequest) -> CreateOutcome:
        """Opens the payment; repeating it with the same number must not open a second one."""
        ...

    async def query_payment(self, account: Account, out_trade_no: str) -> QueryOutcome:
        """Asks what became of a payment. "No such trade" is a report with NOT_FOUND."""
        ...

    async def close_payment(self, account: Account, out_trade_no: str) -> CloseOutcome:
        """Asks that no money be taken for this number any more."""
        ...

    async def create_refund(self, account: Account, request: RefundRequest) -> RefundOutcome:
        """Asks for a refund; repeating it with the same `out_refund_no` must not give money back twice.

        Rejected only where it is certain that nothing was or will be given back under this number."""
        ...

    async def query_refund(self, account: Account, request: RefundRequest) -> RefundOutcome:
        """Asks what became of a refund. "No such refund" is a report with NOT_FOUND."""
        ...

    async def read_notification(
        self, account: Account, headers: Mapping[str, str], body: bytes, *, tail: str = ""
    ) -> Notification:
        """Verifies the received bytes, then translates them. Raises NotificationRefused; there is no default.

        Header names are lower case. `tail` is what followed the account in the path. May ask the provider, where it
        signs with keys it hands out, or where only its own answer proves anything."""
        ...

    def acknowledge(self, account: Account, *, accepted: bool) -> Acknowledgement:
        """What the provider must read: accepted only after the notification is committed."""
        ...
