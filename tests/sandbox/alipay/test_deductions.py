"""Deductions under an agreement: its rules, how each can end, and what is told of it."""

import asyncio
from datetime import date, timedelta
from typing import Any

import pytest

from tests.sandbox.alipay.client import (
    AlipayClient,
    day,
    new_number,
    weekly,
)
from tests.sandbox.alipay.test_agreements import signed, truth
from tests.sandbox.handle import SandboxHandle
from tests.sandbox.merchant_server import MerchantServer

PAY = "alipay.trade.pay"
GENERAL = {"personal_product_code": "GENERAL_WITHHOLDING_P", "product_code": "GENERAL_WITHHOLDING"}
DAY_S = 86400

Agreement = dict[str, Any]


def deduction(agreement: Agreement, number: str, **fields: object) -> dict[str, object]:
    return {
        "out_trade_no": number,
        "total_amount": "30.00",
        "subject": "会员 一周",
        "product_code": agreement["product_code"],
        "agreement_params": {"agreement_no": agreement["agreement_no"]},
    } | fields


async def deduct(alipay: AlipayClient, agreement: Agreement, number: str = "", **fields: object) -> dict[str, Any]:
    return await alipay.succeed(PAY, deduction(agreement, number or new_number(), **fields))


async def refused(alipay: AlipayClient, agreement: Agreement, number: str = "", **fields: object) -> str:
    return await alipay.refused(PAY, deduction(agreement, number or new_number(), **fields))


async def order(sandbox: SandboxHandle, **policy: object) -> dict[str, Any]:
    ordered: dict[str, Any] = (await sandbox.control("POST", "/alipay/deductions/policy", policy))["policy"]
    return ordered


async def state(sandbox: SandboxHandle, agreement: Agreement) -> Agreement:
    return await truth(sandbox, agreement["external_agreement_no"])


# Success.


async def test_a_deduction_is_paid_and_moves_the_plan(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer
) -> None:
    agreement, number = await signed(sandbox, alipay), new_number()
    asked = deduction(agreement, number)
    answer = await alipay.succeed(PAY, asked, notify_url=merchant.notify_url)
    trade = await sandbox.trade(number)
    assert answer == {
        "code": "10000",
        "msg": "Success",
        "trade_no": trade["trade_no"],
        "out_trade_no": number,
        "buyer_user_id": agreement["payer"],
        "buyer_logon_id": f"{agreement['payer'][-3:]}***@sandbox.com",
        "total_amount": "30.00",
        "receipt_amount": "30.00",
        "buyer_pay_amount": "30.00",
        "invoice_amount": "30.00",
        "point_amount": "0.00",
        "gmt_payment": answer["gmt_payment"],
        "fund_bill_list": [{"fund_channel": "ALIPAYACCOUNT", "amount": "30.00"}],
    }
    assert (trade["product"], trade["status"], trade["buyer_id"]) == ("deduction", "PAID", agreement["payer"])
    assert (trade["agreement_no"], trade["external_agreement_no"]) == (
        agreement["agreement_no"],
        agreement["external_agreement_no"],
    )
    (received,) = await merchant.wait_for(1)
    fields = alipay.read_notification(received.body)
    assert (fields["trade_status"], fields["out_trade_no"], fields["buyer_id"]) == (
        "TRADE_SUCCESS",
        number,
        agreement["payer"],
    )
    assert fields["agreement_no"] == agreement["agreement_no"]
    assert fields["external_agreement_no"] == agreement["external_agreement_no"]
    after = await state(sandbox, agreement)
    (counted,) = after["deductions"]
    assert counted.pop("paid_at")
    assert counted == {"out_trade_no": number, "amount_fen": 3000, "planned_on": day()}
    assert (after["next_deduction_on"], after["deducted_fen"]) == (day(after=7), 3000)
    queried = await alipay.succeed("alipay.user.agreement.query", {"agreement_no": agreement["agreement_no"]})
    assert (queried["next_deduct_time"], queried["last_deduct_time"]) == (day(after=7), day())


