"""JSON of which nobody can read two things: what comes twice, or in a form that readers disagree about, is refused."""

import json
from collections.abc import Mapping
from typing import Any

_TEXT_LIMIT = 1024


class Unreadable(ValueError):
    """The bytes are not one plain JSON object. The message is for the log and holds nothing of them."""


def read_object(body: bytes) -> dict[str, Any]:
    """The object in `body`, which its caller has bounded. Raises Unreadable for any other bytes.

    Refused are: other encodings than UTF-8, a key that comes twice, NaN and Infinity, endless digits and nesting."""
    try:
        read = json.loads(body.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refused)
    except Unreadable:
        raise
    except (ValueError, RecursionError) as exc:
        raise Unreadable("not JSON in UTF-8") from exc
    if not isinstance(read, dict):
        raise Unreadable("not a JSON object")
    return read


def text_of(fields: Mapping[str, Any], name: str) -> str | None:
    """A text that is there and not empty; None for anything else, also for one that PostgreSQL could not hold."""
    value = fields.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= _TEXT_LIMIT or "\x00" in value:
        return None
    return None if any("\ud800" <= character <= "\udfff" for character in value) else value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    read = dict(pairs)
    if len(read) != len(pairs):
        raise Unreadable("a key comes twice")
    return read


def _refused(word: str) -> None:
    raise Unreadable(f"{word} is no number")
