"""Orders on the API: rows of the bound order table, as they are."""

from typing import TYPE_CHECKING, Annotated, Self

import strawberry
from strawberry.scalars import JSON

from app.api.context import ApiInfo
from app.api.scalars import find_id
from app.payments import actions

if TYPE_CHECKING:
    from app.api.payments import Payment


@strawberry.type(
    description="A row of the bound order table; of a payment, a row of the table that was bound when it was made."
)
class Order:
    row: strawberry.Private[actions.Order]
    id: strawberry.ID
    data: JSON = strawberry.field(description="The whole row; names are those of the columns.")

    @classmethod
    def of(cls, row: actions.Order) -> Self:
        """The order as clients see it."""
        return cls(row=row, id=strawberry.ID(str(row.id)), data=JSON(row.data))

    @strawberry.field
    async def payments(self, info: ApiInfo) -> list[Annotated["Payment", strawberry.lazy("app.api.payments")]]:
        from app.api.payments import Payment

        return [Payment.of(row) for row in await info.context.payments_of(self.row.key)]


@strawberry.type
class OrderQuery:
    @strawberry.field
    async def order(self, info: ApiInfo, id: strawberry.ID) -> Order | None:  # noqa: A002 — the argument's public name
        caller, key = info.context.caller(), find_id(id)
        row = None if key is None else await info.context.runtime.payments.find_order(caller, key)
        return None if row is None else Order.of(row)
