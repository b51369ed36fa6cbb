"""Refunds from inside WeChat's cloud: calls without a key, lists that may be empty, callbacks that only hint."""

import asyncio
import json
from datetime import datetime
from typing import Any

import httpx
import pytest

from tests.sandbox.handle import SandboxHandle
from tests.sandbox.merchant_server import MerchantServer
from tests.sandbox.wechat.cloud_client import MISSING, CloudClient
from tests.sandbox.wechat.v2_client import compact

UNKNOWN_TRANSACTION = "4200000000202611220000000000"
FILLED = (
    *("out_refund_no_list", "refund_id_list", "refund_channel", "refund_fee_list", "settlement_refund_fee_list"),
    *("coupon_refund_fee_list", "coupon_refund_count_list", "refund_status_list", "refund_account_list"),
    *("refund_recv_accout_list", "refund_success_time_list"),
)


@pytest.fixture
def cloud(sandbox: SandboxHandle, accounts: dict[str, dict[str, str]]) -> CloudClient:
    return CloudClient(accounts["cloud"], sandbox.http)


@pytest.fixture
async def container(sandbox: SandboxHandle, merchant: MerchantServer) -> MerchantServer:
    """The service that the callbacks go to, acknowledging."""
    merchant.otherwise = (200, b'{"errcode":0,"errmsg":"SUCCESS"}')
    await sandbox.control("POST", "/wechat/cloud", {"callback_base_url": merchant.base_url})
    return merchant


async def paid(cloud: CloudClient, sandbox: SandboxHandle) -> str:
    number = await cloud.ordered(total_fee=1000)
    await sandbox.pay(number, notify=False)
    return number


def ask(cloud: CloudClient, number: str, fen: int, refund_no: str = "R_1", **changes: object) -> dict[str, object]:
    fields: dict[str, object] = {
        "sub_mch_id": cloud.account["sub_mch_id"],
        "out_trade_no": number,
        "out_refund_no": refund_no,
        "total_fee": 1000,
        "refund_fee": fen,
        "refund_desc": "少了一杯",
        "body": "一杯咖啡",
        "env_id": cloud.account["env_id"],
        "callback_type": 2,
        "container": {"service": cloud.account["cloud_service"], "path": "/refunded"},
        **changes,
    }
    return {name: value for name, value in fields.items() if value is not MISSING}


async def known(cloud: CloudClient, **fields: object) -> dict[str, Any]:
    return await cloud.succeed("queryrefund", {"sub_mch_id": cloud.account["sub_mch_id"], **fields})


async def set_policy(sandbox: SandboxHandle, **policy: object) -> None:
    await sandbox.control("POST", "/refunds/policy", {"provider": "WECHAT", **policy})


async def truth(sandbox: SandboxHandle, number: str) -> tuple[str, int, list[tuple[str, int, str]]]:
    trade = await sandbox.trade(number)
    refunds = [(one["out_refund_no"], one["amount_fen"], one["status"]) for one in trade["refunds"]]
    return trade["trade_state"], trade["refunded_fen"], refunds


async def test_a_refund_is_accepted_and_known_as_done_afterwards(cloud: CloudClient, sandbox: SandboxHandle) -> None:
    number = await paid(cloud, sandbox)
    answer = await cloud.succeed("refund", ask(cloud, number, 310))
    trade = await sandbox.trade(number)
    (made,) = trade["refunds"]
    for name in ("nonce_str", "sign"):
        assert answer.pop(name)
    caller = {
        "return_code": "SUCCESS",
        "return_msg": "OK",
        "result_code": "SUCCESS",
        "appid": trade["app_id"],
        "mch_id": "1800000001",
        "sub_appid": cloud.account["appid"],
        "sub_mch_id": cloud.account["sub_mch_id"],
    }
    assert answer == caller | {
        "transaction_id": trade["transaction_id"],
        "out_trade_no": number,
        "out_refund_no": "R_1",
        "refund_id": made["refund_id"],
        "refund_fee": 310,
        "total_fee": 1000,
        "cash_fee": 1000,
        "cash_refund_fee": 310,
        "coupon_refund_fee": 0,
        "coupon_refund_count": 0,
        "coupon_type_list": [],
        "coupon_refund_id_list": [],
        "coupon_refund_fee_list": [],
    }
    told = await known(cloud, out_refund_no="R_1")
    for name in ("nonce_str", "sign"):
        assert told.pop(name)
    time = compact(datetime.fromisoformat(made["refunded_at"]))
    assert told == caller | {
        "transaction_id": trade["transaction_id"],
        "out_trade_no": number,
        "total_fee": 1000,
        "cash_fee": 1000,
        "refund_count": 1,
        "out_refund_no_list": ["R_1"],
        "refund_id_list": [made["refund_id"]],
        "refund_channel": ["ORIGINAL"],
        "refund_fee_list": [310],
        "settlement_refund_fee_list": [310],
        "coupon_refund_fee_list": [0],
        "coupon_refund_count_list": [0],
        "refund_status_list": ["SUCCESS"],
        "refund_account_list": ["REFUND_SOURCE_UNSETTLED_FUNDS"],
        "refund_recv_accout_list": ["支付用户零钱"],
        "refund_success_time_list": [f"{time[:4]}-{time[4:6]}-{time[6:8]} {time[8:10]}:{time[10:12]}:{time[12:]}"],
        "coupon_type_array": [],
        "coupon_refund_id_array": [],
        "coupon_refund_fee_array": [],
    }
    assert await cloud.state(number) == "REFUND"


