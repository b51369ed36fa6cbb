"""Every error a caller can meet, as one tree.

    ShouyinError
    ├── CallerError            the request is at fault; shown as it is
    │   ├── Unauthenticated  Forbidden  NotFound
    │   ├── InvalidInput  InvalidAmount  AmountMismatch  QueryTooComplex
    │   ├── OrderNotFound  OrderAlreadyPaid  IdempotencyConflict
    │   ├── RefundExceedsPayment  PaymentNotRefundable
    │   ├── SceneNotAllowed  SceneAlreadySigned  CycleNotChangeable
    │   ├── PaymentsNotActive  PlanExpired  MethodNotConfigured  PaymentsUnresolved  ExportUnwritable
    │   ├── ClockBusy  ClockNotSettled
    │   ├── WechatCodeInvalid  WechatStateInvalid  WechatLoginRefused
    │   └── WechatUserBlocked  WechatSnapshotUser  WechatRateLimited  WechatAppMisconfigured
    └── ProviderError          the provider is at fault, or its answer is missing
        ├── ProviderRejected       it said no; nothing was charged
        ├── ProviderUnavailable    it was not reached; nothing was sent
        └── OutcomeUnknown         it may have acted: ask, never repeat under another number

Anything else that escapes is ours: masked as INTERNAL with a correlation id. `code` is stable; clients switch on it.
"""

from collections.abc import Mapping
from typing import Any, ClassVar


