"""An APIv3 order: what is asked for, and what the page gets to pay with.

    WECHAT_MINI_PROGRAM, WECHAT_JSAPI   …/jsapi    prepay_id, signed for wx.requestPayment or WeixinJSBridge
    WECHAT_H5                           …/h5       h5_url, to be opened outside WeChat within five minutes
    WECHAT_NATIVE                       …/native   code_url, shown as a QR code

The same request gives the same bytes, so that asking again under one number renews what the page pays with; WeChat
refuses a repeat with anything changed.

Source: https://pay.weixin.qq.com/doc/v3/merchant/4012525167 and /4012365339, read 2026-09-11; partner names from
DOCP 4012523593.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlsplit

from app.clock import SHANGHAI
from app.providers.contract import PaymentMethod, PaymentRequest
from app.providers.wechat.addresses import payer_address
from app.providers.wechat.v3.account import V3Account
from app.providers.wechat.v3.signing import new_nonce, page_signature
from app.providers.wechat.v3.strict_json import Unreadable, text_of

_PRODUCTS = {
    PaymentMethod.WECHAT_MINI_PROGRAM: "jsapi",
    PaymentMethod.WECHAT_JSAPI: "jsapi",
    PaymentMethod.WECHAT_H5: "h5",
    PaymentMethod.WECHAT_NATIVE: "native",
}
_PREPAY_ID = re.compile(r"[!-~]{1,64}", re.ASCII)
_CODE_URL = re.compile(r"weixin://[!-~]{1,500}", re.ASCII)
_H5_URL = re.compile(r"https?://[!-~]{1,1000}", re.ASCII)


def prepay_target(account: V3Account, method: PaymentMethod) -> str:
    """Where an order of this method is placed."""
    return f"{_transactions(account)}/{_PRODUCTS[method]}"


def order_target(account: V3Account, out_trade_no: str) -> str:
    """Where the order of this number is asked about."""
    return f"{_transactions(account)}/out-trade-no/{quote(out_trade_no, safe='')}?{_query(account)}"


def transaction_target(account: V3Account, transaction_id: str) -> str:
    """Where the paid order of WeChat's number is asked about."""
    return f"{_transactions(account)}/id/{quote(transaction_id, safe='')}?{_query(account)}"


def close_target(account: V3Account, out_trade_no: str) -> str:
    """Where the order of this number is closed."""
    return f"{_transactions(account)}/out-trade-no/{quote(out_trade_no, safe='')}/close"


def receiver(account: V3Account) -> dict[str, str]:
    """Whose order it is, as queries and closing name it."""
    if account.sub_mchid is None:
        return {"mchid": account.mchid}
    return {"sp_mchid": account.mchid, "sub_mchid": account.sub_mchid}


def prepay_content(account: V3Account, request: PaymentRequest, app_id: str) -> dict[str, Any]:
    """The order itself, under one of the applications the account offers for its method."""
    content: dict[str, Any] = {
        **_applications(account, app_id),
        **receiver(account),
        "description": request.subject,
        "out_trade_no": request.out_trade_no,
        "time_expire": _rfc3339(request.expires_at),
        "notify_url": request.notify_url,
        "amount": {"total": request.amount_fen, "currency": "CNY"},
    }
    if _PRODUCTS[request.method] == "jsapi":
        content["payer"] = {account.payer_name: request.openid}
    if request.method is PaymentMethod.WECHAT_H5:
        content["scene_info"] = {"payer_client_ip": payer_address(request), "h5_info": {"type": "Wap"}}
    return content


def page_action(
    account: V3Account, request: PaymentRequest, fields: Mapping[str, Any], *, app_id: str, now: datetime
) -> dict[str, Any]:
    """What the page does next, from a verified answer. Raises Unreadable when that holds nothing to pay with."""
    if request.method is PaymentMethod.WECHAT_NATIVE:
        return {"kind": "QrCode", "codeUrl": _usable(fields, "code_url", _CODE_URL), "deepLink": None}
    if request.method is PaymentMethod.WECHAT_H5:
        return {"kind": "Redirect", "url": _returning(_usable(fields, "h5_url", _H5_URL), request.return_url)}
    package = f"prepay_id={_usable(fields, 'prepay_id', _PREPAY_ID)}"
    timestamp, nonce = str(int(now.timestamp())), new_nonce()
    return {
        "kind": "WechatPayParams",
        "appId": app_id,
        "timeStamp": timestamp,
        "nonceStr": nonce,
        "package": package,
        "signType": "RSA",
        "paySign": page_signature(
            account.private_key, app_id=app_id, timestamp=timestamp, nonce=nonce, package=package
        ),
    }


def _transactions(account: V3Account) -> str:
    return "/v3/pay/transactions" if account.sub_mchid is None else "/v3/pay/partner/transactions"


def _query(account: V3Account) -> str:
    return "&".join(f"{name}={value}" for name, value in receiver(account).items())


def _applications(account: V3Account, app_id: str) -> dict[str, str]:
    if account.sub_mchid is None:
        return {"appid": app_id}
    if account.sub_appid is None:
        return {"sp_appid": app_id}
    return {"sp_appid": account.appid, "sub_appid": app_id}


def _usable(fields: Mapping[str, Any], name: str, pattern: re.Pattern[str]) -> str:
    text = text_of(fields, name)
    if text is None or pattern.fullmatch(text) is None:
        raise Unreadable(f"without a usable {name}")
    return text


def _returning(h5_url: str, return_url: str | None) -> str:
    if return_url is None:
        return h5_url
    parts = urlsplit(h5_url)
    query = f"{parts.query}&redirect_url=" if parts.query else "redirect_url="
    return parts._replace(query=query + quote(return_url, safe="")).geturl()


def _rfc3339(instant: datetime) -> str:
    """Beijing time in whole seconds, rounded down: 2026-11-22T10:30:00+08:00."""
    return instant.astimezone(SHANGHAI).isoformat(timespec="seconds")
