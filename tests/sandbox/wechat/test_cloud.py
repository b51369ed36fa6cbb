"""Cloud pay as a service inside WeChat's cloud uses it: calls without a key, callbacks without a signature."""

import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import httpx
import pytest

from tests.sandbox.handle import SandboxHandle
from tests.sandbox.merchant_server import MerchantServer
from tests.sandbox.wechat.cloud_client import MISSING, OPENID, CloudClient
from tests.sandbox.wechat.v2_client import compact, new_number

GAPS_S = [15, 15, 30, 180, 600, 1200, 1800, 1800, 1800, 3600, 10800, 10800, 10800, 21600, 21600, 21600, 21600, 21600]


@pytest.fixture
def cloud(sandbox: SandboxHandle, accounts: dict[str, dict[str, str]]) -> CloudClient:
    return CloudClient(accounts["cloud"], sandbox.http)


@pytest.fixture
async def container(sandbox: SandboxHandle, merchant: MerchantServer) -> MerchantServer:
    """The service that the callbacks go to, acknowledging."""
    merchant.otherwise = (200, b'{"errcode":0,"errmsg":"SUCCESS"}')
    await sandbox.control("POST", "/wechat/cloud", {"callback_base_url": merchant.base_url})
    return merchant


async def no_trade(sandbox: SandboxHandle) -> bool:
    return not (await sandbox.control("GET", "/trades"))["trades"]


# Ordering.


@pytest.mark.parametrize("action", ["unifiedorder", "unifiedOrder"])
async def test_an_order_gives_what_the_mini_program_passes_on(
    cloud: CloudClient, sandbox: SandboxHandle, action: str
) -> None:
    number = new_number()
    respdata = await cloud.succeed(action, cloud.order(number, nonce_str="n1"))
    payment = respdata.pop("payment")
    assert respdata.keys() == {
        *(
            "return_code",
            "return_msg",
            "result_code",
            "appid",
            "mch_id",
            "sub_appid",
            "sub_mch_id",
            "nonce_str",
            "sign",
        ),
        *("trade_type", "prepay_id"),
    }
    assert (respdata["sub_appid"], respdata["sub_mch_id"]) == (cloud.account["appid"], cloud.account["sub_mch_id"])
    assert (respdata["trade_type"], respdata["mch_id"]) == ("JSAPI", "1800000001")
    assert payment.keys() == {"appId", "timeStamp", "nonceStr", "package", "signType", "paySign"}
    assert (payment["appId"], payment["signType"]) == (cloud.account["appid"], "MD5")
    assert payment["package"] == f"prepay_id={respdata['prepay_id']}"
    assert abs(int(payment["timeStamp"]) - datetime.now(UTC).timestamp()) < 60
    assert (len(payment["paySign"]), len(respdata["sign"])) == (32, 32)
    trade = await sandbox.trade(number)
    assert (trade["channel"], trade["product"], trade["amount_fen"], trade["openid"]) == ("cloud", "JSAPI", 2, OPENID)
    assert (trade["seller_id"], trade["sub_appid"]) == (cloud.account["sub_mch_id"], cloud.account["appid"])


async def test_wechats_client_takes_what_the_cloud_gave(cloud: CloudClient, sandbox: SandboxHandle) -> None:
    payment = (await cloud.succeed("unifiedorder", cloud.order(new_number())))["payment"]
    another = (await cloud.succeed("unifiedorder", cloud.order(new_number())))["payment"]
    bridge = f"{sandbox.base_url}/wechat/bridge"
    taken = await cloud.http.get(bridge, params=payment)
    assert (taken.status_code, taken.headers["location"].startswith("/wechat/pay/")) == (302, True)
    for wrong in (
        {**payment, "paySign": another["paySign"]},
        {**payment, "package": another["package"]},
        {**payment, "signType": "HMAC-SHA256"},
        {**payment, "signType": "RSA"},
    ):
        refused = await cloud.http.get(bridge, params=wrong)
        assert ("location" in refused.headers, "支付验证签名失败" in refused.text) == (False, True)


async def test_another_app_of_the_merchant_may_be_named(cloud: CloudClient, sandbox: SandboxHandle) -> None:
    apps = (await sandbox.control("GET", "/accounts"))["accounts"]
    [official] = [app["app_id"] for app in apps if app["mode"] == "official_account"]
    respdata = await cloud.succeed("unifiedorder", cloud.order(new_number(), sub_appid=official))
    assert (respdata["sub_appid"], respdata["payment"]["appId"]) == (official, official)
    wrong = cloud.order(new_number(), sub_appid="wx0000000000000000")
    assert await cloud.refused("unifiedorder", wrong) == ("err_code", "APPID_MCHID_NOT_MATCH")