class ShouyinError(Exception):
    """Something a caller may be told. `message` names the fault and the fix; `message_zh` says it in Chinese."""

    code: ClassVar[str] = "INTERNAL"
    default_zh: ClassVar[str] = "系统内部错误"

    def __init__(
        self,
        message: str,
        *,
        message_zh: str | None = None,
        field: str | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.message_zh = message_zh or self.default_zh
        self.field = field
        self.extra = dict(extra or {})

    def extensions(self) -> dict[str, Any]:
        """What a GraphQL error carries beside the message."""
        shown: dict[str, Any] = {"code": self.code, "messageZh": self.message_zh}
        if self.field is not None:
            shown["field"] = self.field
        return shown | self.extra


class CallerError(ShouyinError):
    """The request is at fault."""


class Unauthenticated(CallerError):
    """No valid token came with the request."""

    code = "UNAUTHENTICATED"
    default_zh = "请先登录：请求没有携带有效的令牌"


class Forbidden(CallerError):
    """The caller is known and may not do this."""

    code = "FORBIDDEN"
    default_zh = "没有权限执行此操作"


class NotFound(CallerError):
    """The object does not exist, or is not the caller's: the two are told apart to nobody."""

    code = "NOT_FOUND"
    default_zh = "对象不存在"


class InvalidInput(CallerError):
    """One input is at fault; `field` names it."""

    code = "INVALID_INPUT"
    default_zh = "输入不正确"


class InvalidAmount(CallerError):
    """An amount is malformed, too small, too large, or has more than two decimals."""

    code = "INVALID_AMOUNT"
    default_zh = "金额不正确：单位为元，最多两位小数"


class AmountMismatch(CallerError):
    """The amount asked for is not the order's amount."""

    code = "AMOUNT_MISMATCH"
    default_zh = "支付金额与订单金额不一致"


class OrderNotFound(CallerError):
    """No such row in the bound order table, or it belongs to somebody else."""

    code = "ORDER_NOT_FOUND"
    default_zh = "订单不存在"


class OrderAlreadyPaid(CallerError):
    """A successful payment exists for this order."""

    code = "ORDER_ALREADY_PAID"
    default_zh = "订单已支付，请勿重复支付"


class RefundExceedsPayment(CallerError):
    """More than what is left of the payment."""

    code = "REFUND_EXCEEDS_PAYMENT"
    default_zh = "退款金额超出可退金额"


class PaymentNotRefundable(CallerError):
    """The payment is not paid, given back already, or too old."""

    code = "PAYMENT_NOT_REFUNDABLE"
    default_zh = "该支付无法退款"


class SceneNotAllowed(CallerError):
    """The merchant account signs no agreements of this scene."""

    code = "SCENE_NOT_ALLOWED"
    default_zh = "商户未开通该签约场景"


class SceneAlreadySigned(CallerError):
    """This user has an agreement of this scene already; `cyclePaymentId` names it."""

    code = "SCENE_ALREADY_SIGNED"
    default_zh = "该场景下已有生效或待签约的协议，请先取消原协议"


class CycleNotChangeable(CallerError):
    """A cycle payment in this state, or under this agreement, cannot be changed so."""

    code = "CYCLE_NOT_CHANGEABLE"
    default_zh = "当前状态的周期扣款不支持该操作"


class IdempotencyConflict(CallerError):
    """The idempotency key was used before with another input."""

    code = "IDEMPOTENCY_CONFLICT"
    default_zh = "同一幂等键对应了不同的请求内容"


class PaymentsNotActive(CallerError):
    """No order table is bound yet."""

    code = "PAYMENTS_NOT_ACTIVE"
    default_zh = "支付功能尚未激活：请管理员先绑定订单表"


class PlanExpired(CallerError):
    """The plan under which payments run is over."""

    code = "PLAN_EXPIRED"
    default_zh = "套餐已到期，续费后支付立即恢复"


class MethodNotConfigured(CallerError):
    """No enabled merchant account offers this way to pay."""

    code = "METHOD_NOT_CONFIGURED"
    default_zh = "该支付方式尚未配置商户账号"


class PaymentsUnresolved(CallerError):
    """Payments cannot be turned off while some have no end; `unresolved` names them."""

    code = "PAYMENTS_UNRESOLVED"
    default_zh = "还有未完结的支付，暂不能关闭"


class ExportUnwritable(CallerError):
    """The directory for exports does not take one; for an administrator to mend."""

    code = "EXPORT_UNWRITABLE"
    default_zh = "导出目录无法写入，请检查 EXPORT_DIR"


class ClockBusy(CallerError):
    """Somebody else moves the test clock at the moment."""

    code = "CLOCK_BUSY"
    default_zh = "测试时钟正在移动，请稍后重试"


class ClockNotSettled(CallerError):
    """What is due at the test clock's time was not done in time; `due` names it, and the clock stays."""

    code = "CLOCK_NOT_SETTLED"
    default_zh = "测试时钟已停下：到期的工作未能按时完成"


class WechatCodeInvalid(CallerError):
    """WeChat does not take this login code, or no longer: it is used, expired, or another application's."""

    code = "WECHAT_CODE_INVALID"
    default_zh = "微信登录凭证无效，请重新登录"


class WechatStateInvalid(CallerError):
    """A login that comes back was not begun in this browser, or too long ago."""

    code = "WECHAT_STATE_INVALID"
    default_zh = "登录请求已失效，请返回页面重新登录"


class WechatLoginRefused(CallerError):
    """The user did not agree to log in with WeChat."""

    code = "WECHAT_LOGIN_REFUSED"
    default_zh = "你取消了微信授权"


class WechatUserBlocked(CallerError):
    """WeChat lets this user not log in: the account is at risk, or may not use the application."""

    code = "WECHAT_USER_BLOCKED"
    default_zh = "该微信账号存在风险，暂时无法登录"


class WechatSnapshotUser(CallerError):
    """The page is shown in WeChat's preview mode, whose user is nobody."""

    code = "WECHAT_SNAPSHOT_USER"
    default_zh = "当前为预览模式，请点击页面右下角“使用完整服务”后再登录"


class WechatRateLimited(CallerError):
    """Too many calls for this user or application; try again in a minute."""

    code = "WECHAT_RATE_LIMITED"
    default_zh = "操作过于频繁，请一分钟后再试"


class WechatAppMisconfigured(CallerError):
    """WeChat refuses our application itself; for an administrator to mend."""

    code = "WECHAT_APP_MISCONFIGURED"
    default_zh = "微信应用配置有误，请联系管理员"


class QueryTooComplex(CallerError):
    """The operation exceeds a limit on depth, aliases, tokens, cost or size."""

    code = "QUERY_TOO_COMPLEX"
    default_zh = "查询过于复杂"


class ProviderError(ShouyinError):
    """The provider refused or did not answer. `provider_code` and `provider_message` are its own words."""

    def __init__(
        self,
        message: str,
        *,
        provider_code: str | None = None,
        provider_message: str | None = None,
        message_zh: str | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        words = {"provider": {"code": provider_code, "message": provider_message}} if provider_code else {}
        super().__init__(message, message_zh=message_zh, extra={**words, **(extra or {})})
        self.provider_code = provider_code
        self.provider_message = provider_message


class ProviderRejected(ProviderError):
    """The provider said no. Nothing was charged."""

    code = "PROVIDER_REJECTED"
    default_zh = "支付渠道拒绝了请求"


class ProviderUnavailable(ProviderError):
    """The provider was not reached; nothing was sent, and trying again is safe."""

    code = "PROVIDER_UNAVAILABLE"
    default_zh = "支付渠道暂时无法连接，请稍后重试"


class OutcomeUnknown(ProviderError):
    """The provider may have acted. The row stays open and is asked about until it is known."""

    code = "OUTCOME_UNKNOWN"
    default_zh = "支付结果确认中，请勿重复支付"
