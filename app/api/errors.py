"""Errors as clients see them: `message`, `path`, and `extensions` with a stable `code` and a `messageZh`.

    ShouyinError                     its own message and extensions
    syntax, validation, variables    the message of graphql-core, INVALID_QUERY or INVALID_INPUT with `field`
    anything else                    masked as INTERNAL with the correlation id; the log has the traceback

A client's mistake writes nothing to the log, so that nobody can flood it from outside.
"""

from collections.abc import Sequence
from typing import Any, Final

import structlog
from graphql import GraphQLError

from app.errors import ShouyinError
from app.metrics import Metrics

_log = structlog.stdlib.get_logger("shouyin.api")

_INTERNAL_ZH: Final = "系统内部错误，请稍后重试；反馈时请附上编号"
_INVALID_QUERY_ZH: Final = "GraphQL 请求有误"

# Clients read the codes of ShouyinError; these two belong to GraphQL itself.
INVALID_QUERY: Final = "INVALID_QUERY"
INVALID_INPUT: Final = "INVALID_INPUT"


class RequestError(GraphQLError):
    """The operation never started; its message is shown. `code` is INVALID_QUERY unless the error knows better."""

    def __init__(
        self, message: str, *, code: str = INVALID_QUERY, zh: str = _INVALID_QUERY_ZH, **extensions: Any
    ) -> None:
        super().__init__(message, extensions={"code": code, "messageZh": zh, **extensions})


def shown_error(error: ShouyinError) -> RequestError:
    """One of our errors, met before an operation started, as a GraphQL error."""
    shown = RequestError(error.message, code=error.code)
    shown.extensions = error.extensions()
    return shown


def format_errors(errors: Sequence[GraphQLError], correlation_id: str, metrics: Metrics) -> list[dict[str, Any]]:
    """The `errors` of a response. Logs what is ours to mend."""
    formatted = [_format(error, correlation_id) for error in errors]
    for shown in formatted:
        metrics.graphql_errors.labels(shown["extensions"]["code"]).inc()
    return formatted


def format_exception(exc: Exception, correlation_id: str, metrics: Metrics) -> list[dict[str, Any]]:
    """An exception that ended a stream or a request outside any field, as the `errors` of a response."""
    error = exc if isinstance(exc, GraphQLError) else GraphQLError("stream failed", original_error=exc)
    return format_errors([error], correlation_id, metrics)


def _format(error: GraphQLError, correlation_id: str) -> dict[str, Any]:
    cause: BaseException | None = error
    while isinstance(cause, GraphQLError) and cause.original_error is not None:
        cause = cause.original_error
    if isinstance(cause, ShouyinError):
        shown: dict[str, Any] = {"message": cause.message, "extensions": cause.extensions()}
    elif isinstance(cause, GraphQLError):
        shown = {"message": error.message, "extensions": dict(error.extensions or {})}
        shown["extensions"].setdefault("code", INVALID_QUERY)
        shown["extensions"].setdefault("messageZh", _INVALID_QUERY_ZH)
    else:
        _log.error("internal_error", path=error.path, error=type(cause).__name__, exc_info=cause)
        shown = {
            "message": f"internal error; the operator finds it in the log under {correlation_id}",
            "extensions": {"code": "INTERNAL", "messageZh": _INTERNAL_ZH, "correlationId": correlation_id},
        }
    if error.locations:
        shown["locations"] = [location.formatted for location in error.locations]
    if error.path is not None:
        shown["path"] = error.path
    return shown