async def test_ordering_again_gives_a_new_credential(cloud: CloudClient) -> None:
    order = cloud.order(new_number())
    first, second = await cloud.succeed("unifiedorder", order), await cloud.succeed("unifiedorder", order)
    assert first["prepay_id"] != second["prepay_id"]


async def test_a_number_is_not_used_twice(cloud: CloudClient, sandbox: SandboxHandle) -> None:
    number = await cloud.ordered()
    assert await cloud.refused("unifiedorder", cloud.order(number, total_fee=3)) == ("err_code", "INVALID_REQUEST")
    await sandbox.pay(number, notify=False)
    assert await cloud.refused("unifiedorder", cloud.order(number)) == ("err_code", "ORDERPAID")


async def test_an_order_expires_when_it_says(cloud: CloudClient, sandbox: SandboxHandle) -> None:
    number = await cloud.ordered(time_expire=compact(datetime.now(UTC) + timedelta(minutes=10)))
    await sandbox.advance(601)
    assert await cloud.state(number) == "CLOSED"


@pytest.mark.parametrize(
    ("changes", "level", "code"),
    [
        *(({name: MISSING}, "errcode", 40097) for name in ("body", "out_trade_no", "total_fee", "openid", "env_id")),
        *(({name: MISSING}, "errcode", 40097) for name in ("sub_mch_id", "spbill_create_ip", "container")),
        ({"callback_type": MISSING}, "errcode", 40097),
        ({"openid": ""}, "errcode", 40097),
        ({"total_fee": 0.02}, "errcode", 47001),
        ({"total_fee": 2.0}, "errcode", 47001),
        ({"total_fee": "2"}, "errcode", 47001),
        ({"total_fee": True}, "errcode", 47001),
        ({"total_fee": None}, "errcode", 47001),
        ({"out_trade_no": 20261122}, "errcode", 47001),
        ({"callback_type": "2"}, "errcode", 47001),
        ({"notify_url": "http://127.0.0.1/notify"}, "errcode", 47001),
        ({"subMchId": "1900000106"}, "errcode", 47001),
        ({"callback_type": 1}, "errcode", 40097),
        ({"env_id": "prod-somebody-else"}, "errcode", 40097),
        ({"container": {"service": "another", "path": "/notify"}}, "errcode", 40097),
        ({"container": {"service": "shouyin"}}, "errcode", 40097),
        ({"container": {"service": "shouyin", "path": "notify"}}, "errcode", 40097),
        ({"container": {"service": "shouyin", "path": "/notify?x=1"}}, "errcode", 40097),
        ({"container": {"service": "shouyin", "path": 1}}, "errcode", 40097),
        ({"container": "shouyin"}, "errcode", 47001),
        ({"sub_mch_id": "1900009999"}, "return_msg", "受理关系不存在"),
        ({"sub_mch_id": "1900000105"}, "return_msg", "受理关系不存在"),
        ({"openid": "oTooShort"}, "return_msg", "sub_appid与sub_openid不匹配"),
        ({"trade_type": "NATIVE"}, "err_code", "NOAUTH"),
    ],
)
async def test_a_wrong_order_is_refused_at_its_level(
    cloud: CloudClient, sandbox: SandboxHandle, changes: dict[str, object], level: str, code: str | int
) -> None:
    order = cloud.order(new_number(), **changes)
    assert await cloud.refused("unifiedorder", order) == (level, code)
    assert await no_trade(sandbox)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("total_fee", 0),
        ("total_fee", -1),
        ("out_trade_no", "12345"),
        ("body", "茶" * 129),
        ("attach", "a" * 128),
        ("spbill_create_ip", "localhost"),
        ("time_expire", "2026-11-22 08:00:00"),
        pytest.param("time_expire", compact(datetime.now(UTC)), id="time_expire-now"),
        ("nonce_str", "a" * 33),
    ],
)
async def test_a_badly_formed_field_is_named(
    cloud: CloudClient, sandbox: SandboxHandle, name: str, value: object
) -> None:
    level, message = await cloud.refused("unifiedorder", cloud.order(new_number(), **{name: value}))
    assert (level, str(message).partition(" ")[0]) == ("return_msg", f"参数格式校验错误：{name}")
    assert await no_trade(sandbox)


