"""What a caller can do with payments: create one, have the provider asked, close one.

create:  row (CREATED, commit) → provider → PENDING with the page's next step (commit)
                                         ├→ FAILED, when the provider said no or was never reached
                                         └→ stays CREATED while the outcome is unknown; sweep.py finds out
close:   question → provider closes → question → CLOSED
"""

import hashlib
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final, TypeAlias

import orjson
import structlog

from app.activation.permissions import Action, Permissions, forbidden, roles_of
from app.activation.plan import Plan, payments_not_active, plan_expired
from app.auth import Principal
from app.clock import SHANGHAI, Clock
from app.db import Database, Row
from app.doorbell import Doorbell
from app.errors import (
    AmountMismatch,
    IdempotencyConflict,
    InvalidAmount,
    InvalidInput,
    MethodNotConfigured,
    NotFound,
    OrderAlreadyPaid,
    OrderNotFound,
    OutcomeUnknown,
    ProviderError,
    ProviderRejected,
    ProviderUnavailable,
)
from app.merchants.accounts import MerchantAccounts, OpenAccount
from app.metrics import Metrics
from app.money import format_yuan
from app.payments.model import Failure, Payment, failure_json, failure_of, read_payment, whole_fen
from app.payments.reports import Applied, apply_payment_report
from app.providers.contract import (
    Accepted,
    AccountInvalid,
    Closed,
    CreateOutcome,
    NeverOpened,
    NotClosed,
    NotReached,
    PaymentMethod,
    PaymentReport,
    PaymentRequest,
    Provider,
    Rejected,
    ReportedStatus,
    Unknown,
)
from app.providers.registry import provider_of_method
from app.vault import VaultError

log = structlog.get_logger(__name__)

# How long the process that opened a payment has for the provider's answer before others ask what became of it.
CREATE_LEASE: Final = timedelta(seconds=30)
# A page that was issued may be paid a moment after its end; one last question catches it.
LAST_LOOK: Final = timedelta(minutes=10)

# The number of a binding, and the id of a row of its table.
OrderKey: TypeAlias = tuple[int, int]

_NUMBER_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


@dataclass(frozen=True, slots=True)
class Limits:
    """What this deployment accepts. Amounts are fen, bounds inclusive."""

    minimum_amount_fen: int
    maximum_amount_fen: int
    default_expiry: timedelta


@dataclass(frozen=True, slots=True)
class CreatePayment:
    """What a caller asks for; the fields of CreatePaymentInput, parsed."""

    order_id: int
    method: PaymentMethod
    amount_fen: int | None
    subject: str
    openid: str | None = None
    return_url: str | None = None
    merchant_account_id: int | None = None
    expires_in: timedelta | None = None
    idempotency_key: str | None = None
    app_id: str | None = None
    # not asked for but observed: it may differ when a page repeats its request
    client_address: str | None = None

    def input_hash(self) -> bytes:
        """SHA-256 of what is asked for, but the key: the same key with another input is a conflict."""
        fields = [
            self.order_id, self.method, self.amount_fen, self.subject, self.openid, self.return_url,
            self.merchant_account_id, None if self.expires_in is None else self.expires_in.total_seconds(),
        ]  # fmt: skip
        if self.app_id is not None:
            fields.append(self.app_id)
        return hashlib.sha256(orjson.dumps(fields)).digest()


@dataclass(frozen=True, slots=True)
class Order:
    """A row of the bound order table, or of one that was bound before. `data` is the whole row as JSON."""

    binding_id: int
    id: int
    owner: str | None
    amount_fen: int | None
    status: str | None
    data: Mapping[str, Any]

    @property
    def key(self) -> OrderKey:
        """What tells it from all others."""
        return self.binding_id, self.id