async def test_lists_hold_an_entry_for_every_refund(cloud: CloudClient, sandbox: SandboxHandle) -> None:
    number = await paid(cloud, sandbox)
    await set_policy(sandbox, settle="hold")
    for n in range(12):
        await cloud.succeed("refund", ask(cloud, number, n + 1, f"R_{n}"))
    for n, state in enumerate(("REFUNDED", "FAILED", "ABNORMAL")):
        await sandbox.control("POST", f"/refunds/R_{n}/settle", {"as": state})
    first = await known(cloud, out_trade_no=number)
    assert (first["refund_count"], first["total_refund_count"]) == (10, 12)
    assert {len(first[name]) for name in FILLED} == {10}
    assert first["refund_fee_list"] == list(range(1, 11))
    assert first["refund_status_list"] == ["SUCCESS", "REFUNDCLOSE", "CHANGE", *["PROCESSING"] * 7]
    assert [text != "" for text in first["refund_success_time_list"]] == [True] + [False] * 9
    rest = await known(cloud, transaction_id=first["transaction_id"], offset=10)
    assert rest["out_refund_no_list"] == ["R_10", "R_11"]
    by_id = await known(cloud, refund_id=first["refund_id_list"][3], out_trade_no=number)
    assert (by_id["out_refund_no_list"], "total_refund_count" in by_id) == (["R_3"], False)


async def test_lists_may_be_empty_as_in_the_documents(cloud: CloudClient, sandbox: SandboxHandle) -> None:
    number = await paid(cloud, sandbox)
    await cloud.succeed("refund", ask(cloud, number, 1))
    path = "/wechat/cloud/refund_lists"
    assert await sandbox.control("POST", path, {"empty": True}) == {"empty": True}
    told = await known(cloud, out_refund_no="R_1")
    assert told["refund_count"] == 1
    assert [told[name] for name in FILLED] == [[]] * len(FILLED)
    assert await cloud.refused("queryrefund", {"sub_mch_id": cloud.account["sub_mch_id"], "out_refund_no": "R_2"}) == (
        "err_code",
        "REFUNDNOTEXIST",
    )
    await sandbox.control("POST", path, {"empty": "yes"}, status=400)
    assert await sandbox.control("GET", path) == {"empty": True}
    await sandbox.control("POST", "/reset")
    assert await sandbox.control("GET", path) == {"empty": False}


async def test_a_repeat_changes_nothing_and_the_sum_is_bounded(cloud: CloudClient, sandbox: SandboxHandle) -> None:
    number = await paid(cloud, sandbox)
    first = await cloud.succeed("refund", ask(cloud, number, 600))
    assert (await cloud.succeed("refund", ask(cloud, number, 600)))["refund_id"] == first["refund_id"]
    for fields, refusal in (
        (ask(cloud, number, 601), ("err_code", "REFUND_FEE_MISMATCH")),
        (ask(cloud, number, 1, "R_2", total_fee=999), ("err_code", "REFUND_FEE_MISMATCH")),
        (ask(cloud, number, 401, "R_2"), ("err_code", "INVALID_REQUEST")),
        (ask(cloud, number, 1001, "R_2"), ("return_msg", "invalid refund_fee")),
    ):
        assert await cloud.refused("refund", fields) == refusal
    assert await truth(sandbox, number) == ("REFUND", 600, [("R_1", 600, "REFUNDED")])
    await cloud.succeed("refund", ask(cloud, number, 400, "R_2"))
    assert await cloud.refused("refund", ask(cloud, number, 1, "R_3")) == ("err_code", "ERROR")
    assert (await truth(sandbox, number))[1] == 1000