async def test_an_openid_of_another_app_is_refused(cloud: CloudClient, sandbox: SandboxHandle) -> None:
    apps = (await sandbox.control("GET", "/accounts"))["accounts"]
    [official] = [app["app_id"] for app in apps if app["mode"] == "official_account"]
    users = (await sandbox.control("GET", f"/wechat/users?app_id={official}"))["users"]
    order = cloud.order(new_number(), openid=users[0]["openid"])
    assert await cloud.refused("unifiedorder", order) == ("return_msg", "sub_appid与sub_openid不匹配")
    assert await no_trade(sandbox)


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/x-www-form-urlencoded", "text/json"])
async def test_without_its_content_type_a_call_is_not_read(
    cloud: CloudClient, sandbox: SandboxHandle, content_type: str
) -> None:
    response = await cloud.http.post(
        f"{cloud.account['gateway']}/_/pay/unifiedorder",
        content=json.dumps(cloud.order(new_number())),
        headers={"content-type": content_type},
    )
    assert (response.status_code, response.content) == (400, b"")
    assert await no_trade(sandbox)
    assert await sandbox.calls("wechat.cloud.unifiedorder", "") == 1


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'"text"', b"null", b'{"body":"\\ud83d"}', b"[" * 90000, b" " * 102401]
)
async def test_a_body_that_is_no_object_is_refused(cloud: CloudClient, body: bytes) -> None:
    for action in ("unifiedorder", "queryorder", "closeorder"):
        response = await cloud.http.post(
            f"{cloud.account['gateway']}/_/pay/{action}",
            content=body,
            headers={"content-type": "application/json; charset=utf-8"},
        )
        assert response.json() == {"errcode": 47001, "errmsg": "data format error"}


# Query and close.


async def test_a_paid_order_is_found_by_either_number(
    cloud: CloudClient, sandbox: SandboxHandle, container: MerchantServer
) -> None:
    number = await cloud.ordered(attach="uid=7")
    unpaid = await cloud.succeed("queryorder", cloud.about(number, nonce_str="n1"))
    assert (unpaid["trade_state"], unpaid["attach"], "total_fee" in unpaid) == ("NOTPAY", "uid=7", False)
    await sandbox.pay(number)
    paid = await cloud.succeed("queryorder", cloud.about(number))
    trade = await sandbox.trade(number)
    told = (
        "trade_state",
        "total_fee",
        "cash_fee",
        "out_trade_no",
        "transaction_id",
        "sub_openid",
        "attach",
        "time_end",
    )
    assert [paid[name] for name in told] == [
        *("SUCCESS", 2, 2, number, trade["transaction_id"], OPENID, "uid=7"),
        compact(datetime.fromisoformat(trade["paid_at"])),
    ]
    by_theirs = {"sub_mch_id": cloud.account["sub_mch_id"], "transaction_id": trade["transaction_id"]}
    assert (await cloud.succeed("queryorder", by_theirs))["out_trade_no"] == number


async def test_closing_ends_an_unpaid_order_once(cloud: CloudClient, sandbox: SandboxHandle) -> None:
    number = await cloud.ordered()
    await cloud.succeed("closeorder", cloud.about(number))
    assert await cloud.state(number) == "CLOSED"
    assert await cloud.refused("closeorder", cloud.about(number)) == ("err_code", "ORDERCLOSED")
    paid = await cloud.ordered()
    await sandbox.pay(paid, notify=False)
    assert await cloud.refused("closeorder", cloud.about(paid)) == ("err_code", "ORDERPAID")


@pytest.mark.parametrize("action", ["queryorder", "closeorder"])
async def test_what_is_not_there_is_refused(cloud: CloudClient, action: str) -> None:
    sub_mch_id = cloud.account["sub_mch_id"]
    assert await cloud.refused(action, cloud.about("never-made")) == ("err_code", "ORDERNOTEXIST")
    assert await cloud.refused(action, {"sub_mch_id": sub_mch_id}) == ("errcode", 40097)
    assert await cloud.refused(action, {"out_trade_no": "never-made"}) == ("errcode", 40097)
    assert await cloud.refused(action, cloud.about("never-made", env_id="x")) == ("errcode", 47001)
    assert await cloud.refused(action, cloud.about("x" * 33)) == (
        "return_msg",
        "参数格式校验错误：out_trade_no 只能是 6 到 32 位数字、字母与 _-|*",
    )
    other = {"sub_mch_id": "1900009999", "out_trade_no": "never-made"}
    assert await cloud.refused(action, other) == ("return_msg", "受理关系不存在")


# Callbacks.


