"""How APIv3 refuses: an HTTP status and `{"code", "message", "detail"?}`, and a `Request-ID` that ends in a number.

Source: pay.weixin.qq.com/doc/v3/merchant/4012556398 (statuses), 4012365342 (signature errors), read 2026-09.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class _Known:
    status: int
    message: str
    number: int = 268435461


# Codes that WeChat documents, with the words it uses for them most.
KNOWN = {
    "PARAM_ERROR": _Known(400, "参数错误"),
    "INVALID_REQUEST": _Known(400, "请求重入时，参数与首次请求时不一致", 268498688),
    "APPID_MCHID_NOT_MATCH": _Known(400, "appid和mch_id不匹配，请检查后再试", 268445527),
    "ORDER_CLOSED": _Known(400, "该订单已关闭，请重新下单", 268447914),
    "ORDERCLOSED": _Known(400, "该订单已关闭，请重新下单", 268447914),
    "ORDER_PAID": _Known(400, "该订单已支付", 268449538),
    "ORDERPAID": _Known(400, "该订单已支付", 268449538),
    "INVALID_TRANSACTIONID": _Known(400, "无效的微信支付订单号"),
    "MCHID_NOT_EXIST": _Known(400, "MCHID不存在"),
    "APPID_NOT_EXIST": _Known(400, "APPID不存在"),
    "SIGN_ERROR": _Known(401, "错误的签名，验签失败", 268443699),
    "NO_AUTH": _Known(403, "商户号该产品权限未开通，请前往商户平台>产品中心检查后重试", 268448010),
    "NOT_ENOUGH": _Known(403, "余额不足"),
    "OUT_TRADE_NO_USED": _Known(403, "商户订单号重复"),
    "RULE_LIMIT": _Known(403, "业务规则限制"),
    "TRADE_ERROR": _Known(403, "交易错误"),
    "ACCOUNT_ERROR": _Known(403, "账号异常"),
    "USER_ACCOUNT_ABNORMAL": _Known(403, "用户账户异常或注销"),
    "REQUEST_BLOCKED": _Known(403, "该笔交易存在风险，请求已被拦截"),
    "USER_NOT_EXISTS": _Known(404, "用户不存在"),
    "ORDER_NOT_EXIST": _Known(404, "订单不存在", 268512771),
    "ORDERNOTEXIST": _Known(404, "订单不存在", 268512771),
    "MCH_NOT_EXISTS": _Known(404, "商户号不存在"),
    "RESOURCE_NOT_EXISTS": _Known(404, "查询的资源不存在"),
    "FREQUENCY_LIMITED": _Known(429, "频率超限，请稍后重试", 268447840),
    "RATELIMIT_EXCEEDED": _Known(429, "请求超过频率限制", 268447840),
    "SYSTEM_ERROR": _Known(500, "系统异常，请稍后重试", 268435454),
    "BANK_ERROR": _Known(500, "银行系统异常"),
    "OPENID_MISMATCH": _Known(500, "openid和appid不匹配"),
}
_UNKNOWN = _Known(400, "沙箱按要求返回的错误")


class V3Refusal(Exception):
    """Status and message are those the code always has, unless others are given."""

    def __init__(self, code: str, message: str = "", *, detail: dict[str, Any] | None = None) -> None:
        known = KNOWN.get(code, _UNKNOWN)
        super().__init__(f"{code} {message or known.message}")
        self.code = code
        self.status = known.status
        self.number = known.number
        self.message = message or known.message
        self.detail = detail

    def fields(self) -> dict[str, Any]:
        fields: dict[str, Any] = {"code": self.code, "message": self.message}
        return fields | ({"detail": self.detail} if self.detail else {})


def parameter_error(field: str, issue: str, *, value: object = None, location: str = "body") -> V3Refusal:
    """PARAM_ERROR whose `detail.field` is a JSON pointer into the body, or the name of a parameter or header."""
    detail = {"field": field, "value": value, "issue": issue, "location": location}
    if value is None:
        del detail["value"]
    return V3Refusal("PARAM_ERROR", f"参数错误：{field} {issue}", detail=detail)


def signature_error(message: str, *, field: str) -> V3Refusal:
    detail = {"field": field, "issue": message, "location": "authorization"}
    return V3Refusal("SIGN_ERROR", message, detail=detail)
