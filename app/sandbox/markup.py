"""HTML by templates that escape whatever is put into them.

A template is an ordinary format string. Every value is escaped unless it is already `Markup`, which only this
module's functions and literals wrapped by the page's author produce.
"""

import string
from collections.abc import Iterable
from html import escape
from typing import Any


class Markup(str):
    """Text that is HTML already. Never wrap anything that came from outside."""

    __slots__ = ()


class _Escaping(string.Formatter):
    def format_field(self, value: Any, format_spec: str) -> str:
        if isinstance(value, Markup):
            return value
        return escape(format(value, format_spec), quote=True)


_ESCAPING = _Escaping()


def fill(template: str, /, **values: object) -> Markup:
    """The template with `values` in its places, escaped."""
    return Markup(_ESCAPING.vformat(template, (), values))


def joined(parts: Iterable[Markup]) -> Markup:
    return Markup("".join(parts))