async def test_a_payment_is_told_to_the_container(
    cloud: CloudClient, sandbox: SandboxHandle, container: MerchantServer
) -> None:
    number = await cloud.ordered(container={"service": "shouyin", "path": "/internal/paid"}, attach="uid=7 茶")
    [notice] = await sandbox.pay(number)
    [received] = container.received
    assert received.target == "/internal/paid"
    assert {name: text for name, text in received.headers.items() if name.startswith("x-wx-")} == {
        "x-wx-source": "wx_paycallback",
        "x-wx-env": cloud.account["env_id"],
        "x-wx-service": "shouyin",
        "x-wx-appid": cloud.account["appid"],
    }
    assert received.headers["content-type"] == "application/json"
    trade = await sandbox.trade(number)
    body = json.loads(received.body)
    assert len(body.pop("openid")) == 28
    assert body == {
        "returnCode": "SUCCESS",
        "resultCode": "SUCCESS",
        "appid": trade["app_id"],
        "mchId": "1800000001",
        "subAppid": cloud.account["appid"],
        "subMchId": cloud.account["sub_mch_id"],
        "nonceStr": notice["notify_id"].replace("-", "")[:16],
        "isSubscribe": "N",
        "subOpenid": OPENID,
        "subIsSubscribe": "N",
        "tradeType": "JSAPI",
        "bankType": "OTHERS",
        "totalFee": 2,
        "feeType": "CNY",
        "cashFee": 2,
        "transactionId": trade["transaction_id"],
        "outTradeNo": number,
        "attach": "uid=7 茶",
        "timeEnd": compact(datetime.fromisoformat(trade["paid_at"])),
    }
    assert notice["state"] == "ACKNOWLEDGED"


@pytest.mark.parametrize(
    "answer",
    [
        (200, b'{"errcode":1,"errmsg":"no"}'),
        (200, b'{"errcode":"0"}'),
        (200, b'{"errcode":false}'),
        (200, b"{}"),
        (200, b"success"),
        (200, b"[0]"),
        (200, b""),
        (204, b""),
        (201, b'{"errcode":0}'),
        (500, b'{"errcode":0}'),
        None,
    ],
)
async def test_anything_but_errcode_0_is_no_acknowledgement(
    cloud: CloudClient, sandbox: SandboxHandle, container: MerchantServer, answer: tuple[int, bytes] | None
) -> None:
    container.answers = [answer]
    [notice] = await sandbox.pay(await cloud.ordered())
    assert (notice["state"], len(container.received)) == ("WAITING", 1)
    await sandbox.advance(15)
    assert [known["state"] for known in await sandbox.notices()] == ["ACKNOWLEDGED"]
    assert container.received[0].body == container.received[1].body


async def test_an_unanswered_callback_is_repeated_for_two_days(
    cloud: CloudClient, sandbox: SandboxHandle, container: MerchantServer
) -> None:
    container.otherwise = (500, b"")
    await sandbox.pay(await cloud.ordered())
    assert (await sandbox.advance(3 * 86400))["deliveries"] == len(GAPS_S)
    [notice] = await sandbox.notices()
    due = [datetime.fromisoformat(attempt["due_at"]) for attempt in notice["attempts"]]
    assert [late - early for early, late in pairwise(due)] == [timedelta(seconds=seconds) for seconds in GAPS_S]
    assert timedelta(days=1) < due[-1] - due[0] <= timedelta(days=2)
    assert notice["state"] == "GIVEN_UP"


async def test_only_success_is_told(cloud: CloudClient, sandbox: SandboxHandle, container: MerchantServer) -> None:
    number = await cloud.ordered()
    await sandbox.control("POST", f"/trades/{number}/fail", {"reason": "用户取消"})
    await sandbox.control("POST", f"/trades/{number}/close")
    assert (await sandbox.notices(), container.received) == ([], [])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"amount": "0.03"}, {"totalFee": 3, "cashFee": 3}),
        ({"app_id": "wx0000000000000000"}, {"subAppid": "wx0000000000000000"}),
        ({"seller_id": "1900009999"}, {"subMchId": "1900009999"}),
        ({"payer": "oSomebody_else_000000000000D"}, {"subOpenid": "oSomebody_else_000000000000D"}),
        ({"fields": {"resultCode": "FAIL", "totalFee": "1"}}, {"resultCode": "FAIL", "totalFee": 1}),
        ({"fields": {"totalFee": "1.0"}}, {"totalFee": "1.0"}),
    ],
)
async def test_a_callback_can_lie(
    cloud: CloudClient, sandbox: SandboxHandle, container: MerchantServer, options: dict[str, object], told: object
) -> None:
    number = await cloud.ordered()
    await sandbox.pay(number, **options)
    body = json.loads(container.received[0].body)
    assert isinstance(told, dict)
    assert {name: body[name] for name in told} == told
    assert (await cloud.succeed("queryorder", cloud.about(number)))["total_fee"] == 2