class Payments:
    """Payments of this deployment. One a process; every method may run beside itself, here and elsewhere."""

    def __init__(
        self,
        *,
        database: Database,
        accounts: MerchantAccounts,
        clock: Clock,
        bell: Doorbell,
        metrics: Metrics,
        permissions: Permissions,
        plan: Plan,
        limits: Limits,
        public_url: str,
    ) -> None:
        self._db = database
        self.accounts = accounts
        self._clock = clock
        self._bell = bell
        self._metrics = metrics
        self._permissions = permissions
        self._plan = plan
        self._limits = limits
        self._public_url = public_url

    # --- reading --------------------------------------------------------------------------------------------------

    async def find(self, caller: Principal, payment_id: int) -> Payment | None:
        """The payment, or None when there is none or it is somebody else's."""
        row = await self._db.one("payment.find", payment_id)
        if row is None:
            return None
        payment = read_payment(row)
        return payment if may_see(caller, payment.owner) else None

    async def of_order(self, caller: Principal, order_id: int) -> list[Payment]:
        """A bound order's payments, oldest first; empty when the order is somebody else's."""
        order = await self.find_order(caller, order_id)
        return [] if order is None else (await self.of_orders([order.key]))[order.key]

    async def of_orders(self, orders: Collection[OrderKey]) -> dict[OrderKey, list[Payment]]:
        """Payments by order, whoever asks: the caller has checked the orders. One statement for each table."""
        found: dict[OrderKey, list[Payment]] = {order: [] for order in orders}
        for binding_id in {binding_id for binding_id, _ in found}:
            ids = [order_id for of, order_id in found if of == binding_id]
            for row in await self._db.all("payment.by_orders", binding_id, ids):
                found[binding_id, row["order_id"]].append(read_payment(row))
        return found

    async def with_order_ids(self, order_ids: Sequence[int]) -> dict[int, Payment]:
        """By their own id, payments of orders with these ids, of whichever table: watchers take what is theirs."""
        rows = await self._db.all("payment.by_orders_of_any_table", list(order_ids))
        return {row["id"]: read_payment(row) for row in rows}

    async def by_ids(self, payment_ids: Sequence[int]) -> dict[int, Payment]:
        """Payments by id, whoever asks; one statement."""
        rows = await self._db.all("payment.by_ids", list(payment_ids))
        return {row["id"]: read_payment(row) for row in rows}

    async def find_order(self, caller: Principal, order_id: int) -> Order | None:
        """The bound table's order, or None when there is none or it is somebody else's."""
        order = (await self.orders([order_id])).get(order_id)
        return order if order is not None and may_see(caller, order.owner) else None

    async def orders(self, order_ids: Sequence[int]) -> dict[int, Order]:
        """Orders of the bound table by id, whoever asks; one statement."""
        rows = await self._db.all("order.by_ids", list(order_ids))
        return {row["id"]: read_order(row) for row in rows}

    async def orders_of_payments(self, orders: Collection[OrderKey]) -> dict[OrderKey, Order]:
        """Orders of whichever table, whoever asks; one statement."""
        rows = await self._db.all("order.of_payments", *(list(column) for column in zip(*orders, strict=True)))
        return {order.key: order for order in map(read_order, rows)}

    # --- creating -------------------------------------------------------------------------------------------------

    async def create(self, caller: Principal, request: CreatePayment, *, correlation_id: str) -> Payment:
        """Opens a payment and returns it with what the page does next.

        A payment whose outcome is unknown comes back with `checking`: it must not be offered again. Raises the caller's
        errors before anything is written, ProviderRejected and ProviderUnavailable with the payment FAILED.
        """
        now = self._clock.now()
        provider = self._provider_for(request, now)
        request = _with_payer(caller, request, provider)
        number = new_number("SY", now)
        expires_at = now + (request.expires_in or min(self._limits.default_expiry, provider.maximum_expiry))
        draft = self._request(request, number, now, expires_at)
        provider.check_request(draft)
        row = await self._db.change(
            "payment.open", request.order_id, caller.sub, caller.is_admin, roles_of(caller),
            request.merchant_account_id, provider.name, request.method, request.amount_fen, request.subject, number,
            request.openid, request.app_id, request.client_address, request.return_url, request.idempotency_key,
            request.input_hash(), correlation_id, expires_at, now, now + CREATE_LEASE,
            self._limits.minimum_amount_fen, self._limits.maximum_amount_fen,
        )  # fmt: skip
        assert row is not None
        if row["refusal"] is not None:
            raise _refused(row["refusal"], request, row["order_amount_fen"], self._limits)
        payment = read_payment(row)
        if row["replayed"]:
            return _first_answer_again(payment)
        try:
            account = await self.accounts.open(payment.merchant_account_id, version=row["account_version"])
        except (VaultError, AccountInvalid):
            # Ours to mend, and nothing was sent: nobody needs to find out what became of it.
            await self._refuse(payment, not_reached())
            raise
        outcome = await self._send(payment, account)
        match outcome:
            case Accepted():
                return await self._accept(payment, account, outcome)
            case Unknown(detail=detail):
                log.warning("payment.create_unknown", payment_id=payment.id, detail=detail)
                return await self._in_doubt(payment, outcome)
            case Rejected():
                failure = failure_of(outcome)
            case NotReached(detail=detail):
                log.warning("payment.create_not_reached", payment_id=payment.id, detail=detail)
                failure = not_reached(outcome.words)
        return _first_answer_again(await self._refuse(payment, failure))

    async def create_again(self, payment: Payment, account: OpenAccount, known: ReportedStatus) -> Payment:
        """Sends a payment whose first answer was lost once more, under the same number; what is still unknown stays so.

        `known` is the provider's word of a moment ago. A refusal ends the payment only where the provider knows no such
        trade, and not being reached never does: the first attempt may have acted, whatever becomes of the second."""
        outcome = await self._send(payment, account)
        match outcome:
            case Accepted():
                return await self._accept(payment, account, outcome)
            case Rejected() if known is ReportedStatus.NOT_FOUND:
                return await self._refuse(payment, failure_of(outcome))
        log.warning("payment.create_still_unknown", payment_id=payment.id, outcome=type(outcome).__name__)
        return await self._in_doubt(payment, outcome)

    async def _send(self, payment: Payment, account: OpenAccount) -> CreateOutcome:
        request = PaymentRequest(
            method=payment.method,
            out_trade_no=payment.out_trade_no,
            amount_fen=payment.amount_fen,
            subject=payment.subject,
            notify_url=self.notify_url(payment.provider, payment.merchant_account_id),
            created_at=payment.created_at,
            expires_at=payment.expires_at,
            return_url=payment.return_url,
            openid=payment.openid,
            app_id=payment.app_id,
            client_address=payment.client_address,
        )
        return await account.provider.create_payment(account.account, request)

    async def _accept(self, payment: Payment, account: OpenAccount, accepted: Accepted) -> Payment:
        check_at = first_check(account.provider, payment)
        row = await self._db.change(
            "payment.accept", payment.id, accepted.action, accepted.transaction_id, self._clock.now(), check_at
        )
        return read_payment(row) if row is not None else await self.reload(payment.id)

    async def _in_doubt(self, payment: Payment, outcome: CreateOutcome) -> Payment:
        """Still CREATED, with the provider's words where it said something worth showing."""
        if isinstance(outcome, Unknown) and outcome.words is not None:
            failure = replace(failure_of(outcome.words), code=OutcomeUnknown.code)
            await self._db.change("payment.doubt", payment.id, failure_json(failure), self._clock.now())
        return await self.reload(payment.id)

    async def _refuse(self, payment: Payment, failure: Failure) -> Payment:
        """FAILED, unless another answer was faster: one attempt's refusal says nothing about what another achieved."""
        row = await self._db.change("payment.fail", payment.id, failure_json(failure), self._clock.now(), ["CREATED"])
        self._bell.ring("events")
        return read_payment(row) if row is not None else await self.reload(payment.id)

    # --- asking and closing ---------------------------------------------------------------------------------------

    async def sync(self, caller: Principal, payment_id: int, *, correlation_id: str) -> Payment:
        """Asks the provider now and applies what it says.

        Raises Forbidden, NotFound; ProviderUnavailable, OutcomeUnknown or ProviderRejected without a usable answer."""
        payment = await self._load(caller, payment_id)
        await self._permissions.require(caller, Action.PAYMENT_SYNC)
        account = await self.accounts.open(payment.merchant_account_id)
        await self.ask(payment, account, correlation_id=correlation_id)
        return await self.reload(payment_id)

    async def ask(self, payment: Payment, account: OpenAccount, *, correlation_id: str | None) -> Applied:
        """One question to the provider, its answer applied. Raises as `sync` does."""
        answer = await account.provider.query_payment(account.account, payment.out_trade_no)
        if not isinstance(answer, PaymentReport):
            raise no_answer(answer)
        applied = await apply_payment_report(
            self._db, self._clock, account, answer, correlation_id=correlation_id or payment.correlation_id
        )
        if applied.changed:
            self._bell.ring("events")
        for field in applied.differences:
            self._metrics.differences.labels(field).inc()
        return applied

    async def close(self, caller: Principal, payment_id: int, *, correlation_id: str) -> Payment:
        """Closes a payment that is not paid, at the provider first; one that lands in between wins and is returned.

        Raises Forbidden, NotFound, PaymentsNotActive, PlanExpired; ProviderUnavailable, OutcomeUnknown and
        ProviderRejected with the payment unchanged."""
        payment = await self._load(caller, payment_id)
        await self._permissions.require(caller, Action.PAYMENT_CLOSE)
        await self._plan.require()
        if payment.deduction_id is not None:
            raise InvalidInput(
                f"id: payment {payment_id} is a scheduled deduction and is not closed by hand; to end them all cancel"
                " the cycle payment (cancelCyclePayment)",
                message_zh="周期扣款的支付不能单独关闭，如需停止请取消周期扣款",
                field="id",
            )
        if payment.final:
            return payment
        account = await self.accounts.open(payment.merchant_account_id)
        await self.ask(payment, account, correlation_id=correlation_id)
        current = await self.reload(payment.id)
        return current if current.final else await self.close_unpaid(current, account, correlation_id=correlation_id)

    async def close_unpaid(self, payment: Payment, account: OpenAccount, *, correlation_id: str | None) -> Payment:
        """Closes at the provider a payment it just called unpaid, asks again, and only then closes here.

        Without the second question a payment made between the first and the close would be lost from sight until its
        notification; with it, the provider's own order decides."""
        outcome = await account.provider.close_payment(account.account, payment.out_trade_no)
        if not isinstance(outcome, Closed | NeverOpened | NotClosed):
            raise no_answer(outcome)
        applied = await self.ask(payment, account, correlation_id=correlation_id)
        current = await self.reload(payment.id)
        if current.final:
            return current
        unpaid = applied.reported in (ReportedStatus.CLOSED, ReportedStatus.NOT_FOUND)
        if isinstance(outcome, NotClosed) or not unpaid:
            raise OutcomeUnknown("the provider did not close the payment, perhaps it is being paid; ask again shortly")
        now = self._clock.now()
        last_look = max(now, payment.expires_at) + LAST_LOOK if isinstance(outcome, NeverOpened) else None
        row = await self._db.change("payment.close", payment.id, now, last_look)
        self._bell.ring("events")
        return read_payment(row) if row is not None else await self.reload(payment.id)

    # --- inside ---------------------------------------------------------------------------------------------------

    def _provider_for(self, request: CreatePayment, now: datetime) -> Provider:
        if request.method is PaymentMethod.ALIPAY_CYCLE:
            raise InvalidInput("method: ALIPAY_CYCLE is used by scheduled deductions only", field="method")
        provider = provider_of_method(self.accounts.providers, request.method)
        if provider is None:
            raise _refused("METHOD_NOT_CONFIGURED", request, None, self._limits)
        if request.amount_fen is not None:
            _check_amount(request.amount_fen, self._limits)
        if not request.subject.strip():
            raise InvalidInput("subject: say what is being paid for, in 1 to 256 characters", field="subject")
        check_text("idempotencyKey", request.idempotency_key, limit=128)
        check_text("openid", request.openid, limit=128)
        check_text("appId", request.app_id, limit=64)
        check_text("returnUrl", request.return_url, limit=2048)
        if request.expires_in is not None:
            low, high = provider.minimum_expiry, provider.maximum_expiry
            if not low <= request.expires_in <= high:
                raise InvalidInput(
                    f"expiresInSeconds: has to be from {low.total_seconds():.0f} to {high.total_seconds():.0f}",
                    field="expiresInSeconds",
                )
        return provider

    def _request(self, request: CreatePayment, number: str, now: datetime, expires_at: datetime) -> PaymentRequest:
        """The request as far as it is known before the order is read.

        Where the order says the amount, the smallest stands for it: the order's own meets the limits under its lock."""
        return PaymentRequest(
            method=request.method,
            out_trade_no=number,
            amount_fen=request.amount_fen or self._limits.minimum_amount_fen,
            subject=request.subject,
            notify_url=self._public_url,
            created_at=now,
            expires_at=expires_at,
            return_url=request.return_url,
            openid=request.openid,
            app_id=request.app_id,
            client_address=request.client_address,
        )

    def notify_url(self, provider: str, account_id: int) -> str:
        """Where a provider tells of this account's payments."""
        # From the configured base, never from a request: a Host header must not send notifications elsewhere.
        return f"{self._public_url}/notify/{provider.lower()}/{account_id}"

    async def _load(self, caller: Principal, payment_id: int) -> Payment:
        payment = await self.find(caller, payment_id)
        if payment is None:
            raise NotFound(f"payment {payment_id} does not exist", field="id")
        return payment

    async def reload(self, payment_id: int) -> Payment:
        """The payment as it is now, whoever asks. Raises NotFound once payments were turned off."""
        row = await self._db.one("payment.find", payment_id)
        if row is None:
            raise NotFound(f"payment {payment_id} does not exist any more: payments were turned off", field="id")
        return read_payment(row)


