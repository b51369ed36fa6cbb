"""Refunds through APIv2: what they take and refuse, how they are told of in queries and notices."""

import asyncio
from datetime import datetime, timedelta
from itertools import pairwise
from xml.etree import ElementTree

import httpx
import pytest

from tests.sandbox.handle import SandboxHandle
from tests.sandbox.merchant_server import MerchantServer
from tests.sandbox.wechat.v2_client import (
    V2Client,
    acknowledgement,
    compact,
    from_xml,
    new_number,
    signature,
    to_xml,
    unsigned_refusal,
)

GAPS_S = [15, 15, 30, 180, 600, 1200, 1800, 1800, 1800, 3600, 10800, 10800, 10800, 21600, 21600]
YEAR_S = 365 * 86400
UNKNOWN_TRANSACTION = "4200000000202611220000000000"


@pytest.fixture
def v2(sandbox: SandboxHandle, accounts: dict[str, dict[str, str]]) -> V2Client:
    return V2Client(accounts["v2"], sandbox.http)


@pytest.fixture
def partner(sandbox: SandboxHandle, accounts: dict[str, dict[str, str]]) -> V2Client:
    return V2Client(accounts["v2_partner"], sandbox.http)


async def paid(v2: V2Client, sandbox: SandboxHandle) -> str:
    number = await v2.ordered(total_fee="1000")
    await sandbox.pay(number, notify=False)
    return number


def ask(number: str, fen: int, refund_no: str = "R_1", **fields: str) -> dict[str, str]:
    return {
        "out_trade_no": number,
        "out_refund_no": refund_no,
        "total_fee": "1000",
        "refund_fee": str(fen),
        **fields,
    }


async def set_policy(sandbox: SandboxHandle, **policy: object) -> None:
    await sandbox.control("POST", "/refunds/policy", {"provider": "WECHAT", **policy})


async def truth(sandbox: SandboxHandle, number: str) -> tuple[str, int, list[tuple[str, int, str]]]:
    trade = await sandbox.trade(number)
    refunds = [(one["out_refund_no"], one["amount_fen"], one["status"]) for one in trade["refunds"]]
    return trade["trade_state"], trade["refunded_fen"], refunds


def spaced(instant: str) -> str:
    """`yyyy-MM-dd HH:mm:ss` in Beijing."""
    text = compact(datetime.fromisoformat(instant))
    return f"{text[:4]}-{text[4:6]}-{text[6:8]} {text[8:10]}:{text[10:12]}:{text[12:]}"


# Answers.


@pytest.mark.parametrize("sign_type", ["MD5", "HMAC-SHA256"])
async def test_a_refund_is_accepted_and_known_as_done_afterwards(
    v2: V2Client, sandbox: SandboxHandle, sign_type: str
) -> None:
    v2.sign_type = sign_type
    number = await paid(v2, sandbox)
    answer = await v2.succeed("refund", ask(number, 310, refund_desc="少了一杯 <&>"))
    trade = await sandbox.trade(number)
    (made,) = trade["refunds"]
    assert (made["status"], made["amount_fen"], made["reason"]) == ("REFUNDED", 310, "少了一杯 <&>")
    envelope = {name: answer.pop(name) for name in ("nonce_str", "sign")}
    assert all(envelope.values())
    caller = {
        "return_code": "SUCCESS",
        "return_msg": "OK",
        "appid": v2.account["appid"],
        "mch_id": v2.account["mch_id"],
        "result_code": "SUCCESS",
    }
    assert answer == caller | {
        "refund_channel": "",
        "transaction_id": trade["transaction_id"],
        "out_trade_no": number,
        "out_refund_no": "R_1",
        "refund_id": made["refund_id"],
        "refund_fee": "310",
        "coupon_refund_fee": "0",
        "total_fee": "1000",
        "cash_fee": "1000",
        "coupon_refund_count": "0",
        "cash_refund_fee": "310",
    }
    known = await v2.succeed("refundquery", {"out_refund_no": "R_1"})
    assert {name: text for name, text in known.items() if name not in envelope} == caller | {
        "transaction_id": trade["transaction_id"],
        "out_trade_no": number,
        "total_fee": "1000",
        "fee_type": "CNY",
        "cash_fee": "1000",
        "refund_count": "1",
        "out_refund_no_0": "R_1",
        "refund_id_0": made["refund_id"],
        "refund_channel_0": "ORIGINAL",
        "refund_fee_0": "310",
        "settlement_refund_fee_0": "310",
        "coupon_refund_fee_0": "0",
        "coupon_refund_count_0": "0",
        "refund_status_0": "SUCCESS",
        "refund_account_0": "REFUND_SOURCE_UNSETTLED_FUNDS",
        "refund_recv_accout_0": "支付用户零钱",
        "refund_success_time_0": spaced(made["refunded_at"]),
    }
    paid_order = await v2.query(number)
    assert (paid_order["trade_state"], paid_order["trade_state_desc"]) == (
        "REFUND",
        "订单发生过退款，退款详情请查询退款单",
    )
    assert paid_order["total_fee"] == "1000"


