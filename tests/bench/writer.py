"""Changes payments at a steady rate, from a process of its own that stands by as a relay, as every worker does.

Each line of standard input: {"ids": […], "rate": changes a second, "count": how many}; its answer is one line too:
[[payment id, version, sent ns, committed ns], …], where `committed` is when the commit's answer was here. It ends with
its input.
"""

import asyncio
import sys
import time
from typing import Final

import orjson
import uvloop

from app.config import Config, load_config
from app.db import Database, open_database
from app.metrics import Metrics
from app.realtime import Realtime, RealtimeMetrics

_CHANGE: Final = """
update shouyin.payment set transaction_id = coalesce(transaction_id::bigint, 0) + 1 where id = $1 returning version
"""


async def serve(config: Config) -> None:
    """Answers lines until there are no more."""
    opened = await open_database(config.database_url)
    database = Database(opened.pool, {"change": _CHANGE})
    realtime = Realtime(
        database=database,
        listen_url=config.listen_database_url,
        sources={},
        metrics=RealtimeMetrics(Metrics().registry),
    )
    await realtime.start()
    try:
        while line := await asyncio.to_thread(sys.stdin.buffer.readline):
            asked = orjson.loads(line)
            changes = await change_steadily(database, asked["ids"], asked["rate"], asked["count"])
            sys.stdout.buffer.write(orjson.dumps(changes) + b"\n")
            sys.stdout.buffer.flush()
    finally:
        await realtime.stop()
        await opened.close()


async def change_steadily(
    database: Database, ids: list[int], rate: float, count: int
) -> list[tuple[int, int, int, int]]:
    """Makes `count` changes, each to the next of the ids, without waiting for the one before."""
    done: list[tuple[int, int, int, int]] = []

    async def change(payment_id: int) -> None:
        sent_ns = time.perf_counter_ns()
        row = await database.change("change", payment_id)
        committed_ns = time.perf_counter_ns()
        assert row is not None
        done.append((payment_id, row["version"], sent_ns, committed_ns))

    begin = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            await asyncio.sleep(max(0.0, begin + number / rate - time.perf_counter()))
            group.create_task(change(ids[number % len(ids)]))
    return done


if __name__ == "__main__":
    uvloop.run(serve(load_config()))
