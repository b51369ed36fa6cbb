"""Everything one sandbox holds: what its parts share, and what each of them adds."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from starlette.routing import BaseRoute

from app.sandbox.calls import CallCounter
from app.sandbox.clock import SandboxClock
from app.sandbox.deliveries import Deliveries
from app.sandbox.desks import AnyDesk
from app.sandbox.faults import FaultQueue
from app.sandbox.markup import Markup

Record = dict[str, str]
Callback = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Ground:
    """What all providers stand on. `records` are the accounts with the providers' own keys."""

    public_url: str
    records: list[Record]
    clock: SandboxClock
    deliveries: Deliveries
    faults: FaultQueue
    calls: CallCounter


@dataclass(frozen=True, slots=True)
class Part:
    """What one provider adds to the sandbox. `resets` forget what it remembers beside its desk's trades.

    `index_sections` are what the index page shows of it beside the trades.
    """

    routes: list[BaseRoute]
    desks: tuple[AnyDesk, ...] = ()
    resets: list[Callback] = field(default_factory=list)
    index_sections: tuple[Callable[[], Markup], ...] = ()


@dataclass(frozen=True, slots=True)
class World:
    """`accounts` are what merchants may know of theirs."""

    ground: Ground
    accounts: list[Record]
    parts: tuple[Part, ...]

    @property
    def public_url(self) -> str:
        return self.ground.public_url

    @property
    def clock(self) -> SandboxClock:
        return self.ground.clock

    @property
    def deliveries(self) -> Deliveries:
        return self.ground.deliveries

    @property
    def faults(self) -> FaultQueue:
        return self.ground.faults

    @property
    def calls(self) -> CallCounter:
        return self.ground.calls

    @property
    def desks(self) -> list[AnyDesk]:
        return [desk for part in self.parts for desk in part.desks]

    def index_sections(self) -> Iterable[Markup]:
        return (section() for part in self.parts for section in part.index_sections)

    def routes(self) -> Iterable[BaseRoute]:
        return (route for part in self.parts for route in part.routes)

    async def reset(self) -> None:
        """As after a restart: accounts and keys stay, all else is gone and the clock is the machine's."""
        await self.deliveries.reset()
        for part in self.parts:
            for desk in part.desks:
                desk.reset()
            for forget in part.resets:
                forget()
        self.faults.reset()
        self.calls.reset()
        self.clock.reset()
