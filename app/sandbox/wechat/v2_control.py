"""`/_control/wechat/notices`: what somebody who is not WeChat may send to where notices are expected.

POST /_control/wechat/notices   {"out_trade_no", "body", "content_type"?}   one send of any text
"""

import uuid

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.sandbox.deliveries import Message, Notice
from app.sandbox.options import ControlError, control_route, read_options, text_of
from app.sandbox.wechat.accounts import PROVIDER
from app.sandbox.wechat.platform import WeChat


class V2Control:
    def __init__(self, wechat: WeChat) -> None:
        self._wechat = wechat

    def routes(self) -> list[Route]:
        return [control_route("/_control/wechat/notices", self._send, "POST")]

    async def _send(self, request: Request) -> Response:
        """The notice with its one attempt; it is not repeated, whatever the merchant answers."""
        options = await read_options(request, {"out_trade_no", "body", "content_type"})
        number, body = text_of(options, "out_trade_no") or "", text_of(options, "body") or ""
        trades = self._wechat.desk.find(number)
        if len(trades) != 1:
            problem, fix = f"{len(trades)} WeChat orders have the number {number}", "GET /_control/trades lists them"
            raise ControlError(404, "TRADE_UNKNOWN", problem, fix)
        trade, channel = trades[0], trades[0].order.channel
        message = Message({"content-type": text_of(options, "content_type") or "text/xml"}, body.encode())
        notice = Notice(
            notify_id=str(uuid.uuid4()),
            provider=PROVIDER,
            out_trade_no=number,
            url=channel.notify_url(trade),
            gaps=(),
            compose=lambda _sent_at: message,
            is_acknowledged=channel.is_acknowledged,
            summary={"channel": channel.name, "body": "forged"},
        )
        await self._wechat.ground.deliveries.publish(notice)
        return JSONResponse({"notification": notice.described()})