async def test_it_can_be_queried_refunded_and_not_closed_as_any_trade(
    sandbox: SandboxHandle, alipay: AlipayClient
) -> None:
    agreement, number = await signed(sandbox, alipay), new_number()
    await deduct(alipay, agreement, number)
    queried = await alipay.query(number)
    assert (queried["trade_status"], queried["buyer_user_id"]) == ("TRADE_SUCCESS", agreement["payer"])
    refund = {"out_trade_no": number, "refund_amount": "10.00", "out_request_no": "R1"}
    answer = await alipay.succeed("alipay.trade.refund", refund)
    assert (answer["fund_change"], answer["buyer_user_id"]) == ("Y", agreement["payer"])
    assert await alipay.refused("alipay.trade.close", {"out_trade_no": number}) == "ACQ.TRADE_STATUS_ERROR"
    assert (await state(sandbox, agreement))["deducted_fen"] == 3000


async def test_a_number_is_deducted_once(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    agreement, number = await signed(sandbox, alipay), new_number()
    await sandbox.control("POST", "/faults", {"method": PAY, "kind": "lost_reply", "out_trade_no": number}, status=201)
    with pytest.raises(Exception, match=r"disconnected|reset"):
        await deduct(alipay, agreement, number)
    assert await refused(alipay, agreement, number) == "ACQ.TRADE_HAS_SUCCESS"
    assert (await alipay.query(number))["trade_status"] == "TRADE_SUCCESS"
    answers = await asyncio.gather(*(alipay.execute(PAY, deduction(agreement, number)) for _ in range(3)))
    assert {answer.fields.get("sub_code") for answer in answers} == {"ACQ.TRADE_HAS_SUCCESS"}
    assert len((await state(sandbox, agreement))["deductions"]) == 1


# The agreement's rules.


async def test_one_success_in_each_period_and_only_in_its_window(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    agreement = await signed(sandbox, alipay, period_rule_params=weekly(execute_time=day(after=6)))
    assert await refused(alipay, agreement) == "ACQ.CYCLE_PAY_DATE_NOT_MATCH"
    await sandbox.advance(DAY_S)
    await deduct(alipay, agreement)
    assert await refused(alipay, agreement) == "ACQ.CYCLE_PAY_DATE_NOT_MATCH", "the next is in twelve days"
    await sandbox.advance(12 * DAY_S)
    await deduct(alipay, agreement)
    assert (await state(sandbox, agreement))["next_deduction_on"] == day(after=20)


async def test_a_missed_window_is_over_until_the_plan_is_put_off(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    agreement = await signed(sandbox, alipay)
    await sandbox.advance(DAY_S)
    number = new_number()
    assert await refused(alipay, agreement, number) == "ACQ.CYCLE_PAY_DATE_NOT_MATCH"
    assert await alipay.query_refused(number) == "ACQ.TRADE_NOT_EXIST"
    plan = {"agreement_no": agreement["agreement_no"], "deduct_time": day(after=1)}
    await alipay.succeed("alipay.user.agreement.executionplan.modify", plan)
    await deduct(alipay, agreement, number)
    assert (await state(sandbox, agreement))["next_deduction_on"] == day(after=8)


async def test_the_window_ends_at_midnight_in_beijing(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    planned = date.fromisoformat(day(after=3))
    agreement = await signed(sandbox, alipay, period_rule_params=weekly(execute_time=planned.isoformat()))
    await sandbox.control("POST", "/clock", {"to": f"{planned}T23:59:00+08:00"})
    await order(sandbox, answer="ACQ.PAYMENT_FAIL", count=1)
    assert await refused(alipay, agreement) == "ACQ.PAYMENT_FAIL", "inside the window"
    await sandbox.control("POST", "/clock", {"to": f"{planned + timedelta(days=1)}T00:00:00+08:00"})
    assert await refused(alipay, agreement) == "ACQ.CYCLE_PAY_DATE_NOT_MATCH"


async def test_the_windows_length_can_be_set(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    agreement = await signed(sandbox, alipay, period_rule_params=weekly(execute_time=day(after=4)))
    await sandbox.control("POST", "/alipay/agreements/policy", {"window_days": 3})
    assert await refused(alipay, agreement) == "ACQ.CYCLE_PAY_DATE_NOT_MATCH"
    await sandbox.control("POST", "/alipay/agreements/policy", {"window_days": 4})
    await deduct(alipay, agreement)


@pytest.mark.parametrize(
    ("execute_time", "period", "next_on"),
    [("2028-01-28", "1", "2028-02-28"), ("2027-12-05", "1", "2028-01-05"), ("2027-11-10", "14", "2029-01-10")],
)
async def test_months_keep_their_day(
    sandbox: SandboxHandle, alipay: AlipayClient, execute_time: str, period: str, next_on: str
) -> None:
    rule = weekly(period_type="MONTH", period=period, execute_time=execute_time)
    agreement = await signed(sandbox, alipay, period_rule_params=rule)
    await sandbox.control("POST", "/clock", {"to": f"{execute_time}T08:00:00+08:00"})
    await deduct(alipay, agreement)
    assert (await state(sandbox, agreement))["next_deduction_on"] == next_on


@pytest.mark.parametrize(
    ("rule", "sub_code"),
    [
        ({"single_amount": "29.99"}, "ACQ.CYCLE_PAY_SINGLE_FEE_EXCEED"),
        ({"total_amount": "59.99"}, "ACQ.CYCLE_PAY_TOTAL_FEE_EXCEED"),
        ({"total_payments": "1"}, "ACQ.CYCLE_PAY_TOTAL_TIMES_EXCEED"),
    ],
)
async def test_amounts_and_counts_are_capped(
    sandbox: SandboxHandle, alipay: AlipayClient, rule: dict[str, object], sub_code: str
) -> None:
    agreement = await signed(sandbox, alipay, period_rule_params=weekly(**rule))
    if "single_amount" not in rule:
        await deduct(alipay, agreement)
        await sandbox.advance(7 * DAY_S)
    number = new_number()
    assert await refused(alipay, agreement, number) == sub_code
    assert not await sandbox.has_trade(number)


async def test_an_agreement_that_is_over_takes_no_money(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    unsigned, expired = await signed(sandbox, alipay), await signed(sandbox, alipay, sign_validity_period="1d")
    await alipay.succeed("alipay.user.agreement.unsign", {"agreement_no": unsigned["agreement_no"]})
    assert await refused(alipay, unsigned) == "ACQ.AGREEMENT_NOT_EXIST"
    await sandbox.control("POST", f"/agreements/{expired['external_agreement_no']}/expire", {})
    assert await refused(alipay, expired) == "ACQ.AGREEMENT_INVALID"
    assert await refused(alipay, unsigned | {"agreement_no": "20200101000000000000"}) == "ACQ.AGREEMENT_NOT_EXIST"
    assert (await sandbox.control("GET", "/trades"))["trades"] == []


async def test_general_withholding_has_neither_plan_nor_cap(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    agreement = await signed(sandbox, alipay, **GENERAL, period_rule_params=None)
    for amount in ("1.00", "99999.00"):
        await deduct(alipay, agreement, total_amount=amount)
    assert (await state(sandbox, agreement))["deducted_fen"] == 10_000_000


# Fields and numbers.


@pytest.mark.parametrize(
    "fields",
    [
        {"product_code": "FAST_INSTANT_TRADE_PAY"},
        {"product_code": "GENERAL_WITHHOLDING"},
        {"agreement_params": '{"agreement_no":"1"}'},
        {"agreement_params": {}},
        {"agreement_params": {"agreement_no": "1", "more": "1"}},
        {"auth_code": "281234567890123456"},
        {"scene": "bar_code"},
        {"is_async_pay": True},
        {"is_async_pay": "yes"},
        {"total_amount": "0"},
        {"out_trade_no": "a b"},
    ],
)
async def test_wrong_fields_are_refused(
    sandbox: SandboxHandle, alipay: AlipayClient, fields: dict[str, object]
) -> None:
    agreement = await signed(sandbox, alipay)
    asked = deduction(agreement, new_number()) | fields
    assert await alipay.refused(PAY, asked) == "ACQ.INVALID_PARAMETER"
    assert ((await sandbox.control("GET", "/trades"))["trades"], await sandbox.notices()) == ([], [])


async def test_a_number_means_one_thing(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    agreement, other = await signed(sandbox, alipay), await signed(sandbox, alipay)
    number, paid_page = new_number(), new_number()
    await order(sandbox, answer="ACQ.BUYER_BALANCE_NOT_ENOUGH", leave_trade=True, count=1)
    assert await refused(alipay, agreement, number) == "ACQ.BUYER_BALANCE_NOT_ENOUGH"
    for changed in ({"total_amount": "29.00"}, {"subject": "别的"}):
        assert await refused(alipay, agreement, number, **changed) == "ACQ.CONTEXT_INCONSISTENT"
    assert await refused(alipay, other, number) == "ACQ.CONTEXT_INCONSISTENT"
    await alipay.succeed("alipay.trade.close", {"out_trade_no": number})
    assert await refused(alipay, agreement, number) == "ACQ.TRADE_HAS_CLOSE"
    await alipay.opened(paid_page)
    assert await refused(alipay, agreement, paid_page) == "ACQ.CONTEXT_INCONSISTENT"
    assert (await state(sandbox, agreement))["deductions"] == []


# What a test can order.


async def test_an_ordered_refusal_leaves_no_trade_unless_it_is_told_to(
    sandbox: SandboxHandle, alipay: AlipayClient
) -> None:
    agreement, number = await signed(sandbox, alipay), new_number()
    ordered = await order(sandbox, answer="refused", sub_code="ACQ.MERCHANT_STATUS_NOT_NORMAL")
    assert (ordered["answer"], ordered["count"]) == ("ACQ.MERCHANT_STATUS_NOT_NORMAL", None)
    for _ in range(2):
        assert await refused(alipay, agreement, number) == "ACQ.MERCHANT_STATUS_NOT_NORMAL"
    assert await alipay.query_refused(number) == "ACQ.TRADE_NOT_EXIST"
    await order(sandbox, answer="ACQ.BUYER_BALANCE_NOT_ENOUGH", leave_trade=True)
    assert await refused(alipay, agreement, number) == "ACQ.BUYER_BALANCE_NOT_ENOUGH"
    waiting = await alipay.query(number)
    assert (waiting["trade_status"], waiting["unpaid_reason"]) == ("WAIT_BUYER_PAY", "买家余额不足")
    await order(sandbox, answer="now")
    await deduct(alipay, agreement, number)
    assert await sandbox.notices() == [], "none asked for them"


async def test_a_policy_can_be_for_one_agreement_and_a_few_deductions(
    sandbox: SandboxHandle, alipay: AlipayClient
) -> None:
    one, other = await signed(sandbox, alipay), await signed(sandbox, alipay)
    await order(sandbox, answer="ACQ.PAYMENT_FAIL", external_agreement_no=one["external_agreement_no"], count=2)
    await deduct(alipay, other)
    for _ in range(2):
        assert await refused(alipay, one) == "ACQ.PAYMENT_FAIL"
    await deduct(alipay, one)


async def test_a_deduction_in_process_settles_on_the_clock(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer
) -> None:
    agreement, number = await signed(sandbox, alipay), new_number()
    await order(sandbox, answer="processing", settle=600, count=1)
    asked = deduction(agreement, number)
    answer = await alipay.execute(PAY, asked, changes={"notify_url": merchant.notify_url})
    assert answer.fields["code"] == "10003"
    assert "gmt_payment" not in answer.fields
    assert answer.fields["trade_no"] == (await alipay.query(number))["trade_no"]
    assert (await alipay.query(number))["trade_status"] == "WAIT_BUYER_PAY"
    again = await alipay.execute(PAY, asked)
    assert again.fields["code"] == "10003", "a repeat changes nothing"
    assert await refused(alipay, agreement) == "ACQ.OVER_MAX_UNDER_WAY_DEDUCT_COUNT"
    before = await state(sandbox, agreement)
    assert (before["under_way"], before["next_deduction_on"]) == (number, day())

    await sandbox.advance(601)
    assert (await alipay.query(number))["trade_status"] == "TRADE_SUCCESS"
    (received,) = merchant.received
    assert alipay.read_notification(received.body)["agreement_no"] == agreement["agreement_no"]
    after = await state(sandbox, agreement)
    assert (after["under_way"], after["next_deduction_on"]) == (None, day(after=7))


async def test_one_that_settles_as_closed_leaves_the_period_open(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer
) -> None:
    agreement, number = await signed(sandbox, alipay), new_number()
    await order(sandbox, answer="processing", settle=60, **{"as": "closed"}, count=1)
    await alipay.execute(PAY, deduction(agreement, number), changes={"notify_url": merchant.notify_url})
    await sandbox.advance(61)
    assert (await alipay.query(number))["trade_status"] == "TRADE_CLOSED"
    assert merchant.received == []
    await deduct(alipay, agreement)


async def test_a_held_deduction_is_settled_by_hand(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer
) -> None:
    agreement, number, closed = await signed(sandbox, alipay), new_number(), new_number()
    await order(sandbox, answer="processing", settle="hold")
    for each in (closed, number):
        asked = deduction(agreement, each)
        answer = await alipay.execute(PAY, asked, changes={"notify_url": merchant.notify_url})
        assert answer.fields["code"] == "10003"
        if each == closed:
            await sandbox.control("POST", f"/trades/{each}/close", {})
    (notice,) = await sandbox.pay(number)
    assert notice["state"] == "ACKNOWLEDGED"
    after = await state(sandbox, agreement)
    assert [counted["out_trade_no"] for counted in after["deductions"]] == [number]
    assert after["next_deduction_on"] == day(after=7)


@pytest.mark.parametrize("late", [False, True])
async def test_one_closed_by_the_merchant_is_paid_late_only_when_ordered(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer, late: bool
) -> None:
    agreement, number = await signed(sandbox, alipay), new_number()
    await order(sandbox, answer="processing", settle=600, late=late)
    await alipay.execute(PAY, deduction(agreement, number), changes={"notify_url": merchant.notify_url})
    await alipay.succeed("alipay.trade.close", {"out_trade_no": number})
    await sandbox.advance(601)
    expected = ("TRADE_SUCCESS", 1, 1) if late else ("TRADE_CLOSED", 0, 0)
    status = (await alipay.query(number))["trade_status"]
    counted = len((await state(sandbox, agreement))["deductions"])
    assert (status, len(merchant.received), counted) == expected


async def test_a_refusal_may_be_untrue(sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer) -> None:
    agreement, number = await signed(sandbox, alipay), new_number()
    await order(sandbox, answer="ACQ.SYSTEM_ERROR", leave_trade=True, settle=0, count=1)
    asked = deduction(agreement, number)
    answer = await alipay.execute(PAY, asked, changes={"notify_url": merchant.notify_url})
    assert answer.outcome[1:] == ("40004", "ACQ.SYSTEM_ERROR")
    await merchant.wait_for(1)
    assert await refused(alipay, agreement, number) == "ACQ.TRADE_HAS_SUCCESS"


async def test_general_withholding_may_be_asynchronous(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    agreement = await signed(sandbox, alipay, **GENERAL, period_rule_params=None)
    number = new_number()
    later = {"is_async_pay": True, "pay_params": {"async_type": "NORMAL_ASYNC", "retry_type": "NONE"}}
    answer = await alipay.execute(PAY, deduction(agreement, number, **later))
    assert (answer.fields["code"], answer.fields["async_pay_apply_status"]) == ("10003", "S")
    await sandbox.advance(31)
    assert (await alipay.query(number))["trade_status"] == "TRADE_SUCCESS"


@pytest.mark.parametrize("kind", ["20000", "business_error", "http_500", "bad_signature"])
async def test_faults_find_a_deduction_by_its_number(sandbox: SandboxHandle, alipay: AlipayClient, kind: str) -> None:
    agreement, number = await signed(sandbox, alipay), new_number()
    await sandbox.control("POST", "/faults", {"method": PAY, "kind": kind, "out_trade_no": number}, status=201)
    await alipay.send(alipay.signed(PAY, deduction(agreement, number)))
    assert (await sandbox.control("GET", "/faults"))["faults"] == []
    assert await sandbox.has_trade(number) == (kind == "bad_signature")


@pytest.mark.parametrize(
    "policy",
    [
        {"answer": "refused"},
        {"answer": "maybe"},
        {"answer": "now", "sub_code": "ACQ.PAYMENT_FAIL"},
        {"answer": "processing", "settle": -1},
        {"answer": "processing", "as": "lost"},
        {"answer": "processing", "count": 0},
    ],
)
async def test_a_wrong_policy_changes_nothing(sandbox: SandboxHandle, alipay: AlipayClient, policy: Agreement) -> None:
    assert "error" in await sandbox.control("POST", "/alipay/deductions/policy", policy, status=400)
    await deduct(alipay, await signed(sandbox, alipay))


async def test_a_held_deduction_keeps_its_payer(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    agreement, number = await signed(sandbox, alipay), new_number()
    await order(sandbox, answer="processing")
    await alipay.execute(PAY, deduction(agreement, number))
    wrong = await sandbox.control("POST", f"/trades/{number}/pay", {"buyer": "2088000000000000"}, status=409)
    assert (wrong["error"]["code"], (await sandbox.trade(number))["paid"]) == ("ACQ.INVALID_PARAMETER", False)


async def test_an_isv_deducts_for_its_merchant(sandbox: SandboxHandle, isv_alipay: AlipayClient) -> None:
    agreement = await signed(sandbox, isv_alipay)
    number = new_number()
    await deduct(isv_alipay, agreement, number)
    trade = await sandbox.trade(number)
    assert (trade["seller_id"], trade["auth_app_id"]) == (
        isv_alipay.account["seller_id"],
        isv_alipay.account["auth_app_id"],
    )