@pytest.mark.parametrize(
    ("state", "status"), [("REFUNDED", "SUCCESS"), ("FAILED", "REFUNDCLOSE"), ("ABNORMAL", "CHANGE")]
)
async def test_a_held_refund_is_processing_until_it_is_settled(
    v2: V2Client, sandbox: SandboxHandle, state: str, status: str
) -> None:
    number = await paid(v2, sandbox)
    await set_policy(sandbox, settle="hold")
    await v2.succeed("refund", ask(number, 400, refund_account="REFUND_SOURCE_RECHARGE_FUNDS"))
    known = await v2.succeed("refundquery", {"out_trade_no": number})
    assert (known["refund_status_0"], "refund_success_time_0" in known) == ("PROCESSING", False)
    assert known["refund_account_0"] == "REFUND_SOURCE_RECHARGE_FUNDS"
    await sandbox.control("POST", "/refunds/R_1/settle", {"as": state})
    known = await v2.succeed("refundquery", {"refund_id": known["refund_id_0"]})
    assert (known["refund_status_0"], "refund_success_time_0" in known) == (status, state == "REFUNDED")


async def test_an_orders_refunds_are_told_ten_at_a_time(v2: V2Client, sandbox: SandboxHandle) -> None:
    number = await paid(v2, sandbox)
    for n in range(12):
        await v2.succeed("refund", ask(number, n + 1, f"R_{n}"))
    theirs = (await v2.query(number))["transaction_id"]
    by_order = ({"out_trade_no": number}, {"transaction_id": theirs})
    for fields in by_order:
        first = await v2.succeed("refundquery", fields)
        assert (first["refund_count"], first["total_refund_count"]) == ("10", "12")
        assert [first[f"out_refund_no_{n}"] for n in range(10)] == [f"R_{n}" for n in range(10)]
        assert [first[f"refund_fee_{n}"] for n in range(10)] == [str(n + 1) for n in range(10)]
        rest = await v2.succeed("refundquery", {**fields, "offset": "10"})
        assert (rest["refund_count"], rest["total_refund_count"]) == ("2", "12")
        assert (rest["out_refund_no_0"], rest["out_refund_no_1"], "out_refund_no_2" in rest) == ("R_10", "R_11", False)
        assert await v2.refused("refundquery", {**fields, "offset": "12"}) == "PARAM_ERROR"
    one = await v2.succeed("refundquery", {"out_refund_no": "R_11", "out_trade_no": number})
    assert (one["refund_count"], one["refund_fee_0"], "total_refund_count" in one) == ("1", "12", False)


async def test_the_first_of_four_numbers_is_looked_for(v2: V2Client, sandbox: SandboxHandle) -> None:
    number = await paid(v2, sandbox)
    made = {no: (await v2.succeed("refund", ask(number, 1, no)))["refund_id"] for no in ("R_1", "R_2")}
    by_id = await v2.succeed("refundquery", {"refund_id": made["R_2"], "out_refund_no": "R_1"})
    assert by_id["out_refund_no_0"] == "R_2"
    by_number = {"out_refund_no": "R_1", "transaction_id": UNKNOWN_TRANSACTION, "out_trade_no": "never-made"}
    assert (await v2.succeed("refundquery", by_number))["out_refund_no_0"] == "R_1"
    both = {"transaction_id": UNKNOWN_TRANSACTION, "out_trade_no": number}
    assert await v2.refused("refundquery", both) == "INVALID_TRANSACTIONID"