def _with_payer(caller: Principal, request: CreatePayment, provider: Provider) -> CreatePayment:
    """The request with the payer of the caller's own WeChat login, where the method needs one and none is named."""
    known = caller.wechat
    if known is None or request.method not in provider.methods_with_payer:
        return request
    if request.app_id in (None, known.app_id) and request.openid in (None, known.openid):
        return replace(request, openid=known.openid, app_id=known.app_id)
    return request


def may_see(caller: Principal, owner: str | None) -> bool:
    """Whether the caller may see rows of this owner.

    None: there is no owner column, and orders are everybody's who has a token. "": the row's own is empty, and it is
    nobody's but an administrator's; no token has an empty sub."""
    return caller.is_admin or owner is None or owner == caller.sub


def new_number(prefix: str, now: datetime) -> str:
    """A number of 26 characters nobody can guess, sortable by time: prefix + Shanghai time + 10 random characters."""
    # The alphabet has 32 characters, so that five bits of a byte choose evenly; one system call instead of twenty.
    random = "".join([_NUMBER_ALPHABET[byte & 31] for byte in secrets.token_bytes(10)])
    return f"{prefix}{now.astimezone(SHANGHAI):%Y%m%d%H%M%S}{random}"


def first_check(provider: Provider, payment: Payment) -> datetime:
    """When a payment that was just accepted is asked about first."""
    return min(payment.created_at + provider.query_schedule[0], payment.expires_at)


