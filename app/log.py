"""Structured logs: one line an event, JSON in production and readable text on a terminal.

Lines carry ids, codes and the correlation id of the request, notification or flow they belong to; never bodies, keys,
tokens, signatures or whole openids. The places that log choose their fields; `redact` below is the second line of
defence for a field that slipped through. uvicorn, arq and every other library arrive here through the standard logging.
"""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Final, TextIO

import structlog

# Compared with the field's name in lower case; a part of the name is enough, as in "x_app_private_key".
_SECRET_PARTS: Final = (
    "authorization",
    "password",
    "secret",
    "token",
    "private_key",
    "api_key",
    "apiv3_key",
    "master_key",
    "credential",
    "signature",
    "cookie",
    "sealed",
    "certificate",
)
_SECRET_NAMES: Final = frozenset({"key", "body", "sign", "paysign", "query", "variables", "document", "dsn"})
_PERSONAL_NAMES: Final = frozenset({"openid", "sub_openid", "payer_id", "buyer_id"})

# PostgreSQL names the whole row that it refused, payer and all: "DETAIL:  Failing row contains (1, 7, …)".
_ROW_IN_ERROR: Final = re.compile(r"^DETAIL:.*$", re.MULTILINE)

# A field is a word or a sentence; what is longer is a body that somebody logged.
_TEXT_LIMIT: Final = 2000
_DEPTH_LIMIT: Final = 4


def configure_logging(*, json: bool, level: str = "info", stream: TextIO | None = None) -> None:
    """Sends every log of the process to `stream` (standard error unless given). Call once, before anything logs."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        structlog.processors.StackInfoRenderer(),
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if json
        else structlog.dev.ConsoleRenderer(
            colors=(stream or sys.stderr).isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    # Tracebacks as text without local variables: locals hold keys and bodies.
    rendering = [structlog.processors.format_exc_info, redact, renderer] if json else [redact, renderer]
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.PositionalArgumentsFormatter()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "arq", "arq.worker", "arq.jobs", "websockets"):
        library = logging.getLogger(name)
        library.handlers[:] = []
        library.propagate = True
    # These tell every request or socket with its address, secrets in the query string included.
    for name in ("httpx", "httpcore", "uvicorn.error", "uvicorn.access", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)


def redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Hides what a field's name gives away as secret or personal, at any depth; shortens what is too long."""
    for name, value in event.items():
        if name == "exception" and isinstance(value, str):
            event[name] = _ROW_IN_ERROR.sub("DETAIL: [hidden]", value)
        elif name != "event":
            event[name] = _shown(name, value, 0)
    return event


def _shown(name: str, value: Any, depth: int) -> Any:
    lower = name.lower()
    if lower in _SECRET_NAMES or any(part in lower for part in _SECRET_PARTS):
        return "[hidden]"
    if lower in _PERSONAL_NAMES and isinstance(value, str):
        return f"…{value[-4:]}" if len(value) > 8 else "…"
    if isinstance(value, bytes | bytearray | memoryview):
        return f"[{len(value)} bytes]"
    if isinstance(value, str):
        return value if len(value) <= _TEXT_LIMIT else f"{value[:_TEXT_LIMIT]}…"
    if isinstance(value, dict):
        if depth >= _DEPTH_LIMIT:
            return "[…]"
        return {key: _shown(str(key), inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_shown(name, inner, depth + 1) for inner in value[:50]] if depth < _DEPTH_LIMIT else "[…]"
    return value
