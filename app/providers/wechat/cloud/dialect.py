"""WeChat's cloud pay (云托管): calls from inside a container of WeChat's own cloud, without any key of ours.

    /_/pay/unifiedorder   payment → WechatPayParams, signed by WeChat, handed on as they are
    /_/pay/queryorder, /_/pay/closeorder, /_/pay/refund, /_/pay/queryrefund
    callback              unsigned, to /internal/notify/wechat/{account}/{token} of the container; see callback.py

A payment that is cancelled has no callback: questions and its expiry end it.

Source: developers.weixin.qq.com/miniprogram/dev/wxcloudservice/wxcloudrun/src/development/pay, read 2026-09-11;
wxcloudrun-pay-nodejs@8f79083.
"""

import hmac
import json
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import httpx

from app.clock import Clock
from app.providers.contract import (
    Accepted,
    Account,
    Acknowledgement,
    CloseOutcome,
    CreateOutcome,
    Notification,
    NotificationRefused,
    PaymentReport,
    PaymentRequest,
    QueryOutcome,
    RefundOutcome,
    RefundRequest,
    ReportedStatus,
    Unknown,
)
from app.providers.gateways import GatewayRule
from app.providers.transport import ExchangeOutcome, exchange
from app.providers.wechat import refunds
from app.providers.wechat.addresses import payer_address
from app.providers.wechat.cloud import account as accounts
from app.providers.wechat.cloud.account import CloudAccount
from app.providers.wechat.cloud.answers import PAYMENT, judge_answer
from app.providers.wechat.cloud.callback import (
    PAYER_NAME,
    callback_fields,
    confirmed_notification,
    mentioned_refund,
    read_callback,
    under_our_application,
)
from app.providers.wechat.dialect import not_offered
from app.providers.wechat.v2.answers import Answered, Judgement, Refused
from app.providers.wechat.v2.orders import NO_ADDRESS, order_times
from app.providers.wechat.v2.outcomes import close_outcome, create_refusal, query_outcome
from app.providers.wechat.v2.refunds import found, judge_asking, refund_fields, taken, unlisted

_INTERNAL = "/internal"
_CONTAINER = 2
_MERCHANT = "sub_mch_id"
_REFUND_BODY = "退款"
_PAY_PARAMS = ("appId", "timeStamp", "nonceStr", "package", "signType", "paySign")
_ACCEPTED = b'{"errcode":0,"errmsg":"SUCCESS"}'
_REFUSED = b'{"errcode":1,"errmsg":"REFUSED"}'
_JSON = "application/json"