async def test_a_repeat_changes_nothing(v2: V2Client, sandbox: SandboxHandle) -> None:
    number = await paid(v2, sandbox)
    first = await v2.succeed("refund", ask(number, 1000))
    again = await v2.succeed("refund", ask(number, 1000, refund_desc="again"))
    by_theirs = {**ask(number, 1000), "transaction_id": first["transaction_id"], "out_trade_no": ""}
    assert {again["refund_id"], (await v2.succeed("refund", by_theirs))["refund_id"]} == {first["refund_id"]}
    assert await truth(sandbox, number) == ("REFUND", 1000, [("R_1", 1000, "REFUNDED")])


# Refusals: nothing is given back.


async def test_never_more_than_was_paid_and_never_otherwise_under_one_number(
    v2: V2Client, sandbox: SandboxHandle
) -> None:
    number, other = await paid(v2, sandbox), await paid(v2, sandbox)
    assert await v2.refused("refund", ask(number, 1001)) == "invalid refund_fee"
    assert await v2.refused("refund", ask(number, 1), {"total_fee": "999"}) == "REFUND_FEE_MISMATCH"
    assert await truth(sandbox, number) == ("SUCCESS", 0, [])
    await v2.succeed("refund", ask(number, 600))
    for fen in (599, 601, 400):
        assert await v2.refused("refund", ask(number, fen)) == "REFUND_FEE_MISMATCH"
    assert await v2.refused("refund", ask(number, 600), {"total_fee": "600"}) == "REFUND_FEE_MISMATCH"
    assert await v2.refused("refund", ask(other, 600)) == "ERROR"
    assert await v2.refused("refund", ask(number, 401, "R_2")) == "INVALID_REQUEST"
    await v2.succeed("refund", ask(number, 400, "R_2"))
    full = await v2.call("refund", ask(number, 1, "R_3"))
    assert (full["err_code"], full["err_code_des"]) == ("ERROR", "订单已全额退款")
    assert await truth(sandbox, number) == ("REFUND", 1000, [("R_1", 600, "REFUNDED"), ("R_2", 400, "REFUNDED")])
    assert await truth(sandbox, other) == ("SUCCESS", 0, [])


async def test_fifty_at_once_give_back_no_more_than_was_paid(v2: V2Client, sandbox: SandboxHandle) -> None:
    number = await paid(v2, sandbox)
    answers = await asyncio.gather(*(v2.call("refund", ask(number, 300, f"R_{n}")) for n in range(50)))
    outcomes = sorted(answer.get("err_code", "") for answer in answers)
    assert outcomes == [""] * 3 + ["INVALID_REQUEST"] * 47
    assert (await truth(sandbox, number))[1] == 900


async def test_an_order_is_refunded_fifty_times_at_most(v2: V2Client, sandbox: SandboxHandle) -> None:
    number = await paid(v2, sandbox)
    await asyncio.gather(*(v2.succeed("refund", ask(number, 1, f"R_{n}")) for n in range(50)))
    assert await v2.refused("refund", ask(number, 1, "R_50")) == "ERROR"
    assert (await truth(sandbox, number))[1] == 50


async def test_only_a_paid_order_is_refunded_and_for_a_year(v2: V2Client, sandbox: SandboxHandle) -> None:
    number, closed = await v2.ordered(total_fee="1000"), await v2.ordered(total_fee="1000")
    await v2.succeed("closeorder", {"out_trade_no": closed})
    for unpaid in (number, closed, "never-made"):
        assert await v2.refused("refund", ask(unpaid, 1)) == "ORDERNOTEXIST"
    by_theirs = {"out_trade_no": None, "transaction_id": UNKNOWN_TRANSACTION}
    assert await v2.refused("refund", ask(number, 1), by_theirs) == "INVALID_TRANSACTIONID"
    await sandbox.pay(number, notify=False)
    theirs = (await v2.query(number))["transaction_id"]
    assert await v2.refused("refund", ask(closed, 1), {"transaction_id": theirs}) == "ORDERNOTEXIST"
    assert (await truth(sandbox, number), await truth(sandbox, closed)) == (("SUCCESS", 0, []), ("CLOSED", 0, []))
    await sandbox.advance(YEAR_S - 60)
    await v2.succeed("refund", ask(number, 1))
    await sandbox.advance(61)
    assert await v2.refused("refund", ask(number, 1, "R_2")) == "TRADE_OVERDUE"
    assert (await truth(sandbox, number))[1] == 1


