"""Everything one sandbox holds, as one value: what /_control and the index page work on."""

from dataclasses import dataclass

from app.sandbox.alipay.desk import Desk
from app.sandbox.calls import CallCounter
from app.sandbox.clock import SandboxClock
from app.sandbox.deliveries import Deliveries
from app.sandbox.faults import FaultQueue


@dataclass(frozen=True, slots=True)
class World:
    """`desks` are the providers' trades; `accounts` what merchants may know of theirs."""

    public_url: str
    accounts: list[dict[str, str]]
    clock: SandboxClock
    deliveries: Deliveries
    faults: FaultQueue
    calls: CallCounter
    desks: tuple[Desk, ...]

    async def reset(self) -> None:
        """As after a restart: accounts and keys stay, all else is gone and the clock is the machine's."""
        await self.deliveries.reset()
        for desk in self.desks:
            desk.reset()
        self.faults.reset()
        self.calls.reset()
        self.clock.reset()