def read_order(row: Row) -> Order:
    """A row of the columns that every statement in sql/queries/order.sql returns, as a value."""
    return Order(
        binding_id=row["binding_id"],
        id=row["id"],
        owner=row["owner"],
        amount_fen=whole_fen(row["amount_fen"]),
        status=row["status"],
        data=row["data"],
    )


def not_reached(words: Rejected | None = None) -> Failure:
    """The failure of a payment whose provider was never reached, or turned it away with these words."""
    if words is not None:
        return replace(failure_of(words), code=ProviderUnavailable.code)
    return Failure(
        code=ProviderUnavailable.code,
        provider_code=None,
        provider_message=None,
        explanation="the provider could not be reached; nothing was sent or charged, create a new payment",
        explanation_zh="支付渠道暂时无法连接，未产生扣款，请重新发起支付",
    )


def _first_answer_again(payment: Payment) -> Payment:
    """What the first call answered: the payment, or the error it failed with."""
    failure = payment.failure
    if payment.status != "FAILED" or failure is None:
        return payment
    kind = ProviderUnavailable if failure.code == ProviderUnavailable.code else ProviderRejected
    raise kind(
        failure.explanation,
        provider_code=failure.provider_code,
        provider_message=failure.provider_message,
        message_zh=failure.explanation_zh,
        extra={"paymentId": str(payment.id)},
    )


