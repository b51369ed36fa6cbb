"""The words for what shouyin.open_cycle refused."""

from decimal import Decimal
from typing import Protocol

from app.activation.permissions import Action, forbidden
from app.activation.plan import payments_not_active, plan_expired
from app.errors import (
    AmountMismatch,
    IdempotencyConflict,
    MethodNotConfigured,
    OrderAlreadyPaid,
    OrderNotFound,
    SceneAlreadySigned,
)
from app.money import format_yuan
from app.payments.actions import yuan_of_order


class Asked(Protocol):
    """What the words name of a request."""

    @property
    def order_id(self) -> int: ...

    @property
    def scene(self) -> str: ...

    @property
    def price_fen(self) -> int: ...


def refused(refusal: str, request: Asked, order_amount_fen: Decimal | None, live_id: int | None) -> Exception:
    """The error of a refusal."""
    match refusal:
        case "PAYMENTS_NOT_ACTIVE":
            return payments_not_active()
        case "PLAN_EXPIRED":
            return plan_expired()
        case "FORBIDDEN":
            return forbidden(Action.CYCLE_START)
        case "METHOD_NOT_CONFIGURED":
            return MethodNotConfigured("the merchant account was disabled meanwhile; try again", field="scene")
        case "ORDER_NOT_FOUND":
            return OrderNotFound(f"orderId: there is no order {request.order_id} of yours", field="orderId")
        case "ORDER_ALREADY_PAID":
            return OrderAlreadyPaid(
                f"payNow: order {request.order_id} is paid already; start without payNow", field="orderId"
            )
        case "AMOUNT_MISMATCH":
            return AmountMismatch(
                f"price: {format_yuan(request.price_fen)} yuan is not the order's amount"
                f" ({yuan_of_order(order_amount_fen)}), which payNow pays",
                field="price",
            )
        case "SCENE_ALREADY_SIGNED":
            return _already_signed(request.scene, live_id)
        case "IDEMPOTENCY_CONFLICT":
            return IdempotencyConflict(
                "idempotencyKey: this key was used with another input; use a new key for a new cycle payment",
                field="idempotencyKey",
            )
    raise AssertionError(refusal)


def _already_signed(scene: str, live_id: int | None) -> SceneAlreadySigned:
    return SceneAlreadySigned(
        f"scene: this user has a live cycle payment of scene {scene} already (id {live_id}): sign or use that one, or"
        " cancel it first (cancelCyclePayment); the provider allows one agreement per user and scene",
        message_zh="该用户在此场景下已有生效或待签约的协议（商户协议状态不正常）：请继续使用或先取消原协议后再签约",
        field="scene",
        extra={"cyclePaymentId": None if live_id is None else str(live_id)},
    )