async def test_a_broken_callback_comes_without_its_source(
    cloud: CloudClient, sandbox: SandboxHandle, container: MerchantServer
) -> None:
    await sandbox.pay(await cloud.ordered(), break_signature=True)
    [received] = container.received
    assert "x-wx-source" not in received.headers
    assert json.loads(received.body)["returnCode"] == "SUCCESS"


# Where the container is.


async def test_the_container_is_this_machines_own_service_unless_told(
    cloud: CloudClient, sandbox: SandboxHandle, merchant: MerchantServer
) -> None:
    home = (await sandbox.control("GET", "/wechat/cloud"))["callback_base_url"]
    number = await cloud.ordered()
    assert (await sandbox.trade(number))["notify_url"] == f"{home}/notify"
    moved = await sandbox.control("POST", "/wechat/cloud", {"callback_base_url": f"{merchant.base_url}/"})
    assert moved == {"callback_base_url": merchant.base_url}
    assert (await sandbox.trade(number))["notify_url"] == merchant.notify_url
    await sandbox.control("POST", "/reset")
    assert (await sandbox.control("GET", "/wechat/cloud"))["callback_base_url"] == home


async def test_a_caller_may_say_where_it_is(
    cloud: CloudClient, sandbox: SandboxHandle, merchant: MerchantServer
) -> None:
    number = new_number()
    headers = {"x-sandbox-callback-base": merchant.base_url}
    assert (await cloud.post("unifiedorder", cloud.order(number), **headers))["errcode"] == 0
    assert (await sandbox.trade(number))["notify_url"] == merchant.notify_url


@pytest.mark.parametrize("url", [None, "", "127.0.0.1:8000", "ftp://127.0.0.1", "http://", "http://127.0.0.1/?a=1"])
async def test_a_container_needs_a_whole_address(sandbox: SandboxHandle, url: str | None) -> None:
    before = await sandbox.control("GET", "/wechat/cloud")
    answer = await sandbox.control("POST", "/wechat/cloud", {"callback_base_url": url}, status=400)
    assert answer["error"]["code"] == "OPTION_INVALID"
    assert await sandbox.control("GET", "/wechat/cloud") == before


# Faults.


@pytest.mark.parametrize(
    ("fault", "refusal"),
    [
        ({"kind": "error_response"}, ("errcode", -1)),
        ({"kind": "error_response", "code": "40001"}, ("errcode", 40001)),
        ({"kind": "business_error"}, ("err_code", "SYSTEMERROR")),
        ({"kind": "business_error", "code": "NOTENOUGH"}, ("err_code", "NOTENOUGH")),
    ],
)
async def test_errors_can_be_asked_for(
    cloud: CloudClient, sandbox: SandboxHandle, fault: dict[str, str], refusal: tuple[str, str | int]
) -> None:
    number = new_number()
    wanted = {"method": "wechat.cloud.unifiedorder", "out_trade_no": number, **fault}
    await sandbox.control("POST", "/faults", wanted, status=201)
    assert await cloud.refused("unifiedorder", cloud.order(number)) == refusal
    assert await no_trade(sandbox)
    await cloud.succeed("unifiedorder", cloud.order(number))
    assert await sandbox.calls("wechat.cloud.unifiedorder", number) == 2


async def test_the_words_of_an_error_can_be_chosen(cloud: CloudClient, sandbox: SandboxHandle) -> None:
    for kind in ("error_response", "business_error"):
        fault = {"method": "wechat.cloud.queryorder", "kind": kind, "message": "请求过于频繁"}
        await sandbox.control("POST", "/faults", fault, status=201)
    about = cloud.about("never-made")
    assert await cloud.post("queryorder", about) == {"errcode": -1, "errmsg": "请求过于频繁"}
    assert (await cloud.respdata("queryorder", about))["err_code_des"] == "请求过于频繁"


@pytest.mark.parametrize(("kind", "made"), [("lost_reply", True), ("timeout", False)])
async def test_a_lost_reply_leaves_the_order(cloud: CloudClient, sandbox: SandboxHandle, kind: str, made: bool) -> None:
    number = new_number()
    fault = {"method": "wechat.cloud.unifiedorder", "kind": kind, "latency_s": 0}
    await sandbox.control("POST", "/faults", fault, status=201)
    with pytest.raises(httpx.TransportError):
        await cloud.post("unifiedorder", cloud.order(number))
    assert await sandbox.has_trade(number) is made
