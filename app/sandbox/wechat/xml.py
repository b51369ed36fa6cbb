"""The XML of APIv2: one flat `<xml>` of texts. Written for the sandbox alone, on expat.

Anything that could reach beyond the text is refused where it begins: a DOCTYPE (and with it every entity that somebody
declares), processing instructions, attributes, elements inside elements, repeated names.
"""

import re
from collections.abc import Mapping
from xml.parsers import expat

MAX_BYTES = 1 << 16
ROOT = "xml"

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_NO_TEXT = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, 2.2


class XmlRefused(ValueError):
    """The text is not what WeChat's XML looks like."""


class NotUtf8(XmlRefused):
    """The bytes are no UTF-8."""


def read_xml(body: bytes, *, root: str = ROOT) -> dict[str, str]:
    """The elements of one flat document, in their order; an empty element is an empty text.

    Surrounding white space of an element belongs to its text. Raises XmlRefused, NotUtf8.
    """
    if len(body) > MAX_BYTES:
        raise XmlRefused(f"longer than {MAX_BYTES} bytes")
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise NotUtf8("not UTF-8") from exc
    reader = _Reader(root)
    parser = expat.ParserCreate("utf-8")
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = reader.refuse_doctype
    parser.EntityDeclHandler = reader.refuse_doctype
    parser.ProcessingInstructionHandler = reader.refuse_instruction
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    try:
        parser.Parse(text.encode(), True)
    except expat.ExpatError as exc:
        raise XmlRefused(f"not well-formed: {exc}") from exc
    return reader.fields


class _Reader:
    def __init__(self, root: str) -> None:
        self.fields: dict[str, str] = {}
        self._root = root
        self._depth = 0
        self._name = ""
        self._pieces: list[str] = []

    def refuse_doctype(self, *_: object) -> None:
        raise XmlRefused("a DOCTYPE is not allowed")

    def refuse_instruction(self, *_: object) -> None:
        raise XmlRefused("a processing instruction is not allowed")

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if attributes:
            raise XmlRefused("attributes are not allowed")
        self._depth += 1
        if self._depth == 1 and name != self._root:
            raise XmlRefused(f"the root is not <{self._root}>")
        if self._depth > 2:
            raise XmlRefused("an element inside an element")
        if name in self.fields:
            raise XmlRefused(f"{name} is repeated")
        self._name, self._pieces = name, []

    def text(self, piece: str) -> None:
        if self._depth == 2:
            self._pieces.append(piece)
        elif piece.strip():
            raise XmlRefused("text between the elements")

    def end(self, _name: str) -> None:
        if self._depth == 2:
            self.fields[self._name] = "".join(self._pieces)
        self._depth -= 1


def write_xml(fields: Mapping[str, str | int], *, root: str = ROOT) -> bytes:
    """Texts as CDATA, numbers bare, as WeChat writes them. A `]]>` inside a text is divided between two sections."""
    return f"<{root}>{''.join(_element(name, value) for name, value in fields.items())}</{root}>".encode()


def is_writable(name: str, text: str) -> bool:
    """Whether an element of this name and text can be written, and so be read again."""
    return _NAME.fullmatch(name) is not None and _NO_TEXT.search(text) is None


def _element(name: str, value: str | int) -> str:
    assert _NAME.fullmatch(name), "names are the sandbox's own, or were checked"
    if isinstance(value, int):
        return f"<{name}>{value}</{name}>"
    return f"<{name}><![CDATA[{value.replace(']]>', ']]]]><![CDATA[>')}]]></{name}>"
