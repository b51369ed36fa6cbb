"""WeChat as one part of the sandbox. A further way to pay is one more line here."""

from starlette.routing import BaseRoute

from app.sandbox.wechat import cloud, v2, v3
from app.sandbox.wechat.bridge import Bridge
from app.sandbox.wechat.control import WechatControl
from app.sandbox.wechat.pages import PayerPages
from app.sandbox.wechat.platform import WeChat
from app.sandbox.wechat.signers import Signers
from app.sandbox.world import Ground, Part


def wechat_part(ground: Ground) -> Part:
    wechat = WeChat.on(ground)
    signers = Signers(ground.clock)
    wechat.resets.append(signers.reset)
    routes: list[BaseRoute] = [
        *v3.routes(wechat, signers),
        *v2.routes(wechat),
        *cloud.routes(wechat),
        *PayerPages(wechat.desk, wechat.book).routes(),
        *Bridge(wechat).routes(),
        *WechatControl(wechat, signers).routes(),
        *wechat.open_platform.routes(),
    ]
    return Part(routes=routes, desks=(wechat.desk,), resets=wechat.resets)