@pytest.mark.parametrize(
    ("fields", "refusal"),
    [
        ({}, "PARAM_ERROR"),
        ({"offset": "0"}, "PARAM_ERROR"),
        ({"out_refund_no": "R_9"}, "REFUNDNOTEXIST"),
        ({"out_refund_no": "r_1"}, "REFUNDNOTEXIST"),
        ({"refund_id": "5" * 29}, "REFUNDNOTEXIST"),
        ({"transaction_id": UNKNOWN_TRANSACTION}, "INVALID_TRANSACTIONID"),
        ({"out_trade_no": "never-made"}, "REFUNDNOTEXIST"),
        ({"refund_id": "5"}, "参数格式校验错误：refund_id 不是微信退款单号"),
        ({"out_refund_no": "R_1", "offset": "-1"}, "参数格式校验错误：offset 必须是非负整数"),
        ({"out_refund_no": "R_1", "refund_fee": "1"}, "参数格式校验错误：refund_fee 不是该接口文档中的字段"),
    ],
)
async def test_a_query_that_finds_nothing(
    v2: V2Client, sandbox: SandboxHandle, fields: dict[str, str], refusal: str
) -> None:
    await v2.succeed("refund", ask(await paid(v2, sandbox), 1))
    assert await v2.refused("refundquery", fields) == refusal


async def test_an_order_without_refunds_has_none(v2: V2Client, sandbox: SandboxHandle) -> None:
    assert await v2.refused("refundquery", {"out_trade_no": await paid(v2, sandbox)}) == "REFUNDNOTEXIST"


@pytest.mark.parametrize("missing", ["out_trade_no", "out_refund_no", "total_fee", "refund_fee"])
async def test_a_required_field_is_missed(v2: V2Client, sandbox: SandboxHandle, missing: str) -> None:
    number = await paid(v2, sandbox)
    for nothing in (None, ""):
        assert await v2.refused("refund", ask(number, 1), {missing: nothing}) == "PARAM_ERROR"
    assert await truth(sandbox, number) == ("SUCCESS", 0, [])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("refund_fee", "0"),
        ("refund_fee", "-1"),
        ("refund_fee", "1.0"),
        ("refund_fee", "01"),
        ("total_fee", "10.00"),
        ("out_refund_no", "R" * 65),
        ("out_refund_no", "R 1"),
        ("out_refund_no", "退"),
        ("refund_fee_type", "USD"),
        ("refund_desc", "退" * 81),
        ("refund_account", "BASIC"),
        ("notify_url", "http://127.0.0.1/notify?a=1"),
        ("notify_url", "http://127.0.0.1/" + "a" * 240),
        ("transaction_id", "4200"),
        ("op_user_id", "1900000103"),
        ("refund_id", "5" * 29),
    ],
)
async def test_a_badly_formed_field_is_named(v2: V2Client, sandbox: SandboxHandle, name: str, value: str) -> None:
    number = await paid(v2, sandbox)
    refusal = await v2.refused("refund", ask(number, 1), {name: value})
    assert refusal.startswith(f"参数格式校验错误：{name} ")
    assert await truth(sandbox, number) == ("SUCCESS", 0, [])


async def test_what_is_just_allowed_is_allowed(v2: V2Client, sandbox: SandboxHandle) -> None:
    fields = {
        "refund_fee_type": "CNY",
        "refund_desc": "退" * 80,
        "refund_account": "REFUND_SOURCE_UNSETTLED_FUNDS",
        "notify_url": "http://127.0.0.1:9/" + "a" * 237,
    }
    await v2.succeed("refund", ask(await paid(v2, sandbox), 1, "a-Z_9*@|" + "x" * 56, **fields))


async def test_a_call_that_is_not_the_merchants_gives_nothing_back(
    v2: V2Client, partner: V2Client, sandbox: SandboxHandle
) -> None:
    number = await paid(v2, sandbox)
    good = v2.signed({**v2.caller, **ask(number, 1)})
    for fields in ({**good, "refund_fee": "2"}, {**good, "sign": ""}, {**good, "sign_type": "MD5"}):
        assert unsigned_refusal(await v2.post("refund", to_xml(fields))) == "签名错误，请检查后再试"
    assert unsigned_refusal(await v2.post("refundquery", to_xml({**good, "refund_fee": "2"}))) != ""
    assert await partner.refused("refund", ask(number, 1)) == "ORDERNOTEXIST"
    assert await partner.refused("refund", ask(number, 1), {"sub_mch_id": "1900000101"}) == "受理关系不存在"
    assert await v2.refused("refund", ask(number, 1), {"appid": "wx0000000000000000"}) == "APPID_MCHID_NOT_MATCH"
    response = await v2.http.get(f"{v2.account['gateway']}/secapi/pay/refund")
    assert unsigned_refusal(from_xml(response.content)) == "请使用post方法"
    assert (await v2.http.post(f"{v2.account['gateway']}/pay/refund", content=to_xml(good))).status_code == 404
    assert await truth(sandbox, number) == ("SUCCESS", 0, [])


