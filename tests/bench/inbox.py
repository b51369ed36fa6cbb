"""Provider notifications: each signed by "Alipay", verified, committed to the inbox and acknowledged."""

from typing import Final

from tests.bench.figures import Figure, median, percentile
from tests.bench.load import Load, post, send_all
from tests.bench.scale import Scale
from tests.bench.site import Site
from tests.fixtures.alipay import FORM, signed_notice


async def measure(site: Site, scale: Scale) -> list[Figure]:
    """The rate is the median of the rounds. Nobody applies what is stored meanwhile: that is the worker's time."""
    with site.api() as api:
        await _round(site, api.port, 0, min(200, scale.notices), scale)
        before = api.cpu_s()
        loads = [await _round(site, api.port, number, scale.notices, scale) for number in range(1, scale.rounds + 1)]
        cpu_s = api.cpu_s() - before
    answers = sum(load.answers for load in loads)
    stored = await site.database.fetchval("select count(*) from shouyin.notification where received_count = 1")
    if stored < answers:
        raise RuntimeError(f"{answers} notifications were acknowledged, and {stored} are stored")
    latencies = [latency * 1000 for load in loads for latency in load.latencies]
    return [
        Figure("inbox", "notifications acknowledged", median([load.rate for load in loads]), "/s", low=1000),
        Figure("inbox", "API processor time a notification", cpu_s / answers * 1e6, "µs"),
        Figure("inbox", f"latency at {scale.connections} connections, p99", percentile(latencies, 0.99), "ms"),
    ]


async def _round(site: Site, port: int, number: int, count: int, scale: Scale) -> Load:
    path = f"/notify/alipay/{site.account_id}"
    numbers = [f"2026112100222{number:05}{each:012}" for each in range(count)]
    notices = [signed_notice(site.alipay_key, notify_id=each, out_trade_no=each) for each in numbers]
    requests = [post(path, notice, _HEADERS) for notice in notices]
    return await send_all(
        port, requests, connections=scale.connections, limit_s=scale.round_s * 2, accepted=b"success".__eq__
    )


_HEADERS: Final = [("content-type", FORM["content-type"])]
