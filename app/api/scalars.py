"""Scalars of the API, and the ids that come in.

A `Yuan` is text on the wire and integer fen inside. A JSON number is refused even where it looks exact: 12.30 is
12.300000000000000710… by the time a server sees it.
"""

import re
from typing import Any, Final, NewType

from graphql import GraphQLError, StringValueNode, ValueNode
from strawberry import scalar
from strawberry.types.scalar import ScalarDefinition

from app.errors import InvalidAmount, InvalidInput
from app.money import format_yuan, parse_yuan

_ID: Final = re.compile(r"-?(0|[1-9][0-9]{0,18})", re.ASCII)
_BIGINT: Final = 2**63

Yuan = NewType("Yuan", int)


def _invalid(reason: str, node: ValueNode | None) -> GraphQLError:
    shown = {"code": InvalidAmount.code, "messageZh": InvalidAmount.default_zh}
    return GraphQLError(reason, nodes=node, extensions=shown)


def _read_yuan(value: object, node: ValueNode | None = None) -> int:
    if not isinstance(value, str):
        reason = 'an amount is text, not a number: write it in quotes with at most two decimals, such as "12.30"'
        raise _invalid(reason, node)
    try:
        return parse_yuan(value)
    except ValueError as exc:
        raise _invalid(str(exc), node) from exc


def _read_yuan_literal(node: ValueNode, _variables: dict[str, Any] | None = None) -> int:
    return _read_yuan(node.value if isinstance(node, StringValueNode) else None, node)


YUAN: Final[ScalarDefinition] = scalar(
    name="Yuan",
    description=(
        'Chinese yuan as a decimal string with at most two decimals, e.g. "12.30". Storage is integer fen. '
        "Numbers without quotes, exponents and signs are refused."
    ),
    serialize=format_yuan,
    parse_value=_read_yuan,
    parse_literal=_read_yuan_literal,
)


def find_id(text: str) -> int | None:
    """The key an `ID` names, or None where it can name no row of ours."""
    if _ID.fullmatch(text) is None:
        return None
    number = int(text)
    return number if -_BIGINT <= number < _BIGINT else None


def read_id(text: str, field: str) -> int:
    """The key an input names. Raises InvalidInput that names `field`."""
    number = find_id(text)
    if number is None:
        raise InvalidInput(f"{field}: {text[:40]!r} is not an id: write the digits of the row's key", field=field)
    return number