async def test_a_partner_refunds_for_its_sub_merchant(partner: V2Client, sandbox: SandboxHandle) -> None:
    number = await paid(partner, sandbox)
    answer = await partner.succeed("refund", ask(number, 1))
    assert answer["sub_mch_id"] == partner.account["sub_mch_id"]
    assert (await partner.succeed("refundquery", {"out_refund_no": "R_1"}))["refund_status_0"] == "SUCCESS"


# Notices.


@pytest.mark.parametrize(
    ("state", "status"), [("REFUNDED", "SUCCESS"), ("FAILED", "REFUNDCLOSE"), ("ABNORMAL", "CHANGE")]
)
async def test_a_settled_refund_is_told_encrypted(
    v2: V2Client, sandbox: SandboxHandle, merchant: MerchantServer, state: str, status: str
) -> None:
    merchant.otherwise = (200, acknowledgement())
    number = await paid(v2, sandbox)
    await set_policy(sandbox, settle="hold")
    refund_id = (await v2.succeed("refund", ask(number, 400, notify_url=merchant.notify_url)))["refund_id"]
    assert merchant.received == []
    answer = await sandbox.control("POST", "/refunds/R_1/settle", {"as": state})
    (notice,) = answer["notifications"]
    (received,) = merchant.received
    fields, told = v2.read_refund_notice(received.body)
    assert fields == {
        "return_code": "SUCCESS",
        "appid": v2.account["appid"],
        "mch_id": v2.account["mch_id"],
        "nonce_str": notice["notify_id"].replace("-", ""),
    }
    (made,) = answer["trade"]["refunds"]
    assert told == {
        "transaction_id": answer["trade"]["transaction_id"],
        "out_trade_no": number,
        "refund_id": refund_id,
        "out_refund_no": "R_1",
        "total_fee": "1000",
        "settlement_total_fee": "1000",
        "refund_fee": "400",
        "settlement_refund_fee": "400",
        "refund_status": status,
        "refund_recv_accout": "支付用户零钱",
        "refund_account": "REFUND_SOURCE_UNSETTLED_FUNDS",
        "refund_request_source": "API",
        "cash_refund_fee": "400",
        **({"success_time": spaced(made["refunded_at"])} if state == "REFUNDED" else {}),
    }
    assert received.headers["content-type"] == "text/xml; charset=utf-8"
    assert notice["state"] == "ACKNOWLEDGED"
    assert notice["summary"] == {"channel": "v2", "out_refund_no": "R_1", "refund_status": state, "amount": "4.00"}


async def test_a_partners_notice_names_both_sides(
    partner: V2Client, sandbox: SandboxHandle, merchant: MerchantServer
) -> None:
    await partner.succeed("refund", ask(await paid(partner, sandbox), 1, notify_url=merchant.notify_url))
    (received,) = await merchant.wait_for(1)
    fields, told = partner.read_refund_notice(received.body)
    account = partner.account
    assert (fields["mch_id"], fields["sub_mch_id"]) == (account["mch_id"], account["sub_mch_id"])
    assert told["refund_fee"] == "1"


async def test_an_unanswered_refund_notice_comes_sixteen_times_in_a_day(
    v2: V2Client, sandbox: SandboxHandle, merchant: MerchantServer
) -> None:
    merchant.otherwise = (200, b"success")
    await v2.succeed("refund", ask(await paid(v2, sandbox), 1, notify_url=merchant.notify_url))
    await merchant.wait_for(1)
    await sandbox.advance(3 * 86400)
    (notice,) = await sandbox.notices()
    due = [datetime.fromisoformat(attempt["due_at"]) for attempt in notice["attempts"]]
    assert [late - early for early, late in pairwise(due)] == [timedelta(seconds=s) for s in GAPS_S]
    assert (notice["state"], len({received.body for received in merchant.received})) == ("GIVEN_UP", 1)


