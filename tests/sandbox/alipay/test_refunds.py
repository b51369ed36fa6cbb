"""Refunds over a trade's life: what is refused, what moves money, what is told, and when it settles."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from app.sandbox.desks import DeskRefusal, refunding
from tests.sandbox.alipay.client import AlipayClient, beijing, new_number, parse_answer
from tests.sandbox.handle import SandboxHandle
from tests.sandbox.merchant_server import MerchantServer

REFUND = "alipay.trade.refund"
QUERY = "alipay.trade.fastpay.refund.query"
NOTHING_KNOWN = {"code": "10000", "msg": "Success"}

YEAR_S = 365 * 86400


async def paid(alipay: AlipayClient, sandbox: SandboxHandle, *, total: str = "10.00", notify_url: str = "") -> str:
    number = new_number()
    await alipay.opened(number, biz={"total_amount": total}, **({"notify_url": notify_url} if notify_url else {}))
    await sandbox.pay(number)
    return number


def ask(number: str, amount: str, request_no: str | None = "R_1", **fields: object) -> dict[str, object]:
    content: dict[str, object] = {"out_trade_no": number, "refund_amount": amount}
    if request_no is not None:
        content["out_request_no"] = request_no
    return content | fields


async def refund(
    alipay: AlipayClient, number: str, amount: str, request_no: str | None = "R_1", **fields: Any
) -> dict[str, Any]:
    return await alipay.succeed(REFUND, ask(number, amount, request_no, **fields))


async def refused(alipay: AlipayClient, number: str, amount: str, request_no: str | None = "R_1") -> str:
    return await alipay.refused(REFUND, ask(number, amount, request_no))


async def known(alipay: AlipayClient, number: str, request_no: str, **fields: object) -> dict[str, Any]:
    return await alipay.succeed(QUERY, {"out_trade_no": number, "out_request_no": request_no, **fields})


async def set_policy(sandbox: SandboxHandle, **policy: object) -> None:
    await sandbox.control("POST", "/refunds/policy", policy)


async def truth(sandbox: SandboxHandle, number: str) -> tuple[str, int, list[tuple[str, int, str]]]:
    """What the provider itself would say: trade_status, what was given back, and each refund."""
    trade = await sandbox.trade(number)
    refunds = [(one["out_refund_no"], one["amount_fen"], one["status"]) for one in trade["refunds"]]
    return trade["trade_status"], trade["refunded_fen"], refunds


# Answers


async def test_a_partial_refund_moves_money_once_and_tells_all_of_it(
    sandbox: SandboxHandle, alipay: AlipayClient
) -> None:
    number = await paid(alipay, sandbox)
    options = ["refund_detail_item_list", "deposit_back_info"]
    answer = await refund(alipay, number, "3.10", "R_1", refund_reason="少了一杯", query_options=options)
    trade = await sandbox.trade(number)
    (made,) = trade["refunds"]
    assert made == {
        "out_refund_no": "R_1",
        "refund_id": None,
        "amount_fen": 310,
        "status": "REFUNDED",
        "reason": "少了一杯",
        "created_at": made["created_at"],
        "refunded_at": made["refunded_at"],
    }
    assert (trade["trade_status"], trade["status"], trade["paid"], trade["refunded_fen"]) == (
        "TRADE_SUCCESS",
        "PAID",
        True,
        310,
    )
    refunded_at = beijing(datetime.fromisoformat(made["refunded_at"]))
    assert answer == {
        "code": "10000",
        "msg": "Success",
        "buyer_logon_id": "sha***@sandbox.com",
        "buyer_user_id": "2088720000000088",
        "fund_change": "Y",
        "out_trade_no": number,
        "refund_fee": "3.10",
        "trade_no": trade["trade_no"],
        "gmt_refund_pay": refunded_at,
        "refund_detail_item_list": [{"fund_channel": "ALIPAYACCOUNT", "amount": "3.10"}],
        "send_back_fee": "3.10",
        "deposit_back_info": {"has_deposit_back": "false"},
    }
    bare = {
        "code": "10000",
        "msg": "Success",
        "out_request_no": "R_1",
        "out_trade_no": number,
        "refund_amount": "3.10",
        "refund_reason": "少了一杯",
        "refund_status": "REFUND_SUCCESS",
        "total_amount": "10.00",
        "trade_no": trade["trade_no"],
    }
    assert await known(alipay, number, "R_1") == bare
    with_time = await known(alipay, number, "R_1", query_options=["gmt_refund_pay"])
    assert with_time == bare | {"gmt_refund_pay": refunded_at}


async def test_the_fee_of_an_answer_is_all_that_was_refunded_so_far(
    sandbox: SandboxHandle, alipay: AlipayClient
) -> None:
    number = await paid(alipay, sandbox)
    assert (await refund(alipay, number, "1.00", "R_1"))["refund_fee"] == "1.00"
    assert (await refund(alipay, number, "2.50", "R_2"))["refund_fee"] == "3.50"
    assert (await known(alipay, number, "R_2"))["refund_amount"] == "2.50"
    repeat = await refund(alipay, number, "1.00", "R_1")
    assert (repeat["fund_change"], repeat["refund_fee"]) == ("N", "3.50")


async def test_a_repeat_moves_nothing_and_says_so(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    number = await paid(alipay, sandbox)
    first = await refund(alipay, number, "10.00", "R_1")
    assert first["fund_change"] == "Y"
    # Also once the trade is closed by it; the trade may be named by either number.
    by_trade_no = {"trade_no": first["trade_no"], "refund_amount": "10", "out_request_no": "R_1"}
    for repeat in (await refund(alipay, number, "10.00", "R_1"), await alipay.succeed(REFUND, by_trade_no)):
        assert repeat == first | {"fund_change": "N"}
    assert await truth(sandbox, number) == ("TRADE_CLOSED", 1000, [("R_1", 1000, "REFUNDED")])


async def test_a_refund_in_full_closes_the_trade_which_stays_paid(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    number = await paid(alipay, sandbox)
    await refund(alipay, number, "9.99", "R_1")
    assert (await alipay.query(number))["trade_status"] == "TRADE_SUCCESS"
    await refund(alipay, number, "0.01", "R_2")
    trade = await sandbox.trade(number)
    assert (trade["status"], trade["paid"], trade["refunded_fen"]) == ("PAID", True, 1000)
    assert trade["closed_at"] == trade["refunds"][1]["refunded_at"]
    answer = await alipay.query(number)
    assert answer["trade_status"] == "TRADE_CLOSED"
    assert answer["send_pay_date"] == beijing(datetime.fromisoformat(trade["paid_at"]))
    assert await refused(alipay, number, "0.01", "R_3") == "ACQ.TRADE_HAS_CLOSE"
    late = await sandbox.control("POST", f"/trades/{number}/pay", {"late": True}, status=409)
    assert late["error"]["code"] == "ACQ.TRADE_HAS_SUCCESS"
    assert await alipay.refused("alipay.trade.close", {"out_trade_no": number}) == "ACQ.TRADE_STATUS_ERROR"


async def test_a_refund_without_a_number_of_its_own_is_one_of_everything(
    sandbox: SandboxHandle, alipay: AlipayClient
) -> None:
    number = await paid(alipay, sandbox)
    assert await refused(alipay, number, "9.99", None) == "ACQ.REFUND_AMT_NOT_EQUAL_TOTAL"
    assert await truth(sandbox, number) == ("TRADE_SUCCESS", 0, [])
    assert (await refund(alipay, number, "10.00", None))["fund_change"] == "Y"
    assert (await known(alipay, number, number))["refund_amount"] == "10.00"
    assert await truth(sandbox, number) == ("TRADE_CLOSED", 1000, [(number, 1000, "REFUNDED")])


async def test_what_was_not_refunded_is_not_known(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    number = await paid(alipay, sandbox)
    assert await known(alipay, number, "R_1") == NOTHING_KNOWN
    await refund(alipay, number, "1.00", "R_1")
    assert await known(alipay, number, "R_2") == NOTHING_KNOWN
    assert await known(alipay, number, "r_1") == NOTHING_KNOWN
    assert await alipay.refused(QUERY, {"out_trade_no": "none", "out_request_no": "R_1"}) == "ACQ.TRADE_NOT_EXIST"


# Refusals


async def nobody_came(_sandbox: SandboxHandle, alipay: AlipayClient) -> str:
    number = new_number()
    await alipay.http.get(alipay.page_url(number))
    return number


async def unpaid(_sandbox: SandboxHandle, alipay: AlipayClient) -> str:
    number = new_number()
    await alipay.opened(number)
    return number


async def closed(sandbox: SandboxHandle, alipay: AlipayClient) -> str:
    number = await unpaid(sandbox, alipay)
    await sandbox.control("POST", f"/trades/{number}/close")
    return number


async def too_old(sandbox: SandboxHandle, alipay: AlipayClient) -> str:
    number = await paid(alipay, sandbox)
    await sandbox.advance(YEAR_S)
    return number


@pytest.mark.parametrize(
    ("made", "sub_code", "sub_msg"),
    [
        (nobody_came, "ACQ.TRADE_NOT_EXIST", "交易不存在"),
        (unpaid, "ACQ.TRADE_STATUS_ERROR", "交易状态不合法：只有支付成功的交易可以退款"),
        (closed, "ACQ.TRADE_HAS_CLOSE", "交易已经关闭"),
        (too_old, "ACQ.TRADE_HAS_FINISHED", "交易已经完结，不可退款"),
    ],
)
async def test_a_trade_that_cannot_be_refunded_says_why_in_exactly_these_bytes(
    sandbox: SandboxHandle,
    alipay: AlipayClient,
    made: Callable[[SandboxHandle, AlipayClient], Awaitable[str]],
    sub_code: str,
    sub_msg: str,
) -> None:
    number = await made(sandbox, alipay)
    moved = timedelta(seconds=YEAR_S) if made is too_old else timedelta(0)
    changes = {"timestamp": beijing(datetime.now(UTC) + moved)}
    response = await alipay.send(alipay.signed(REFUND, ask(number, "0.01"), changes=changes))
    refusal = f'{{"code":"40004","msg":"Business Failed","sub_code":"{sub_code}","sub_msg":"{sub_msg}"}}'
    start, end = f'{{"alipay_trade_refund_response":{refusal},"sign":"', '"}'
    assert response.text.startswith(start)
    assert response.text.endswith(end)
    assert alipay.signed_by_alipay(parse_answer(response.content))
    assert (await sandbox.trade(number))["refunds"] == []


async def test_a_day_before_the_window_ends_money_can_still_be_given_back(
    sandbox: SandboxHandle, alipay: AlipayClient
) -> None:
    number = await paid(alipay, sandbox)
    await sandbox.advance(YEAR_S - 86400)
    timestamp = beijing(datetime.now(UTC) + timedelta(seconds=YEAR_S - 86400))
    answer = await alipay.succeed(REFUND, ask(number, "0.01"), timestamp=timestamp)
    assert answer["fund_change"] == "Y"
    await sandbox.advance(86400)
    assert await truth(sandbox, number) == ("TRADE_FINISHED", 1, [("R_1", 1, "REFUNDED")])
    assert (await sandbox.trade(number))["paid"] is True


async def test_never_more_than_was_paid(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    number = await paid(alipay, sandbox)
    assert await refused(alipay, number, "10.01", "R_1") == "ACQ.REFUND_AMT_NOT_EQUAL_TOTAL"
    await refund(alipay, number, "6.00", "R_1")
    assert await refused(alipay, number, "4.01", "R_2") == "ACQ.REASON_TRADE_REFUND_FEE_ERR"
    assert await truth(sandbox, number) == ("TRADE_SUCCESS", 600, [("R_1", 600, "REFUNDED")])
    # A refusal used nothing up, and leaves its number free.
    assert (await refund(alipay, number, "4.00", "R_2"))["refund_fee"] == "10.00"


async def test_many_at_once_give_back_no_more_than_was_paid(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    number = await paid(alipay, sandbox)
    answers = await asyncio.gather(*(alipay.execute(REFUND, ask(number, "3.00", f"R_{n}")) for n in range(20)))
    outcomes = sorted(answer.fields.get("sub_code", "refunded") for answer in answers)
    assert outcomes == ["ACQ.REASON_TRADE_REFUND_FEE_ERR"] * 17 + ["refunded"] * 3
    assert (await truth(sandbox, number))[:2] == ("TRADE_SUCCESS", 900)


async def test_a_number_used_with_another_amount_is_refused(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    number = await paid(alipay, sandbox)
    await refund(alipay, number, "1.00", "R_1")
    for amount in ("1.01", "0.99", "10.00", "99.00"):
        assert await refused(alipay, number, amount, "R_1") == "ACQ.DISCORDANT_REPEAT_REQUEST"
    assert await truth(sandbox, number) == ("TRADE_SUCCESS", 100, [("R_1", 100, "REFUNDED")])


async def test_two_trades_may_use_the_same_refund_number(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    first, second = await paid(alipay, sandbox), await paid(alipay, sandbox)
    assert (await refund(alipay, first, "1.00", "R_1"))["fund_change"] == "Y"
    assert (await refund(alipay, second, "2.00", "R_1"))["fund_change"] == "Y"
    assert (await known(alipay, first, "R_1"))["refund_amount"] == "1.00"
    error = await sandbox.control("POST", "/refunds/R_1/settle", {"as": "FAILED"}, status=409)
    assert error["error"]["code"] == "REFUND_AMBIGUOUS"


async def test_another_seller_can_neither_refund_nor_ask(
    sandbox: SandboxHandle, alipay: AlipayClient, certificate_alipay: AlipayClient
) -> None:
    number = await paid(alipay, sandbox)
    await refund(alipay, number, "1.00", "R_1")
    assert await refused(certificate_alipay, number, "1.00", "R_1") == "ACQ.TRADE_NOT_EXIST"
    asked = {"out_trade_no": number, "out_request_no": "R_1"}
    assert await certificate_alipay.refused(QUERY, asked) == "ACQ.TRADE_NOT_EXIST"
    assert (await truth(sandbox, number))[1] == 100


@pytest.mark.parametrize("method", [REFUND, QUERY])
async def test_an_isv_needs_its_merchants_token(sandbox: SandboxHandle, isv_alipay: AlipayClient, method: str) -> None:
    number = await paid(isv_alipay, sandbox)
    content = ask(number, "1.00") if method == REFUND else {"out_trade_no": number, "out_request_no": "R_1"}
    for token in (None, "202611BBunknown"):
        answer = await isv_alipay.execute(method, content, changes={"app_auth_token": token})
        assert answer.fields["code"] != "10000"
        assert "sign" not in answer.envelope
    assert (await sandbox.trade(number))["refunds"] == []
    assert (await refund(isv_alipay, number, "1.00"))["fund_change"] == "Y"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"refund_amount": "0"}, "refund_amount 必须在 [0.01, 100000000] 之间"),
        ({"refund_amount": "-1.00"}, "refund_amount 金额格式不正确：单位为元，最多两位小数"),
        ({"refund_amount": "1.001"}, "refund_amount 金额格式不正确：单位为元，最多两位小数"),
        ({"refund_amount": "1e1"}, "refund_amount 金额格式不正确：单位为元，最多两位小数"),
        ({"refund_amount": "１.00"}, "refund_amount 金额格式不正确：单位为元，最多两位小数"),
        ({"refund_amount": None}, "refund_amount 不能为空"),
        ({"out_trade_no": None}, "out_trade_no 与 trade_no 不能同时为空"),
        ({"out_request_no": ""}, "out_request_no 不能为空"),
        ({"out_request_no": "R" * 65}, "out_request_no 超过最大长度 64"),
        ({"refund_reason": "退" * 257}, "refund_reason 超过最大长度 256"),
        ({"refund_currency": "CNY"}, "refund_currency 不是该接口文档中的字段"),
        ({"query_options": "refund_detail_item_list"}, "query_options 必须是数组，不能是字符串"),
        ({"query_options": ["gmt_refund_pay"]}, "query_options 只能是 refund_detail_item_list、deposit_back_info"),
    ],
)
async def test_a_refund_out_of_form_is_refused_by_field(
    sandbox: SandboxHandle, alipay: AlipayClient, changes: dict[str, Any], message: str
) -> None:
    number = await paid(alipay, sandbox)
    content = {name: value for name, value in (ask(number, "1.00") | changes).items() if value is not None}
    answer = await alipay.execute(REFUND, content)
    assert answer.fields == {
        "code": "40004",
        "msg": "Business Failed",
        "sub_code": "ACQ.INVALID_PARAMETER",
        "sub_msg": f"参数无效：{message}",
    }
    assert await truth(sandbox, number) == ("TRADE_SUCCESS", 0, [])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "out_request_no 不能为空"),
        ({"out_request_no": "R_1"}, "out_trade_no 与 trade_no 不能同时为空"),
        ({"out_request_no": "R_1", "out_trade_no": "T", "refund_amount": "1"}, "refund_amount 不是该接口文档中的字段"),
    ],
)
async def test_a_refund_query_out_of_form_is_refused(
    sandbox: SandboxHandle, alipay: AlipayClient, content: dict[str, object], message: str
) -> None:
    answer = await alipay.execute(QUERY, content)
    assert (answer.fields["sub_code"], answer.fields["sub_msg"]) == ("ACQ.INVALID_PARAMETER", f"参数无效：{message}")


# Faults


async def test_a_lost_reply_has_given_the_money_back(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    number = await paid(alipay, sandbox)
    await sandbox.control("POST", "/faults", {"method": REFUND, "kind": "lost_reply"}, status=201)
    with pytest.raises(Exception, match="disconnected"):
        await refund(alipay, number, "4.00", "R_1")
    assert await truth(sandbox, number) == ("TRADE_SUCCESS", 400, [("R_1", 400, "REFUNDED")])
    assert (await refund(alipay, number, "4.00", "R_1"))["fund_change"] == "N"
    assert (await truth(sandbox, number))[1] == 400


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        (
            {"kind": "business_error", "sub_code": "ACQ.SELLER_BALANCE_NOT_ENOUGH"},
            ("alipay_trade_refund_response", "40004", "ACQ.SELLER_BALANCE_NOT_ENOUGH"),
        ),
        (
            {"kind": "error_response", "code": "40005", "sub_code": "isv.app-call-limited"},
            ("error_response", "40005", "isv.app-call-limited"),
        ),
        ({"kind": "20000"}, ("alipay_trade_refund_response", "20000", "aop.unknow-error")),
    ],
)
async def test_a_refused_refund_gives_nothing_back_and_may_be_repeated(
    sandbox: SandboxHandle, alipay: AlipayClient, fault: dict[str, str], outcome: tuple[str, str, str]
) -> None:
    number = await paid(alipay, sandbox)
    await sandbox.control("POST", "/faults", {"method": REFUND, **fault}, status=201)
    answer = await alipay.execute(REFUND, ask(number, "4.00"))
    assert answer.outcome == outcome
    assert await truth(sandbox, number) == ("TRADE_SUCCESS", 0, [])
    assert (await refund(alipay, number, "4.00"))["fund_change"] == "Y"
    assert await sandbox.calls(REFUND, number) == 2


# Notices


async def test_a_partial_refund_is_notified_with_the_sum_so_far(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer
) -> None:
    number = await paid(alipay, sandbox, notify_url=merchant.notify_url)
    await refund(alipay, number, "1.00", "R_1")
    await merchant.wait_for(2)
    await refund(alipay, number, "2.50", "R_2")
    of_payment, *of_refunds = [alipay.read_notification(one.body) for one in await merchant.wait_for(3)]
    trade = await sandbox.trade(number)
    fees = (("1.00", "1.00"), ("2.50", "3.50"))
    for notice, made, (its_own, so_far) in zip(of_refunds, trade["refunds"], fees, strict=True):
        refunded_at = datetime.fromisoformat(made["refunded_at"])
        assert notice == of_payment | {
            "notify_id": notice["notify_id"],
            "notify_time": notice["notify_time"],
            "sign": notice["sign"],
            "out_biz_no": made["out_refund_no"],
            "refund_fee": so_far,
            "send_back_fee": its_own,
            "gmt_refund": f"{beijing(refunded_at)}.{refunded_at.microsecond // 1000:03d}",
        }
    assert len({notice["notify_id"] for notice in (of_payment, *of_refunds)}) == 3
    assert [notice["trade_status"] for notice in of_refunds] == ["TRADE_SUCCESS", "TRADE_SUCCESS"]
    listed = (await sandbox.notices())[1]["summary"]
    assert (listed["out_biz_no"], listed["refund_fee"]) == ("R_1", "1.00")


async def test_a_full_refund_is_not_notified_and_a_repeat_never_is(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer
) -> None:
    number = await paid(alipay, sandbox, notify_url=merchant.notify_url)
    await refund(alipay, number, "4.00", "R_1")
    await merchant.wait_for(2)
    await refund(alipay, number, "4.00", "R_1")
    await refund(alipay, number, "6.00", "R_2")
    await sandbox.advance(0)
    assert len(await sandbox.notices()) == 2
    assert len(merchant.received) == 2


async def test_a_full_refund_is_notified_as_closed_when_the_policy_says_so(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer
) -> None:
    number = await paid(alipay, sandbox, notify_url=merchant.notify_url)
    await set_policy(sandbox, notify_full=True)
    await refund(alipay, number, "10.00", "R_1")
    notice = alipay.read_notification((await merchant.wait_for(2))[1].body)
    assert (notice["trade_status"], notice["refund_fee"], notice["out_biz_no"]) == ("TRADE_CLOSED", "10.00", "R_1")
    assert notice["gmt_close"] == notice["gmt_refund"][:19]
    assert "gmt_payment" in notice


async def test_a_refund_notice_is_repeated_like_any_other(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer
) -> None:
    number = await paid(alipay, sandbox, notify_url=merchant.notify_url)
    merchant.answers = [(200, b"fail")]
    await refund(alipay, number, "1.00", "R_1")
    await merchant.wait_for(2)
    await refund(alipay, number, "1.00", "R_2")
    await merchant.wait_for(3)
    await sandbox.advance(240)
    first, again = (alipay.read_notification(merchant.received[n].body) for n in (1, 3))
    # What was true then is repeated, whatever was refunded since.
    assert again == first | {"notify_time": again["notify_time"], "sign": again["sign"]}
    assert again["refund_fee"] == "1.00"


# Settling


async def test_a_held_refund_is_taken_but_not_known_until_it_is_settled(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer
) -> None:
    number = await paid(alipay, sandbox, notify_url=merchant.notify_url)
    await set_policy(sandbox, settle="hold")
    answer = await refund(alipay, number, "4.00", "R_1")
    assert (answer["fund_change"], answer["refund_fee"]) == ("N", "0.00")
    assert "gmt_refund_pay" not in answer
    assert await known(alipay, number, "R_1") == NOTHING_KNOWN
    assert await truth(sandbox, number) == ("TRADE_SUCCESS", 0, [("R_1", 400, "PROCESSING")])
    # It is spoken for, and it is one refund however often it is asked for.
    assert await refused(alipay, number, "6.01", "R_2") == "ACQ.REASON_TRADE_REFUND_FEE_ERR"
    assert (await refund(alipay, number, "4.00", "R_1"))["fund_change"] == "N"

    settled = await sandbox.control("POST", "/refunds/R_1/settle", {"as": "REFUNDED"})
    assert [notice["summary"]["refund_fee"] for notice in settled["notifications"]] == ["4.00"]
    assert settled["trade"]["refunded_fen"] == 400
    assert (await known(alipay, number, "R_1"))["refund_status"] == "REFUND_SUCCESS"
    assert (await refund(alipay, number, "4.00", "R_1"))["fund_change"] == "N"
    assert len(merchant.received) == 2
    again = await sandbox.control("POST", "/refunds/R_1/settle", {"as": "FAILED"}, status=409)
    assert again["error"]["code"] == "REFUND_NOT_HELD"
    assert await truth(sandbox, number) == ("TRADE_SUCCESS", 400, [("R_1", 400, "REFUNDED")])


async def test_a_refund_that_fails_late_frees_its_amount_and_its_number_may_be_tried_again(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer
) -> None:
    number = await paid(alipay, sandbox, notify_url=merchant.notify_url)
    await set_policy(sandbox, settle="hold")
    await refund(alipay, number, "4.00", "R_1")
    failed = await sandbox.control("POST", "/refunds/R_1/settle", {"as": "FAILED"})
    assert failed["notifications"] == []
    assert await known(alipay, number, "R_1") == NOTHING_KNOWN
    assert await truth(sandbox, number) == ("TRADE_SUCCESS", 0, [("R_1", 400, "FAILED")])
    await set_policy(sandbox, settle="now")
    assert (await refund(alipay, number, "6.01", "R_2"))["fund_change"] == "Y"
    # Now it would be too much; and never with another amount.
    assert await refused(alipay, number, "4.00", "R_1") == "ACQ.REASON_TRADE_REFUND_FEE_ERR"
    assert await refused(alipay, number, "3.00", "R_1") == "ACQ.DISCORDANT_REPEAT_REQUEST"
    other = await paid(alipay, sandbox)
    await set_policy(sandbox, **{"as": "FAILED"})
    assert (await refund(alipay, other, "4.00", "R_9"))["fund_change"] == "N"
    await set_policy(sandbox)
    assert (await refund(alipay, other, "4.00", "R_9"))["fund_change"] == "Y"
    assert await truth(sandbox, other) == ("TRADE_SUCCESS", 400, [("R_9", 400, "REFUNDED")])


async def test_a_slow_refund_settles_on_the_clock_and_is_notified_then(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer
) -> None:
    number = await paid(alipay, sandbox, notify_url=merchant.notify_url)
    await set_policy(sandbox, settle=3600)
    assert (await refund(alipay, number, "4.00", "R_1"))["fund_change"] == "N"
    by_hand = await sandbox.control("POST", "/refunds/R_1/settle", {"as": "FAILED"}, status=409)
    assert by_hand["error"]["code"] == "REFUND_NOT_HELD"
    await sandbox.advance(3500)
    assert await truth(sandbox, number) == ("TRADE_SUCCESS", 0, [("R_1", 400, "PROCESSING")])
    assert (await sandbox.advance(7200))["deliveries"] == 1
    (made,) = (await sandbox.trade(number))["refunds"]
    took = datetime.fromisoformat(made["refunded_at"]) - datetime.fromisoformat(made["created_at"])
    assert timedelta(seconds=3600) <= took < timedelta(seconds=3605)
    notice = alipay.read_notification(merchant.received[1].body)
    assert notice["notify_time"] == notice["gmt_refund"][:19]


async def test_a_slow_refund_can_fail_and_two_settle_in_their_order(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer
) -> None:
    number = await paid(alipay, sandbox, notify_url=merchant.notify_url)
    await set_policy(sandbox, settle=100, notify_full=True)
    await refund(alipay, number, "4.00", "R_1")
    await set_policy(sandbox, settle=50, notify_full=True)
    await refund(alipay, number, "5.00", "R_2")
    await set_policy(sandbox, settle=60, **{"as": "FAILED"})
    await refund(alipay, number, "1.00", "R_3")
    await sandbox.advance(1000)
    refunds = [("R_1", 400, "REFUNDED"), ("R_2", 500, "REFUNDED"), ("R_3", 100, "FAILED")]
    assert await truth(sandbox, number) == ("TRADE_SUCCESS", 900, refunds)
    notices = [alipay.read_notification(one.body) for one in merchant.received[1:]]
    assert [(one["out_biz_no"], one["refund_fee"]) for one in notices] == [("R_2", "5.00"), ("R_1", "9.00")]


async def test_a_reset_forgets_refunds_and_how_they_settle(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer
) -> None:
    number = await paid(alipay, sandbox, notify_url=merchant.notify_url)
    await set_policy(sandbox, settle=60)
    await refund(alipay, number, "4.00", "R_1")
    await sandbox.control("POST", "/reset")
    assert (await sandbox.advance(3600))["deliveries"] == 0
    await sandbox.control("POST", "/reset")
    number = await paid(alipay, sandbox)
    assert (await refund(alipay, number, "4.00", "R_1"))["fund_change"] == "Y"


# /_control and pages


@pytest.mark.parametrize(
    ("policy", "code"),
    [
        ({"settle": "later"}, "OPTION_INVALID"),
        ({"settle": -1}, "OPTION_INVALID"),
        ({"settle": True}, "OPTION_INVALID"),
        ({"settle": None}, "OPTION_INVALID"),
        ({"settle": 1e300}, "OPTION_INVALID"),
        ({"as": "PROCESSING"}, "OPTION_INVALID"),
        ({"as": "refunded"}, "OPTION_INVALID"),
        ({"notify_full": "yes"}, "OPTION_INVALID"),
        ({"provider": "PAYPAL"}, "OPTION_INVALID"),
        ({"settel": "hold"}, "OPTION_UNKNOWN"),
    ],
)
async def test_a_policy_that_is_wrong_changes_nothing(
    sandbox: SandboxHandle, alipay: AlipayClient, policy: dict[str, object], code: str
) -> None:
    error = await sandbox.control("POST", "/refunds/policy", policy, status=400)
    assert error["error"]["code"] == code
    number = await paid(alipay, sandbox)
    assert (await refund(alipay, number, "1.00"))["fund_change"] == "Y"


async def test_alipay_knows_no_abnormal_refunds(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    abnormal = {"as": "ABNORMAL", "provider": "ALIPAY"}
    error = await sandbox.control("POST", "/refunds/policy", abnormal, status=409)
    assert error["error"]["code"] == "REFUND_STATE_UNKNOWN"
    number = await paid(alipay, sandbox)
    await set_policy(sandbox, settle="hold")
    await refund(alipay, number, "1.00")
    error = await sandbox.control("POST", "/refunds/R_1/settle", {"as": "ABNORMAL"}, status=409)
    assert error["error"]["code"] == "REFUND_STATE_UNKNOWN"
    assert (await truth(sandbox, number))[2] == [("R_1", 100, "PROCESSING")]


def test_a_provider_whose_refunds_are_not_played_says_so() -> None:
    bare: Any = SimpleNamespace(provider="OTHER")
    with pytest.raises(DeskRefusal) as refused:
        refunding(bare)
    assert refused.value.code == "REFUNDS_NOT_PLAYED"
    assert refused.value.message == "the sandbox plays no refunds of OTHER"


async def test_an_unknown_refund_cannot_be_settled(sandbox: SandboxHandle) -> None:
    error = await sandbox.control("POST", "/refunds/R_1/settle", {"as": "REFUNDED"}, status=404)
    assert error["error"]["code"] == "REFUND_UNKNOWN"


async def test_the_pages_show_refunds(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    number = await paid(alipay, sandbox)
    await refund(alipay, number, "4.00", "R_1", refund_reason="<b>少了</b>")
    await set_policy(sandbox, settle="hold")
    await refund(alipay, number, "1.00", "R_2")
    page = await sandbox.http.get((await sandbox.trade(number))["pay_url"])
    for text in ("已退款", "¥4.00", "R_1", "&lt;b&gt;少了&lt;/b&gt;", "退款处理中", "¥1.00", "R_2", "未填写原因"):
        assert text in page.text
    assert "确认付款" not in page.text
    index = await sandbox.http.get(sandbox.base_url)
    assert "已退款 ¥4.00，1 笔退款处理中" in index.text
