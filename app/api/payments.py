"""Payments on the API: their types, queries and mutations."""

from datetime import datetime, timedelta
from typing import Annotated, Any, Self

import strawberry

from app.api.context import ApiInfo
from app.api.failures import Failure
from app.api.orders import Order
from app.api.refunds import Refund
from app.api.scalars import Yuan, find_id, read_id
from app.errors import NotFound
from app.payments import model
from app.payments.actions import CreatePayment
from app.payments.model import PaymentStatus
from app.providers.contract import PaymentMethod as PaymentMethod  # other nouns take it with its description
from app.providers.redirect_form import redirect_form

strawberry.enum(PaymentMethod, description="A way to pay.")
strawberry.enum(PaymentStatus)


@strawberry.type(description="What `wx.requestPayment` or `WeixinJSBridge` takes, as it is.")
class WechatPayParams:
    app_id: str
    time_stamp: str
    nonce_str: str
    package: str
    sign_type: str
    pay_sign: str


@strawberry.type(description="What `AlipayJSBridge.call('tradePay', …)` takes.")
class AlipayJsapiParams:
    trade_no: str


@strawberry.type(description="The page opens `url`, or writes `html` into a document: a form that does the same.")
class Redirect:
    url: str
    deep_link: str | None = strawberry.field(
        default=None, description="Opens the same in the wallet's app, where there is such a link."
    )

    @strawberry.field
    def html(self) -> str | None:
        return redirect_form(self.url)


@strawberry.type(description="The page shows `codeUrl` as a QR code; on a phone it may open `deepLink`.")
class QrCode:
    code_url: str
    deep_link: str | None = None


PaymentAction = Annotated[
    WechatPayParams | AlipayJsapiParams | Redirect | QrCode,
    strawberry.union(
        "PaymentAction",
        description=(
            "What the page does next. `Redirect.html`, where present, is an auto-submitting form for the same step."
        ),
    ),
]


@strawberry.type
class Payment:
    row: strawberry.Private[model.Payment]
    id: strawberry.ID
    order_id: strawberry.ID
    method: PaymentMethod
    amount: Yuan
    paid_amount: Yuan | None
    refunded_amount: Yuan
    refundable_amount: Yuan = strawberry.field(description="Paid, less what went back or is on its way back.")
    subject: str
    out_trade_no: str = strawberry.field(description="Our number of the payment; the provider knows it under this one.")
    transaction_id: str | None = strawberry.field(description="The provider's number.")
    status: PaymentStatus
    final: bool = strawberry.field(description="True once the status can only change by a refund.")
    checking: bool = strawberry.field(
        description="True while the provider's answer is unknown: the page must not offer to pay again."
    )
    created_at: datetime
    updated_at: datetime
    paid_at: datetime | None
    expires_at: datetime
    version: int = strawberry.field(description="Rises by one with every change of the row.")

    @classmethod
    def of(cls, row: model.Payment) -> Self:
        """The payment as clients see it."""
        return cls(
            row=row,
            id=strawberry.ID(str(row.id)),
            order_id=strawberry.ID(str(row.order_id)),
            method=row.method,
            amount=Yuan(row.amount_fen),
            paid_amount=None if row.paid_amount_fen is None else Yuan(row.paid_amount_fen),
            refunded_amount=Yuan(row.refunded_amount_fen),
            refundable_amount=Yuan(row.refundable_fen),
            subject=row.subject,
            out_trade_no=row.out_trade_no,
            transaction_id=row.transaction_id,
            status=row.api_status,
            final=row.final,
            checking=row.checking,
            created_at=row.created_at,
            updated_at=row.updated_at,
            paid_at=row.paid_at,
            expires_at=row.expires_at,
            version=row.version,
        )

    @strawberry.field
    def failure(self) -> Failure | None:
        return Failure.of(self.row.failure)

    @strawberry.field(description="What the page does next, while the payment is pending.")
    def action(self) -> PaymentAction | None:
        stored = self.row.action
        return None if stored is None or self.row.final else read_action(stored)

    @strawberry.field(description="Oldest first.")
    async def refunds(self, info: ApiInfo) -> list[Refund]:
        return [Refund.of(row) for row in await info.context.refunds_of(self.row.id)]

    @strawberry.field
    async def order(self, info: ApiInfo) -> Annotated["Order", strawberry.lazy("app.api.orders")]:
        row = await info.context.order((self.row.binding_id, self.row.order_id))
        if row is None:
            raise NotFound(f"order {self.row.order_id} is not yours")
        return Order.of(row)