async def test_a_notice_may_lie_or_be_anybodys(v2: V2Client, sandbox: SandboxHandle, merchant: MerchantServer) -> None:
    number = await paid(v2, sandbox)
    merchant.otherwise = (200, acknowledgement())
    await v2.succeed("refund", ask(number, 400, notify_url=merchant.notify_url))
    await merchant.wait_for(1)
    fields = {"refund_fee": "500", "envelope.mch_id": "1900009999"}
    await sandbox.control("POST", "/wechat/refunds/R_1/notify", {"fields": fields})
    outside, inside = v2.read_refund_notice(merchant.received[1].body)
    assert (outside["mch_id"], inside["refund_fee"], inside["out_refund_no"]) == ("1900009999", "500", "R_1")
    await sandbox.control("POST", "/wechat/refunds/R_1/notify", {"break_signature": True})
    with pytest.raises((ValueError, ElementTree.ParseError)):
        v2.read_refund_notice(merchant.received[2].body)
    for name in ("a b", "envelope.a><b"):
        refused = await sandbox.control("POST", "/wechat/refunds/R_1/notify", {"fields": {name: "x"}}, status=409)
        assert refused["error"]["code"] == "FIELD_INVALID"
    assert len(merchant.received) == 3
    assert await truth(sandbox, number) == ("REFUND", 400, [("R_1", 400, "REFUNDED")])


# Faults.


@pytest.mark.parametrize(
    "code", ["NOTENOUGH", "SYSTEMERROR", "BIZERR_NEED_RETRY", "FREQUENCY_LIMITED", "TRADE_OVERDUE"]
)
async def test_an_error_gives_nothing_back_and_the_number_may_be_repeated(
    v2: V2Client, sandbox: SandboxHandle, code: str
) -> None:
    number = await paid(v2, sandbox)
    fault = {"method": "wechat.v2.refund", "kind": "business_error", "code": code, "out_trade_no": number}
    await sandbox.control("POST", "/faults", fault, status=201)
    assert await v2.refused("refund", ask(number, 400)) == code
    assert await truth(sandbox, number) == ("SUCCESS", 0, [])
    await v2.succeed("refund", ask(number, 400))
    assert await sandbox.calls("wechat.v2.refund", number) == 2


@pytest.mark.parametrize(
    ("kind", "refunded_fen"), [("lost_reply", 400), ("timeout", 0), ("http_500", 0), ("error_response", 0)]
)
async def test_a_call_that_goes_wrong_is_clear_to_the_query_after_it(
    v2: V2Client, sandbox: SandboxHandle, kind: str, refunded_fen: int
) -> None:
    number = await paid(v2, sandbox)
    fault = {"method": "wechat.v2.refund", "kind": kind, "latency_s": 0, "out_trade_no": number}
    await sandbox.control("POST", "/faults", fault, status=201)
    body = to_xml(v2.signed({**v2.caller, **ask(number, 400)}))
    url = f"{v2.account['gateway']}/secapi/pay/refund"
    if kind in ("lost_reply", "timeout"):
        with pytest.raises(httpx.TransportError):
            await v2.http.post(url, content=body)
    else:
        assert (await v2.http.post(url, content=body)).status_code == (500 if kind == "http_500" else 200)
    assert (await truth(sandbox, number))[1] == refunded_fen
    known = await v2.call("refundquery", {"out_refund_no": "R_1"})
    assert known.get("err_code", known.get("refund_status_0")) == ("SUCCESS" if refunded_fen else "REFUNDNOTEXIST")
    assert await sandbox.calls("wechat.v2.refundquery", number) == 1


@pytest.mark.parametrize("action", ["refund", "refundquery"])
async def test_a_broken_signature_can_be_asked_for(v2: V2Client, sandbox: SandboxHandle, action: str) -> None:
    number = await paid(v2, sandbox)
    await v2.succeed("refund", ask(number, 1))
    fault = {"method": f"wechat.v2.{action}", "kind": "bad_signature", "out_trade_no": number}
    await sandbox.control("POST", "/faults", fault, status=201)
    fields = ask(number, 1) if action == "refund" else {"out_refund_no": "R_1"}
    answer = await v2.post(action, to_xml(v2.signed({**v2.caller, **fields})))
    assert answer["result_code"] == "SUCCESS"
    assert answer["sign"] != signature(answer, v2.account["api_key"], v2.sign_type)


async def test_what_is_no_refund_counts_for_no_order(v2: V2Client, sandbox: SandboxHandle) -> None:
    assert await v2.refused("refundquery", {"out_refund_no": new_number()}) == "REFUNDNOTEXIST"
    assert await sandbox.calls("wechat.v2.refundquery", "") == 1
