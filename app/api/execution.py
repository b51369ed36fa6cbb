"""From the text of an operation to its results, for every transport.

    text ──parse──limits──validate──▶ Prepared ──variables──▶ executor ──▶ one result, or a stream of results

Strawberry declares the schema; graphql-core runs it from here. Strawberry's own `execute` and its cache extensions are
passed by, because measured on this schema they cost 60 µs of every request (a runner, a middleware manager and an error
logger built anew each time), lose syntax errors on streams, and log every mistake of a client as an error.
"""

from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeGuard, cast

from graphql import (
    ArgumentNode,
    DocumentNode,
    ExecutionResult,
    Executor,
    GraphQLError,
    GraphQLSchema,
    Node,
    NoSchemaIntrospectionCustomRule,
    ObjectFieldNode,
    OperationDefinitionNode,
    OperationType,
    Visitor,
    create_source_event_stream,
    parse,
    specified_rules,
    type_from_ast,
    validate,
    visit,
)
from graphql.utilities import validate_input_value

from app.api.context import Context
from app.api.errors import INVALID_INPUT, RequestError, shown_error
from app.api.limits import TOKENS, check_limits
from app.errors import QueryTooComplex

# A prepared document holds some 150 bytes for each character of its text.
_CACHED_DOCUMENTS: Final = 512
_CACHED_CHARACTERS: Final = 262_144
_VARIABLE_ERRORS: Final = 5
_VALIDATION_ERRORS: Final = 20

_INPUT_ZH: Final = "输入不正确"


@dataclass(frozen=True, slots=True)
class OperationRequest:
    """What a client sent, whatever transport brought it."""

    query: str
    variables: Mapping[str, Any] | None = None
    operation_name: str | None = None


class RequestErrors(Exception):
    """The operation did not start, for these reasons."""

    def __init__(self, errors: list[GraphQLError]) -> None:
        super().__init__(f"{len(errors)} request errors")
        self.errors = errors


@dataclass(frozen=True, slots=True)
class Prepared:
    """A document that is valid and within the limits."""

    document: DocumentNode
    operations: tuple[OperationDefinitionNode, ...]

    def operation(self, name: str | None) -> OperationDefinitionNode:
        """The operation to run. Raises RequestErrors when the name does not decide it."""
        if name is None:
            if len(self.operations) == 1:
                return self.operations[0]
            message = "the document holds several operations: say which one with operationName"
        else:
            for operation in self.operations:
                if operation.name is not None and operation.name.value == name:
                    return operation
            message = f"the document holds no operation named {name[:100]!r}"
        raise RequestErrors([RequestError(message if self.operations else "the document holds no operation")])


