"""Yuan text to fen and back, exactly; and everything that is no amount refused."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.money import format_yuan, parse_yuan


def test_every_fen_of_ten_thousand_yuan_survives() -> None:
    for fen in range(1_000_001):
        assert parse_yuan(format_yuan(fen)) == fen


@given(st.integers(min_value=0, max_value=10**15 - 1))
def test_large_amounts_survive(fen: int) -> None:
    assert parse_yuan(format_yuan(fen)) == fen
    assert Decimal(format_yuan(fen)) * 100 == fen


@given(st.integers(min_value=0, max_value=10**12), st.integers(min_value=0, max_value=10**12))
def test_the_order_of_amounts_survives(one: int, other: int) -> None:
    assert (one < other) == (Decimal(format_yuan(one)) < Decimal(format_yuan(other)))


@pytest.mark.parametrize(
    ("text", "fen"), [("12", 1200), ("12.3", 1230), ("12.30", 1230), ("0", 0), ("0.01", 1), ("19.9", 1990)]
)
def test_the_ways_to_write_an_amount(text: str, fen: int) -> None:
    assert parse_yuan(text) == fen


@pytest.mark.parametrize(
    "text",
    ["", " ", "12.", ".5", "12.345", "-1", "+1", "1e5", "1E5", "NaN", "Infinity", "1,000", "1 000",
     "１２", "12.３０", "٣", "012",
     "0x10", "12.30 ", " 12.30", "12.30\n", "1_000", "12..3", "¥12", "12元", "10000000000000", "None", "true"],
)  # fmt: skip
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not an amount in yuan"):
        parse_yuan(text)


@given(st.text(max_size=12))
def test_nothing_but_an_amount_is_read(text: str) -> None:
    try:
        fen = parse_yuan(text)
    except ValueError:
        return
    assert text.isascii()
    assert Decimal(text) * 100 == fen


def test_negative_fen_are_shown_as_such() -> None:
    assert [format_yuan(fen) for fen in (-1, -100, -12345)] == ["-0.01", "-1.00", "-123.45"]
