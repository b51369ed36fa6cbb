"""Who is calling: tokens to principals."""

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller whose token was checked. `sub` is compared with an order's owner column."""

    sub: str
    roles: frozenset[str] = field(default_factory=frozenset)
    is_admin: bool = False
    expires_at: datetime | None = None