async def test_fifty_at_once_give_back_no_more_than_was_paid(cloud: CloudClient, sandbox: SandboxHandle) -> None:
    number = await paid(cloud, sandbox)
    bodies = [ask(cloud, number, 300, f"R_{n}") for n in range(50)]
    answers = await asyncio.gather(*(cloud.respdata("refund", body) for body in bodies))
    assert sorted(answer.get("err_code", "") for answer in answers) == [""] * 3 + ["INVALID_REQUEST"] * 47
    assert (await truth(sandbox, number))[1] == 900


@pytest.mark.parametrize(
    ("changes", "level", "code"),
    [
        *(({name: MISSING}, "errcode", 40097) for name in ("out_refund_no", "total_fee", "refund_fee", "env_id")),
        *(({name: MISSING}, "errcode", 40097) for name in ("sub_mch_id", "callback_type", "container")),
        ({"refund_fee": 1.0}, "errcode", 47001),
        ({"refund_fee": "1"}, "errcode", 47001),
        ({"refund_fee": True}, "errcode", 47001),
        ({"out_refund_no": 1}, "errcode", 47001),
        ({"notify_url": "http://127.0.0.1:9/notify"}, "errcode", 47001),
        ({"env_id": "prod-of-another"}, "errcode", 40097),
        ({"callback_type": 1}, "errcode", 40097),
        ({"container": {"service": "another", "path": "/"}}, "errcode", 40097),
        ({"container": {"service": "shouyin", "path": "refunded"}}, "errcode", 40097),
        ({"container": {"service": "shouyin"}}, "errcode", 40097),
        ({"sub_mch_id": "1900009999"}, "return_msg", "受理关系不存在"),
        ({"refund_fee": 0}, "return_msg", "参数格式校验错误：refund_fee 必须是正整数，单位为分"),
        ({"refund_desc": "退" * 81}, "return_msg", "参数格式校验错误：refund_desc 长度不能超过 80"),
        ({"out_trade_no": MISSING}, "err_code", "PARAM_ERROR"),
        ({"out_trade_no": "never-made"}, "err_code", "ORDERNOTEXIST"),
        ({"transaction_id": UNKNOWN_TRANSACTION}, "err_code", "INVALID_TRANSACTIONID"),
    ],
)
async def test_a_wrong_refund_gives_nothing_back(
    cloud: CloudClient, sandbox: SandboxHandle, changes: dict[str, object], level: str, code: str | int
) -> None:
    number = await paid(cloud, sandbox)
    assert await cloud.refused("refund", ask(cloud, number, 1, "R_1", **changes)) == (level, code)
    assert await truth(sandbox, number) == ("SUCCESS", 0, [])


async def test_an_unpaid_order_is_not_refunded(cloud: CloudClient, sandbox: SandboxHandle) -> None:
    number = await cloud.ordered(total_fee=1000)
    assert await cloud.refused("refund", ask(cloud, number, 1)) == ("err_code", "ORDERNOTEXIST")
    assert await truth(sandbox, number) == ("NOTPAY", 0, [])


@pytest.mark.parametrize(
    ("fields", "refusal"),
    [
        ({}, ("err_code", "PARAM_ERROR")),
        ({"out_refund_no": "R_2"}, ("err_code", "REFUNDNOTEXIST")),
        ({"out_trade_no": "never-made"}, ("err_code", "REFUNDNOTEXIST")),
        ({"transaction_id": UNKNOWN_TRANSACTION}, ("err_code", "INVALID_TRANSACTIONID")),
        ({"out_refund_no": "R_1", "offset": "0"}, ("errcode", 47001)),
        ({"out_refund_no": "R_1", "env_id": "x"}, ("errcode", 47001)),
        ({"refund_id": "5"}, ("return_msg", "参数格式校验错误：refund_id 不是微信退款单号")),
    ],
)
async def test_a_query_that_finds_nothing(
    cloud: CloudClient, sandbox: SandboxHandle, fields: dict[str, object], refusal: tuple[str, str | int]
) -> None:
    await cloud.succeed("refund", ask(cloud, await paid(cloud, sandbox), 1))
    assert await cloud.refused("queryrefund", {"sub_mch_id": cloud.account["sub_mch_id"], **fields}) == refusal


