"""WeChat Pay's APIv2: XML, an API key, MD5 or HMAC-SHA256; for itself or for a merchant of a service provider.

    unifiedorder   JSAPI    prepay_id → WechatPayParams, signed like the order     official account and mini-program
                   NATIVE   code_url  → QrCode
                   MWEB     mweb_url  → Redirect, with the way back in redirect_url
    orderquery, closeorder
    refund         over TLS with the merchant's client certificate; refundquery without

An order exists at WeChat from the moment unifiedorder is answered. Sent again with the same parameters it renews the
credential; nonce and signature may differ.

Source: https://pay.weixin.qq.com/wiki/doc/api/jsapi.php?chapter=9_1, 9_2, 9_3 and 7_7, read 2026-09-11.
"""

import json
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlsplit

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
    PaymentMethod,
    PaymentRequest,
    QueryOutcome,
    RefundOutcome,
    RefundRequest,
    Rejected,
    Unknown,
)
from app.providers.gateways import GatewayRule
from app.providers.transport import ExchangeOutcome, exchange, open_client
from app.providers.wechat.addresses import payer_address
from app.providers.wechat.dialect import not_offered
from app.providers.wechat.explanations import explain
from app.providers.wechat.refunds import confirmed_notification, not_found, refund_words, refusal_outcome
from app.providers.wechat.v2 import account as accounts
from app.providers.wechat.v2.account import V2Account
from app.providers.wechat.v2.answers import Answered, Judgement, Refused, judge_answer
from app.providers.wechat.v2.client_tls import CertifiedTls
from app.providers.wechat.v2.notifications import read_notice, read_payment_notification, read_refund_notice
from app.providers.wechat.v2.orders import NO_ADDRESS, order_times
from app.providers.wechat.v2.outcomes import close_outcome, create_refusal, query_outcome
from app.providers.wechat.v2.refunds import found, judge_asking, refund_fields, taken
from app.providers.wechat.v2.signing import sign
from app.providers.wechat.xml import BODY_LIMIT_BYTES, write_fields

_TRADE_TYPES = {
    PaymentMethod.WECHAT_MINI_PROGRAM: "JSAPI",
    PaymentMethod.WECHAT_JSAPI: "JSAPI",
    PaymentMethod.WECHAT_NATIVE: "NATIVE",
    PaymentMethod.WECHAT_H5: "MWEB",
}
_CREDENTIAL_LIMIT = 1024

_ACCEPTED = b"<xml><return_code><![CDATA[SUCCESS]]></return_code><return_msg><![CDATA[OK]]></return_msg></xml>"
_REFUSED = b"<xml><return_code><![CDATA[FAIL]]></return_code><return_msg><![CDATA[REFUSED]]></return_msg></xml>"
_XML = "text/xml; charset=utf-8"


