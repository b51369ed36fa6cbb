"""The pages: GraphiQL, the demo shop and its calls, and the bundled files they load.

Everything a page loads comes from this origin, and the policy sent with it says so: no script, style, font or
connection of another host. Bundles carry a hash in their name and are kept for a year; pages are never kept.
"""

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from app.config import Config
from app.web.demo import DemoBackend, demo_routes, is_local

BUILT: Final = Path(__file__).resolve().parent / "built"
ASSETS: Final = "/assets"

_HASHED = re.compile(r"-[A-Z0-9]{8}\.\w+$")

_NOT_BUILT: Final = "The web pages are not built yet: run `make web`, then reload. The API itself works."

_PAGE: Final = """<!doctype html>
<html lang="zh-CN">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1, viewport-fit=cover">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
{head}
</head>
<body>
{body}
</body>
</html>
"""


def web_routes(config: Config, demo: DemoBackend | None) -> list[BaseRoute]:
    """`/`, the bundled files, and the demo shop's own calls when there is a demo."""

    async def front(request: Request) -> Response:
        if demo is None:
            return HTMLResponse(render_front(config), headers=page_headers(config))
        visit = await demo.visit(request)
        response = HTMLResponse(render_shop(await demo.opening(request, visit)), headers=shop_headers(config))
        demo.remember(response, visit)
        return response

    routes: list[BaseRoute] = [Route("/", front, methods=["GET"])]
    if demo is not None:
        routes += [
            *demo_routes(demo),
            Route("/demo/club", _club_page(config, demo), methods=["GET"]),
            Route("/demo/clerk", _clerk_page(config, demo), methods=["GET"]),
        ]
    return [*routes, Mount(ASSETS, _Bundles(directory=BUILT, check_dir=False), name="assets")]


def _club_page(config: Config, demo: DemoBackend) -> Callable[[Request], Awaitable[Response]]:
    async def club(request: Request) -> Response:
        """GET /demo/club: a browser on this machine may move the test clock there, as an administrator."""
        visit = await demo.visit(request)
        opening = await demo.opening(request, visit)
        if is_local(request):
            opening |= demo.operators(visit)
        response = HTMLResponse(render_club(opening), headers=page_headers(config))
        demo.remember(response, visit)
        return response

    return club


def _clerk_page(config: Config, demo: DemoBackend) -> Callable[[Request], Awaitable[Response]]:
    async def clerk(request: Request) -> Response:
        """GET /demo/clerk: it brings an administrator's token, so that no other machine's browser gets it."""
        if not is_local(request):
            body = "<p>店员页只给运行收银的这台电脑：请在那里用 127.0.0.1 或 localhost 打开。</p>"
            refusal = _PAGE.format(title="店员 · 收银", head="", body=body)
            return HTMLResponse(refusal, status_code=403, headers=page_headers(config))
        visit = await demo.visit(request)
        opening = await demo.opening(request, visit) | demo.operators(visit)
        response = HTMLResponse(render_clerk(opening), headers=page_headers(config))
        demo.remember(response, visit)
        return response

    return clerk


def render_graphiql(config: Config, token: str | None = None) -> str:
    """GraphiQL as a page, its header editor holding `token`; with the demo on, it gets its own tokens and an order.

    Send it with `page_headers(config)`: the policy is meant for it."""
    page = {"token": token, "demo": config.demo, "assets": ASSETS}
    return _render("graphiql", title="GraphiQL · Shouyin 收银", page=page)


def render_shop(opening: Mapping[str, Any]) -> str:
    """The demo shop's page, with the visitor's session in it."""
    return _render("shop", title="收银 · 演示小店", page=opening)


def render_club(opening: Mapping[str, Any]) -> str:
    """The memberships' page of the demo shop, with the visitor's session in it."""
    return _render("club", title="会员 · 收银", page=opening)


def render_clerk(opening: Mapping[str, Any]) -> str:
    """The clerk's page of the demo shop, with the operators' tokens in it."""
    return _render("clerk", title="店员 · 收银", page=opening)


def render_front(config: Config) -> str:
    """What `/` shows where no demo runs: that something runs here, and nothing about it."""
    link = '<p><a href="/graphql">GraphiQL</a></p>' if config.graphiql else ""
    return _PAGE.format(title="Shouyin 收银", head="", body=f"<h1>Shouyin 收银</h1>\n<p>支付后端正在运行。</p>\n{link}")


def page_headers(config: Config) -> dict[str, str]:
    """The headers of a page: what it may load, and that nobody keeps it, because it may hold a token.

    Inline styles are allowed because GraphiQL's editor writes them; inline scripts are not."""
    host = urlsplit(config.public_url).netloc
    allowed = {
        "default-src": "'none'",
        "script-src": "'self'",
        "worker-src": "'self'",
        "style-src": "'self' 'unsafe-inline'",
        "img-src": "'self' data:",
        "font-src": "'self' data:",
        # Browsers before 2022 do not count a WebSocket of the same host as 'self'.
        "connect-src": f"'self' ws://{host} wss://{host}",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return {
        "Cache-Control": "no-store",
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in allowed.items()),
        "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=()",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
    }


def shop_headers(config: Config) -> dict[str, str]:
    """The same for the shop, whose visitors go on to WeChat's H5 page: WeChat wants to know the site they come from."""
    return page_headers(config) | {"Referrer-Policy": "strict-origin"}


def _render(entry: str, *, title: str, page: Mapping[str, Any]) -> str:
    """A page around one bundle; `page` is what its script reads. Without bundles, one line that says what to run."""
    bundles = _read_manifest()
    if bundles is None or entry not in bundles:
        return _PAGE.format(title=title, head="", body=f"<p>{escape(_NOT_BUILT)}</p>")
    files = bundles[entry]
    head = "\n".join(
        [
            f'<link rel="icon" type="image/svg+xml" href="{ASSETS}/{bundles["icon"]["file"]}">',
            f'<link rel="stylesheet" href="{ASSETS}/{files["css"]}">',
            f'<script type="module" src="{ASSETS}/{files["file"]}"></script>',
        ]
    )
    # "<" is written as an escape: no text of ours or of a merchant's can end the element it stands in.
    text = json.dumps(page, ensure_ascii=False).replace("<", "\\u003c")
    body = "\n".join(
        [
            f'<div id="{entry}"></div>',
            f'<script type="application/json" id="page">{text}</script>',
            "<noscript><p>这个页面需要 JavaScript。</p></noscript>",
        ]
    )
    return _PAGE.format(title=title, head=head, body=body)


def _read_manifest() -> dict[str, dict[str, str]] | None:
    """Entry name → its files' names, or None before the first build. Read each time, so that a build shows at once."""
    try:
        manifest: dict[str, dict[str, str]] = json.loads((BUILT / "manifest.json").read_bytes())
    except FileNotFoundError:
        return None
    return manifest


class _Bundles(StaticFiles):
    """Files of built/. A hashed name never changes its content, so that it is never asked about again."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        kept = "public, max-age=31536000, immutable" if _HASHED.search(path) else "no-cache"
        response.headers["Cache-Control"] = kept
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response
