"""WeChat's XML, one level deep: a root and its fields. Anything that could be more is refused, not interpreted.

    <xml><return_code><![CDATA[SUCCESS]]></return_code><total_fee>990</total_fee></xml>

The parser is told to stop at the first byte of a document type, so no entity is ever declared, loaded or expanded, and
at attributes, comments, processing instructions, nested and repeated elements: what is signed must have one reading.

Source: chapter 23_5 of the APIv2 documents; CVE-2018-13439 and CVE-2018-20318, read 2026-09-11.
"""

import re
from collections.abc import Mapping
from typing import Never
from xml.parsers import expat

BODY_LIMIT_BYTES = 65_536

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}", re.ASCII)
# What XML 1.0 has no way to write, not even as a character reference.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# A bare carriage return would come out of the other side's parser as a line feed, and the signature with it.
_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": "&#13;"})


class XmlRefused(ValueError):
    """Bytes that are not one flat list of fields. The message holds nothing of their content."""


def read_fields(body: bytes, *, root: str = "xml") -> dict[str, str]:
    """Every field below the root with its text unescaped, also the empty ones. Raises XmlRefused for other bytes."""
    if not 0 < len(body) <= BODY_LIMIT_BYTES:
        raise XmlRefused(f"the document must have 1 to {BODY_LIMIT_BYTES} bytes")
    if not _is_utf8(body):
        raise XmlRefused("the document is not in UTF-8")
    return _Reader(root).read(body)


def write_fields(fields: Mapping[str, str], *, root: str = "xml") -> bytes:
    """The document for `fields`, escaped, in UTF-8. Raises ValueError for a text that XML cannot hold."""
    for name, text in fields.items():
        if _NAME.fullmatch(name) is None or _NOT_XML.search(text):
            raise ValueError(f"{name[:64]} holds a character that XML cannot write")
    inner = "".join(f"<{name}>{text.translate(_ESCAPES)}</{name}>" for name, text in fields.items())
    return f"<{root}>{inner}</{root}>".encode()


def _is_utf8(body: bytes) -> bool:
    """The parser guesses at UTF-16 from the first bytes, even when it is told what the encoding is."""
    try:
        return "\x00" not in body.decode("utf-8")
    except UnicodeDecodeError:
        return False


class _Reader:
    """One document's worth of state between the parser's calls."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._fields: dict[str, str] = {}
        self._depth = 0
        self._name = ""
        self._text: list[str] = []

    def read(self, body: bytes) -> dict[str, str]:
        parser = expat.ParserCreate("utf-8")
        parser.XmlDeclHandler = self._declared
        parser.StartDoctypeDeclHandler = _refuse_doctype
        parser.EntityDeclHandler = _refuse_doctype
        parser.ProcessingInstructionHandler = _refuse_extra
        parser.CommentHandler = _refuse_extra
        parser.StartElementHandler = self._started
        parser.EndElementHandler = self._ended
        parser.CharacterDataHandler = self._characters
        try:
            parser.Parse(body, True)
        except expat.ExpatError as exc:
            raise XmlRefused("the document is not well-formed XML") from exc
        return self._fields

    def _declared(self, _version: str, encoding: str | None, _standalone: int) -> None:
        if encoding is not None and encoding.lower() not in ("utf-8", "utf8"):
            raise XmlRefused("the document is not in UTF-8")

    def _started(self, name: str, attributes: Mapping[str, str]) -> None:
        if attributes:
            raise XmlRefused("an element has attributes")
        if self._depth == 0 and name != self._root:
            raise XmlRefused(f"the root is not <{self._root}>")
        if self._depth == 1:
            if _NAME.fullmatch(name) is None:
                raise XmlRefused("a field has a name that WeChat does not use")
            if name in self._fields:
                raise XmlRefused("a field comes twice")
            self._name, self._text = name, []
        if self._depth == 2:
            raise XmlRefused("a field holds elements")
        self._depth += 1

    def _characters(self, text: str) -> None:
        if self._depth == 2:
            self._text.append(text)
        elif text.strip(" \t\r\n"):
            raise XmlRefused("there is text between the fields")

    def _ended(self, _name: str) -> None:
        self._depth -= 1
        if self._depth == 1:
            self._fields[self._name] = "".join(self._text)


def _refuse_doctype(*_: object) -> Never:
    raise XmlRefused("the document declares a document type or entities")


def _refuse_extra(*_: object) -> Never:
    raise XmlRefused("the document holds comments or processing instructions")
