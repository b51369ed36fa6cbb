"""The API of a shop, served in this process on a real socket, and callers of every kind."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from app.api.application import Application
from app.auth import issue_token
from app.local.redis import Redis
from app.main import create_app
from app.payments.actions import CreatePayment
from app.payments.model import Payment
from app.providers.contract import PaymentMethod
from app.runtime import open_runtime
from tests.fixtures.shop import ADMIN, BINDING, BUYER, Shop, config_for, make_orders, private_pem, public_pem
from tests.fixtures.web import serving

PAYMENT_FIELDS = "id orderId method amount status final checking subject outTradeNo version"
CREATE = f"mutation Create($input: CreatePaymentInput!) {{ createPayment(input: $input) {{ {PAYMENT_FIELDS} }} }}"


@dataclass
class Api:
    """A served API. `url` is its GraphQL address."""

    shop: Shop
    application: Application
    origin: str
    http: httpx.AsyncClient

    @property
    def url(self) -> str:
        return f"{self.origin}/graphql"

    @property
    def socket_url(self) -> str:
        return self.url.replace("http://", "ws://")

    def token(self, sub: str = "7", *roles: str, ttl: timedelta = timedelta(hours=1)) -> str:
        """A token of this deployment; user 7 owns the shop's orders."""
        return issue_token(self.shop.config, sub, roles or ("user",), ttl=ttl, clock=self.shop.clock)

    def headers(self, sub: str | None = "7", *roles: str) -> dict[str, str]:
        """The authorization header of a caller, none for nobody."""
        return {} if sub is None else {"authorization": f"Bearer {self.token(sub, *roles)}"}

    async def post(
        self,
        query: str,
        variables: Mapping[str, Any] | None = None,
        *,
        sub: str | None = "7",
        role: str = "user",
        **headers: str,
    ) -> dict[str, Any]:
        """The decoded answer of one operation."""
        response = await self.http.post(
            self.url, json={"query": query, "variables": variables}, headers=self.headers(sub, role) | headers
        )
        answer: dict[str, Any] = response.json()
        return answer

    async def error(self, query: str, variables: Mapping[str, Any] | None = None, **caller: Any) -> dict[str, Any]:
        """The extensions of the only error of an operation that gives no data."""
        answer = await self.post(query, variables, **caller)
        (error,) = answer["errors"]
        assert all(value is None for value in (answer.get("data") or {}).values()), answer
        extensions: dict[str, Any] = error["extensions"]
        return extensions

    async def payments_of(self, order_id: int) -> int:
        """How many payments an order has, whatever became of them."""
        found: int = await self.shop.connection.fetchval(
            "select count(*) from shouyin.payment where order_id = $1", order_id
        )
        return found

    async def payment(self, order_id: int | None = None, *, amount: str = "12.30") -> Payment:
        """A pending payment of user 7's, made behind the API."""
        order_id = order_id if order_id is not None else await self.shop.order(amount=amount)
        request = CreatePayment(order_id=order_id, method=PaymentMethod.ALIPAY_PAGE, amount_fen=None, subject="Tea")
        return await self.shop.runtime.payments.create(BUYER, request, correlation_id="test-made")


@pytest.fixture
async def api(shop: Shop) -> AsyncIterator[Api]:
    """The API with the settings of production, sockets that live long, and introspection on for tools."""
    async with serving_api(shop, introspection=True) as served:
        yield served


@pytest.fixture(scope="module")
async def shared_api(
    module_database_url: str,
    redis_server: Redis,
    tmp_path_factory: pytest.TempPathFactory,
    rsa_keys: tuple[rsa.RSAPrivateKey, rsa.RSAPrivateKey],
) -> AsyncIterator[Api]:
    """One API for the tests of a module that only ask for what is refused, or look at what they made themselves."""
    home = tmp_path_factory.mktemp("shared")
    config = config_for(module_database_url, redis_server.url, home, SANDBOX_URL="http://127.0.0.1:9")
    connection = await make_orders(module_database_url)
    runtime = await open_runtime(config, run_flows=True, realtime=False)
    shop = Shop(config=config, clock=runtime.clock, runtime=runtime, connection=connection)
    try:
        await runtime.activation.activate(ADMIN, BINDING)
        fields = {
            "app_id": "2021000000000001",
            "app_private_key": private_pem(rsa_keys[0]),
            "alipay_public_key": public_pem(rsa_keys[1]),
            "seller_id": "2088000000000001",
            "gateway": "http://127.0.0.1:9/gateway.do",
        }
        await runtime.accounts.create(ADMIN, provider="ALIPAY", mode="public_key", name="Tea shop", fields=fields)
        async with serving_api(shop, introspection=True) as served:
            yield served
    finally:
        await runtime.close()
        await connection.close()


class serving_api:  # noqa: N801 — read as a verb: async with serving_api(shop, …) as api
    """Serves the shop's API with other settings; `options` replace fields of its Config."""

    def __init__(self, shop: Shop, *, uvicorn: Mapping[str, Any] | None = None, **options: Any) -> None:
        self._shop = replace(shop, config=replace(shop.config, **{"shutdown_grace_s": 0.1, **options}))
        self._uvicorn = {"ws_max_size": self._shop.config.message_limit_bytes, "ws_per_message_deflate": False}
        self._uvicorn |= uvicorn or {}

    async def __aenter__(self) -> Api:
        application = create_app(self._shop.config, clock=self._shop.clock)
        self._serving = serving(application, **self._uvicorn)
        origin = await self._serving.__aenter__()
        self._http = httpx.AsyncClient(timeout=10, trust_env=False)
        return Api(self._shop, application, origin, self._http)

    async def __aexit__(self, *exc: Any) -> None:
        await self._http.aclose()
        await self._serving.__aexit__(*exc)
