"""The bytes of a gateway call, read once: charset first, then every parameter, untouched.

Parsing never refuses; it remembers what was wrong so that the refusal can still be addressed to the method that was
called. Values are decoded exactly once and not trimmed: the signature covers them as they are.
"""

import codecs
import json
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from app.sandbox.alipay.errors import GatewayRefusal

CHARSETS = {"utf-8": "utf-8", "utf8": "utf-8", "gbk": "gbk", "gb2312": "gb18030", "gb18030": "gb18030"}
FALLBACK_CODEC = "gbk"  # what Alipay assumes when nothing says otherwise


@dataclass(frozen=True, slots=True)
class Parameters:
    """`values` are decoded with `codec`; `problem` is the first thing that makes the call unreadable."""

    values: dict[str, str]
    codec: str
    problem: GatewayRefusal | None

    def get(self, name: str) -> str:
        """The value, or an empty text: Alipay treats the two alike."""
        return self.values.get(name, "")

    def number_hint(self) -> str:
        """The number a call seems to be about, before anything is verified; for counting and faults only.

        The `out_trade_no`, or else the merchant's number of an agreement, or else Alipay's.
        """
        try:
            content = json.loads(self.get("biz_content"))
        except (ValueError, RecursionError):
            return ""
        if not isinstance(content, dict):
            return ""
        numbers = (content.get(name) for name in ("out_trade_no", "external_agreement_no", "agreement_no"))
        return next((number for number in numbers if number and isinstance(number, str)), "")


def parse_parameters(query: bytes, body: bytes) -> Parameters:
    """Both places a parameter may stand in, as one."""
    in_query, in_body = _pairs(query), _pairs(body)
    codec, problem = _codec(in_query)
    values: dict[str, str] = {}
    for raw_name, raw_value in in_query + in_body:
        try:
            name, value = raw_name.decode(codec), raw_value.decode(codec)
        except UnicodeDecodeError:
            name, value = raw_name.decode(codec, "replace"), raw_value.decode(codec, "replace")
            problem = problem or GatewayRefusal(
                "40002", "isv.invalid-charset", f"字符集错误：参数 {name} 不是 charset 所声明的编码"
            )
        # PHP's form repeats charset in the URL and in the form; a repeat that differs is nobody's.
        if values.setdefault(name, value) != value:
            problem = problem or GatewayRefusal("40002", "isv.invalid-parameter", f"参数无效：{name} 有两个不同的值")
    return Parameters(values, codec, problem)


def _codec(in_query: list[tuple[bytes, bytes]]) -> tuple[str, GatewayRefusal | None]:
    named = next((value.decode("ascii", "replace") for name, value in in_query if name == b"charset"), "")
    if not named:
        message = "字符集错误：charset 必须放在请求 URL 的查询参数里"
        return FALLBACK_CODEC, GatewayRefusal("40002", "isv.invalid-charset", message)
    codec = CHARSETS.get(named.lower())
    if codec is None:
        return FALLBACK_CODEC, GatewayRefusal("40002", "isv.invalid-charset", "字符集错误：只支持 utf-8 与 gbk")
    return codecs.lookup(codec).name, None


def _pairs(encoded: bytes) -> list[tuple[bytes, bytes]]:
    pairs = []
    for piece in encoded.split(b"&"):
        if piece:
            name, _, value = piece.partition(b"=")
            pairs.append((_decoded(name), _decoded(value)))
    return pairs


def _decoded(encoded: bytes) -> bytes:
    return unquote_to_bytes(encoded.replace(b"+", b" "))
