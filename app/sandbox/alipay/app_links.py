"""What Alipay's app does with a deep link, for a desktop browser that has no such app.

GET /alipay/app?link=<alipays://platformapi/startapp?…>

    appId=60000157&sign_params=<query of a signed call>    the signing page
    appId=60000157&orderStr=<query of a signed call>       paying, with signing
    appId=20000067&url=<a whole URL>                       a page in the app's browser
    saId=10000007&qrcode=<a whole URL>                     a scanned code

Each is followed to this sandbox and nowhere else. Source: support answers 285540, 285556 and 285572, go-pay
`alipay/member_api.go`, read 2026-09.
"""

from urllib.parse import parse_qsl, urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from app.sandbox.markup import fill
from app.sandbox.pages import framed

SIGNING_APP, BROWSER_APP, SCANNER_APP = "60000157", "20000067", "10000007"
FOLLOWED = ("/gateway.do", "/alipay/")

_LOST = """<h1>支付宝沙箱：打不开这个链接</h1>
<section>
<p class="state bad">{reason}</p>
<p class="quiet"><code>{link}</code></p>
</section>"""


class AppLinks:
    def __init__(self, public_url: str) -> None:
        self._host = urlsplit(public_url).netloc

    def routes(self) -> list[Route]:
        return [Route("/alipay/app", self._follow, methods=["GET"])]

    async def _follow(self, request: Request) -> Response:
        link = request.query_params.get("link", "")
        try:
            goes_to = self._target(link, {self._host, request.headers.get("host", "")})
        except ValueError as exc:
            return framed("支付宝沙箱：打不开这个链接", fill(_LOST, reason=exc, link=link), status=400)
        return RedirectResponse(goes_to, status_code=302)

    def _target(self, link: str, own_hosts: set[str]) -> str:
        """A path of this sandbox. Raises ValueError with what is wrong."""
        parts = urlsplit(link)
        if (parts.scheme, parts.netloc, parts.path) != ("alipays", "platformapi", "/startapp"):
            raise ValueError("不是 alipays://platformapi/startapp 开头的链接")
        # Decoded once: what is inside is encoded for itself.
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        app_id = options.get("appId") or options.get("saId")
        if app_id == SIGNING_APP and (call := options.get("sign_params") or options.get("orderStr")):
            return f"/gateway.do?{call}"
        if app_id == BROWSER_APP and (url := options.get("url")):
            return _inside(url, own_hosts)
        if app_id == SCANNER_APP and (url := options.get("qrcode")):
            return _inside(url, own_hosts)
        raise ValueError("沙箱只认识签约、支付并签约、打开网页与扫码的链接")


def _inside(url: str, own_hosts: set[str]) -> str:
    parts = urlsplit(url)
    if parts.netloc not in own_hosts or not parts.path.startswith(FOLLOWED):
        raise ValueError("链接里的地址不在这个沙箱里")
    return f"{parts.path}?{parts.query}" if parts.query else parts.path
