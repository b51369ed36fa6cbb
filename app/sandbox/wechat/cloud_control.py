"""`/_control/wechat/cloud`: where the containers are, which WeChat's cloud would know, and what queryrefund leaves out.

GET|POST /_control/wechat/cloud                {"callback_base_url": "http://127.0.0.1:8000"}
GET|POST /_control/wechat/cloud/refund_lists   {"empty": true}
"""

from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.sandbox.options import control_route, flag_of, read_options, text_of, wrong_type


class CallbackAddress:
    """`home_url` unless a test says otherwise; callbacks of orders made before a change go to the new one too."""

    def __init__(self, home_url: str) -> None:
        self._home_url = home_url.rstrip("/")
        self.base_url = self._home_url

    def routes(self) -> list[Route]:
        return [
            control_route("/_control/wechat/cloud", self._move, "POST"),
            control_route("/_control/wechat/cloud", self._show, "GET"),
        ]

    def reset(self) -> None:
        self.base_url = self._home_url

    async def _move(self, request: Request) -> Response:
        url = text_of(await read_options(request, {"callback_base_url"}), "callback_base_url") or ""
        if not is_base_url(url):
            raise wrong_type("callback_base_url", "an address such as http://127.0.0.1:8000")
        self.base_url = url.rstrip("/")
        return await self._show(request)

    async def _show(self, _request: Request) -> Response:
        return JSONResponse({"callback_base_url": self.base_url})


class RefundLists:
    """Whether queryrefund's lists are `empty`: so they are in the documents' own example, for an order with one refund,
    and so merchants say that they come. Otherwise they are as they are described.
    """

    def __init__(self) -> None:
        self.empty = False

    def routes(self) -> list[Route]:
        path = "/_control/wechat/cloud/refund_lists"
        return [control_route(path, self._choose, "POST"), control_route(path, self._show, "GET")]

    def reset(self) -> None:
        self.empty = False

    async def _choose(self, request: Request) -> Response:
        self.empty = flag_of(await read_options(request, {"empty"}), "empty", default=False)
        return await self._show(request)

    async def _show(self, _request: Request) -> Response:
        return JSONResponse({"empty": self.empty})


def is_base_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.query and not parts.fragment