@pytest.mark.parametrize(
    ("state", "status"), [("REFUNDED", "SUCCESS"), ("FAILED", "REFUNDCLOSE"), ("ABNORMAL", "CHANGE")]
)
async def test_a_settled_refund_is_hinted_at_the_container(
    cloud: CloudClient, sandbox: SandboxHandle, container: MerchantServer, state: str, status: str
) -> None:
    number = await paid(cloud, sandbox)
    await set_policy(sandbox, settle="hold")
    await cloud.succeed("refund", ask(cloud, number, 400))
    assert container.received == []
    answer = await sandbox.control("POST", "/refunds/R_1/settle", {"as": state})
    (notice,) = answer["notifications"]
    (received,) = container.received
    assert received.target == "/refunded"
    assert received.headers["x-wx-source"] == "wx_paycallback"
    body = json.loads(received.body)
    told = ("returnCode", "outTradeNo", "outRefundNo", "refundId", "refundStatus", "refundFee", "totalFee", "subMchId")
    assert [body[name] for name in told] == [
        *("SUCCESS", number, "R_1", answer["trade"]["refunds"][0]["refund_id"], status, 400, 1000),
        cloud.account["sub_mch_id"],
    ]
    assert ("successTime" in body) is (state == "REFUNDED")
    assert (notice["state"], notice["summary"]["channel"]) == ("ACKNOWLEDGED", "cloud")


async def test_a_callback_is_repeated_until_acknowledged_and_can_lie(
    cloud: CloudClient, sandbox: SandboxHandle, container: MerchantServer
) -> None:
    container.answers = [(200, b"success")]
    number = await paid(cloud, sandbox)
    await cloud.succeed("refund", ask(cloud, number, 400))
    await container.wait_for(1)
    await sandbox.advance(15)
    first, again = container.received
    assert first.body == again.body
    await sandbox.control("POST", "/wechat/refunds/R_1/notify", {"fields": {"refundFee": "999"}})
    await sandbox.control("POST", "/wechat/refunds/R_1/notify", {"break_signature": True})
    assert json.loads(container.received[2].body)["refundFee"] == 999
    assert "x-wx-source" not in container.received[3].headers
    assert (await truth(sandbox, number))[1] == 400


async def test_a_caller_may_say_where_it_is(
    cloud: CloudClient, sandbox: SandboxHandle, merchant: MerchantServer
) -> None:
    number = await paid(cloud, sandbox)
    await cloud.post("refund", ask(cloud, number, 1), **{"x-sandbox-callback-base": merchant.base_url})
    (received,) = await merchant.wait_for(1)
    assert received.target == "/refunded"


@pytest.mark.parametrize("code", ["NOTENOUGH", "SYSTEMERROR", "FREQUENCY_LIMITED"])
async def test_an_error_gives_nothing_back_and_the_number_may_be_repeated(
    cloud: CloudClient, sandbox: SandboxHandle, code: str
) -> None:
    number = await paid(cloud, sandbox)
    fault = {"method": "wechat.cloud.refund", "kind": "business_error", "code": code, "out_trade_no": number}
    await sandbox.control("POST", "/faults", fault, status=201)
    assert await cloud.refused("refund", ask(cloud, number, 400)) == ("err_code", code)
    assert await truth(sandbox, number) == ("SUCCESS", 0, [])
    await cloud.succeed("refund", ask(cloud, number, 400))
    assert await sandbox.calls("wechat.cloud.refund", number) == 2


@pytest.mark.parametrize(
    ("kind", "refunded_fen"), [("lost_reply", 400), ("timeout", 0), ("http_500", 0), ("error_response", 0)]
)
async def test_a_call_that_goes_wrong_is_clear_to_the_query_after_it(
    cloud: CloudClient, sandbox: SandboxHandle, kind: str, refunded_fen: int
) -> None:
    number = await paid(cloud, sandbox)
    fault = {"method": "wechat.cloud.refund", "kind": kind, "latency_s": 0, "out_trade_no": number}
    await sandbox.control("POST", "/faults", fault, status=201)
    url, body = f"{cloud.account['gateway']}/_/pay/refund", ask(cloud, number, 400)
    if kind in ("lost_reply", "timeout"):
        with pytest.raises(httpx.TransportError):
            await cloud.http.post(url, json=body)
    else:
        response = await cloud.http.post(url, json=body)
        assert response.status_code == 500 or response.json()["errcode"] == -1
    assert (await truth(sandbox, number))[1] == refunded_fen
    asked = {"sub_mch_id": cloud.account["sub_mch_id"], "out_refund_no": "R_1"}
    answer = await cloud.respdata("queryrefund", asked)
    assert answer.get("err_code") == (None if refunded_fen else "REFUNDNOTEXIST")
    assert await sandbox.calls("wechat.cloud.queryrefund", number) == 1