class V2Dialect:
    """APIv2; stateless but for its tools. See `dialect.Dialect`."""

    modes: Sequence[str] = accounts.MODES

    def __init__(self, client: httpx.AsyncClient, clock: Clock, *, timeout_s: float, gateways: GatewayRule) -> None:
        self._client = client
        self._clock = clock
        self._timeout_s = timeout_s
        self._gateways = gateways

    def seal(self, *, mode: str, fields: Mapping[str, str], now: datetime) -> tuple[dict[str, Any], dict[str, str]]:
        """Credentials: api_key, client_certificate_p12. Everything else is a setting."""
        return accounts.seal_account(mode=mode, fields=fields, gateways=self._gateways, now=now)

    def open(self, *, mode: str, settings: Mapping[str, Any], credentials: Mapping[str, str]) -> V2Account:
        """The account, checked; its certificate stays packed until something needs it."""
        return accounts.open_account(mode=mode, settings=settings, credentials=credentials, gateways=self._gateways)

    async def create(self, account: Account, request: PaymentRequest) -> CreateOutcome:
        """unifiedorder, and what the page does with its answer."""
        v2 = _opened(account)
        app_id = _application(v2, request)
        if app_id not in v2.offers[request.method]:
            return not_offered(app_id)
        trade_type = _TRADE_TYPES[request.method]
        judged = await self._call(v2, "/pay/unifiedorder", order_params(v2, request))
        if not isinstance(judged, Answered):
            return create_refusal(judged)
        if judged.fields.get("trade_type", trade_type) != trade_type:
            return Unknown("the answer is to another trade_type")
        return self._accepted(v2, request, trade_type, judged.fields)

    async def query(self, account: Account, out_trade_no: str) -> QueryOutcome:
        """orderquery by our number."""
        v2 = _opened(account)
        judged = await self._call(v2, "/pay/orderquery", _identity(v2) | {"out_trade_no": out_trade_no})
        return query_outcome(judged, out_trade_no, payer_name=v2.payer_name, must_claim="mch_id")

    async def close(self, account: Account, out_trade_no: str) -> CloseOutcome:
        """closeorder; an order that is closed already is closed."""
        v2 = _opened(account)
        judged = await self._call(v2, "/pay/closeorder", _identity(v2) | {"out_trade_no": out_trade_no})
        return close_outcome(judged)

    async def create_refund(self, account: Account, request: RefundRequest) -> RefundOutcome:
        """refund, with the merchant's certificate; where WeChat refuses, it is asked at once whether it holds one of
        this number.

        Rejected before anything is sent where the account has no certificate that is in force."""
        v2 = _opened(account)
        tls = await v2.certified_tls()
        if tls is None:
            return _without_certificate("CLIENT_CERTIFICATE_MISSING", "the merchant account has no client certificate")
        if self._clock.now() >= tls.expires_at:
            ended = tls.expires_at.date().isoformat()
            return _without_certificate("CLIENT_CERTIFICATE_EXPIRED", f"the client certificate ended on {ended}")
        answer = await self._ask_for_refund(v2, tls, refund_params(v2, request))
        judged = judge_asking(judge_answer(v2, answer), answer)
        match judged:
            case Answered(fields=fields):
                return taken(fields, request)
            case Refused(words=words):
                return refusal_outcome(words, await self.query_refund(v2, request))
        return judged

    async def query_refund(self, account: Account, request: RefundRequest) -> RefundOutcome:
        """refundquery by our refund number."""
        known = await self._ask_about_refund(_opened(account), request.out_refund_no)
        return not_found(request) if known is None else known

    async def read_notification(
        self, account: Account, headers: Mapping[str, str], body: bytes, tail: str
    ) -> Notification:
        """A payment notice, verified; a refund's as WeChat confirms it when asked about the same number.

        Raises NotificationRefused; with "unconfirmed" where WeChat does not, so that the notice is repeated."""
        if tail:
            raise NotificationRefused("malformed", "APIv2's notifications come on the account's own path")
        v2 = _opened(account)
        fields = read_notice(headers, body)
        if "req_info" not in fields:
            return read_payment_notification(v2, fields)
        stated = read_refund_notice(v2, fields)
        return confirmed_notification(stated, await self._ask_about_refund(v2, stated["out_refund_no"]))

    def acknowledge(self, account: Account, *, accepted: bool) -> Acknowledgement:
        """WeChat reads the return_code, not the status; FAIL asks for another delivery."""
        return Acknowledgement(200, _ACCEPTED if accepted else _REFUSED, _XML)

    async def _ask_about_refund(self, account: V2Account, out_refund_no: str) -> RefundOutcome | None:
        judged = await self._call(account, "/pay/refundquery", _identity(account) | {"out_refund_no": out_refund_no})
        return found(judged, out_refund_no, must_claim="mch_id")

    async def _ask_for_refund(
        self, account: V2Account, tls: CertifiedTls, params: Mapping[str, str]
    ) -> ExchangeOutcome:
        """With the certificate wherever there is TLS. Plain addresses are only those of this machine and the sandbox,
        where none can be shown."""
        path = "/secapi/pay/refund"
        if not account.gateway.startswith("https://"):
            return await self._send(self._client, account, path, params)
        async with open_client(connections=1, tls=tls.context) as client:
            return await self._send(client, account, path, params)

    async def _call(self, account: V2Account, path: str, params: Mapping[str, str]) -> Judgement:
        """One signed call, judged."""
        return judge_answer(account, await self._send(self._client, account, path, params))

    async def _send(
        self, client: httpx.AsyncClient, account: V2Account, path: str, params: Mapping[str, str]
    ) -> ExchangeOutcome:
        """One signed call. `params` are the order's own; nonce and signature are added here."""
        signed = {**params, "nonce_str": secrets.token_hex(16), "sign_type": account.sign_type}
        signed["sign"] = sign(signed, api_key=account.api_key, sign_type=account.sign_type)
        return await exchange(
            client,
            "POST",
            account.gateway + path,
            headers={"Content-Type": _XML, "User-Agent": "shouyin"},
            body=write_fields(signed),
            timeout_s=self._timeout_s,
            answer_limit_bytes=BODY_LIMIT_BYTES,
        )

    def _accepted(
        self, account: V2Account, request: PaymentRequest, trade_type: str, fields: Mapping[str, str]
    ) -> Accepted | Unknown:
        if trade_type == "NATIVE":
            code_url = fields.get("code_url", "")
            if not _is_usable(code_url, ("weixin",)):
                return Unknown("the answer holds no usable code_url")
            return Accepted({"kind": "QrCode", "codeUrl": code_url, "deepLink": None})
        if trade_type == "MWEB":
            url = fields.get("mweb_url", "")
            if not _is_usable(url, ("https", "http")):
                return Unknown("the answer holds no usable mweb_url")
            return Accepted({"kind": "Redirect", "url": _with_way_back(url, request.return_url)})
        prepay_id = fields.get("prepay_id", "")
        if not prepay_id or len(prepay_id) > _CREDENTIAL_LIMIT:
            return Unknown("the answer holds no usable prepay_id")
        return Accepted(self._pay_params(account, _application(account, request), prepay_id))

    def _pay_params(self, account: V2Account, app_id: str, prepay_id: str) -> dict[str, str]:
        """What wx.requestPayment and WeixinJSBridge take, signed by the algorithm of the order itself."""
        params = {
            "appId": app_id,
            "timeStamp": str(int(self._clock.now().timestamp())),
            "nonceStr": secrets.token_hex(16),
            "package": f"prepay_id={prepay_id}",
            "signType": account.sign_type,
        }
        signature = sign(params, api_key=account.api_key, sign_type=account.sign_type)
        return {"kind": "WechatPayParams", **params, "paySign": signature}


