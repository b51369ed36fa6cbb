"""Templates escape everything that is not markup already."""

from app.sandbox.markup import Markup, fill, joined


def test_values_are_escaped_in_text_and_in_attributes() -> None:
    assert fill('<a title="{a}">{b}</a>', a="\"'>", b="<b>&") == ('<a title="&quot;&#x27;&gt;">&lt;b&gt;&amp;</a>')


def test_markup_is_not_escaped_twice() -> None:
    inner = fill("<b>{text}</b>", text="<")
    assert fill("<p>{inner}</p>", inner=inner) == "<p><b>&lt;</b></p>"
    assert joined([inner, Markup("<br>")]) == "<b>&lt;</b><br>"


def test_a_value_is_never_read_as_a_template() -> None:
    assert fill("{text}", text="{other}") == "{other}"


def test_numbers_and_formats_work() -> None:
    assert fill("{count} {padded:03d}", count=3, padded=7) == "3 007"