class CloudDialect:
    """Cloud pay; stateless but for its tools. See `dialect.Dialect`."""

    modes: Sequence[str] = accounts.MODES

    def __init__(self, client: httpx.AsyncClient, clock: Clock, *, timeout_s: float, gateways: GatewayRule) -> None:
        self._client = client
        self._clock = clock
        self._timeout_s = timeout_s
        self._gateways = gateways

    def seal(self, *, mode: str, fields: Mapping[str, str], now: datetime) -> tuple[dict[str, Any], dict[str, str]]:
        """Credential: notify_token, made here unless it was made before."""
        return accounts.seal_account(fields=fields, gateways=self._gateways)

    def open(self, *, mode: str, settings: Mapping[str, Any], credentials: Mapping[str, str]) -> CloudAccount:
        """The account, checked."""
        return accounts.open_account(settings=settings, credentials=credentials, gateways=self._gateways)

    async def create(self, account: Account, request: PaymentRequest) -> CreateOutcome:
        """unifiedorder; what wx.requestPayment takes comes ready with the answer."""
        cloud = _opened(account)
        if request.app_id not in (None, cloud.appid):
            return not_offered(request.app_id)
        judged = await self._call(cloud, "unifiedorder", order_content(cloud, request))
        if not isinstance(judged, Answered):
            return create_refusal(judged)
        params = {name: judged.fields.get(f"{PAYMENT}.{name}", "") for name in _PAY_PARAMS}
        missing = [name for name, text in params.items() if not text]
        if missing:
            return Unknown(f"the answer's payment lacks {', '.join(missing)}")
        return Accepted({"kind": "WechatPayParams", **params})

    async def query(self, account: Account, out_trade_no: str) -> QueryOutcome:
        """queryorder by our number."""
        cloud = _opened(account)
        judged = await self._call(cloud, "queryorder", _identity(cloud, out_trade_no))
        if isinstance(judged, Answered):
            judged = Answered(under_our_application(cloud, judged.fields))
        return query_outcome(judged, out_trade_no, payer_name=PAYER_NAME, must_claim=_MERCHANT)

    async def close(self, account: Account, out_trade_no: str) -> CloseOutcome:
        """closeorder; an order that is closed already is closed."""
        cloud = _opened(account)
        return close_outcome(await self._call(cloud, "closeorder", _identity(cloud, out_trade_no)))

    async def create_refund(self, account: Account, request: RefundRequest) -> RefundOutcome:
        """refund; where WeChat refuses, it is asked at once whether it holds one of this number."""
        cloud = _opened(account)
        answer = await self._send(cloud, "refund", refund_content(cloud, request))
        judged = judge_asking(judge_answer(answer), answer)
        match judged:
            case Answered(fields=fields):
                return taken(fields, request)
            case Refused(words=words):
                return refunds.refusal_outcome(words, await self.query_refund(cloud, request))
        return judged

    async def query_refund(self, account: Account, request: RefundRequest) -> RefundOutcome:
        """queryrefund by our refund number."""
        judged = await self._call_about_refund(_opened(account), request.out_refund_no)
        known = found(judged, request.out_refund_no, must_claim=_MERCHANT)
        if known is None:
            return refunds.not_found(request)
        return unlisted(judged, request) or known

    async def read_notification(
        self, account: Account, headers: Mapping[str, str], body: bytes, tail: str
    ) -> Notification:
        """A callback that came by its secret path, and what WeChat answers when asked about the same number.

        Raises NotificationRefused; with "unconfirmed" where WeChat does not (yet) say that it is paid or given back, so
        that the callback is repeated."""
        cloud = _opened(account)
        if not hmac.compare_digest(tail.encode("utf-8", "replace"), cloud.notify_token.encode()):
            raise NotificationRefused("token", "the callback did not come by this account's path")
        if not headers.get("x-wx-source"):
            raise NotificationRefused("source", "the callback lacks the header of WeChat's platform")
        fields = callback_fields(headers, body)
        number = mentioned_refund(fields)
        if number is not None:
            judged = await self._call_about_refund(cloud, number)
            return refunds.confirmed_notification(fields, found(judged, number, must_claim=_MERCHANT))
        stated = read_callback(cloud, fields)
        confirmed = await self.query(cloud, stated.out_trade_no)
        if not isinstance(confirmed, PaymentReport) or confirmed.status is not ReportedStatus.SUCCESSFUL:
            raise NotificationRefused("unconfirmed", "WeChat does not say that this number is paid")
        return confirmed_notification(stated, confirmed)

    def acknowledge(self, account: Account, *, accepted: bool) -> Acknowledgement:
        """errcode 0 ends the repeats."""
        return Acknowledgement(200, _ACCEPTED, _JSON) if accepted else Acknowledgement(400, _REFUSED, _JSON)

    async def _call_about_refund(self, account: CloudAccount, out_refund_no: str) -> Judgement:
        content = {"sub_mch_id": account.sub_mch_id, "out_refund_no": out_refund_no}
        return await self._call(account, "queryrefund", content)

    async def _call(self, account: CloudAccount, action: str, content: Mapping[str, Any]) -> Judgement:
        return judge_answer(await self._send(account, action, content))

    async def _send(self, account: CloudAccount, action: str, content: Mapping[str, Any]) -> ExchangeOutcome:
        # The documents ask for a nonce that their own samples leave out.
        body = json.dumps({**content, "nonce_str": secrets.token_hex(16)}, ensure_ascii=False, separators=(",", ":"))
        return await exchange(
            self._client,
            "POST",
            f"{account.gateway}/_/pay/{action}",
            # Without it the platform may answer with a redirect, with 400 or not at all.
            headers={"Content-Type": _JSON},
            body=body.encode(),
            timeout_s=self._timeout_s,
        )


def order_content(account: CloudAccount, request: PaymentRequest) -> dict[str, Any]:
    """What is ordered, but for the nonce. The same request gives the same, so that repeating it is harmless."""
    if request.openid is None:
        raise ValueError("a cloud payment names its payer")
    return _identity(account, request.out_trade_no) | {
        "body": request.subject,
        "total_fee": request.amount_fen,
        "openid": request.openid,
        "spbill_create_ip": payer_address(request) or NO_ADDRESS,
        **order_times(request),
        "trade_type": "JSAPI",
        **_callback(account, request.notify_url),
    }


def refund_content(account: CloudAccount, request: RefundRequest) -> dict[str, Any]:
    """What is asked for, but for the nonce. The same request gives the same."""
    return {
        "sub_mch_id": account.sub_mch_id,
        **refund_fields(request),
        # Documented without a word on what it is for.
        "body": _REFUND_BODY,
        **_callback(account, request.notify_url),
    }


def _callback(account: CloudAccount, notify_url: str) -> dict[str, Any]:
    return {
        "env_id": account.env_id,
        "callback_type": _CONTAINER,
        "container": {"service": account.cloud_service, "path": callback_path(account, notify_url)},
    }


def callback_path(account: CloudAccount, notify_url: str) -> str:
    """Where the callback arrives: the notification door's path, moved to the part that is never public, and the token.

    The callback comes straight to the container, past whatever proxy the public address has a path for:
    https://pay.example.com/shop/notify/wechat/7 → /internal/notify/wechat/7/{token}"""
    _, door, account_id = urlsplit(notify_url).path.rpartition("/notify/wechat/")
    if not door or not account_id:
        raise ValueError("notify_url does not lead to WeChat's notification door")
    return f"{_INTERNAL}{door}{account_id}/{account.notify_token}"


def _opened(account: Account) -> CloudAccount:
    if not isinstance(account, CloudAccount):
        raise TypeError("this account was not opened by the cloud pay dialect")
    return account


def _identity(account: CloudAccount, out_trade_no: str) -> dict[str, Any]:
    return {"sub_mch_id": account.sub_mch_id, "out_trade_no": out_trade_no}
