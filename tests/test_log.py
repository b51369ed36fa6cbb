"""Logs: one line an event, and nothing in it that must not be there."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest
import structlog

from app.log import configure_logging, redact


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What is written while a test runs; the logging of the process is put back after it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    configure_logging(json=True, stream=stream)
    # A logger cached by an earlier test would go on writing where it did.
    structlog.configure(cache_logger_on_first_use=False)
    yield stream
    structlog.reset_defaults()
    root.handlers[:], root.level = handlers, level


def read(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_has_its_instant_level_logger_and_correlation_id(lines: io.StringIO) -> None:
    with structlog.contextvars.bound_contextvars(correlation_id="c-1"):
        structlog.stdlib.get_logger("shouyin.test").info("payment_created", payment_id=7, title="茶")
    (line,) = read(lines)
    assert line.pop("at").endswith("Z")
    assert line == {
        "event": "payment_created", "payment_id": 7, "title": "茶", "correlation_id": "c-1", "level": "info",
        "logger": "shouyin.test",
    }  # fmt: skip


def test_libraries_write_the_same_lines(lines: io.StringIO) -> None:
    with structlog.contextvars.bound_contextvars(correlation_id="c-1"):
        logging.getLogger("arq.worker").info("%s jobs", 3)
        logging.getLogger("uvicorn.access").info("GET /graphql?token=secret")
        logging.getLogger("uvicorn.error").info('"WebSocket /graphql?token=secret" [accepted]')
        logging.getLogger("httpx").info("GET https://example/?sign=secret")
    (line,) = read(lines)
    assert (line["event"], line["logger"], line["correlation_id"]) == ("3 jobs", "arq.worker", "c-1")


def test_tracebacks_are_text_without_local_values(lines: io.StringIO) -> None:
    secret = "hidden" + "-value"
    try:
        int("x" + secret[:0])
    except ValueError:
        structlog.stdlib.get_logger("shouyin.test").exception("failed")
    (line,) = read(lines)
    assert "ValueError: invalid literal" in line["exception"]
    assert secret not in lines.getvalue()


def test_the_row_that_the_database_refused_is_not_told(lines: io.StringIO) -> None:
    refused = asyncpg.CheckViolationError('new row for relation "payment" violates a constraint')
    refused.detail = "Failing row contains (1, 7, o-openid-of-somebody)."
    refused.hint = "mend it"
    structlog.stdlib.get_logger("shouyin.test").error("failed", exc_info=refused)
    (line,) = read(lines)
    assert "somebody" not in lines.getvalue()
    assert line["exception"].endswith("violates a constraint\nDETAIL: [hidden]\nHINT:  mend it")


@pytest.mark.parametrize(
    "name",
    ["authorization", "Authorization", "token", "access_token", "app_private_key", "api_key", "apiv3_key", "key",
     "body", "sign", "signature", "paySign", "cookie", "password", "credentials", "MASTER_KEYS", "variables"],
)  # fmt: skip
def test_secret_fields_are_hidden_at_any_depth(name: str) -> None:
    event = {"event": "x", name: "first", "outer": {name: "second", "list": [{name: "third"}]}}
    shown = json.dumps(redact(None, "info", event))
    for value in ("first", "second", "third"):
        assert value not in shown


def test_personal_fields_keep_their_end_and_long_ones_their_beginning() -> None:
    openid = "oUpF8uMuAJO_M2pxb1Q9zNjWeS6o"
    event = {"event": "x", "openid": openid, "payer_id": "short", "detail": "y" * 5000, "raw": b"12"}
    shown = redact(None, "info", event)
    assert shown["openid"] == "…eS6o"
    assert shown["payer_id"] == "…"
    assert len(shown["detail"]) == 2001
    assert shown["raw"] == "[2 bytes]"


def test_ids_and_codes_stay() -> None:
    event = {"event": "x", "payment_id": 7, "out_trade_no": "SY1", "code": "NOT_FOUND", "key_id": "k1", "ids": [1, 2]}
    assert redact(None, "info", dict(event)) == event
