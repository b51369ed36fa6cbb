"""Amounts go out and come back to the fen, and each transaction says what it says."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.providers.contract import ReportedStatus
from app.providers.wechat.states import STATUSES
from app.providers.wechat.v3.orders import prepay_content
from app.providers.wechat.v3.strict_json import Unreadable, read_object
from app.providers.wechat.v3.transactions import transaction_report
from tests.providers.wechat.v3.bench import Bench, request
from tests.providers.wechat.v3.keyring import APP_ID, PAID, PARTNER_PAID


def _returned(bench: Bench, fen: int) -> int | None:
    """An amount through the order's bytes and, as WeChat repeats it, back into a report."""
    sent = json.dumps(prepay_content(bench.account, request(amount_fen=fen), APP_ID)).encode()
    read = read_object(sent)
    return transaction_report(PAID | {"amount": read["amount"]}, "query", payer_name="openid").amount_fen


async def test_every_small_amount_goes_out_and_comes_back(bench: Bench) -> None:
    for fen in (*range(1, 10_001), *range(10_000, 1_000_001, 499), 999_999, 1_000_000):
        assert _returned(bench, fen) == fen


@given(fen=st.integers(1, 2**63 - 1))
def test_any_amount_is_read_exactly(fen: int) -> None:
    read = read_object(json.dumps(PAID | {"amount": {"total": fen}}).encode())
    assert transaction_report(read, "query", payer_name="openid").amount_fen == fen


@given(amount=st.floats(allow_nan=False, allow_infinity=False))
def test_no_amount_with_a_point_is_read(amount: float) -> None:
    with pytest.raises(Unreadable, match="whole number of fen"):
        transaction_report(PAID | {"amount": {"total": amount}}, "query", payer_name="openid")


@pytest.mark.parametrize(("word", "status"), [*STATUSES.items(), ("SOMETHING_NEW", ReportedStatus.PENDING)])
def test_every_state_is_translated(word: str, status: ReportedStatus) -> None:
    report = transaction_report(PAID | {"trade_state": word}, "notification", payer_name="openid")
    assert (report.status, report.source) == (status, "notification")


def test_the_payer_is_who_was_asked_and_nobody_else() -> None:
    payer = {"openid": "oDirect", "sp_openid": "oProvider", "sub_openid": "oMerchant"}
    assert transaction_report(PAID | {"payer": payer}, "query", payer_name="openid").payer_id == "oDirect"
    for name in ("sp_openid", "sub_openid"):
        assert transaction_report(PARTNER_PAID | {"payer": payer}, "query", payer_name=name).payer_id == payer[name]
    nobodies: tuple[Any, ...] = (None, {}, [], "oDirect", {"openid": ""}, {"openid": 7})
    for nobody in nobodies:
        assert transaction_report(PAID | {"payer": nobody}, "query", payer_name="openid").payer_id is None


@pytest.mark.parametrize(
    ("fields", "payer_name"),
    [
        (PARTNER_PAID, "openid"),
        (PAID, "sp_openid"),
        (PAID, "sub_openid"),
        (PARTNER_PAID | {"sub_mchid": ""}, "sp_openid"),
    ],
)
def test_a_receiver_of_the_other_kind_is_no_receiver(fields: dict[str, Any], payer_name: str) -> None:
    """None of its identifiers would be compared with anything of the account's."""
    with pytest.raises(Unreadable, match="does not name its receiver"):
        transaction_report(fields, "notification", payer_name=payer_name)