def no_answer(outcome: Rejected | NotReached | Unknown) -> ProviderError:
    """The error of a question or a close that ended without a usable answer; the payment is as it was."""
    match outcome:
        case Rejected(code=code, message=message, explanation=explanation, explanation_zh=explanation_zh):
            return ProviderRejected(
                explanation, provider_code=code, provider_message=message, message_zh=explanation_zh
            )
        case NotReached():
            return ProviderUnavailable("the provider could not be reached; nothing changed, try again shortly")
        case Unknown():
            return OutcomeUnknown("the provider gave no usable answer; the payment stays as it is and is asked about")


def check_text(field: str, text: str | None, *, limit: int) -> None:
    """What is stored as it came must be storable: no zero bytes, no halves of characters, no novels."""
    if text is not None and not (1 <= len(text) <= limit and text.isprintable()):
        raise InvalidInput(f"{field}: use 1 to {limit} characters, without control characters", field=field)


def _check_amount(amount_fen: int, limits: Limits) -> None:
    if not limits.minimum_amount_fen <= amount_fen <= limits.maximum_amount_fen:
        low, high = format_yuan(limits.minimum_amount_fen), format_yuan(limits.maximum_amount_fen)
        raise InvalidAmount(
            f"amount: {format_yuan(amount_fen)} yuan is outside {low} to {high}",
            field="amount",
            message_zh=f"金额须在 {low} 元到 {high} 元之间",
        )


