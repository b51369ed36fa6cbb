"""The schema, assembled from one file per noun. `python -m app.api.schema` prints it.

Strawberry declares it and graphql-core runs it, with our functions as resolvers. Strawberry's own wrapper around each
resolver works out the types of all arguments again for every call: 215 µs for createPayment instead of 92. graphql-core
has parsed them by then, and builds our input classes as it goes (`out_name`, `out_type`).
"""

import sys
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

import strawberry
from graphql import (
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLObjectType,
    GraphQLSchema,
    lexicographic_sort_schema,
    print_schema,
)
from strawberry.schema.config import StrawberryConfig
from strawberry.types.base import StrawberryObjectDefinition
from strawberry.types.field import StrawberryField

from app.api.activation import ActivationMutation, ActivationQuery
from app.api.clock import ClockMutation, ClockQuery
from app.api.cycles import CycleMutation, CycleQuery
from app.api.explanations import ExplanationQuery
from app.api.flows import FlowMutation, FlowQuery
from app.api.merchants import MerchantMutation, MerchantQuery
from app.api.orders import OrderQuery
from app.api.payments import PaymentMutation, PaymentQuery
from app.api.permissions import PermissionMutation, PermissionQuery
from app.api.refunds import RefundMutation, RefundQuery
from app.api.scalars import YUAN, Yuan
from app.api.subscriptions import Subscription
from app.api.wechat import WechatMutation, WechatQuery


@strawberry.type
class Query(
    ActivationQuery,
    PaymentQuery,
    OrderQuery,
    MerchantQuery,
    PermissionQuery,
    RefundQuery,
    CycleQuery,
    FlowQuery,
    ExplanationQuery,
    WechatQuery,
    ClockQuery,
):
    """Every query needs a token, but for explainWechatError."""


@strawberry.type
class Mutation(
    PaymentMutation,
    ActivationMutation,
    MerchantMutation,
    PermissionMutation,
    RefundMutation,
    CycleMutation,
    FlowMutation,
    WechatMutation,
    ClockMutation,
):
    """Every mutation needs a token, but for wechatLogin."""


SCHEMA: Final = strawberry.Schema(
    query=Query,
    mutation=Mutation,
    subscription=Subscription,
    config=StrawberryConfig(scalar_map={Yuan: YUAN}),
)


def graphql_schema() -> GraphQLSchema:
    """The schema as graphql-core runs it: its resolvers are called with the source, graphql-core's info, and arguments
    of the declared Python types."""
    return _SCHEMA


def export_schema() -> str:
    """The schema as text, in an order that does not depend on the order of the code."""
    return print_schema(lexicographic_sort_schema(graphql_schema())) + "\n"


def _call_directly(schema: GraphQLSchema) -> GraphQLSchema:
    """Puts our functions in place of Strawberry's wrappers."""
    for type_ in schema.type_map.values():
        definition = type_.extensions.get("strawberry-definition")
        if not isinstance(definition, StrawberryObjectDefinition):
            continue
        if isinstance(type_, GraphQLInputObjectType):
            for name, field in type_.fields.items():
                field.out_name = _declared(field.extensions, name).python_name
            cast(Any, type_).out_type = _builder(definition.origin)
        elif isinstance(type_, GraphQLObjectType):
            for name, output in type_.fields.items():
                _set_resolver(output, _declared(output.extensions, name))
    return schema


def _declared(extensions: Mapping[str, Any], name: str) -> StrawberryField:
    declared = extensions.get("strawberry-definition")
    if not isinstance(declared, StrawberryField) or declared.extensions or declared.permission_classes:
        raise TypeError(f"{name}: fields with extensions or permission classes are not run by graphql-core alone")
    return declared


def _set_resolver(field: GraphQLField, declared: StrawberryField) -> None:
    for name, argument in field.args.items():
        found = next(each for each in declared.arguments if (each.graphql_name or _camel(each.python_name)) == name)
        argument.out_name = found.python_name
    resolver = declared.base_resolver
    if resolver is None:
        field.resolve = _attribute(declared.python_name)
        return
    function = cast(Callable[..., Any], resolver.wrapped_func)
    if resolver.info_parameter is None:
        function = _without_info(function)
    if declared.is_subscription:
        field.subscribe, field.resolve = function, _the_event
    else:
        field.resolve = function


def _builder(origin: type) -> Callable[[dict[str, Any]], Any]:
    return lambda values: origin(**values)


def _attribute(name: str) -> Callable[..., Any]:
    return lambda source, _info: getattr(source, name)


def _without_info(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda source, _info, **arguments: function(source, **arguments)


def _the_event(event: Any, _info: Any, **_arguments: Any) -> Any:
    return event


def _camel(name: str) -> str:
    return SCHEMA.config.name_converter.apply_naming_config(name)


_SCHEMA: Final = _call_directly(SCHEMA._schema)


if __name__ == "__main__":
    sys.stdout.write(export_schema())
