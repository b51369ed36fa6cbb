"""The demo shop's own backend: what a merchant would have beside Shouyin, in its smallest form.

A visitor is a random user id in a signed cookie. Orders are rows of the bound table `public.orders`, inserted by the
shop itself; paying for them goes through the public GraphQL API with the visitor's token, like anybody's page.
A membership is an order like any other, and what is signed with it goes through the same API. The clerk's page gives
money back through it, by a token that may refund nothing until its role is granted it.
Exists only where DEMO is on; the clerk's part, and moving the test clock, only for a browser on this very machine.
"""

import base64
import hashlib
import io
import ipaddress
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit

import asyncpg
import orjson
import segno
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from app.auth import Authenticator, issue_token
from app.clock import Clock
from app.config import Config
from app.db import Database
from app.errors import Unauthenticated
from app.money import format_yuan

_COOKIE: Final = "shouyin_demo"
_COOKIE_LASTS: Final = timedelta(days=30)
_TOKEN_LASTS: Final = timedelta(hours=2)
_BODY_LIMIT: Final = 1024
_CLERK_ROLE: Final = "clerk"
# Each is watched by a subscription of its own, and a socket has room for twenty.
_SOLD_LIMIT: Final = 8
_NO_TABLE: Final = "the demo table public.orders does not exist: start with `make run`"
# The longest text a QR code of version 20 takes at level M; providers' code URLs are far shorter. A link for signing
# carries the whole signed call: version 38 at level L, the most that a phone still reads off a screen.
_CODE_LIMIT: Final = 600
_LINK_LIMIT: Final = 2600


@dataclass(frozen=True, slots=True)
class Product:
    """Something on the shelf; with `interval_days` a membership, paid for again every so many days."""

    id: str
    title: str
    note: str
    amount_fen: int
    interval_days: int | None = None


PRODUCTS: Final = (
    Product("cup", "青瓷茶杯", "龙泉手拉坯 180 毫升", 6800),
    Product("coffee", "云南咖啡豆", "保山浅烘 200 克", 3990),
    Product("card", "西湖明信片", "一套十二张", 1250),
)
MEMBERSHIPS: Final = (
    Product("week", "周会员", "每周一期茶刊", 990, interval_days=7),
    Product("month", "月会员", "茶刊四期，省一期的钱", 2970, interval_days=30),
)
_ON_SALE: Final[Mapping[str, Product]] = {each.id: each for each in (*PRODUCTS, *MEMBERSHIPS)}

# The payer is named when these are opened.
_PAYER_METHODS: Final = frozenset({"WECHAT_JSAPI", "WECHAT_MINI_PROGRAM", "WECHAT_CLOUD"})


@dataclass(frozen=True, slots=True)
class Way:
    """A way to pay that is on offer. The page decides which of them suit its browser.

    `app_id` and `openid` are sent with the payment where there is an openid. Where there is a `login`, its address is
    visited first and comes back with one."""

    method: str
    app_id: str | None = None
    openid: str | None = None
    login: str | None = None


@dataclass(frozen=True, slots=True)
class Visit:
    """A visitor, with a token for the API. `cookie` is set when the browser has none that still works."""

    user_id: int
    token: str
    expires_at: datetime
    cookie: str | None


