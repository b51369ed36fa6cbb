"""The form does what opening the URL does, whatever the parameters hold."""

from html.parser import HTMLParser
from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.providers.redirect_form import redirect_form


class _Form(HTMLParser):
    """What a browser would submit, and which tags it saw."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.form: dict[str, str | None] = {}
        self.fields: list[tuple[str | None, str | None]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "form":
            self.form = dict(attrs)
        if tag == "input":
            self.fields.append((dict(attrs)["name"], dict(attrs)["value"]))


def test_every_parameter_becomes_a_field_in_its_order() -> None:
    form = _Form(redirect_form("https://openapi.alipay.com/gateway.do?b=%E4%B8%AD+1%2B&a=%22%3Cx%3E%26&b="))
    assert form.form == {"method": "get", "action": "https://openapi.alipay.com/gateway.do", "accept-charset": "utf-8"}
    assert form.fields == [("b", "中 1+"), ("a", '"<x>&'), ("b", "")]


# Browsers and this parser normalise these three inside attributes; no URL of a provider holds them.
_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00\r\n"))


@given(st.lists(st.tuples(_TEXT.filter(bool), _TEXT), max_size=8))
def test_no_parameter_can_leave_its_field(params: list[tuple[str, str]]) -> None:
    form = _Form(redirect_form("https://pay.example.com/go?" + urlencode(params)))
    assert form.fields == params
    assert form.tags == ["form", *["input"] * len(params), "noscript", "button", "script"]


def test_a_fragment_stays_on_the_action() -> None:
    form = _Form(redirect_form("https://pay.example.com/go?a=1#wechat_redirect"))
    assert form.form["action"] == "https://pay.example.com/go#wechat_redirect"
    assert form.fields == parse_qsl("a=1")


@pytest.mark.parametrize("url", ["javascript:alert(1)", "/gateway.do?a=1", "data:text/html,x", "https:///x", ""])
def test_anything_but_an_absolute_web_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="absolute http or https URL"):
        redirect_form(url)
