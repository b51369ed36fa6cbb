"""WeChat as one part of the sandbox. A further way to pay is one more line here."""

from starlette.routing import BaseRoute

from app.sandbox.wechat.platform import WeChat
from app.sandbox.world import Ground, Part


def wechat_part(ground: Ground) -> Part:
    wechat = WeChat.on(ground)
    routes: list[BaseRoute] = [
        *wechat.open_platform.routes(),
    ]
    return Part(routes=routes, desks=(wechat.desk,), resets=wechat.resets)
