"""APIv2 over an order's life: what each call takes, answers and refuses."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from tests.sandbox.handle import SandboxHandle
from tests.sandbox.wechat.v2_client import (
    SCENE,
    V2Client,
    compact,
    from_xml,
    new_number,
    signature,
    to_xml,
    unsigned_refusal,
)

VECTORS = Path(__file__).resolve().parents[4] / "shared" / "vectors" / "wechat"
OPENID = "oTest_invented-openid_00000B"


@pytest.fixture
def v2(sandbox: SandboxHandle, accounts: dict[str, dict[str, str]]) -> V2Client:
    return V2Client(accounts["v2"], sandbox.http)


@pytest.fixture
def partner(sandbox: SandboxHandle, accounts: dict[str, dict[str, str]]) -> V2Client:
    return V2Client(accounts["v2_partner"], sandbox.http)


async def openid_under(sandbox: SandboxHandle, app_id: str) -> str:
    users = (await sandbox.control("GET", f"/wechat/users?app_id={app_id}"))["users"]
    openid: str = users[0]["openid"]
    return openid


# Ordering.


@pytest.mark.parametrize("sign_type", ["MD5", "HMAC-SHA256"])
async def test_a_native_order_has_a_code_to_scan(v2: V2Client, sandbox: SandboxHandle, sign_type: str) -> None:
    v2.sign_type = sign_type
    number = new_number()
    answer = await v2.succeed("unifiedorder", v2.order(number))
    assert answer.keys() == {
        *("return_code", "return_msg", "appid", "mch_id", "nonce_str", "sign", "result_code"),
        *("device_info", "trade_type", "prepay_id", "code_url"),
    }
    assert (answer["trade_type"], answer["device_info"]) == ("NATIVE", "")
    assert answer["code_url"].startswith("weixin://wxpay/bizpayurl?pr=")
    trade = await sandbox.trade(number)
    assert (trade["channel"], trade["product"], trade["status"]) == ("v2", "NATIVE", "UNPAID")
    assert (trade["amount_fen"], trade["subject"], trade["prepay_id"]) == (2, "一杯咖啡 <&>", answer["prepay_id"])


async def test_an_h5_order_has_a_page_to_go_to(v2: V2Client, sandbox: SandboxHandle) -> None:
    answer = await v2.succeed("unifiedorder", v2.order(new_number(), "MWEB"))
    start = f"{sandbox.base_url}/wechat/h5/checkmweb?prepay_id={answer['prepay_id']}&package="
    assert answer["mweb_url"].startswith(start)
    assert "code_url" not in answer


async def test_a_jsapi_order_is_one_payers(v2: V2Client, sandbox: SandboxHandle) -> None:
    number = new_number()
    answer = await v2.succeed("unifiedorder", v2.order(number, "JSAPI", openid=OPENID, device_info="WEB"))
    assert {"code_url", "mweb_url"} & answer.keys() == set()
    assert (answer["device_info"], answer["trade_type"]) == ("WEB", "JSAPI")
    assert (await sandbox.trade(number))["openid"] == OPENID


async def test_without_a_sign_type_the_length_of_the_signature_tells(v2: V2Client) -> None:
    for sign_type in ("MD5", "HMAC-SHA256"):
        v2.sign_type = sign_type
        await v2.succeed("unifiedorder", v2.order(new_number()), {"sign_type": None})


async def test_empty_fields_are_no_part_of_the_signature(v2: V2Client) -> None:
    await v2.succeed("unifiedorder", v2.order(new_number(), attach="", device_info=""))


async def test_ordering_again_gives_a_new_credential_for_the_same_order(v2: V2Client, sandbox: SandboxHandle) -> None:
    order = v2.order(new_number())
    first, second = await v2.succeed("unifiedorder", order), await v2.succeed("unifiedorder", order)
    assert first["prepay_id"] != second["prepay_id"]
    assert (await sandbox.trade(order["out_trade_no"]))["prepay_id"] == second["prepay_id"]


async def test_a_number_is_not_used_twice(v2: V2Client, sandbox: SandboxHandle) -> None:
    number = await v2.ordered()
    before = await sandbox.trade(number)
    for changes in ({"total_fee": "3"}, {"body": "茶"}, {"attach": "x"}, {"product_id": "tea"}):
        assert await v2.refused("unifiedorder", v2.order(number), changes) == "INVALID_REQUEST"
    assert await v2.refused("unifiedorder", v2.order(number, "MWEB")) == "OUT_TRADE_NO_USED"
    other_app = v2.account["mini_program_appid"]
    assert await v2.refused("unifiedorder", v2.order(number), {"appid": other_app}) == "OUT_TRADE_NO_USED"
    assert await sandbox.trade(number) == before
    await sandbox.pay(number)
    assert await v2.refused("unifiedorder", v2.order(number)) == "ORDERPAID"


async def test_a_closed_order_stays_closed(v2: V2Client) -> None:
    number = await v2.ordered()
    await v2.succeed("closeorder", {"out_trade_no": number})
    assert await v2.refused("unifiedorder", v2.order(number)) == "ORDERCLOSED"


async def test_an_order_expires_when_it_says(v2: V2Client, sandbox: SandboxHandle) -> None:
    number = await v2.ordered(time_expire=compact(datetime.now(UTC) + timedelta(minutes=10)))
    await sandbox.advance(590)
    assert (await v2.query(number))["trade_state"] == "NOTPAY"
    await sandbox.advance(11)
    assert (await v2.query(number))["trade_state"] == "CLOSED"


async def test_a_merchants_numbers_are_its_own(v2: V2Client, partner: V2Client) -> None:
    number = await v2.ordered()
    for action in ("orderquery", "closeorder"):
        assert await partner.refused(action, {"out_trade_no": number}) == "ORDERNOTEXIST"
    assert (await v2.query(number))["trade_state"] == "NOTPAY"


# Refused orders: nothing is made.


@pytest.mark.parametrize(
    "missing", ["body", "out_trade_no", "total_fee", "spbill_create_ip", "notify_url", "trade_type"]
)
async def test_a_required_field_is_missed(v2: V2Client, sandbox: SandboxHandle, missing: str) -> None:
    for nothing in (None, ""):
        assert await v2.refused("unifiedorder", v2.order(new_number()), {missing: nothing}) == "LACK_PARAMS"
    assert (await sandbox.control("GET", "/trades"))["trades"] == []


@pytest.mark.parametrize(
    ("trade_type", "changes", "refusal"),
    [
        ("JSAPI", {}, "LACK_PARAMS"),
        ("NATIVE", {"product_id": None}, "LACK_PARAMS"),
        ("MWEB", {"scene_info": None}, "LACK_PARAMS"),
        ("NATIVE", {"trade_type": "APP"}, "NOAUTH"),
        ("NATIVE", {"appid": None}, "LACK_PARAMS"),
        ("NATIVE", {"nonce_str": None}, "LACK_PARAMS"),
        ("NATIVE", {"appid": "wx0000000000000000"}, "APPID_MCHID_NOT_MATCH"),
        ("NATIVE", {"sub_mch_id": "1900000105"}, "NOAUTH"),
        ("JSAPI", {"openid": "oTooShort"}, "appid与openid不匹配"),
    ],
)
async def test_a_wrong_order_is_refused(
    v2: V2Client, sandbox: SandboxHandle, trade_type: str, changes: dict[str, str | None], refusal: str
) -> None:
    assert await v2.refused("unifiedorder", v2.order(new_number(), trade_type), changes) == refusal
    assert (await sandbox.control("GET", "/trades"))["trades"] == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("total_fee", "0"),
        ("total_fee", "-1"),
        ("total_fee", "0.02"),
        ("total_fee", "2.0"),
        ("total_fee", "02"),
        ("total_fee", "２"),
        ("total_fee", "10000000001"),
        ("out_trade_no", "12345"),
        ("out_trade_no", "1" * 33),
        ("out_trade_no", "order 17"),
        ("out_trade_no", "订单123456"),
        ("body", "茶" * 129),
        ("attach", "a" * 128),
        ("detail", "a" * 6001),
        ("device_info", "a" * 33),
        ("nonce_str", "a" * 33),
        ("goods_tag", "a" * 33),
        ("product_id", "a" * 33),
        ("spbill_create_ip", "localhost"),
        ("spbill_create_ip", "256.1.1.1"),
        ("notify_url", "127.0.0.1/notify"),
        ("notify_url", "http://127.0.0.1/notify?order=1"),
        ("notify_url", "http://127.0.0.1/" + "a" * 240),
        ("notify_url", "ftp://127.0.0.1/notify"),
        ("trade_type", "jsapi"),
        ("fee_type", "USD"),
        ("limit_pay", "credit"),
        ("receipt", "N"),
        ("profit_sharing", "yes"),
        ("time_start", "2026-11-22 08:00:00"),
        ("time_expire", "20261322080000"),
        pytest.param("time_expire", compact(datetime.now(UTC) + timedelta(seconds=50)), id="time_expire-soon"),
        ("appid", "wx123"),
        ("openId", OPENID),
        ("auth_code", "134650000000000000"),
        ("scene_info", "h5"),
        ("scene_info", '{"h5_info":{"type":"Wap"}}'),
        ("scene_info", '{"h5_info":{"type":"wap","wap_url":"https://a.example","wap_name":"a"}}'),
        ("scene_info", SCENE.replace("收银", "a" * 256)),
    ],
)
async def test_a_badly_formed_field_is_named(v2: V2Client, sandbox: SandboxHandle, name: str, value: str) -> None:
    trade_type = "MWEB" if name == "scene_info" else "NATIVE"
    refusal = await v2.refused("unifiedorder", v2.order(new_number(), trade_type), {name: value})
    assert refusal.startswith(f"参数格式校验错误：{name} ")
    assert (await sandbox.control("GET", "/trades"))["trades"] == []


async def test_what_is_just_allowed_is_allowed(v2: V2Client) -> None:
    fields = {
        "body": "茶" * 128,
        "attach": "a" * 127,
        "detail": "a" * 6000,
        "out_trade_no": "a_-|*9" + "Z" * 26,
        "total_fee": "10000000000",
        "spbill_create_ip": "2001:db8::1",
        "time_start": compact(datetime.now(UTC)),
        "time_expire": compact(datetime.now(UTC) + timedelta(minutes=2)),
        "fee_type": "CNY",
        "limit_pay": "no_credit",
    }
    await v2.succeed("unifiedorder", v2.order(new_number()) | fields)


async def test_an_openid_of_another_app_is_refused(v2: V2Client, sandbox: SandboxHandle) -> None:
    other = await openid_under(sandbox, v2.account["mini_program_appid"])
    assert await v2.refused("unifiedorder", v2.order(new_number(), "JSAPI", openid=other)) == "appid与openid不匹配"
    assert (await sandbox.control("GET", "/trades"))["trades"] == []
    changes = {"appid": v2.account["mini_program_appid"]}
    await v2.succeed("unifiedorder", v2.order(new_number(), "JSAPI", openid=other), changes)


# Who calls.


async def test_a_wrong_signature_reaches_nothing(v2: V2Client, sandbox: SandboxHandle) -> None:
    number = new_number()
    good = v2.signed({**v2.caller, **v2.order(number)})
    wrong = [
        {**good, "sign": good["sign"].lower()},
        {**good, "sign": good["sign"][:-1] + ("0" if good["sign"][-1] != "0" else "1")},
        {**good, "sign": ""},
        {name: text for name, text in good.items() if name != "sign"},
        {**good, "total_fee": "1"},
        {**good, "sign_type": "MD5"},
        {**good, "sign_type": "RSA"},
        {**good, "sign": signature(good, "0" * 32, "HMAC-SHA256")},
    ]
    for fields in wrong:
        assert unsigned_refusal(await v2.post("unifiedorder", to_xml(fields))) == "签名错误，请检查后再试"
    assert not await sandbox.has_trade(number)
    assert await sandbox.calls("wechat.v2.unifiedorder", number) == len(wrong)


@pytest.mark.parametrize("mch_id", [None, "", "1900009999", "1900000001"])
async def test_an_unknown_merchant_is_told_so(v2: V2Client, mch_id: str | None) -> None:
    refusal = await v2.refused("unifiedorder", v2.order(new_number()), {"mch_id": mch_id})
    assert refusal == "商户号mch_id或sub_mch_id不存在"


async def test_a_partner_orders_for_its_sub_merchant(partner: V2Client, sandbox: SandboxHandle) -> None:
    number = await partner.ordered()
    trade = await sandbox.trade(number)
    assert (trade["mchid"], trade["sub_mchid"]) == (partner.account["mch_id"], partner.account["sub_mch_id"])
    assert trade["seller_id"] == partner.account["sub_mch_id"]
    sub_appid = partner.account["mini_program_appid"]
    sub_openid = await openid_under(sandbox, sub_appid)
    number = new_number()
    order = partner.order(number, "JSAPI", sub_appid=sub_appid, sub_openid=sub_openid)
    answer = await partner.succeed("unifiedorder", order)
    assert (answer["sub_appid"], answer["sub_mch_id"]) == (sub_appid, partner.account["sub_mch_id"])
    await sandbox.pay(number)
    paid = await partner.query(number)
    assert (paid["sub_openid"], paid["sub_is_subscribe"], paid["sub_appid"]) == (sub_openid, "N", sub_appid)
    assert paid["openid"] == await openid_under(sandbox, partner.account["appid"])


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"sub_mch_id": None}, "LACK_PARAMS"),
        ({"sub_mch_id": "1900000103"}, "受理关系不存在"),
        ({"sub_appid": "wx0000000000000000"}, "APPID_MCHID_NOT_MATCH"),
        ({"openid": None, "sub_openid": OPENID}, "传入sub_openid时必须传sub_appid"),
    ],
)
async def test_a_partner_is_held_to_its_sub_merchant(
    partner: V2Client, sandbox: SandboxHandle, changes: dict[str, str | None], refusal: str
) -> None:
    order = partner.order(new_number(), "JSAPI", openid=OPENID)
    assert await partner.refused("unifiedorder", order, changes) == refusal
    assert (await sandbox.control("GET", "/trades"))["trades"] == []


# The bytes.


@pytest.mark.parametrize(
    "name",
    [
        "php_fixture_invalid.xxe_injection.sample.xml",
        "php_fixture_invalid.bad_entity.sample.xml",
        "php_fixture_fragment_injection.sample.xml",
    ],
)
async def test_the_published_hostile_samples_are_refused(v2: V2Client, name: str) -> None:
    path = VECTORS / name
    if not path.exists():
        pytest.skip(f"published vectors are not at {path}")
    assert unsigned_refusal(await v2.post("unifiedorder", path.read_bytes())) == "XML格式错误"


BOMB = b'<!DOCTYPE xml [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><xml><body>&b;</body></xml>'


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "post数据为空"),
        (b" \n", "post数据为空"),
        (b"body=1", "XML格式错误"),
        (b"<xml><body>1</body>", "XML格式错误"),
        (b"<xml><body>1</body></xml><xml></xml>", "XML格式错误"),
        (b"<root><body>1</body></root>", "XML格式错误"),
        (b"<xml><body>1</body><body>2</body></xml>", "XML格式错误"),
        (b"<xml><body><part>1</part></body></xml>", "XML格式错误"),
        (b"<xml>text<body>1</body></xml>", "XML格式错误"),
        (b'<xml><body lang="zh">1</body></xml>', "XML格式错误"),
        (b"<xml><?php 1 ?><body>1</body></xml>", "XML格式错误"),
        (b"<!DOCTYPE xml><xml><body>1</body></xml>", "XML格式错误"),
        (BOMB, "XML格式错误"),
        (b"<xml><body>&undeclared;</body></xml>", "XML格式错误"),
        (b"<xml><body>" + b"a" * 65536 + b"</body></xml>", "XML格式错误"),
        (b"<xml><body>&#0;</body></xml>", "XML格式错误"),
        ("<xml><body>茶</body></xml>".encode("gbk"), "编码格式错误：请使用UTF-8"),
        (b"<xml></xml>", "商户号mch_id或sub_mch_id不存在"),
    ],
)
async def test_a_body_that_is_no_call_is_refused(
    v2: V2Client, sandbox: SandboxHandle, body: bytes, message: str
) -> None:
    assert unsigned_refusal(await v2.post("orderquery", body)) == message
    assert await sandbox.calls("wechat.v2.orderquery", "") == 1


async def test_a_call_is_posted(v2: V2Client) -> None:
    response = await v2.http.get(f"{v2.account['gateway']}/pay/orderquery")
    assert unsigned_refusal(from_xml(response.content)) == "请使用post方法"


async def test_cdata_and_escapes_are_the_same_text(v2: V2Client, sandbox: SandboxHandle) -> None:
    number, body = new_number(), "a ]]> b & <c>"
    fields = v2.signed({**v2.caller, **v2.order(number), "body": body})
    text = to_xml(fields).decode()
    plain = text[text.index("<body>") : text.index("</body>")]
    cdata = "<body><![CDATA[" + body.replace("]]>", "]]]]><![CDATA[>") + "]]>"
    declared = '<?xml version="1.0" encoding="UTF-8"?>\n<!-- own -->' + text.replace(plain, cdata)
    assert (await v2.post("unifiedorder", declared.encode()))["result_code"] == "SUCCESS"
    assert (await sandbox.trade(number))["subject"] == body


# Query and close.


async def test_an_unpaid_order_tells_only_its_number_and_attach(v2: V2Client) -> None:
    number = await v2.ordered(attach="uid=7")
    answer = await v2.query(number)
    common = {"return_code", "return_msg", "appid", "mch_id", "nonce_str", "sign", "result_code", "device_info"}
    assert answer.keys() - common == {"out_trade_no", "attach", "trade_state", "trade_state_desc"}
    assert (answer["trade_state"], answer["attach"]) == ("NOTPAY", "uid=7")


async def test_a_paid_order_is_found_by_either_number(v2: V2Client, sandbox: SandboxHandle) -> None:
    number = new_number()
    await v2.succeed("unifiedorder", v2.order(number, "JSAPI", openid=OPENID, attach="uid=7"))
    await sandbox.pay(number)
    answer = await v2.query(number)
    trade = await sandbox.trade(number)
    expected = {
        "openid": OPENID,
        "is_subscribe": "N",
        "trade_type": "JSAPI",
        "trade_state": "SUCCESS",
        "trade_state_desc": "支付成功",
        "bank_type": "OTHERS",
        "total_fee": "2",
        "fee_type": "CNY",
        "cash_fee": "2",
        "cash_fee_type": "CNY",
        "transaction_id": trade["transaction_id"],
        "out_trade_no": number,
        "attach": "uid=7",
        "time_end": compact(datetime.fromisoformat(trade["paid_at"])),
        "device_info": "",
    }
    common = {"return_code", "return_msg", "appid", "mch_id", "nonce_str", "sign", "result_code"}
    assert {name: text for name, text in answer.items() if name not in common} == expected
    by_theirs = await v2.succeed("orderquery", {"transaction_id": trade["transaction_id"]})
    assert by_theirs["out_trade_no"] == number


@pytest.mark.parametrize(
    ("fields", "refusal"),
    [
        ({"out_trade_no": "never-made"}, "ORDERNOTEXIST"),
        ({"transaction_id": "4200000000202611220000000000"}, "ORDERNOTEXIST"),
        ({}, "LACK_PARAMS"),
        ({"transaction_id": "17"}, "参数格式校验错误：transaction_id 不是微信订单号"),
        ({"out_trade_no": "never-made", "body": "x"}, "参数格式校验错误：body 不是该接口文档中的字段"),
    ],
)
async def test_a_query_that_finds_nothing(v2: V2Client, fields: dict[str, str], refusal: str) -> None:
    assert await v2.refused("orderquery", fields) == refusal


async def test_closing_ends_an_unpaid_order_once(v2: V2Client, sandbox: SandboxHandle) -> None:
    number = await v2.ordered()
    answer = await v2.succeed("closeorder", {"out_trade_no": number})
    assert answer["result_msg"] == "OK"
    assert (await v2.query(number))["trade_state"] == "CLOSED"
    assert await v2.refused("closeorder", {"out_trade_no": number}) == "ORDERCLOSED"
    assert await sandbox.notices() == []


async def test_what_cannot_be_closed(v2: V2Client, sandbox: SandboxHandle) -> None:
    number = await v2.ordered()
    await sandbox.pay(number)
    assert await v2.refused("closeorder", {"out_trade_no": number}) == "ORDERPAID"
    assert await v2.refused("closeorder", {"out_trade_no": "never-made"}) == "ORDERNOTEXIST"
    assert await v2.refused("closeorder", {}) == "LACK_PARAMS"
    assert (await v2.query(number))["trade_state"] == "SUCCESS"


# The client's signature.


@pytest.mark.parametrize("sign_type", ["MD5", "HMAC-SHA256"])
async def test_wechats_client_takes_the_merchants_signature(
    v2: V2Client, sandbox: SandboxHandle, sign_type: str
) -> None:
    v2.sign_type = sign_type
    prepay_id = (await v2.succeed("unifiedorder", v2.order(new_number(), "JSAPI", openid=OPENID)))["prepay_id"]
    call = client_call(v2, prepay_id, sign_type)
    bridge = f"{sandbox.base_url}/wechat/bridge"
    taken = await v2.http.get(bridge, params=call)
    assert (taken.status_code, taken.headers["location"].startswith("/wechat/pay/")) == (302, True)
    other = "MD5" if sign_type == "HMAC-SHA256" else "HMAC-SHA256"
    for wrong in (
        client_call(v2, prepay_id, other),
        {**call, "signType": other},
        {**call, "paySign": call["paySign"].lower()},
        {**call, "nonceStr": "another"},
        {**call, "timeStamp": "1601234568"},
    ):
        refused = await v2.http.get(bridge, params=wrong)
        assert ("location" in refused.headers, "支付验证签名失败" in refused.text) == (False, True)


def client_call(v2: V2Client, prepay_id: str, sign_type: str) -> dict[str, str]:
    call = {
        "appId": v2.account["appid"],
        "timeStamp": "1601234567",
        "nonceStr": "n1",
        "package": f"prepay_id={prepay_id}",
        "signType": sign_type,
    }
    return {**call, "paySign": signature(call, v2.account["api_key"], sign_type)}


# Faults.


async def test_any_business_error_can_be_asked_for(v2: V2Client, sandbox: SandboxHandle) -> None:
    number = new_number()
    for code in ("SYSTEMERROR", "NOAUTH", "FREQUENCY_LIMITED"):
        fault = {"method": "wechat.v2.unifiedorder", "kind": "business_error", "code": code, "out_trade_no": number}
        await sandbox.control("POST", "/faults", fault, status=201)
        assert await v2.refused("unifiedorder", v2.order(number)) == code
    assert not await sandbox.has_trade(number)
    await v2.succeed("unifiedorder", v2.order(number))


async def test_a_transport_error_can_be_asked_for(v2: V2Client, sandbox: SandboxHandle) -> None:
    fault = {"method": "wechat.v2.orderquery", "kind": "error_response"}
    await sandbox.control("POST", "/faults", fault, status=201)
    assert await v2.refused("orderquery", {"out_trade_no": "never-made"}) == "系统繁忙，请稍后再试"
    await sandbox.control("POST", "/faults", {**fault, "message": "mch_id参数格式错误"}, status=201)
    assert await v2.refused("orderquery", {"out_trade_no": "never-made"}) == "mch_id参数格式错误"
    chosen = {"method": "wechat.v2.orderquery", "kind": "business_error", "code": "NOAUTH", "message": "商户无权限"}
    await sandbox.control("POST", "/faults", chosen, status=201)
    answer = await v2.call("orderquery", {"out_trade_no": "never-made"})
    assert (answer["err_code"], answer["err_code_des"]) == ("NOAUTH", "商户无权限")


async def test_a_broken_signature_can_be_asked_for(v2: V2Client, sandbox: SandboxHandle) -> None:
    number = new_number()
    await sandbox.control("POST", "/faults", {"method": "wechat.v2.unifiedorder", "kind": "bad_signature"}, status=201)
    answer = await v2.post("unifiedorder", to_xml(v2.signed({**v2.caller, **v2.order(number)})))
    assert answer["result_code"] == "SUCCESS"
    assert answer["sign"] != signature(answer, v2.account["api_key"], v2.sign_type)
    assert await sandbox.has_trade(number)


@pytest.mark.parametrize(("kind", "made"), [("lost_reply", True), ("timeout", False)])
async def test_a_lost_reply_leaves_the_order(v2: V2Client, sandbox: SandboxHandle, kind: str, made: bool) -> None:
    number = new_number()
    fault = {"method": "wechat.v2.unifiedorder", "kind": kind, "latency_s": 0, "out_trade_no": number}
    await sandbox.control("POST", "/faults", fault, status=201)
    with pytest.raises(httpx.TransportError):
        await v2.call("unifiedorder", v2.order(number))
    assert await sandbox.has_trade(number) is made


async def test_http_500_does_nothing(v2: V2Client, sandbox: SandboxHandle) -> None:
    number = new_number()
    await sandbox.control("POST", "/faults", {"method": "wechat.v2.unifiedorder", "kind": "http_500"}, status=201)
    body = to_xml(v2.signed({**v2.caller, **v2.order(number)}))
    response = await v2.http.post(f"{v2.account['gateway']}/pay/unifiedorder", content=body)
    assert response.status_code == 500
    assert not await sandbox.has_trade(number)
