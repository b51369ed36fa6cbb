"""The captured trade bill parses to the fen, and nothing that is not a whole bill does."""

import hashlib
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.providers.wechat.bills import BillRow, BillSummary, BillUnreadable, parse_trade_bill
from tests.providers.wechat.v2.merchant import vector_bytes, vectors

_ROW = "`2025-08-01 10:02:11,`wx0000000000000001,`1900000001,`0,`,`4200000000202508010000000001,`A20250801000001"


def captured() -> bytes:
    return vector_bytes(vectors("bill")["file"])


def refusal(content: bytes) -> str:
    with pytest.raises(BillUnreadable) as refused:
        parse_trade_bill(content)
    return str(refused.value)


def test_the_captured_bill_comes_to_what_its_summary_says() -> None:
    stated = vectors("bill")
    content = captured()
    assert hashlib.sha1(content).hexdigest() == stated["sha1"]
    assert content.startswith(b"\xef\xbb\xbf")
    bill = parse_trade_bill(content)
    assert len(bill.rows) == stated["detail_rows"] == 45
    assert bill.summary == BillSummary(count=45, settlement_fen=47, refund_fen=14, fee_yuan=Decimal("0.08"))
    assert sum(row.settlement_fen for row in bill.rows) == 47
    assert sum(row.order_fen for row in bill.rows) == 47
    assert sum(row.refund_fen for row in bill.rows) == 14
    assert sum((row.fee_yuan for row in bill.rows), Decimal()) == Decimal("0.08")


def test_a_refund_and_a_payment_of_the_captured_bill_are_read_to_the_fen() -> None:
    rows = parse_trade_bill(captured()).rows
    assert rows[0] == BillRow(
        happened_at=datetime(2019, 2, 18, 21, 1, 46, tzinfo=UTC),
        app_id="wxab8acd895ab1638a",
        mch_id="1921000401",
        sub_mch_id="",
        transaction_id="4200000263201902167700134212",
        out_trade_no="autotest_20190216081946_82335",
        payer_id="oHkLxtx0vUqe-18p_AXTZ1innxkCY",
        trade_type="JSAPI",
        trade_state="REFUND",
        currency="CNY",
        subject="系统拨测-cheeryin-test_micropay_succ",
        settlement_fen=0,
        order_fen=0,
        fee_yuan=Decimal("0.00000"),
        refund_id="50000709672019011908420787722",
        out_refund_no="REF4200000263201902167700963919",
        refund_state="SUCCESS",
        refund_fen=1,
    )
    paid = rows[2]
    assert (paid.trade_type, paid.trade_state, paid.out_trade_no) == (
        "NATIVE",
        "SUCCESS",
        "autotest_20190219015232_89201",
    )
    assert (paid.settlement_fen, paid.order_fen, paid.fee_yuan) == (3, 3, Decimal("0.01000"))
    assert (paid.refund_id, paid.out_refund_no, paid.refund_state, paid.refund_fen) == ("", "", "", 0)
    assert {(row.trade_state, row.refund_fen > 0) for row in rows} == {("SUCCESS", False), ("REFUND", True)}


def test_columns_are_found_by_name_in_any_order() -> None:
    lines = captured().decode("utf-8-sig").rstrip("\n").split("\n")
    turned = [",".join(reversed(lines[0].rstrip("\r").split(",")))]
    turned += ["`" + ",`".join(reversed(line.rstrip("\r")[1:].split(",`"))) for line in lines[1:-2]]
    assert parse_trade_bill("\n".join([*turned, *lines[-2:]]).encode()) == parse_trade_bill(captured())


def test_a_bill_of_payments_alone_has_no_refund_columns() -> None:
    names = (
        "交易时间,公众账号ID,商户号,特约商户号,设备号,微信订单号,商户订单号,用户标识,交易类型,交易状态,付款银行,货币种类,"
        "应结订单金额,代金券金额,商品名称,商户数据包,手续费,费率,订单金额,费率备注"
    )
    row = f"{_ROW},`oX,`JSAPI,`SUCCESS,`OTHERS,`CNY,`9.80,`0.10,`Tea, black; 红茶,`,`0.05880,`0.60%,`9.90,`"
    summary = "总交易单数,应结订单总金额,手续费总金额,订单总金额\r\n`1,`9.80,`0.06,`9.90"
    bill = parse_trade_bill(f"{names}\r\n{row}\r\n{summary}\r\n".encode())
    [paid] = bill.rows
    assert (paid.subject, paid.settlement_fen, paid.order_fen) == ("Tea, black; 红茶", 980, 990)
    assert (paid.fee_yuan, paid.refund_fen, paid.refund_id) == (Decimal("0.05880"), 0, "")
    assert bill.summary == BillSummary(count=1, settlement_fen=980, refund_fen=0, fee_yuan=Decimal("0.06"))


def test_a_day_without_trade_is_an_empty_bill() -> None:
    lines = captured().decode().split("\n")
    empty = "\n".join([lines[0], lines[-2] if lines[-1] else lines[-3], "`0.0,`0.00,`0.00,`0.0,`0.00,`0.00,`0.00"])
    bill = parse_trade_bill(empty.encode())
    assert (len(bill.rows), bill.summary.count) == (0, 0)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("`45.0", "`44.0", "the bill has 45 rows and says that it has 44"),
        ("`45.0", "`45.5", "the bill's number of rows is no number"),
        ("`45.0", "`4５", "the bill's number of rows is no number"),
        ("`0.47", "`0.471", "an amount is not whole fen"),
        ("`0.47", "`1e2", "an amount is not yuan in plain digits"),
        ("`0.47", "`NaN", "an amount is not yuan in plain digits"),
        ("`0.47", "`1,000.00", "an amount is not yuan in plain digits"),
        ("总交易单数", "别的", "the bill lacks its names or its summary"),
        ("商户订单号", "订单", "the bill has no column 商户订单号"),
        ("商户订单号", "商户号", "a line has 27 values for 27 columns"),
        ("`2019-02-19 05:01:46", "2019-02-19 05:01:46", "a line does not begin with a backtick"),
        ("`2019-02-19 05:01:46", "`2019-02-30 05:01:46", "a time is not written as WeChat writes it"),
        ("`autotest,`", "`auto,`test,`", "a line has 28 values for 27 columns"),
    ],
)
def test_what_is_not_a_whole_and_exact_bill_is_refused(old: str, new: str, why: str) -> None:
    text = captured().decode()
    assert old in text
    assert refusal(text.replace(old, new, 1).encode()) == why


def test_a_bill_cut_short_anywhere_is_refused() -> None:
    content = captured().rstrip()
    for length in range(0, len(content) - 4, 97):
        assert refusal(content[:length])


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_parser(content: bytes) -> None:
    with pytest.raises(BillUnreadable):
        parse_trade_bill(content)
