"""WeChat's daily trade bill (交易账单): a text file, one line per paid order or accepted refund, then a summary.

    交易时间,公众账号ID,…,费率备注                     names of the columns; a BOM may stand before them
    `2019-02-19 18:19:32,`wxab8a…,…,`0.01,`0.00,`      every value after a backtick: a subject may hold commas
    总交易单数,应结订单总金额,…
    `45.0,`0.47,…

Columns are found by name, because their number and order depend on the kind of bill and on its age. Amounts are yuan.

Source: https://pay.weixin.qq.com/doc/v3/merchant/4013071227, read 2026-09-11; tests/fixtures/bill.ALL.csv of
wechatpay-php@bd2148e.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from app.clock import SHANGHAI

_YUAN = re.compile(r"-?[0-9]{1,13}(?:\.[0-9]{1,8})?", re.ASCII)
_COUNT = re.compile(r"([0-9]{1,12})(?:\.0+)?", re.ASCII)
_TIME_FORMAT = "%Y-%m-%d %H:%M:%S"

# Ours, and the names under which the column goes in bills of all ages.
_TEXTS = {
    "app_id": ("公众账号ID",),
    "mch_id": ("商户号",),
    "sub_mch_id": ("特约商户号", "子商户号"),
    "transaction_id": ("微信订单号",),
    "out_trade_no": ("商户订单号",),
    "payer_id": ("用户标识",),
    "trade_type": ("交易类型",),
    "trade_state": ("交易状态",),
    "currency": ("货币种类",),
    "subject": ("商品名称",),
}
# In bills of payments alone these are missing.
_REFUND_TEXTS = {
    "refund_id": ("微信退款单号",),
    "out_refund_no": ("商户退款单号",),
    "refund_state": ("退款状态",),
}


class BillUnreadable(ValueError):
    """A file that is no complete trade bill, such as one that was cut short. Nothing in it may be believed."""


@dataclass(frozen=True, slots=True)
class BillRow:
    """One paid order, or one accepted refund of an order. Amounts are fen, but for the fee, which has five decimals."""

    happened_at: datetime
    app_id: str
    mch_id: str
    # "" where the merchant sold for itself
    sub_mch_id: str
    transaction_id: str
    out_trade_no: str
    payer_id: str
    trade_type: str
    trade_state: str
    currency: str
    subject: str
    # what the merchant gets for it; the order's own amount is more where WeChat gave a coupon
    settlement_fen: int
    order_fen: int
    fee_yuan: Decimal
    # these are "" and 0 in a row that is no refund
    refund_id: str
    out_refund_no: str
    refund_state: str
    refund_fen: int


@dataclass(frozen=True, slots=True)
class BillSummary:
    """The last line of a bill: what its rows come to."""

    count: int
    settlement_fen: int
    refund_fen: int
    fee_yuan: Decimal


@dataclass(frozen=True, slots=True)
class TradeBill:
    """A whole bill."""

    rows: Sequence[BillRow]
    summary: BillSummary


def parse_trade_bill(content: bytes) -> TradeBill:
    """The rows and the summary of an uncompressed trade bill of any kind. Raises BillUnreadable; never half a bill."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise BillUnreadable("the bill is not in UTF-8") from exc
    lines = [line for line in (line.removesuffix("\r") for line in text.split("\n")) if line]
    if len(lines) < 3:
        raise BillUnreadable("the bill lacks its names or its summary")
    names, *details, summary_names, summary_line = lines
    if any(line.startswith("`") for line in (names, summary_names)) or not summary_names.startswith("总交易单数"):
        raise BillUnreadable("the bill lacks its names or its summary")
    columns = names.split(",")
    rows = [_row(_values(columns, line)) for line in details]
    summary = _summary(_values(summary_names.split(","), summary_line))
    if summary.count != len(rows):
        raise BillUnreadable(f"the bill has {len(rows)} rows and says that it has {summary.count}")
    return TradeBill(rows, summary)


def _values(columns: Sequence[str], line: str) -> dict[str, str]:
    if not line.startswith("`"):
        raise BillUnreadable("a line does not begin with a backtick")
    values = line[1:].split(",`")
    if len(values) != len(columns) or len(set(columns)) != len(columns):
        raise BillUnreadable(f"a line has {len(values)} values for {len(columns)} columns")
    return dict(zip(columns, values, strict=True))


def _row(values: Mapping[str, str]) -> BillRow:
    is_refund = values.get("退款状态", "") != "" or values.get("交易状态") in ("REFUND", "REVOKED")
    texts = {ours: _text(values, *theirs) for ours, theirs in _TEXTS.items()}
    if texts["sub_mch_id"] == "0":
        texts["sub_mch_id"] = ""
    refund = {ours: _text(values, *theirs) if is_refund else "" for ours, theirs in _REFUND_TEXTS.items()}
    order_fen = _fen(_text(values, "订单金额", "总金额"))
    return BillRow(
        happened_at=_instant(_text(values, "交易时间")),
        **texts,
        settlement_fen=_fen(_text(values, "应结订单金额", "总金额")),
        order_fen=order_fen,
        fee_yuan=_yuan(_text(values, "手续费")),
        **refund,
        refund_fen=_fen(_text(values, "申请退款金额", "退款金额")) if is_refund else 0,
    )


def _summary(values: Mapping[str, str]) -> BillSummary:
    count = _COUNT.fullmatch(_text(values, "总交易单数"))
    if count is None:
        raise BillUnreadable("the bill's number of rows is no number")
    refunds = values.get("申请退款总金额", values.get("退款总金额", "0"))
    return BillSummary(
        count=int(count[1]),
        settlement_fen=_fen(_text(values, "应结订单总金额", "总交易额")),
        refund_fen=_fen(refunds),
        fee_yuan=_yuan(_text(values, "手续费总金额")),
    )


def _text(values: Mapping[str, str], *names: str) -> str:
    found = next((values[name] for name in names if name in values), None)
    if found is None:
        raise BillUnreadable(f"the bill has no column {names[0]}")
    return found


def _yuan(text: str) -> Decimal:
    if _YUAN.fullmatch(text) is None:
        raise BillUnreadable("an amount is not yuan in plain digits")
    return Decimal(text)


def _fen(text: str) -> int:
    fen = _yuan(text) * 100
    if fen != fen.to_integral_value():
        raise BillUnreadable("an amount is not whole fen")
    return int(fen)


def _instant(text: str) -> datetime:
    try:
        # Beijing's wall clock becomes an aware instant in the same breath.
        return datetime.strptime(text, _TIME_FORMAT).replace(tzinfo=SHANGHAI).astimezone(UTC)
    except (ValueError, OverflowError) as exc:
        raise BillUnreadable("a time is not written as WeChat writes it") from exc
