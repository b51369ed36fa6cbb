"""WeChat's error numbers in our words: which of them a page can mend, which an administrator, and which nobody.

WeChat's own sentence is not shown: it goes to people without any token, and one of them names our server's address. The
log has it.
"""

from typing import Final

import structlog

from app.errors import (
    InvalidInput,
    ProviderRejected,
    ProviderUnavailable,
    ShouyinError,
    WechatAppMisconfigured,
    WechatCodeInvalid,
    WechatRateLimited,
    WechatSnapshotUser,
    WechatUserBlocked,
)
from app.providers.wechat.open_platform import OpenPlatformRefused, OpenPlatformSilent

_log = structlog.stdlib.get_logger("shouyin.wechat")

# No number of WeChat's: its answer to a good code said `is_snapshotuser`.
SNAPSHOT_USER: Final = 0

_CODES: Final = {
    40029: (
        "the code is not valid: it has expired after 5 minutes, or belongs to another appId; get a new one",
        "微信登录凭证无效或已过期，请重新登录",
    ),
    40163: ("the code was used before; get a new one for every login", "微信登录凭证已被使用，请重新登录"),
    41008: ("the code is empty; get a new one", "缺少微信登录凭证，请重新登录"),
    42003: ("the code has expired after 5 minutes; get a new one", "微信登录凭证已过期，请重新登录"),
}
_MISCONFIGURED: Final = {
    40001: ("its secret is wrong", "AppSecret 不正确"),
    40002: ("it may not use this interface; links need a mini-program of a company", "该应用没有此接口权限"),
    40013: ("WeChat does not know its appId, or banned it from this interface", "AppID 不正确，或接口权限被封禁"),
    40125: ("its secret is wrong", "AppSecret 不正确"),
    40164: (
        "this server's address is not in its IP list (基本配置, IP白名单); the log has the address",
        "服务器 IP 不在白名单中",
    ),
    40243: ("its secret is frozen in WeChat's console", "AppSecret 已被冻结"),
    41002: ("its appId is missing", "缺少 AppID"),
    41004: ("its secret is missing", "缺少 AppSecret"),
    48001: ("it lacks the right to this interface", "该应用没有此接口权限"),
    50007: ("the account is frozen", "该账号已被冻结"),
    61024: ("it is managed by a third-party platform, whose token is needed", "该应用已授权给第三方平台"),
    85079: ("the mini-program is not published yet", "小程序尚未发布"),
}
_RATE_LIMITED: Final = frozenset({44990, 44993, 45009, 45011})
_BLOCKED: Final = {
    40226: ("WeChat blocked the login of this user for being at risk; do not try again", None),
    50001: ("this user may not use the interface", "该用户无权使用此功能"),
    50002: ("this user is restricted by WeChat", "该微信账号受限，暂时无法使用"),
    50005: ("this user does not follow the official account", "请先关注公众号"),
}
_INPUTS: Final = {
    40165: ("path", "path: the published mini-program has no such page", "小程序中没有该页面"),
    40212: ("query", "query: WeChat does not take it", "query 参数不正确"),
    85401: ("expiresInSeconds", "expiresInSeconds: WeChat takes 1 minute to 30 days", "有效期须在 1 分钟至 30 天之间"),
}


def explain(refused: OpenPlatformRefused, app_id: str) -> ShouyinError:
    """The error to raise for one of WeChat's numbers."""
    found = explain_number(refused.errcode, app_id)
    if isinstance(found, WechatAppMisconfigured | WechatRateLimited | ProviderRejected):
        _log.warning("wechat_refused", app_id=app_id, errcode=refused.errcode, words=refused.words, code=found.code)
    return found


def explain_number(errcode: int, app_id: str) -> ShouyinError:
    """The same without a line in the log, for a number that was remembered."""
    if errcode == SNAPSHOT_USER:
        return WechatSnapshotUser(
            "this is WeChat's preview, whose user is nobody: choose the full service, then log in"
        )
    extra = {"provider": {"code": str(errcode)}}
    if errcode in _CODES:
        english, chinese = _CODES[errcode]
        return WechatCodeInvalid(english, message_zh=chinese, extra=extra)
    if errcode in _MISCONFIGURED:
        english, chinese = _MISCONFIGURED[errcode]
        message = f"WeChat refuses the application {app_id} ({errcode}): {english}"
        return WechatAppMisconfigured(message, message_zh=f"微信应用配置有误：{chinese}，请联系管理员", extra=extra)
    if errcode in _RATE_LIMITED:
        return WechatRateLimited(f"WeChat takes no more calls for now ({errcode}): try again in a minute", extra=extra)
    if errcode in _BLOCKED:
        english, blocked_zh = _BLOCKED[errcode]
        return WechatUserBlocked(english, message_zh=blocked_zh, extra=extra)
    if errcode in _INPUTS:
        field, english, chinese = _INPUTS[errcode]
        return InvalidInput(english, field=field, message_zh=chinese, extra=extra)
    return ProviderRejected(f"WeChat refused with the number {errcode}", message_zh="微信拒绝了请求", extra=extra)


def unavailable(silent: OpenPlatformSilent, app_id: str) -> ProviderUnavailable:
    """The error to raise where no usable answer came."""
    _log.warning("wechat_silent", app_id=app_id, detail=str(silent), sent=silent.sent)
    return ProviderUnavailable(
        "WeChat gave no answer: try again, with a new code", message_zh="微信暂时没有响应，请稍后重新登录"
    )
