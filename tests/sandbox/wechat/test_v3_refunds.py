"""Refunds through APIv3: what they take and refuse, how they settle, what is told of them."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.sandbox.handle import SandboxHandle
from tests.sandbox.merchant_server import MerchantServer
from tests.sandbox.wechat.client import WechatClient, order_number, without

REFUNDS = "/v3/refund/domestic/refunds"
YEAR_S = 365 * 86400
GAPS_S = [15, 15, 30, 180, 600, 1200, 1800, 1800, 1800, 3600, 10800, 10800, 10800, 21600, 21600]
TOTAL_FEN = 1000
PARAM_ERROR = (400, "PARAM_ERROR")
INVALID_REQUEST = (400, "INVALID_REQUEST", None)
NOT_THERE = (404, "RESOURCE_NOT_EXISTS", None)


async def ordered(wechat: WechatClient, **fields: Any) -> str:
    number = order_number()
    await wechat.prepay(number, amount={"total": TOTAL_FEN, "currency": "CNY"}, **fields)
    return number


async def paid(wechat: WechatClient, sandbox: SandboxHandle) -> str:
    number = await ordered(wechat)
    await sandbox.pay(number, notify=False)
    return number


def ask(wechat: WechatClient, number: str, fen: int, refund_no: str = "R_1", **fields: object) -> dict[str, Any]:
    body: dict[str, Any] = {
        "out_trade_no": number,
        "out_refund_no": refund_no,
        "amount": {"refund": fen, "total": TOTAL_FEN, "currency": "CNY"},
    }
    return body | ({"sub_mchid": wechat.account["sub_mchid"]} if wechat.is_partner else {}) | fields


async def refund(wechat: WechatClient, number: str, fen: int, refund_no: str = "R_1", **fields: Any) -> dict[str, Any]:
    return await wechat.call("POST", REFUNDS, ask(wechat, number, fen, refund_no, **fields))


async def refused(
    wechat: WechatClient, number: str, fen: int, refund_no: str = "R_1", **fields: Any
) -> tuple[int, str, str | None]:
    return await wechat.refused("POST", REFUNDS, ask(wechat, number, fen, refund_no, **fields))


def refund_target(wechat: WechatClient, refund_no: str) -> str:
    query = f"?sub_mchid={wechat.account['sub_mchid']}" if wechat.is_partner else ""
    return f"{REFUNDS}/{quote(refund_no, safe='')}{query}"


async def known(wechat: WechatClient, refund_no: str = "R_1") -> dict[str, Any]:
    return await wechat.call("GET", refund_target(wechat, refund_no))


async def set_policy(sandbox: SandboxHandle, **policy: object) -> None:
    await sandbox.control("POST", "/refunds/policy", {"provider": "WECHAT", **policy})


async def settle(sandbox: SandboxHandle, refund_no: str, state: str) -> list[dict[str, Any]]:
    answer = await sandbox.control("POST", f"/refunds/{refund_no}/settle", {"as": state})
    notices: list[dict[str, Any]] = answer["notifications"]
    return notices


async def truth(sandbox: SandboxHandle, number: str) -> tuple[str, int, list[tuple[str, int, str]]]:
    """What the provider itself would say: trade_state, what was given back, and each refund."""
    trade = await sandbox.trade(number)
    refunds = [(one["out_refund_no"], one["amount_fen"], one["status"]) for one in trade["refunds"]]
    return trade["trade_state"], trade["refunded_fen"], refunds


def beijing(instant: str) -> str:
    return (datetime.fromisoformat(instant).astimezone(UTC) + timedelta(hours=8)).strftime("%Y-%m-%dT%H:%M:%S+08:00")


# Answers.


async def test_a_refund_is_taken_as_processing_and_known_as_done_afterwards(
    sandbox: SandboxHandle, wechat: WechatClient
) -> None:
    number = await paid(wechat, sandbox)
    answer = await refund(wechat, number, 310, reason="少了一杯")
    trade = await sandbox.trade(number)
    (made,) = trade["refunds"]
    assert made == {
        "out_refund_no": "R_1",
        "refund_id": made["refund_id"],
        "amount_fen": 310,
        "status": "REFUNDED",
        "reason": "少了一杯",
        "created_at": made["created_at"],
        "refunded_at": made["refunded_at"],
    }
    assert (len(made["refund_id"]), made["refund_id"].isdecimal()) == (29, True)
    assert (trade["status"], trade["paid"], trade["refunded_fen"]) == ("PAID", True, 310)
    assert answer == {
        "refund_id": made["refund_id"],
        "out_refund_no": "R_1",
        "transaction_id": trade["transaction_id"],
        "out_trade_no": number,
        "channel": "ORIGINAL",
        "user_received_account": "支付用户零钱",
        "create_time": beijing(made["created_at"]),
        "status": "PROCESSING",
        "funds_account": "AVAILABLE",
        "amount": {
            "total": 1000,
            "refund": 310,
            "from": [],
            "payer_total": 1000,
            "payer_refund": 310,
            "settlement_refund": 310,
            "settlement_total": 1000,
            "discount_refund": 0,
            "currency": "CNY",
            "refund_fee": 0,
        },
        "promotion_detail": [],
    }
    done = answer | {"status": "SUCCESS", "success_time": beijing(made["refunded_at"])}
    assert await known(wechat) == done
    assert await refund(wechat, number, 310) == done


async def test_an_order_with_a_refund_is_in_refund_and_stays_paid(sandbox: SandboxHandle, wechat: WechatClient) -> None:
    number = await paid(wechat, sandbox)
    before = await wechat.query(number)
    await set_policy(sandbox, settle="hold")
    await refund(wechat, number, 1)
    in_refund = before | {"trade_state": "REFUND", "trade_state_desc": "订单发生过退款，退款详情请查询退款单"}
    assert await wechat.query(number) == in_refund
    # Also when nothing came of the refund.
    await settle(sandbox, "R_1", "FAILED")
    assert await wechat.query(number) == in_refund
    assert (await wechat.close(number)).json()["code"] == "ORDER_PAID"
    order = wechat.order(number, amount={"total": TOTAL_FEN, "currency": "CNY"})
    assert (await wechat.prepay_refused(order))[1] == "ORDER_PAID"
    late = await sandbox.control("POST", f"/trades/{number}/pay", {"late": True}, status=409)
    assert late["error"]["code"] == "ORDER_PAID"


async def test_an_order_is_named_by_either_number_or_both(sandbox: SandboxHandle, wechat: WechatClient) -> None:
    number, other = await paid(wechat, sandbox), await paid(wechat, sandbox)
    theirs = (await wechat.query(number))["transaction_id"]
    by_theirs = without(ask(wechat, number, 1, "R_1", transaction_id=theirs), "out_trade_no")
    assert (await wechat.call("POST", REFUNDS, by_theirs))["out_trade_no"] == number
    assert (await refund(wechat, number, 1, "R_2", transaction_id=theirs))["transaction_id"] == theirs
    assert await refused(wechat, other, 1, "R_3", transaction_id=theirs) == NOT_THERE
    assert await truth(sandbox, other) == ("SUCCESS", 0, [])
    assert (await truth(sandbox, number))[1] == 2


async def test_what_was_asked_for_stands_in_the_answer(sandbox: SandboxHandle, wechat: WechatClient) -> None:
    number = await paid(wechat, sandbox)
    sources = [{"account": "AVAILABLE", "amount": 3}, {"account": "UNAVAILABLE", "amount": 4}]
    amount = {"refund": 7, "total": TOTAL_FEN, "currency": "CNY", "from": sources}
    goods = {"merchant_goods_id": "coffee", "unit_price": 7, "refund_amount": 7, "refund_quantity": 1}
    answer = await refund(
        wechat,
        number,
        7,
        "a-Z_9*@|" + "x" * 56,
        amount=amount,
        funds_account="UNSETTLED",
        goods_detail=[goods],
        reason="退" * 26 + "ab",
        notify_url="http://127.0.0.1:9/" + "a" * 237,
    )
    assert (answer["amount"]["from"], answer["funds_account"]) == (sources, "UNSETTLED")
    assert (await known(wechat, "a-Z_9*@|" + "x" * 56))["status"] == "SUCCESS"


async def test_a_repeat_changes_nothing(sandbox: SandboxHandle, wechat: WechatClient) -> None:
    number = await paid(wechat, sandbox)
    first = await refund(wechat, number, TOTAL_FEN, reason="first")
    # Also once everything is given back, however it is named, and with wishes that are not the amount.
    repeat = await refund(wechat, number, TOTAL_FEN, reason="second", transaction_id=first["transaction_id"])
    assert repeat["refund_id"] == first["refund_id"]
    assert await truth(sandbox, number) == ("REFUND", 1000, [("R_1", 1000, "REFUNDED")])
    assert (await sandbox.trade(number))["refunds"][0]["reason"] == "first"


async def test_a_number_used_otherwise_is_refused(sandbox: SandboxHandle, wechat: WechatClient) -> None:
    number, other = await paid(wechat, sandbox), await paid(wechat, sandbox)
    await refund(wechat, number, 100)
    for fen in (101, 99, TOTAL_FEN):
        assert await refused(wechat, number, fen) == INVALID_REQUEST
    amount = {"refund": 100, "total": TOTAL_FEN + 1, "currency": "CNY"}
    assert await refused(wechat, number, 100, amount=amount) == INVALID_REQUEST
    assert await refused(wechat, other, 100) == INVALID_REQUEST
    assert await truth(sandbox, number) == ("REFUND", 100, [("R_1", 100, "REFUNDED")])
    assert await truth(sandbox, other) == ("SUCCESS", 0, [])


async def test_a_merchants_refunds_are_its_own(
    sandbox: SandboxHandle, wechat: WechatClient, certificate_wechat: WechatClient
) -> None:
    await certificate_wechat.download_certificates()
    number, theirs = await paid(wechat, sandbox), await paid(certificate_wechat, sandbox)
    await refund(wechat, number, 1)
    assert await refused(certificate_wechat, number, 1) == NOT_THERE
    assert await certificate_wechat.refused("GET", f"{REFUNDS}/R_1") == NOT_THERE
    await refund(certificate_wechat, theirs, 2)
    assert ((await known(wechat))["amount"]["refund"], (await known(certificate_wechat))["amount"]["refund"]) == (1, 2)


# Refusals: nothing is given back.


async def unpaid(_sandbox: SandboxHandle, wechat: WechatClient) -> str:
    return await ordered(wechat)


async def closed(_sandbox: SandboxHandle, wechat: WechatClient) -> str:
    number = await ordered(wechat)
    await wechat.close(number)
    return number


async def never_made(_sandbox: SandboxHandle, _wechat: WechatClient) -> str:
    return order_number()


@pytest.mark.parametrize("made", [unpaid, closed, never_made])
async def test_only_a_paid_order_is_refunded(
    sandbox: SandboxHandle, wechat: WechatClient, made: Callable[[SandboxHandle, WechatClient], Awaitable[str]]
) -> None:
    number = await made(sandbox, wechat)
    assert await refused(wechat, number, 1) == NOT_THERE
    assert await wechat.refused("GET", f"{REFUNDS}/R_1") == NOT_THERE
    trades = (await sandbox.control("GET", f"/trades?out_trade_no={number}"))["trades"]
    assert [trade["refunds"] for trade in trades] == [[]] * len(trades)


async def test_a_year_after_the_payment_it_is_too_late(sandbox: SandboxHandle, wechat: WechatClient) -> None:
    number = await paid(wechat, sandbox)
    await sandbox.advance(YEAR_S - 60)
    await refund(wechat, number, 1, "R_1")
    await sandbox.advance(61)
    assert await refused(wechat, number, 1, "R_2") == INVALID_REQUEST
    # What was asked for in time is known as long as anybody asks.
    assert (await refund(wechat, number, 1, "R_1"))["status"] == "SUCCESS"
    assert (await truth(sandbox, number))[1] == 1


async def test_never_more_than_was_paid(sandbox: SandboxHandle, wechat: WechatClient) -> None:
    number = await paid(wechat, sandbox)
    assert await refused(wechat, number, 1001) == INVALID_REQUEST
    for total in (999, 1001, 1):
        amount = {"refund": 1, "total": total, "currency": "CNY"}
        assert await refused(wechat, number, 1, amount=amount) == INVALID_REQUEST
    assert await truth(sandbox, number) == ("SUCCESS", 0, [])
    await refund(wechat, number, 600, "R_1")
    response = await wechat.send("POST", REFUNDS, ask(wechat, number, 401, "R_2"))
    assert response.json() == {"code": "INVALID_REQUEST", "message": "申请退款金额大于可退金额"}
    assert wechat.signed_by_wechat(response.headers, response.content)
    # A refusal used nothing up, and leaves its number free.
    await refund(wechat, number, 400, "R_2")
    assert await refused(wechat, number, 1, "R_3") == INVALID_REQUEST
    assert await truth(sandbox, number) == ("REFUND", 1000, [("R_1", 600, "REFUNDED"), ("R_2", 400, "REFUNDED")])


async def test_fifty_at_once_give_back_no_more_than_was_paid(sandbox: SandboxHandle, wechat: WechatClient) -> None:
    number = await paid(wechat, sandbox)
    bodies = [ask(wechat, number, 300, f"R_{n}") for n in range(50)]
    responses = await asyncio.gather(*(wechat.send("POST", REFUNDS, body) for body in bodies))
    outcomes = sorted((response.status_code, response.json().get("code", "")) for response in responses)
    assert outcomes == [(200, "")] * 3 + [(400, "INVALID_REQUEST")] * 47
    state, refunded_fen, refunds = await truth(sandbox, number)
    assert (state, refunded_fen, len(refunds)) == ("REFUND", 900, 3)


async def test_fifty_at_once_under_one_number_are_one_refund(sandbox: SandboxHandle, wechat: WechatClient) -> None:
    number = await paid(wechat, sandbox)
    answers = await asyncio.gather(*(refund(wechat, number, 600) for _ in range(50)))
    assert len({answer["refund_id"] for answer in answers}) == 1
    assert await truth(sandbox, number) == ("REFUND", 600, [("R_1", 600, "REFUNDED")])


async def test_an_order_is_refunded_fifty_times_at_most(sandbox: SandboxHandle, wechat: WechatClient) -> None:
    number = await paid(wechat, sandbox)
    await set_policy(sandbox, **{"as": "FAILED"})
    await refund(wechat, number, 1, "R_failed")
    await set_policy(sandbox)
    await asyncio.gather(*(refund(wechat, number, 1, f"R_{n}") for n in range(50)))
    assert await refused(wechat, number, 1, "R_50") == INVALID_REQUEST
    assert (await truth(sandbox, number))[1] == 50
    assert (await refund(wechat, number, 1, "R_49"))["status"] == "SUCCESS"


AMOUNT = {"refund": 1, "total": TOTAL_FEN, "currency": "CNY"}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"out_refund_no": ""}, "/out_refund_no"),
        ({"out_refund_no": "R" * 65}, "/out_refund_no"),
        ({"out_refund_no": "R 1"}, "/out_refund_no"),
        ({"out_refund_no": "退1"}, "/out_refund_no"),
        ({"out_refund_no": 1}, "/out_refund_no"),
        ({"reason": "退" * 27}, "/reason"),
        ({"reason": "a" * 81}, "/reason"),
        ({"reason": ""}, "/reason"),
        ({"reason": "🙂"}, "/reason"),
        ({"reason": None}, "/reason"),
        ({"notify_url": "http://127.0.0.1/" + "a" * 240}, "/notify_url"),
        ({"notify_url": "http://127.0.0.1/notify?a=1"}, "/notify_url"),
        ({"notify_url": "127.0.0.1/notify"}, "/notify_url"),
        ({"funds_account": "BASIC"}, "/funds_account"),
        ({"amount": AMOUNT | {"refund": 0}}, "/amount/refund"),
        ({"amount": AMOUNT | {"refund": -1}}, "/amount/refund"),
        ({"amount": AMOUNT | {"refund": 1.0}}, "/amount/refund"),
        ({"amount": AMOUNT | {"refund": "1"}}, "/amount/refund"),
        ({"amount": AMOUNT | {"refund": True}}, "/amount/refund"),
        ({"amount": AMOUNT | {"total": 0}}, "/amount/total"),
        ({"amount": AMOUNT | {"currency": "USD"}}, "/amount/currency"),
        ({"amount": {"refund": 1, "total": TOTAL_FEN}}, "/amount/currency"),
        ({"amount": {"refund": 1, "currency": "CNY"}}, "/amount/total"),
        ({"amount": {"total": TOTAL_FEN, "currency": "CNY"}}, "/amount/refund"),
        ({"amount": AMOUNT | {"from": [{"account": "AVAILABLE", "amount": 2}]}}, "/amount/from"),
        ({"amount": AMOUNT | {"from": [{"account": "OTHER", "amount": 1}]}}, "/amount/from/0/account"),
        ({"amount": AMOUNT | {"from": [{"amount": 1}]}}, "/amount/from/0/account"),
        ({"amount": AMOUNT | {"payer_refund": 1}}, "/amount/payer_refund"),
        (
            {"goods_detail": [{"merchant_goods_id": "c", "unit_price": 1, "refund_amount": 1}]},
            "/goods_detail/0/refund_quantity",
        ),
        ({"sub_mchid": "1900000104"}, "/sub_mchid"),
        ({"mchid": "1900000101"}, "/mchid"),
        ({"refund_desc": "x"}, "/refund_desc"),
    ],
)
async def test_a_body_out_of_form_is_refused_by_field(
    sandbox: SandboxHandle, wechat: WechatClient, fields: dict[str, Any], field: str
) -> None:
    number = await paid(wechat, sandbox)
    assert await refused(wechat, number, 1, **fields) == (*PARAM_ERROR, field)
    assert await truth(sandbox, number) == ("SUCCESS", 0, [])


@pytest.mark.parametrize("missing", ["out_trade_no", "out_refund_no", "amount"])
async def test_a_required_field_is_missed(sandbox: SandboxHandle, wechat: WechatClient, missing: str) -> None:
    number = await paid(wechat, sandbox)
    body = without(ask(wechat, number, 1), missing)
    assert await wechat.refused("POST", REFUNDS, body) == (*PARAM_ERROR, f"/{missing}")
    assert await truth(sandbox, number) == ("SUCCESS", 0, [])


async def test_a_call_that_is_not_the_merchants_gives_nothing_back(
    sandbox: SandboxHandle, wechat: WechatClient
) -> None:
    number = await paid(wechat, sandbox)
    body = json.dumps(ask(wechat, number, 1)).encode()
    authorization = wechat.authorization("POST", REFUNDS, body)
    more = body.replace(b'"refund": 1', b'"refund": 9')
    assert more != body
    sent = await wechat.refused("POST", REFUNDS, more, authorization=authorization)
    assert sent == (401, "SIGN_ERROR", "signature")
    assert await wechat.refused("GET", f"{REFUNDS}/R_1", changes={"signature": "AAAA"}) == (
        401,
        "SIGN_ERROR",
        "signature",
    )
    assert (await wechat.refused("POST", REFUNDS, b"{}"))[:2] == PARAM_ERROR
    assert (await wechat.refused("GET", f"{REFUNDS}/R_1?sub_mchid=1900000104")) == (*PARAM_ERROR, "sub_mchid")
    assert await truth(sandbox, number) == ("SUCCESS", 0, [])


async def test_a_partner_names_its_sub_merchant(sandbox: SandboxHandle, partner_wechat: WechatClient) -> None:
    partner = partner_wechat
    number = await paid(partner, sandbox)
    body = ask(partner, number, 1)
    assert await partner.refused("POST", REFUNDS, without(body, "sub_mchid")) == (*PARAM_ERROR, "/sub_mchid")
    other = body | {"sub_mchid": "1900000101"}
    assert await partner.refused("POST", REFUNDS, other) == (403, "NO_AUTH", None)
    assert await truth(sandbox, number) == ("SUCCESS", 0, [])
    assert (await refund(partner, number, 1))["status"] == "PROCESSING"
    assert (await known(partner))["status"] == "SUCCESS"
    assert await partner.refused("GET", f"{REFUNDS}/R_1") == (*PARAM_ERROR, "sub_mchid")
    assert await partner.refused("GET", f"{REFUNDS}/R_1?sub_mchid=1900000101") == (403, "NO_AUTH", None)


# Settling and notices.


@pytest.mark.parametrize(
    ("state", "status", "event", "words"),
    [
        ("REFUNDED", "SUCCESS", "REFUND.SUCCESS", "退款成功"),
        ("FAILED", "CLOSED", "REFUND.CLOSED", "退款关闭"),
        ("ABNORMAL", "ABNORMAL", "REFUND.ABNORMAL", "退款异常"),
    ],
)
async def test_a_held_refund_is_settled_and_told(
    sandbox: SandboxHandle,
    wechat: WechatClient,
    merchant: MerchantServer,
    state: str,
    status: str,
    event: str,
    words: str,
) -> None:
    number = await paid(wechat, sandbox)
    await set_policy(sandbox, settle="hold")
    answer = await refund(wechat, number, 400, notify_url=merchant.notify_url)
    assert await known(wechat) == answer
    await sandbox.advance(86400)
    assert await refused(wechat, number, 601, "R_2") == INVALID_REQUEST
    assert (await truth(sandbox, number), merchant.received) == (("REFUND", 0, [("R_1", 400, "PROCESSING")]), [])
    (notice,) = await settle(sandbox, "R_1", state)
    (received,) = merchant.received
    envelope = json.loads(received.body)
    resource = envelope.pop("resource")
    told = wechat.read_notification(received.headers, received.body, associated_data="refund")
    trade = await sandbox.trade(number)
    (made,) = trade["refunds"]
    when = {"success_time": beijing(made["refunded_at"])} if state == "REFUNDED" else {}
    assert told == {
        "mchid": wechat.account["mchid"],
        "transaction_id": trade["transaction_id"],
        "out_trade_no": number,
        "refund_id": answer["refund_id"],
        "out_refund_no": "R_1",
        "refund_status": status,
        "user_received_account": "支付用户零钱",
        "amount": {"total": 1000, "refund": 400, "payer_total": 1000, "payer_refund": 400},
        **when,
    }
    assert envelope == {
        "id": notice["notify_id"],
        "create_time": envelope["create_time"],
        "resource_type": "encrypt-resource",
        "event_type": event,
        "summary": words,
    }
    assert (resource["original_type"], envelope["create_time"]) == (
        "refund",
        when.get("success_time", envelope["create_time"]),
    )
    assert notice["state"] == "ACKNOWLEDGED"
    assert notice["summary"] == {"channel": "v3", "out_refund_no": "R_1", "refund_status": state, "amount": "4.00"}
    assert await known(wechat) == answer | {"status": status} | when
    assert await refund(wechat, number, 400) == answer | {"status": status} | when
    assert (trade["status"], trade["notify_ids"]) == ("PAID", [notice["notify_id"]])


async def test_a_partners_notice_names_both_sides(
    sandbox: SandboxHandle, partner_wechat: WechatClient, merchant: MerchantServer
) -> None:
    number = await paid(partner_wechat, sandbox)
    await refund(partner_wechat, number, 1, notify_url=merchant.notify_url)
    (received,) = await merchant.wait_for(1)
    told = partner_wechat.read_notification(received.headers, received.body, associated_data="refund")
    account = partner_wechat.account
    assert (told["sp_mchid"], told["sub_mchid"], "mchid" in told) == (account["mchid"], account["sub_mchid"], False)


async def test_a_failed_refund_frees_its_amount_but_not_its_number(
    sandbox: SandboxHandle, wechat: WechatClient
) -> None:
    number = await paid(wechat, sandbox)
    await set_policy(sandbox, **{"as": "FAILED"})
    assert (await refund(wechat, number, 600, "R_1"))["status"] == "PROCESSING"
    await set_policy(sandbox)
    assert (await refund(wechat, number, 600, "R_1"))["status"] == "CLOSED"
    assert (await refund(wechat, number, 1000, "R_2"))["status"] == "PROCESSING"
    assert await truth(sandbox, number) == ("REFUND", 1000, [("R_1", 600, "FAILED"), ("R_2", 1000, "REFUNDED")])


@pytest.mark.parametrize(("end", "refunded_fen"), [("REFUNDED", 600), ("FAILED", 0)])
async def test_an_abnormal_refund_keeps_its_amount_until_the_merchant_saw_to_it(
    sandbox: SandboxHandle, wechat: WechatClient, merchant: MerchantServer, end: str, refunded_fen: int
) -> None:
    number = await paid(wechat, sandbox)
    await set_policy(sandbox, **{"as": "ABNORMAL"})
    await refund(wechat, number, 600, notify_url=merchant.notify_url)
    await merchant.wait_for(1)
    assert await refused(wechat, number, 401, "R_2") == INVALID_REQUEST
    assert await truth(sandbox, number) == ("REFUND", 0, [("R_1", 600, "ABNORMAL")])
    again = await sandbox.control("POST", "/refunds/R_1/settle", {"as": "ABNORMAL"}, status=409)
    assert again["error"]["code"] == "REFUND_NOT_HELD"
    await settle(sandbox, "R_1", end)
    events = [json.loads(received.body)["event_type"] for received in merchant.received]
    assert events == ["REFUND.ABNORMAL", "REFUND.SUCCESS" if end == "REFUNDED" else "REFUND.CLOSED"]
    assert (await truth(sandbox, number))[1] == refunded_fen
    for state in ("REFUNDED", "FAILED", "ABNORMAL"):
        over = await sandbox.control("POST", "/refunds/R_1/settle", {"as": state}, status=409)
        assert over["error"]["code"] == "REFUND_NOT_HELD"
    assert (await truth(sandbox, number))[1] == refunded_fen


async def test_a_slow_refund_settles_on_the_clock_and_is_told_then(
    sandbox: SandboxHandle, wechat: WechatClient, merchant: MerchantServer
) -> None:
    number = await paid(wechat, sandbox)
    await set_policy(sandbox, settle=3600)
    await refund(wechat, number, 400, notify_url=merchant.notify_url)
    by_hand = await sandbox.control("POST", "/refunds/R_1/settle", {"as": "FAILED"}, status=409)
    assert by_hand["error"]["code"] == "REFUND_NOT_HELD"
    await sandbox.advance(3500)
    assert ((await known(wechat))["status"], merchant.received) == ("PROCESSING", [])
    assert (await sandbox.advance(200))["deliveries"] == 1
    (made,) = (await sandbox.trade(number))["refunds"]
    took = datetime.fromisoformat(made["refunded_at"]) - datetime.fromisoformat(made["created_at"])
    assert timedelta(seconds=3600) <= took < timedelta(seconds=3605)
    assert (await known(wechat))["success_time"] == beijing(made["refunded_at"])


async def test_a_refund_notice_comes_again_after_the_documented_gaps(
    sandbox: SandboxHandle, wechat: WechatClient, merchant: MerchantServer
) -> None:
    merchant.otherwise = (500, b'{"code":"FAIL","message":"later"}')
    number = await paid(wechat, sandbox)
    await refund(wechat, number, 400, notify_url=merchant.notify_url)
    await merchant.wait_for(1)
    await sandbox.advance(2 * 86400)
    (notice,) = await sandbox.notices()
    due = [datetime.fromisoformat(attempt["due_at"]) for attempt in notice["attempts"]]
    assert [(later - earlier).total_seconds() for earlier, later in pairwise(due)] == GAPS_S
    assert notice["state"] == "GIVEN_UP"
    plaintexts = [
        wechat.read_notification(received.headers, received.body, associated_data="refund")
        for received in merchant.received
    ]
    assert len(plaintexts) == 16
    assert len({json.dumps(plaintext) for plaintext in plaintexts}) == 1


async def test_what_was_true_then_is_repeated_whatever_happened_since(
    sandbox: SandboxHandle, wechat: WechatClient, merchant: MerchantServer
) -> None:
    merchant.otherwise = (500, b"")
    number = await ordered(wechat, notify_url=merchant.notify_url)
    await sandbox.pay(number)
    await set_policy(sandbox, **{"as": "ABNORMAL"})
    await refund(wechat, number, 400, notify_url=merchant.notify_url)
    await merchant.wait_for(2)
    await settle(sandbox, "R_1", "REFUNDED")
    merchant.otherwise = (200, b"")
    await sandbox.advance(15)
    kinds = [json.loads(received.body)["resource"]["original_type"] for received in merchant.received]
    assert sorted(kinds) == ["refund"] * 4 + ["transaction"] * 2
    told = [
        wechat.read_notification(received.headers, received.body, associated_data=kind)
        for received, kind in zip(merchant.received, kinds, strict=True)
    ]
    states = sorted(one.get("trade_state") or one["refund_status"] for one in told)
    assert states == ["ABNORMAL", "ABNORMAL", "SUCCESS", "SUCCESS", "SUCCESS", "SUCCESS"]


async def test_without_an_address_nothing_is_told(sandbox: SandboxHandle, wechat: WechatClient) -> None:
    number = await paid(wechat, sandbox)
    await refund(wechat, number, 1, "R_1")
    await set_policy(sandbox, settle="hold")
    await refund(wechat, number, 1, "R_2")
    assert await settle(sandbox, "R_2", "REFUNDED") == []
    await sandbox.advance(0)
    assert await sandbox.notices() == []


async def test_a_repeat_is_not_told_again(
    sandbox: SandboxHandle, wechat: WechatClient, merchant: MerchantServer
) -> None:
    number = await paid(wechat, sandbox)
    for _ in range(3):
        await refund(wechat, number, 1, notify_url=merchant.notify_url)
    await merchant.wait_for(1)
    await sandbox.advance(60)
    assert len(merchant.received) == 1


async def test_a_notice_may_tell_an_untruth(
    sandbox: SandboxHandle, wechat: WechatClient, merchant: MerchantServer
) -> None:
    number = await paid(wechat, sandbox)
    await set_policy(sandbox, settle="hold")
    await refund(wechat, number, 400, notify_url=merchant.notify_url)
    early = await sandbox.control("POST", "/wechat/refunds/R_1/notify", status=409)
    assert early["error"]["code"] == "REFUND_PROCESSING"
    await settle(sandbox, "R_1", "REFUNDED")
    fields = {"amount.refund": "500", "mchid": "1900009999", "envelope.event_type": "REFUND.CLOSED"}
    await sandbox.control("POST", "/wechat/refunds/R_1/notify", {"fields": fields})
    await sandbox.control("POST", "/wechat/refunds/R_1/notify", {"break_signature": True})
    true, untrue, broken = merchant.received
    told = wechat.read_notification(untrue.headers, untrue.body, associated_data="refund")
    assert (told["amount"]["refund"], told["mchid"]) == (500, "1900009999")
    assert json.loads(untrue.body)["event_type"] == "REFUND.CLOSED"
    assert json.loads(untrue.body)["id"] != json.loads(true.body)["id"]
    assert not wechat.signed_by_wechat(broken.headers, broken.body)
    assert await truth(sandbox, number) == ("REFUND", 400, [("R_1", 400, "REFUNDED")])
    for refund_no, body, status in (("R_2", {}, 404), ("R_1", {"fields": {"a": 1}}, 400), ("R_1", {"x": 1}, 400)):
        await sandbox.control("POST", f"/wechat/refunds/{refund_no}/notify", body, status=status)
    assert len(merchant.received) == 3


async def test_a_reset_forgets_refunds_and_how_they_settle(
    sandbox: SandboxHandle, wechat: WechatClient, merchant: MerchantServer
) -> None:
    number = await paid(wechat, sandbox)
    await set_policy(sandbox, settle=60)
    await refund(wechat, number, 400, notify_url=merchant.notify_url)
    await sandbox.control("POST", "/reset")
    assert (await sandbox.advance(3600))["deliveries"] == 0
    assert await wechat.refused("GET", f"{REFUNDS}/R_1") == NOT_THERE
    await sandbox.control("POST", "/reset")
    number = await paid(wechat, sandbox)
    await refund(wechat, number, 1)
    assert (await known(wechat))["status"] == "SUCCESS"


# Faults and counts.


async def fault(sandbox: SandboxHandle, kind: str, method: str = "wechat.v3.refund", **options: object) -> None:
    await sandbox.control("POST", "/faults", {"method": method, "kind": kind, **options}, status=201)


async def test_a_lost_reply_has_given_the_money_back(sandbox: SandboxHandle, wechat: WechatClient) -> None:
    number = await paid(wechat, sandbox)
    await fault(sandbox, "lost_reply", out_trade_no=number)
    with pytest.raises(httpx.TransportError):
        await refund(wechat, number, 400)
    assert await truth(sandbox, number) == ("REFUND", 400, [("R_1", 400, "REFUNDED")])
    assert (await refund(wechat, number, 400))["status"] == "SUCCESS"
    assert (await truth(sandbox, number))[1] == 400


@pytest.mark.parametrize(
    ("options", "status", "code"),
    [
        ({"kind": "business_error", "code": "NOT_ENOUGH"}, 403, "NOT_ENOUGH"),
        ({"kind": "business_error", "code": "FREQUENCY_LIMITED"}, 429, "FREQUENCY_LIMITED"),
        ({"kind": "business_error", "code": "SYSTEM_ERROR"}, 500, "SYSTEM_ERROR"),
        ({"kind": "business_error", "code": "USER_ACCOUNT_ABNORMAL"}, 403, "USER_ACCOUNT_ABNORMAL"),
        ({"kind": "http_500"}, 500, "SYSTEM_ERROR"),
    ],
)
async def test_an_error_gives_nothing_back_and_the_number_may_be_repeated(
    sandbox: SandboxHandle, wechat: WechatClient, options: dict[str, str], status: int, code: str
) -> None:
    number = await paid(wechat, sandbox)
    await fault(sandbox, **options, out_trade_no=number)
    assert await refused(wechat, number, 400) == (status, code, None)
    assert await truth(sandbox, number) == ("SUCCESS", 0, [])
    assert (await refund(wechat, number, 400))["status"] == "PROCESSING"
    assert await sandbox.calls("wechat.v3.refund", number) == 2


async def test_a_timeout_did_nothing_and_the_query_after_it_counts_for_the_order(
    sandbox: SandboxHandle, wechat: WechatClient
) -> None:
    number = await paid(wechat, sandbox)
    await fault(sandbox, "timeout", latency_s=0.1)
    with pytest.raises(httpx.TransportError):
        await refund(wechat, number, 400)
    assert await truth(sandbox, number) == ("SUCCESS", 0, [])
    await fault(sandbox, "http_500", "wechat.v3.refund_query", out_trade_no=number)
    assert (await wechat.refused("GET", f"{REFUNDS}/R_1"))[:2] == (500, "SYSTEM_ERROR")
    assert await wechat.refused("GET", f"{REFUNDS}/R_1") == NOT_THERE
    assert await sandbox.calls("wechat.v3.refund_query", number) == 2


async def test_a_refund_by_wechats_number_counts_for_its_order(sandbox: SandboxHandle, wechat: WechatClient) -> None:
    number = await paid(wechat, sandbox)
    theirs = (await wechat.query(number))["transaction_id"]
    body = without(ask(wechat, number, 1, transaction_id=theirs), "out_trade_no")
    await fault(sandbox, "http_500", out_trade_no=number)
    assert (await wechat.refused("POST", REFUNDS, body))[1] == "SYSTEM_ERROR"
    await wechat.call("POST", REFUNDS, body)
    await known(wechat)
    assert await sandbox.calls("wechat.v3.refund", number) == 2
    assert await sandbox.calls("wechat.v3.refund_query", number) == 1


@pytest.mark.parametrize("method", ["wechat.v3.refund", "wechat.v3.refund_query"])
async def test_an_answer_may_be_signed_wrongly(sandbox: SandboxHandle, wechat: WechatClient, method: str) -> None:
    number = await paid(wechat, sandbox)
    await refund(wechat, number, 1)
    await fault(sandbox, "bad_signature", method)
    if method == "wechat.v3.refund":
        response = await wechat.send("POST", REFUNDS, ask(wechat, number, 1, "R_2"))
    else:
        response = await wechat.send("GET", f"{REFUNDS}/R_1")
    assert response.status_code == 200
    assert not wechat.signed_by_wechat(response.headers, response.content)


# Pages.


async def test_the_pages_show_refunds(sandbox: SandboxHandle, wechat: WechatClient) -> None:
    number = await paid(wechat, sandbox)
    await refund(wechat, number, 400, "R_1", reason="<b>少了</b>")
    await set_policy(sandbox, settle="hold")
    await refund(wechat, number, 100, "R_2")
    page = await sandbox.http.get((await sandbox.trade(number))["pay_url"])
    for text in ("付款成功", "已退款", "¥4.00", "R_1", "&lt;b&gt;少了&lt;/b&gt;", "退款处理中", "¥1.00", "R_2"):
        assert text in page.text
    assert "确认付款" not in page.text
    index = await sandbox.http.get(sandbox.base_url)
    assert "已退款 ¥4.00，1 笔退款处理中" in index.text
