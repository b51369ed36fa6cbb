"""JSON that comes from outside, as the open platform and the cloud calls read it."""

import json


def read_json(body: bytes, max_bytes: int) -> object:
    """The value, or None for whatever is none: too long, not JSON, or with halves of characters, which no text has."""
    try:
        value: object = json.loads(body) if len(body) <= max_bytes else None
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):  # of which a UnicodeError is one
        return None
    return value
