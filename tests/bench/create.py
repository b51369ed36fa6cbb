"""createPayment over HTTP from one API process, and the bare handler, in turns: app, bare, app, bare …"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import orjson

from tests.bench.figures import Figure, median, percentile
from tests.bench.load import Load, post, send_all
from tests.bench.scale import Scale
from tests.bench.site import Process, Site

_MUTATION: Final = (
    "mutation Pay($input: CreatePaymentInput!) { createPayment(input: $input) { id status outTradeNo version action"
    " { __typename ... on Redirect { url } } } }"
)
_SUBJECT: Final = "龙井茶 250 克"
_WARM_UP: Final = 200


async def measure(site: Site, scale: Scale) -> list[Figure]:
    """Rates as medians of the rounds; processor time over all rounds; latencies of all rounds."""
    with site.api() as api, site.part("tests.bench.bare", ready="/") as bare:
        for process in (api, bare):
            await _round(site, process, count=min(_WARM_UP, scale.round_requests), scale=scale)
        ours, bares = _Rounds(api), _Rounds(bare)
        for _ in range(scale.rounds):
            for rounds in (ours, bares):
                with rounds.counting_cpu():
                    rounds.loads.append(await _round(site, rounds.process, count=scale.round_requests, scale=scale))
    await _check_rows(site, ours.answers + bares.answers)
    ratio = median([a.rate / b.rate for a, b in zip(ours.loads, bares.loads, strict=True)])
    latencies = [latency * 1000 for load in ours.loads for latency in load.latencies]
    return [
        Figure("create", "createPayment, one API process", ours.rate, "/s", low=800),
        Figure("create", "bare handler, same statements and signature", bares.rate, "/s"),
        Figure("create", "createPayment to bare handler", ratio, "", low=0.3),
        Figure("create", "API processor time a payment", ours.cpu_us, "µs"),
        Figure("create", "bare handler's processor time a payment", bares.cpu_us, "µs"),
        Figure("create", f"latency at {scale.connections} connections, p50", percentile(latencies, 0.5), "ms"),
        Figure("create", f"latency at {scale.connections} connections, p99", percentile(latencies, 0.99), "ms"),
    ]


class _Rounds:
    def __init__(self, process: Process) -> None:
        self.process = process
        self.loads: list[Load] = []
        self._cpu_s = 0.0

    @contextmanager
    def counting_cpu(self) -> Iterator[None]:
        before = self.process.cpu_s()
        yield
        self._cpu_s += self.process.cpu_s() - before

    @property
    def answers(self) -> int:
        return sum(load.answers for load in self.loads)

    @property
    def rate(self) -> float:
        return median([load.rate for load in self.loads])

    @property
    def cpu_us(self) -> float:
        return self._cpu_s / self.answers * 1e6


async def _round(site: Site, process: Process, *, count: int, scale: Scale) -> Load:
    orders = await site.orders(count)
    build = _bare_requests if process.name == "bare" else _api_requests
    return await send_all(
        process.port, build(site, orders), connections=scale.connections, limit_s=scale.round_s, accepted=_is_pending
    )


def _api_requests(site: Site, orders: Sequence[int]) -> list[bytes]:
    tokens: dict[str, str] = {}
    requests = []
    for order_id in orders:
        sub = site.caller_of(order_id)
        token = tokens.get(sub) or tokens.setdefault(sub, site.token(sub))
        asked = {
            "orderId": str(order_id), "method": "ALIPAY_PAGE", "amount": "12.30", "subject": _SUBJECT,
            "returnUrl": "https://shop.example/orders/paid", "idempotencyKey": f"page-{order_id}",
        }  # fmt: skip
        body = orjson.dumps({"query": _MUTATION, "variables": {"input": asked}})
        headers = [
            ("content-type", "application/json"), ("accept", "application/json"), ("authorization", f"Bearer {token}"),
        ]  # fmt: skip
        requests.append(post("/graphql", body, headers))
    return requests


def _bare_requests(site: Site, orders: Sequence[int]) -> list[bytes]:
    requests = []
    for order_id in orders:
        asked = {
            "order_id": order_id, "sub": site.caller_of(order_id), "amount_fen": 1230, "subject": _SUBJECT,
            "key": f"page-{order_id}",
        }  # fmt: skip
        requests.append(post("/", orjson.dumps(asked), [("content-type", "application/json")]))
    return requests


def _is_pending(body: bytes) -> bool:
    return b'"status":"PENDING"' in body and b"sign=" in body and b'"errors"' not in body


async def _check_rows(site: Site, answered: int) -> None:
    """Every answer stands in the database: a PENDING payment with its link, and its two events."""
    row = await site.database.fetchrow(
        "select count(*) as payments, (select count(*) from shouyin.event) as events from shouyin.payment"
        " where status = 'PENDING' and action ->> 'url' like '%sign=%'"
    )
    assert row is not None
    if row["payments"] < answered or row["events"] < 2 * row["payments"]:
        raise RuntimeError(f"{answered} answers, but {row['payments']} payments and {row['events']} events")
