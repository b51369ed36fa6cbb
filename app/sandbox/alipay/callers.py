"""Who is calling, and whether the call is theirs: every check before a product sees biz_content.

The order is the gateway's: the app id is looked up before the signature is, and nothing inside biz_content is read
before the signature held.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.sandbox.alipay.accounts import Account
from app.sandbox.alipay.errors import GatewayRefusal
from app.sandbox.alipay.parameters import Parameters
from app.sandbox.alipay.signing import request_text, verified
from app.sandbox.clock import SandboxClock, format_beijing, parse_beijing

MAX_SKEW = timedelta(minutes=10)
MAX_URL_CHARS = 256
HTTP_URL = re.compile(r"https?://[^\s/?#]+\S*", re.ASCII)

# Every parameter the gateway documents or an official SDK sends beside biz_content.
KNOWN_PARAMETERS = {
    *("app_id", "method", "format", "charset", "sign_type", "sign", "timestamp", "version", "biz_content"),
    *("notify_url", "return_url", "app_auth_token", "auth_token", "encrypt_type"),
    *("app_cert_sn", "alipay_root_cert_sn"),
    *("alipay_sdk", "terminal_type", "terminal_info", "prod_code"),
}


@dataclass(frozen=True, slots=True)
class Call:
    """A verified call. `generated_at` is its own timestamp."""

    method: str
    account: Account
    generated_at: datetime
    codec: str
    charset: str
    notify_url: str
    return_url: str
    biz_content: str


def verify_call(
    parameters: Parameters, accounts: Mapping[str, Account], clock: SandboxClock, *, opened_in_browser: bool
) -> Call:
    """The call, once everything about it but its business fields is right; GatewayRefusal otherwise.

    A link for a browser may be opened long after it was made, as long as the payment it names may be made; whether it
    may is the product's question. Any other call must be fresh.
    """
    if parameters.problem:
        raise parameters.problem
    account = _account(parameters, accounts)
    _check_certificates(parameters, account)
    _check_signature(parameters, account)
    _check_envelope(parameters)
    generated_at = _timestamp(parameters, clock, may_be_old=opened_in_browser)
    _check_authorisation(parameters, account)
    return Call(
        method=parameters.get("method"),
        account=account,
        generated_at=generated_at,
        codec=parameters.codec,
        charset=parameters.get("charset"),
        notify_url=_url(parameters, "notify_url"),
        return_url=_url(parameters, "return_url"),
        biz_content=parameters.get("biz_content"),
    )


def check_fresh(generated_at: datetime, clock: SandboxClock) -> None:
    """isv.invalid-timestamp unless within ten minutes of the clock.

    Once a test moved the sandbox clock, the machine's clock is right as well: the caller is not the one who moved.
    `strict_timestamps` on the clock switches that off, to play a caller whose clock is wrong.
    """
    clocks = [clock.now()] if clock.strict_timestamps else [clock.now(), clock.machine_now()]
    if not any(abs(generated_at - now) <= MAX_SKEW for now in clocks):
        raise _stale(generated_at, clock)


def _account(parameters: Parameters, accounts: Mapping[str, Account]) -> Account:
    app_id = parameters.get("app_id")
    if not app_id:
        raise GatewayRefusal("40001", "isv.missing-app-id", "缺少AppID参数")
    account = accounts.get(app_id)
    if account is None:
        raise GatewayRefusal("40002", "isv.invalid-app-id", "无效的AppID参数")
    return account


def _check_certificates(parameters: Parameters, account: Account) -> None:
    app_sn, root_sn = parameters.get("app_cert_sn"), parameters.get("alipay_root_cert_sn")
    if account.app_cert_sn is None:
        if app_sn or root_sn:
            raise GatewayRefusal("40002", "isv.app-cert-not-exist", "应用公钥证书不存在：该应用使用公钥模式")
        return
    if not app_sn:
        raise GatewayRefusal("40002", "isv.missing-app-cert-sn", "缺少应用公钥证书序列号")
    if app_sn != account.app_cert_sn:
        raise GatewayRefusal("40002", "isv.app-cert-not-exist", "应用公钥证书不存在：app_cert_sn 与已上传的证书不符")
    if not root_sn:
        raise GatewayRefusal("40002", "isv.missing-alipay-root-cert-sn", "缺少支付宝根证书序列号")
    if root_sn != account.alipay_root_cert_sn:
        raise GatewayRefusal("40002", "isv.invalid-alipay-root-cert-sn", "支付宝根证书序列号不符")


def _check_signature(parameters: Parameters, account: Account) -> None:
    sign_type = parameters.get("sign_type")
    if not sign_type:
        raise GatewayRefusal("40001", "isv.missing-signature-type", "缺少签名类型参数")
    if sign_type != "RSA2":
        raise GatewayRefusal("40002", "isv.invalid-signature-type", "无效的签名类型：只支持 RSA2")
    if not parameters.get("sign"):
        raise GatewayRefusal("40001", "isv.missing-signature", "缺少签名参数")
    text = request_text(parameters.values)
    if not verified(account.app_public_key, text.encode(parameters.codec), parameters.get("sign")):
        message = f"验签出错，建议检查签名字符串或签名私钥与应用公钥是否匹配，网关生成的验签字符串为：{text}"
        raise GatewayRefusal("40002", "isv.invalid-signature", message)


def _check_envelope(parameters: Parameters) -> None:
    for name in parameters.values:
        if name not in KNOWN_PARAMETERS:
            raise GatewayRefusal("40002", "isv.invalid-parameter", f"参数无效：没有名为 {name} 的公共参数")
    if parameters.get("format").lower() not in ("", "json"):
        raise GatewayRefusal("40002", "isv.invalid-format", "无效的数据格式：format 只支持 JSON")
    if not parameters.get("version"):
        raise GatewayRefusal("40001", "isv.missing-version", "缺少版本参数")
    if parameters.get("version") != "1.0":
        raise GatewayRefusal("40002", "isv.invalid-parameter", "参数无效：version 只能是 1.0")
    if parameters.get("encrypt_type"):
        raise GatewayRefusal("40002", "isv.invalid-encrypt-type", "无效的加密类型：该应用没有配置内容加密")


def _timestamp(parameters: Parameters, clock: SandboxClock, *, may_be_old: bool) -> datetime:
    text = parameters.get("timestamp")
    if not text:
        raise GatewayRefusal("40001", "isv.missing-timestamp", "缺少时间戳参数")
    generated_at = parse_beijing(text)
    if generated_at is None:
        raise GatewayRefusal("40002", "isv.invalid-timestamp", "非法的时间戳参数：格式必须是 yyyy-MM-dd HH:mm:ss")
    if not may_be_old or generated_at > clock.now():
        check_fresh(generated_at, clock)
    return generated_at


def _stale(generated_at: datetime, clock: SandboxClock) -> GatewayRefusal:
    minutes = round((generated_at - clock.now()).total_seconds() / 60)
    hint = "；差八小时说明用了 UTC，timestamp 要用北京时间（GMT+8）" if abs(minutes + 480) <= 10 else ""
    message = f"非法的时间戳参数：与网关时间 {format_beijing(clock.now())} 相差 {minutes} 分钟，最多 10 分钟{hint}"
    return GatewayRefusal("40002", "isv.invalid-timestamp", message)


def _check_authorisation(parameters: Parameters, account: Account) -> None:
    token = parameters.get("app_auth_token")
    if parameters.get("auth_token"):
        raise GatewayRefusal("20001", "aop.invalid-auth-token", "无效的访问令牌：支付接口不使用 auth_token")
    if account.app_auth_token is None and token:
        raise GatewayRefusal("20001", "aop.invalid-app-auth-token", "无效的应用授权令牌：该应用不是服务商应用")
    if account.app_auth_token is not None and not token:
        message = "ISV权限不足：服务商应用代商家调用必须带 app_auth_token"
        raise GatewayRefusal("40006", "isv.insufficient-isv-permissions", message)
    if token and token != account.app_auth_token:
        raise GatewayRefusal("20001", "aop.invalid-app-auth-token", "无效的应用授权令牌")


def _url(parameters: Parameters, name: str) -> str:
    url = parameters.get(name)
    if url and (len(url) > MAX_URL_CHARS or not HTTP_URL.fullmatch(url)):
        raise GatewayRefusal(
            "40002", "isv.invalid-parameter", f"参数无效：{name} 必须是 http(s) 绝对地址，最长 {MAX_URL_CHARS} 个字符"
        )
    return url