class DemoBackend:
    """The shop's visitors and orders. `config.jwt_secret` must be set: visitors get tokens of this deployment."""

    def __init__(self, config: Config, db: Database, clock: Clock, authenticator: Authenticator) -> None:
        self._config = config
        self._db = db
        self._clock = clock
        self._authenticator = authenticator

    async def visit(self, request: Request) -> Visit:
        """The visitor of the cookie, or a new one."""
        user_id, cookie = await self._known_user(request), None
        if user_id is None:
            user_id = 100_000_000 + secrets.randbelow(900_000_000)
            cookie = self._token(user_id, _COOKIE_LASTS)
        expires_at = self._clock.machine_now() + _TOKEN_LASTS
        return Visit(user_id, self._token(user_id, _TOKEN_LASTS), expires_at, cookie)

    def remember(self, response: Response, visit: Visit) -> None:
        """Sets the cookie of a new visitor. It is of no use to the API, which reads tokens from a header only."""
        if visit.cookie is not None:
            response.set_cookie(
                _COOKIE,
                visit.cookie,
                max_age=int(_COOKIE_LASTS.total_seconds()),
                httponly=True,
                samesite="lax",
                secure=self._config.public_url.startswith("https:"),
            )

    async def opening(self, request: Request, visit: Visit) -> dict[str, Any]:
        """What the shop's page starts with: the visitor's session, the shelf, the ways to pay."""
        # A login comes back to PUBLIC_URL; under another name that would be another visitor's page.
        at_home = request.url.netloc == urlsplit(self._config.public_url).netloc
        ways = [self._way(row, visit.user_id, at_home=at_home) for row in await self._db.all("demo.ways")]
        return {
            "userId": str(visit.user_id),
            "token": visit.token,
            "expiresAt": visit.expires_at.isoformat(),
            "products": [_shown(each) for each in PRODUCTS],
            "memberships": [_shown(each) for each in MEMBERSHIPS],
            "ways": [
                {"method": way.method, "appId": way.app_id, "openid": way.openid, "login": way.login}
                for way in ways
                if way is not None
            ],
            "sandboxUrl": self._config.sandbox_url,
            "graphiql": self._config.graphiql,
            "clerk": is_local(request),
        }

    def operators(self, visit: Visit) -> dict[str, Any]:
        """Tokens of who runs the shop, for `is_local` browsers only.

        The clerk sees every payment, as administrators do, and may refund none before its own role is granted that."""
        admin = self._config.admin_role
        people = {"adminToken": ("demo-admin", (admin,)), "clerkToken": ("demo-clerk", (admin, _CLERK_ROLE))}
        return {
            name: issue_token(self._config, f"{sub}-{visit.user_id}", roles, ttl=_TOKEN_LASTS, clock=self._clock)
            for name, (sub, roles) in people.items()
        }

    async def session(self, request: Request) -> Response:
        """POST /demo/session: a new token for the same visitor; the operators' too for a browser on this machine."""
        visit = await self.visit(request)
        operators = self.operators(visit) if is_local(request) else {"adminToken": None, "clerkToken": None}
        shown = await self.opening(request, visit) | operators
        response = JSONResponse(shown, headers={"Cache-Control": "no-store"})
        self.remember(response, visit)
        return response

    async def create_order(self, request: Request) -> Response:
        """POST /demo/orders {"product": id}: inserts an unpaid order of the visitor's; the price is ours."""
        user_id = await self._known_user(request)
        if user_id is None:
            return _refusal(401, "no visitor: load the page first")
        product = await _read_product(request)
        if product is None:
            return _refusal(400, f'send {{"product": …}} as JSON, one of {", ".join(_ON_SALE)}')
        try:
            (row,) = await self._db.change_all(
                "demo.create_order", user_id, product.title, product.amount_fen, self._clock.now()
            )
        except asyncpg.UndefinedTableError:
            return _refusal(503, _NO_TABLE)
        made = {"orderId": str(row["id"]), "title": row["title"], "amount": row["amount"]}
        return JSONResponse(made, status_code=201, headers={"Cache-Control": "no-store"})

    async def sold(self, request: Request) -> Response:
        """GET /demo/clerk/orders: the shop's latest paid orders, whoever placed them, for a browser on this machine."""
        if not is_local(request):
            return _refusal(403, "the clerk's page is for a browser on the machine that runs the shop")
        try:
            rows = await self._db.all("demo.sold", _SOLD_LIMIT)
        except asyncpg.UndefinedTableError:
            return _refusal(503, _NO_TABLE)
        orders = [{"orderId": str(row["id"]), "title": row["title"]} for row in rows]
        return JSONResponse({"orders": orders}, headers={"Cache-Control": "no-store"})

    def _way(self, row: asyncpg.Record, user_id: int, *, at_home: bool) -> Way | None:
        """A way as the page may use it; None where its payer can not be known here."""
        method, app_id = row["method"], row["app_id"]
        if method not in _PAYER_METHODS:
            return Way(method)
        if method == "WECHAT_JSAPI" and row["logs_in"] and at_home:
            return Way(method, app_id, login=f"/wechat/oauth/{app_id}")
        if self._config.sandbox_url is None:
            return None
        return Way(method, app_id, openid=_pretended_openid(app_id, user_id))

    async def _known_user(self, request: Request) -> int | None:
        try:
            principal = await self._authenticator.principal(request.cookies.get(_COOKIE, ""))
        except Unauthenticated:
            return None
        return int(principal.sub) if principal.sub.isascii() and principal.sub.isdigit() else None

    def _token(self, user_id: int, ttl: timedelta) -> str:
        return issue_token(self._config, str(user_id), ("user",), ttl=ttl, clock=self._clock)


def demo_routes(demo: DemoBackend) -> list[BaseRoute]:
    """The shop's own calls."""
    return [
        Route("/demo/session", demo.session, methods=["POST"]),
        Route("/demo/orders", demo.create_order, methods=["POST"]),
        Route("/demo/clerk/orders", demo.sold, methods=["GET"]),
        Route("/demo/qr.svg", draw_code, methods=["GET"]),
    ]


def _shown(product: Product) -> dict[str, Any]:
    return {
        "id": product.id,
        "title": product.title,
        "note": product.note,
        "amount": format_yuan(product.amount_fen),
        "intervalDays": product.interval_days,
    }


def _pretended_openid(app_id: str, user_id: int) -> str:
    """A payer for the sandbox, which takes every openid of the right form; the same for the same visitor."""
    digest = hashlib.sha256(f"{app_id}:{user_id}".encode()).digest()
    return "o" + base64.urlsafe_b64encode(digest).decode()[:27]


async def draw_code(request: Request) -> Response:
    """GET /demo/qr.svg?text=…: the text as a QR code, black on transparent."""
    text = request.query_params.get("text", "")
    length = len(text.encode())
    if not 0 < length <= _LINK_LIMIT:
        return _refusal(400, f"text must be 1 to {_LINK_LIMIT} bytes")
    drawn = io.BytesIO()
    segno.make_qr(text, error="m" if length <= _CODE_LIMIT else "l").save(
        drawn, kind="svg", border=2, xmldecl=False, omitsize=True
    )
    headers = {
        "Cache-Control": "private, max-age=3600",
        "Content-Security-Policy": "default-src 'none'",
        "X-Content-Type-Options": "nosniff",
    }
    return Response(drawn.getvalue(), media_type="image/svg+xml", headers=headers)


async def _read_product(request: Request) -> Product | None:
    """The product a body names. Only JSON is read: a form of another site can not send that."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        return None
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _BODY_LIMIT:
            return None
    try:
        wanted = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    name = wanted.get("product") if isinstance(wanted, dict) else None
    return _ON_SALE.get(name) if isinstance(name, str) else None


def is_local(request: Request) -> bool:
    """Whether the browser runs on this machine and asked for it by a loopback name.

    The name is checked as well as the address: behind a proxy every caller has a loopback address, and a foreign
    name that resolves to loopback is how other sites' scripts would get in."""
    return request.client is not None and _is_loopback(request.client.host) and _is_loopback(request.url.hostname or "")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _refusal(status: int, message: str) -> Response:
    return JSONResponse({"error": message}, status_code=status, headers={"Cache-Control": "no-store"})
