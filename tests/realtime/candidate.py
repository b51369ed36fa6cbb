"""Another process with a relay candidate, to be killed or frozen: prints a line once it runs, and once it leads."""

import asyncio
import sys

from prometheus_client import CollectorRegistry

from app.db import open_database
from app.realtime import Realtime, RealtimeMetrics
from tests.realtime.world import PATIENT, QUICK


async def main(url: str, *, quick: bool) -> None:
    database = await open_database(url, size=1)
    metrics = RealtimeMetrics(CollectorRegistry())
    options = QUICK if quick else PATIENT
    realtime = Realtime(database=database, listen_url=url, sources={}, metrics=metrics, options=options)
    await realtime.start()
    print("running", flush=True)
    while not realtime.leading:
        await asyncio.sleep(0.01)
    print("leading", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], quick="quick" in sys.argv[2:]))
