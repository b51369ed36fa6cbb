"""The three ways into the sandbox: the ASGI app, the process behind `shouyin sandbox`, and one inside a test.

create_app(state_dir, public_url)          the app; serve it with `server_config`, for faults drop connections
serve(host, port, state_dir, public_url)   run until SIGTERM or SIGINT
run_in_process(state_dir)                  async with … as base_url
"""

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from app.sandbox.accounts import load_or_create_accounts, load_or_create_records
from app.sandbox.alipay.part import alipay_part
from app.sandbox.calls import CallCounter
from app.sandbox.clock import SandboxClock
from app.sandbox.control import Control
from app.sandbox.deliveries import Deliveries
from app.sandbox.faults import FaultQueue
from app.sandbox.index import IndexPage
from app.sandbox.wechat.part import wechat_part
from app.sandbox.wire import DroppableProtocol
from app.sandbox.world import Ground, Part, World

SHUTDOWN_GRACE_S = 1

PARTS: tuple[Callable[[Ground], Part], ...] = (alipay_part, wechat_part)


def create_app(state_dir: Path, public_url: str, *, notify_hosts: Collection[str] = ()) -> Starlette:
    """The sandbox reachable at `public_url`, with its accounts in `state_dir`.

    Notifications go to loopback hosts only, and to those named in `notify_hosts` (`*` for any).
    Raises AccountsUnreadable.
    """
    public_url = public_url.rstrip("/")
    clock = SandboxClock()
    deliveries = Deliveries(clock, allowed_hosts=notify_hosts)
    ground = Ground(
        public_url=public_url,
        records=load_or_create_records(state_dir),
        clock=clock,
        deliveries=deliveries,
        faults=FaultQueue(),
        calls=CallCounter(),
    )
    world = World(
        ground=ground,
        accounts=load_or_create_accounts(state_dir, public_url),
        parts=tuple(build(ground) for build in PARTS),
    )

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with deliveries.running():
            yield

    return Starlette(
        routes=[
            *IndexPage(world).routes(),
            *Control(world).routes(),
            *world.routes(),
            Route("/healthz", _healthy, methods=["GET"]),
        ],
        lifespan=lifespan,
    )


async def _healthy(_request: Request) -> Response:
    return JSONResponse({"status": "ok"})


def server_config(app: ASGIApp, *, host: str = "127.0.0.1", port: int = 8001) -> uvicorn.Config:
    """How the sandbox has to be served: with connections that faults can drop, quiet, and quick to stop."""
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http=DroppableProtocol,
        ws="none",
        lifespan="on",
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=SHUTDOWN_GRACE_S,
    )


def serve(host: str, port: int, state_dir: Path, public_url: str, *, notify_hosts: Collection[str] = ()) -> None:
    """Run the sandbox until SIGTERM or SIGINT; a port it cannot have ends it with one line and exit status 1."""
    try:
        listener = _listen(host, port)
    except OSError as exc:
        sys.exit(f"the sandbox cannot listen on {host}:{port}: {exc.strerror}")
    with listener:
        app = create_app(state_dir, public_url, notify_hosts=notify_hosts)
        uvicorn.Server(server_config(app, host=host, port=port)).run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    """A bound socket. Raises OSError when the address cannot be had."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=socket.AI_PASSIVE
    )[0]
    # With its protocol named, asyncio switches Nagle's algorithm off; otherwise every answer waits 40 ms.
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener


class _GuestServer(uvicorn.Server):
    """A server in somebody else's process, whose signals are not its business."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.settled = asyncio.Event()  # it serves, or it could not start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        finally:
            self.settled.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def run_in_process(
    state_dir: Path, *, host: str = "127.0.0.1", port: int = 0, notify_hosts: Collection[str] = ()
) -> AsyncIterator[str]:
    """The sandbox as a real HTTP server in the running event loop; yields its base URL. Port 0 takes a free one."""
    with _listen(host, port) as listener:
        base_url = f"http://{host}:{listener.getsockname()[1]}"
        app = create_app(state_dir, base_url, notify_hosts=notify_hosts)
        config = server_config(app, host=host, port=listener.getsockname()[1])
        config.log_config = None
        server = _GuestServer(config)
        running = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            await server.settled.wait()
            if not server.started:
                raise RuntimeError("the sandbox did not start; its log says why")
            yield base_url
        finally:
            server.should_exit = True
            await running