def read_action(stored: Any) -> WechatPayParams | AlipayJsapiParams | Redirect | QrCode:
    """The stored JSON of a next step, `kind` and the fields of that kind, as its type."""
    match stored["kind"]:
        case "Redirect":
            return Redirect(url=stored["url"], deep_link=stored.get("deepLink"))
        case "QrCode":
            return QrCode(code_url=stored["codeUrl"], deep_link=stored.get("deepLink"))
        case "AlipayJsapiParams":
            return AlipayJsapiParams(trade_no=stored["tradeNo"])
        case "WechatPayParams":
            return WechatPayParams(
                app_id=stored["appId"],
                time_stamp=stored["timeStamp"],
                nonce_str=stored["nonceStr"],
                package=stored["package"],
                sign_type=stored["signType"],
                pay_sign=stored["paySign"],
            )
        case unknown:
            raise ValueError(f"a stored action is of the unknown kind {unknown!r}")


@strawberry.input
class CreatePaymentInput:
    order_id: strawberry.ID
    method: PaymentMethod
    amount: Yuan | None = strawberry.field(
        default=None,
        description="Required unless the bound order table has an amount column; where both exist they must be equal.",
    )
    subject: str = strawberry.field(description="商品介绍 / 商品名称")
    openid: str | None = strawberry.field(
        default=None,
        description=(
            "The payer's, for WECHAT_MINI_PROGRAM, WECHAT_JSAPI and WECHAT_CLOUD. May be left out with a token of "
            "wechatLogin, which knows it."
        ),
    )
    app_id: str | None = strawberry.field(
        default=None,
        description="The application the openid belongs to, where the merchant account has several.",
    )
    return_url: str | None = None
    merchant_account_id: strawberry.ID | None = None
    expires_in_seconds: int | None = None
    idempotency_key: str | None = strawberry.field(
        default=None,
        description="Same key and same input: the first answer again. Same key, other input: IDEMPOTENCY_CONFLICT.",
    )

    def read(self, client_address: str | None) -> CreatePayment:
        """The same for the domain, with the payer's address as we saw it. Raises InvalidInput."""
        account, seconds = self.merchant_account_id, self.expires_in_seconds
        return CreatePayment(
            order_id=read_id(self.order_id, "orderId"),
            method=self.method,
            amount_fen=self.amount,
            subject=self.subject,
            openid=self.openid,
            return_url=self.return_url,
            merchant_account_id=None if account is None else read_id(account, "merchantAccountId"),
            expires_in=None if seconds is None else timedelta(seconds=seconds),
            idempotency_key=self.idempotency_key,
            app_id=self.app_id,
            client_address=client_address,
        )


@strawberry.type
class PaymentQuery:
    @strawberry.field
    async def payment(self, info: ApiInfo, id: strawberry.ID) -> Payment | None:  # noqa: A002 — the argument's public name
        caller, key = info.context.caller(), find_id(id)
        row = None if key is None else await info.context.runtime.payments.find(caller, key)
        return None if row is None else Payment.of(row)

    @strawberry.field(description="An order's payments, oldest first.")
    async def payments(self, info: ApiInfo, order_id: strawberry.ID) -> list[Payment]:
        caller, key = info.context.caller(), find_id(order_id)
        rows = [] if key is None else await info.context.runtime.payments.of_order(caller, key)
        return [Payment.of(row) for row in rows]


@strawberry.type
class PaymentMutation:
    @strawberry.mutation
    async def create_payment(self, info: ApiInfo, input: CreatePaymentInput) -> Payment:  # noqa: A002 — as above
        context = info.context
        row = await context.runtime.payments.create(
            context.caller(), input.read(context.address), correlation_id=context.correlation_id
        )
        return Payment.of(row)

    @strawberry.mutation(description="Asks the provider now (反查) and applies what it says.")
    async def sync_payment(self, info: ApiInfo, id: strawberry.ID) -> Payment:  # noqa: A002 — as above
        context = info.context
        caller = context.caller()
        row = await context.runtime.payments.sync(caller, existing_id(id), correlation_id=context.correlation_id)
        return Payment.of(row)

    @strawberry.mutation(description="Closes an unpaid payment, at the provider first. One paid meanwhile stays paid.")
    async def close_payment(self, info: ApiInfo, id: strawberry.ID) -> Payment:  # noqa: A002 — as above
        context = info.context
        caller = context.caller()
        row = await context.runtime.payments.close(caller, existing_id(id), correlation_id=context.correlation_id)
        return Payment.of(row)


def existing_id(text: str) -> int:
    """The key of a payment that must exist. Raises NotFound for what can be no key."""
    key = find_id(text)
    if key is None:
        raise NotFound(f"payment {text[:40]!r} does not exist", field="id")
    return key
