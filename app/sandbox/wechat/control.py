"""`/_control/wechat`: keys, clocks, probes and untrue notices of the pretend WeChat.

GET    /_control/wechat/merchants                                  which keys sign for whom
GET    /_control/wechat/merchants/{mchid}
POST   /_control/wechat/merchants/{mchid}/certificates             publish one more platform certificate
DELETE /_control/wechat/merchants/{mchid}/certificates/{serial}    publish it no more; not the one that signs
POST   /_control/wechat/merchants/{mchid}/signing   {"key": "certificate"|"public_key"|"alternating", "serial"?}
POST   /_control/wechat/trades/{out_trade_no}/probe {"follow"?}    a signature probe, then the true notice if asked
POST   /_control/wechat/skew                        {"seconds"}    how wrong WeChat's own clock is
POST   /_control/wechat/refunds/{out_refund_no}/notify {"fields"?, "break_signature"?}   a settled refund's notice once
       more, under an id of its own, in which `fields` (by the channel's names) stand instead of the truth
"""

import asyncio
import uuid
from datetime import timedelta

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.sandbox.deliveries import Notice
from app.sandbox.desks import Payment
from app.sandbox.options import ControlError, control_route, flag_of, read_options, seconds_of, text_of, wrong_type
from app.sandbox.wechat.accounts import Merchant
from app.sandbox.wechat.platform import WeChat
from app.sandbox.wechat.signers import KeyKind, KeyUnknown, Signers
from app.sandbox.wechat.trades import Refund, Telling, Trade
from app.sandbox.wechat.v3_notices import V3Channel

MAX_SKEW_S = 86400


