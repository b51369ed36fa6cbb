"""What clients do that nobody plans for: vanishing by the thousand, and not reading."""

import asyncio
import gc
from pathlib import Path

import pytest

from tests.api.conftest import Api
from tests.api.raw import RawClient
from tests.fixtures.shop import Shop

WATCH = "subscription ($id: ID!) { payment(id: $id) { id status version } }"
WATCH_ORDER = "subscription ($id: ID!) { order(id: $id) { data } }"
_WAIT_S = 20.0


def resident_kb() -> int:
    """Memory of this process, which is server and clients."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1])
    pytest.skip("no /proc here")


async def settled(api: Api) -> None:
    async with asyncio.timeout(_WAIT_S):
        while api.application.connections is None or len(api.application.connections):
            await asyncio.sleep(0.01)


async def abrupt(api: Api, token: str, payment_id: str, count: int) -> None:
    async def one() -> None:
        client = await RawClient.open(api.origin, token)
        client.subscribe(WATCH, id=payment_id)
        assert (await client.read())["type"] == "next"
        client.vanish()

    for _ in range(count // 50):
        await asyncio.gather(*(one() for _ in range(50)))
    await settled(api)
    gc.collect()


@pytest.mark.timeout(300)
async def test_ten_thousand_abrupt_closes_leave_tasks_and_memory_flat(api: Api) -> None:
    payment_id, token = str((await api.payment()).id), api.token()
    await abrupt(api, token, payment_id, 2000)
    tasks, memory = len(asyncio.all_tasks()), resident_kb()
    await abrupt(api, token, payment_id, 8000)
    assert len(asyncio.all_tasks()) <= tasks
    assert resident_kb() - memory < 8192, "a leak of one kilobyte a socket would be 8 MB"


async def test_reader_that_stops_reading_holds_up_nobody_and_costs_no_memory(api: Api) -> None:
    order_id = await api.shop.order()
    stuck, lively = await RawClient.open(api.origin, api.token()), await RawClient.open(api.origin, api.token())
    for client in (stuck, lively):
        client.subscribe(WATCH_ORDER, id=str(order_id))
        assert (await client.read())["payload"]["data"]["order"]["data"]["title"] == "Tea"
    stuck.writer.transport.pause_reading()  # type: ignore[attr-defined]  # asyncio types it as a write transport
    gc.collect()
    memory = resident_kb()
    # 30 MB of states: a queue for each reader would hold them all.
    for number in range(300):
        await _rename(api.shop, order_id, number)
        async with asyncio.timeout(_WAIT_S):
            while _number(await lively.read()) != number:
                pass
    assert resident_kb() - memory < 15_000
    stuck.writer.transport.resume_reading()  # type: ignore[attr-defined]  # as above
    seen = []
    async with asyncio.timeout(_WAIT_S):
        while 299 not in seen:
            seen.append(_number(await stuck.read()))
    assert seen == sorted(seen), "an older state came after a newer one"
    assert len(seen) < 250, "the reader that stopped got states that were long overtaken"
    for client in (stuck, lively):
        client.vanish()


async def _rename(shop: Shop, order_id: int, number: int) -> None:
    title = f"{number} " + "茶" * 33_000
    await shop.connection.execute("update public.orders set title = $2 where id = $1", order_id, title)
    await shop.connection.execute("select pg_notify('shouyin_hint', '')")


def _number(message: dict[str, dict[str, dict[str, dict[str, dict[str, str]]]]]) -> int:
    return int(message["payload"]["data"]["order"]["data"]["title"].split()[0])