def order_params(account: V2Account, request: PaymentRequest) -> dict[str, str]:
    """What is ordered, without nonce and signature. The same request gives the same, so that repeating it is harmless:
    other parameters under a used number are refused."""
    trade_type = _TRADE_TYPES[request.method]
    params = _identity(account) | {
        "body": request.subject,
        "out_trade_no": request.out_trade_no,
        "total_fee": str(request.amount_fen),
        "spbill_create_ip": payer_address(request) or NO_ADDRESS,
        **order_times(request),
        "notify_url": request.notify_url,
        "trade_type": trade_type,
    }
    params["appid" if account.sub_appid is None else "sub_appid"] = _application(account, request)
    if trade_type == "JSAPI":
        if request.openid is None:
            raise ValueError("a payment inside WeChat names its payer")
        params[account.payer_name] = request.openid
    elif trade_type == "NATIVE":
        params["product_id"] = request.out_trade_no
    else:
        if payer_address(request) is None:
            raise ValueError("an H5 payment names the payer's address")
        params["scene_info"] = _scene_info(request)
    return params


def refund_params(account: V2Account, request: RefundRequest) -> dict[str, str]:
    """What is asked for, without nonce and signature. The same request gives the same: a repeat with another amount
    would be refused."""
    asked = {name: str(value) for name, value in refund_fields(request).items()}
    return _identity(account) | asked | {"notify_url": request.notify_url}


def _without_certificate(code: str, message: str) -> Rejected:
    """WeChat need not be asked: without its certificate a merchant gives nothing back."""
    return refund_words(Rejected(code, message, *explain(code, "")))


def _opened(account: Account) -> V2Account:
    if not isinstance(account, V2Account):
        raise TypeError("this account was not opened by the APIv2 dialect")
    return account


def _identity(account: V2Account) -> dict[str, str]:
    identity = {"appid": account.appid, "mch_id": account.mch_id}
    if account.sub_mch_id is not None:
        identity["sub_mch_id"] = account.sub_mch_id
    return identity


def _application(account: V2Account, request: PaymentRequest) -> str:
    return request.app_id or account.offers[request.method][0]


def _scene_info(request: PaymentRequest) -> str:
    parts = urlsplit(request.return_url or request.notify_url)
    h5 = {"type": "Wap", "wap_url": f"{parts.scheme}://{parts.netloc}", "wap_name": request.subject[:32]}
    return json.dumps({"h5_info": h5}, ensure_ascii=False, separators=(",", ":"))


def _is_usable(url: str, schemes: Sequence[str]) -> bool:
    """Whether an answer's link is one: it goes to a browser or a QR code as it is."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    plain = url.isascii() and url.isprintable() and " " not in url and len(url) <= _CREDENTIAL_LIMIT
    return plain and parts.scheme in schemes and bool(parts.netloc)


def _with_way_back(url: str, return_url: str | None) -> str:
    """Without redirect_url WeChat leads the payer back to the page that the payment began on."""
    if return_url is None:
        return url
    return f"{url}{'&' if '?' in url else '?'}redirect_url={quote(return_url, safe='')}"