def _refused(refusal: str, request: CreatePayment, order_amount_fen: Decimal | None, limits: Limits) -> Exception:
    """The words for what shouyin.open_payment refused."""
    match refusal:
        case "PAYMENTS_NOT_ACTIVE":
            return payments_not_active()
        case "PLAN_EXPIRED":
            return plan_expired()
        case "FORBIDDEN":
            return forbidden(Action.PAYMENT_CREATE)
        case "METHOD_NOT_CONFIGURED":
            return MethodNotConfigured(
                f"method: no enabled merchant account offers {request.method}; an administrator adds one"
                " (createMerchantAccount)",
                field="method",
            )
        case "APP_NOT_CONFIGURED":
            return InvalidInput(
                f"appId: no enabled merchant account takes {request.method} under this application: log in with the"
                " one that pays, or have an administrator add it to the account (updateMerchantAccount)",
                message_zh="该应用（appid）未关联可用的商户号，请使用收款应用登录",
                field="appId",
            )
        case "ORDER_NOT_FOUND":
            return OrderNotFound(f"orderId: there is no order {request.order_id} of yours", field="orderId")
        case "ORDER_ALREADY_PAID":
            return OrderAlreadyPaid(f"orderId: order {request.order_id} is paid already", field="orderId")
        case "AMOUNT_MISSING":
            return InvalidAmount("amount: required, because the order has no amount of its own", field="amount")
        case "AMOUNT_MISMATCH":
            return AmountMismatch(
                f"amount: {format_yuan(request.amount_fen or 0)} yuan is not the order's amount"
                f" ({yuan_of_order(order_amount_fen)}); leave amount out to pay the order's",
                field="amount",
            )
        case "INVALID_AMOUNT":
            low, high = format_yuan(limits.minimum_amount_fen), format_yuan(limits.maximum_amount_fen)
            return InvalidAmount(
                f"amount: the order's amount ({yuan_of_order(order_amount_fen)}) cannot be paid: it has to be"
                f" from {low} to {high} yuan with at most two decimals",
                field="amount",
            )
        case "IDEMPOTENCY_CONFLICT":
            return IdempotencyConflict(
                "idempotencyKey: this key was used with another input; use a new key for a new payment",
                field="idempotencyKey",
            )
    raise AssertionError(refusal)


def yuan_of_order(order_amount_fen: Decimal | None) -> str:
    if order_amount_fen is None:
        return "it has none"
    whole = whole_fen(order_amount_fen)
    return format_yuan(whole) if whole is not None else f"{order_amount_fen.scaleb(-2):f}"