class WechatControl:
    def __init__(self, wechat: WeChat, signers: Signers) -> None:
        self._wechat = wechat
        self._signers = signers

    def routes(self) -> list[Route]:
        base = "/_control/wechat"
        merchant = f"{base}/merchants/{{mchid}}"
        return [
            control_route(f"{base}/merchants", self._list, "GET"),
            control_route(merchant, self._show, "GET"),
            control_route(f"{merchant}/certificates", self._rotate, "POST"),
            control_route(f"{merchant}/certificates/{{serial}}", self._retire, "DELETE"),
            control_route(f"{merchant}/signing", self._choose, "POST"),
            control_route(f"{base}/trades/{{out_trade_no}}/probe", self._probe, "POST"),
            control_route(f"{base}/skew", self._skew, "POST"),
            control_route(f"{base}/refunds/{{out_refund_no}}/notify", self._notify_refund, "POST"),
        ]

    async def _list(self, _request: Request) -> Response:
        merchants = self._wechat.merchants.all_v3()
        return JSONResponse({"merchants": [self._signers.described(merchant) for merchant in merchants]})

    async def _show(self, request: Request) -> Response:
        return self._answer(self._merchant(request))

    async def _rotate(self, request: Request) -> Response:
        merchant = self._merchant(request)
        await read_options(request, set())
        if not self._signers.certificates(merchant):
            raise _no_certificate(merchant)
        key = await asyncio.to_thread(self._signers.new_certificate)
        self._signers.publish(merchant, key)
        return self._answer(merchant, status=201)

    async def _retire(self, request: Request) -> Response:
        merchant, serial = self._merchant(request), request.path_params["serial"]
        try:
            self._signers.retire(merchant, serial)
        except KeyUnknown as exc:
            message = f"{merchant.mchid} has no certificate {serial} beside the one that signs"
            raise ControlError(409, "CERTIFICATE_IN_USE", message, "let another one sign first") from exc
        return self._answer(merchant)

    async def _choose(self, request: Request) -> Response:
        merchant = self._merchant(request)
        options = await read_options(request, {"key", "serial"})
        kind, serial = text_of(options, "key"), text_of(options, "serial") or ""
        kinds = [known.value for known in KeyKind]
        if kind not in kinds:
            raise ControlError(400, "OPTION_INVALID", "key is none of the known", f'give "key", one of {kinds}')
        if kind != KeyKind.PUBLIC_KEY and not self._signers.certificates(merchant):
            raise _no_certificate(merchant)
        try:
            self._signers.choose(merchant, KeyKind(kind), serial)
        except KeyUnknown as exc:
            message = f"{merchant.mchid} has no certificate {serial}"
            raise ControlError(404, "CERTIFICATE_UNKNOWN", message, "POST …/certificates publishes one") from exc
        return self._answer(merchant)

    async def _probe(self, request: Request) -> Response:
        trade = self._trade(request)
        options = await read_options(request, {"follow"})
        channel = trade.order.channel
        if not isinstance(channel, V3Channel):
            raise ControlError(409, "CHANNEL_WRONG", "only notices of APIv3 are probed", "order through APIv3")
        if not trade.is_paid:
            raise ControlError(409, "TRADE_UNPAID", "there is no notice yet", 'pay first, with {"notify": false}')
        notify_id = str(uuid.uuid4())
        probe = Notice(
            notify_id=notify_id,
            provider=self._wechat.desk.provider,
            out_trade_no=trade.out_trade_no,
            url=channel.notify_url(trade),
            gaps=(),
            compose=lambda sent_at: channel.compose_probe(trade, notify_id, sent_at),
            is_acknowledged=channel.is_acknowledged,
            summary={"channel": channel.name, "probe": "WECHATPAY/SIGNTEST/"},
        )
        await self._wechat.ground.deliveries.publish(probe)
        follow = flag_of(options, "follow", default=False)
        notices = [probe, await self._wechat.desk.notify(trade, Payment())] if follow else [probe]
        return JSONResponse({"notifications": [notice.described() for notice in notices]})

    async def _skew(self, request: Request) -> Response:
        seconds = seconds_of(await read_options(request, {"seconds"}), "seconds") or 0.0
        if abs(seconds) > MAX_SKEW_S:
            raise ControlError(400, "OPTION_INVALID", "seconds is more than a day", f"give {MAX_SKEW_S} at most")
        self._signers.skew = timedelta(seconds=seconds)
        return JSONResponse({"skew_s": seconds})

    async def _notify_refund(self, request: Request) -> Response:
        refund = self._refund(request)
        options = await read_options(request, {"fields", "break_signature"})
        fields = options.get("fields", {})
        if not isinstance(fields, dict) or not all(isinstance(value, str) for value in fields.values()):
            raise wrong_type("fields", "an object of texts")
        told = Telling(overrides=fields, break_signature=flag_of(options, "break_signature", default=False))
        notices = await self._wechat.desk.tell_refund(refund, told)
        return JSONResponse({"notifications": [notice.described() for notice in notices]})

    def _answer(self, merchant: Merchant, *, status: int = 200) -> Response:
        return JSONResponse({"merchant": self._signers.described(merchant)}, status_code=status)

    def _merchant(self, request: Request) -> Merchant:
        mchid = request.path_params["mchid"]
        merchant = self._wechat.merchants.find_v3(mchid)
        if merchant is None:
            fix = "GET /_control/wechat/merchants lists them"
            raise ControlError(404, "MERCHANT_UNKNOWN", f"no merchant {mchid} of APIv3", fix)
        return merchant

    def _trade(self, request: Request) -> Trade:
        number = request.path_params["out_trade_no"]
        found = self._wechat.desk.find(number, request.query_params.get("seller_id"))
        if len(found) != 1:
            message = f"{len(found)} WeChat orders have the number {number}"
            raise ControlError(404, "TRADE_UNKNOWN", message, "order first; add ?seller_id= where several have it")
        return found[0]

    def _refund(self, request: Request) -> Refund:
        number = request.path_params["out_refund_no"]
        trades = self._wechat.desk.listed(out_trade_no=request.query_params.get("out_trade_no"))
        found = [refund for trade in trades for refund in trade.refunds if refund.wish.out_refund_no == number]
        if len(found) != 1:
            message = f"{len(found)} WeChat refunds have the number {number}"
            raise ControlError(404, "REFUND_UNKNOWN", message, "refund first; add ?out_trade_no= where several have it")
        return found[0]


def _no_certificate(merchant: Merchant) -> ControlError:
    message = f"{merchant.mchid} has the public key only"
    return ControlError(409, "CERTIFICATE_NONE", message, "take the merchant of mode v3_certificate")