class Engine:
    """Runs operations of one schema. Results carry `GraphQLError`s; `app.api.errors` makes them presentable."""

    def __init__(self, schema: GraphQLSchema, *, introspection: bool) -> None:
        self._schema = schema
        # Built once: rule classes made for each request would be part of no cache key that ever repeats.
        self._rules = [*specified_rules, *([] if introspection else [NoSchemaIntrospectionCustomRule])]
        self._hide_suggestions = not introspection
        self._prepared: OrderedDict[str, Prepared] = OrderedDict()
        self._characters = 0

    def prepare(self, text: str) -> Prepared:
        """Parses, measures and validates a document, or finds it done before. Raises RequestErrors."""
        known = self._prepared.get(text)
        if known is not None:
            self._prepared.move_to_end(text)
            return known
        prepared = self._check(text)
        self._prepared[text] = prepared
        self._characters += len(text)
        while self._characters > _CACHED_CHARACTERS or len(self._prepared) > _CACHED_DOCUMENTS:
            dropped, _ = self._prepared.popitem(last=False)
            self._characters -= len(dropped)
        return prepared

    async def execute(self, prepared: Prepared, request: OperationRequest, context: Context) -> ExecutionResult:
        """Runs a query or mutation. Raises RequestErrors when its variables do not fit."""
        result = self._executor(prepared, request, context).execute_operation()
        return cast(ExecutionResult, await result if _is_awaitable(result) else result)

    async def subscribe(
        self, prepared: Prepared, request: OperationRequest, context: Context
    ) -> AsyncGenerator[ExecutionResult, None]:
        """Results of a subscription, one for each event; close the generator to end it.

        The executor is built anew for each event, so that an idle stream holds its variables and nothing else, and the
        context with it, so that nothing loaded for one event is served to the next. Raises RequestErrors at the first
        step when the stream cannot begin; later what its source raises."""
        source = await self._source(prepared, request, context)
        try:
            async for event in source:
                executor = self._executor(prepared, request, context.for_event(), root=event)
                del event
                result = executor.execute_operation(False)
                del executor
                yield cast(ExecutionResult, await result if _is_awaitable(result) else result)
                del result
        finally:
            await cast(AsyncGenerator[Any, None], source).aclose()

    async def _source(self, prepared: Prepared, request: OperationRequest, context: Context) -> AsyncIterable[Any]:
        opened = create_source_event_stream(self._executor(prepared, request, context))
        source = await opened if _is_awaitable(opened) else opened
        if isinstance(source, ExecutionResult):
            raise RequestErrors(source.errors or [])
        return cast(AsyncIterable[Any], source)

    def _executor(
        self, prepared: Prepared, request: OperationRequest, context: Context, root: object = None
    ) -> "Executor[Any]":
        variables = dict(request.variables) if request.variables else {}
        executor = Executor.build(
            self._schema,
            prepared.document,
            root,
            context,
            variables,
            request.operation_name,
            max_coercion_errors=_VARIABLE_ERRORS,
            is_awaitable=_is_awaitable,
            hide_suggestions=self._hide_suggestions,
        )
        if isinstance(executor, list):
            operation = prepared.operation(request.operation_name)
            raise RequestErrors(self._explain_variables(operation, variables, executor))
        return executor

    def _explain_variables(
        self, operation: OperationDefinitionNode, variables: Mapping[str, Any], errors: list[GraphQLError]
    ) -> list[GraphQLError]:
        """The same refusals with the input named: graphql-core keeps the place of a fault in its message only."""
        explained: list[GraphQLError] = []
        for definition in operation.variable_definitions or ():
            name = definition.variable.name.value
            type_ = type_from_ast(self._schema, definition.type)
            if name not in variables or type_ is None:
                continue

            def note(error: GraphQLError, path: list[str | int], name: str = name) -> None:
                place = [part for part in path if isinstance(part, str)]
                explained.append(_input_error(error, ".".join([name, *map(str, path)]), place[-1] if place else name))

            validate_input_value(variables[name], cast(Any, type_), note, self._hide_suggestions)
        if explained:
            return list(explained[:_VARIABLE_ERRORS])
        return [RequestError(error.message, code=INVALID_INPUT, zh=_INPUT_ZH) for error in errors]

    def _check(self, text: str) -> Prepared:
        try:
            document = parse(text, max_tokens=TOKENS)
            check_limits(self._schema, document)
            errors = validate(
                self._schema,
                document,
                self._rules,
                max_errors=_VALIDATION_ERRORS,
                hide_suggestions=self._hide_suggestions,
            )
        except QueryTooComplex as exc:
            raise RequestErrors([shown_error(exc)]) from exc
        except RecursionError as exc:
            raise RequestErrors([shown_error(QueryTooComplex("the query nests too deeply"))]) from exc
        except GraphQLError as exc:
            raise RequestErrors([_syntax_error(exc)]) from exc
        if errors:
            raise RequestErrors([_literal_error(document, error) for error in errors])
        operations = tuple(node for node in document.definitions if isinstance(node, OperationDefinitionNode))
        return Prepared(document, operations)


def is_subscription(operation: OperationDefinitionNode) -> bool:
    """Whether the operation is a stream of results."""
    return operation.operation is OperationType.SUBSCRIPTION


def _syntax_error(error: GraphQLError) -> GraphQLError:
    """The parser's refusal; what it refuses for its size gets the code of that."""
    if "Document contains more than" in error.message:
        return shown_error(QueryTooComplex(f"the query is longer than {TOKENS} tokens; ask in several requests"))
    if "nested too deeply" in error.message:
        return shown_error(QueryTooComplex("the query nests too deeply; ask in several requests"))
    return error


def _input_error(error: GraphQLError, place: str, field: str) -> RequestError:
    own = error.extensions or {}
    return RequestError(
        f"{place}: {error.message}",
        code=own.get("code", INVALID_INPUT),
        zh=own.get("messageZh", _INPUT_ZH),
        field=own.get("field", field),
    )


def _literal_error(document: DocumentNode, error: GraphQLError) -> GraphQLError:
    """A refused literal of ours with the input it stood in; other errors as they are."""
    if not error.extensions or "code" not in error.extensions or not error.nodes:
        return error
    field = _name_around(document, error.nodes[0])
    if field is not None:
        error.extensions = {**error.extensions, "field": field}
    return error


def _name_around(document: DocumentNode, wanted: Node) -> str | None:
    """The name of the input field or argument whose value stands where `wanted` does."""
    found: list[str] = []

    class Finder(Visitor):
        def enter(self, node: Node, *_: object) -> None:
            # The error carries a copy of the node, with variables replaced.
            if isinstance(node, ObjectFieldNode | ArgumentNode) and node.value.loc == wanted.loc:
                found.append(node.name.value)

    visit(document, Finder())
    return found[-1] if found else None


def _is_awaitable(value: object) -> TypeGuard[Awaitable[Any]]:
    # Asked for every value of an answer; graphql-core's own check takes four times as long.
    return hasattr(value, "__await__")
