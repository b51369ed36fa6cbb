"""How much one document may ask for, whatever transport brought it.

    tokens   1,000   before anything else, so that parsing and validating stay cheap
    depth       12   nested selections; fragments count where they are spread
    aliases     30   the same field again under another name
    cost     1,000   one for each field, times the expected length of each list above it

Introspection is measured by tokens alone: its depth is fixed by the tools that send it, and it reads no rows. It is
allowed or refused as a whole, by the INTROSPECTION setting.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLObjectType,
    GraphQLSchema,
    InlineFragmentNode,
    IntValueNode,
    OperationDefinitionNode,
    SelectionSetNode,
    get_named_type,
    is_list_type,
    is_non_null_type,
)

from app.errors import QueryTooComplex

TOKENS: Final = 1000
_DEPTH: Final = 12
_ALIASES: Final = 30
_COST: Final = 1000

# How many rows a list is taken to hold; a list with a `limit` argument holds that many.
_LIST_ROWS: Final = 10
_LIMIT_ROWS: Final = 100


@dataclass(slots=True)
class _Walk:
    schema: GraphQLSchema
    fragments: Mapping[str, FragmentDefinitionNode]
    aliases: int = 0
    cost: int = 0
    # Fragments being spread, so that one that contains itself ends here and is refused by validation.
    spreading: set[str] = field(default_factory=set)


def check_limits(schema: GraphQLSchema, document: DocumentNode) -> None:
    """Raises QueryTooComplex when an operation of a parsed document asks for too much. It need not be valid yet."""
    fragments = {
        definition.name.value: definition
        for definition in document.definitions
        if isinstance(definition, FragmentDefinitionNode)
    }
    for definition in document.definitions:
        if isinstance(definition, OperationDefinitionNode):
            root = schema.get_root_type(definition.operation)
            _selections(_Walk(schema, fragments), definition.selection_set, root, depth=1, rows=1)


def _selections(
    walk: _Walk, selected: SelectionSetNode, parent: GraphQLObjectType | None, *, depth: int, rows: int
) -> None:
    if depth > _DEPTH:
        raise QueryTooComplex(f"the query nests deeper than {_DEPTH} levels; ask in several requests")
    for node in selected.selections:
        if isinstance(node, FieldNode):
            _field(walk, node, parent, depth=depth, rows=rows)
        elif isinstance(node, InlineFragmentNode):
            inner = _type_named(walk, node.type_condition.name.value) if node.type_condition else parent
            _selections(walk, node.selection_set, inner, depth=depth, rows=rows)
        elif isinstance(node, FragmentSpreadNode):
            _spread(walk, node.name.value, depth=depth, rows=rows)


def _field(walk: _Walk, node: FieldNode, parent: GraphQLObjectType | None, *, depth: int, rows: int) -> None:
    name = node.name.value
    if name.startswith("__"):
        # Costs one, and is not looked into.
        _charge(walk, 1)
        return
    if node.alias is not None:
        walk.aliases += 1
        if walk.aliases > _ALIASES:
            raise QueryTooComplex(f"the query has more than {_ALIASES} aliases; ask in several requests")
    _charge(walk, rows)
    if node.selection_set is None:
        return
    definition = parent.fields.get(name) if parent is not None else None
    inner: GraphQLObjectType | None = None
    if definition is not None:
        named = get_named_type(definition.type)
        inner = named if isinstance(named, GraphQLObjectType) else None
        plain = definition.type.of_type if is_non_null_type(definition.type) else definition.type
        if is_list_type(plain):
            rows *= _list_rows(node)
    _selections(walk, node.selection_set, inner, depth=depth + 1, rows=rows)


def _spread(walk: _Walk, name: str, *, depth: int, rows: int) -> None:
    fragment = walk.fragments.get(name)
    if fragment is None or name in walk.spreading:
        return
    # A spread costs at least one, so that fragments that spread fragments cannot double their way past the limit.
    _charge(walk, 1)
    walk.spreading.add(name)
    inner = _type_named(walk, fragment.type_condition.name.value)
    _selections(walk, fragment.selection_set, inner, depth=depth, rows=rows)
    walk.spreading.discard(name)


def _charge(walk: _Walk, cost: int) -> None:
    walk.cost += cost
    if walk.cost > _COST:
        raise QueryTooComplex(f"the query costs more than {_COST} fields; ask for fewer fields or shorter lists")


def _list_rows(node: FieldNode) -> int:
    for argument in node.arguments or ():
        if argument.name.value == "limit":
            if isinstance(argument.value, IntValueNode) and len(argument.value.value) <= 9:
                return min(max(int(argument.value.value), 1), _LIMIT_ROWS)
            return _LIMIT_ROWS
    return _LIST_ROWS


def _type_named(walk: _Walk, name: str) -> GraphQLObjectType | None:
    found = walk.schema.get_type(name)
    return found if isinstance(found, GraphQLObjectType) else None
