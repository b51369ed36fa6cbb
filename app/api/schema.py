"""The schema, assembled from one file per noun. `python -m app.api.schema` prints it."""

import sys
from typing import Final

import strawberry
from graphql import GraphQLSchema, lexicographic_sort_schema, print_schema
from strawberry.schema.config import StrawberryConfig

from app.api.activation import ActivationMutation, ActivationQuery
from app.api.flows import FlowMutation, FlowQuery
from app.api.merchants import MerchantMutation, MerchantQuery
from app.api.orders import OrderQuery
from app.api.payments import PaymentMutation, PaymentQuery
from app.api.scalars import YUAN, Yuan
from app.api.subscriptions import Subscription


@strawberry.type
class Query(ActivationQuery, PaymentQuery, OrderQuery, MerchantQuery, FlowQuery):
    """Every query needs a token."""


@strawberry.type
class Mutation(PaymentMutation, ActivationMutation, MerchantMutation, FlowMutation):
    """Every mutation needs a token."""


SCHEMA: Final = strawberry.Schema(
    query=Query,
    mutation=Mutation,
    subscription=Subscription,
    config=StrawberryConfig(scalar_map={Yuan: YUAN}),
)


def graphql_schema() -> GraphQLSchema:
    """The schema as graphql-core runs it."""
    return SCHEMA._schema


def export_schema() -> str:
    """The schema as text, in an order that does not depend on the order of the code."""
    return print_schema(lexicographic_sort_schema(graphql_schema())) + "\n"


if __name__ == "__main__":
    sys.stdout.write(export_schema())
