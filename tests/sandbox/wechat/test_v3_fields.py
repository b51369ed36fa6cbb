"""APIv3's bodies and queries: every documented bound, each with the field it names, and no order afterwards."""

import json
from typing import Any

import pytest

from tests.sandbox.handle import SandboxHandle
from tests.sandbox.wechat.client import WechatClient, an_openid, order_number, without

SCENE = {"payer_client_ip": "203.0.113.7", "h5_info": {"type": "Wap"}}
GOODS = {"merchant_goods_id": "g1", "quantity": 1, "unit_price": 2}


@pytest.mark.parametrize(
    ("product", "changes", "field"),
    [
        ("jsapi", {"description": ""}, "/description"),
        ("jsapi", {"description": "长" * 128}, "/description"),
        ("jsapi", {"description": "咖啡☕\U0001f600"}, "/description"),
        ("jsapi", {"description": None}, "/description"),
        ("jsapi", {"description": 1}, "/description"),
        ("jsapi", {"attach": "a" * 129}, "/attach"),
        ("jsapi", {"attach": "\U0001f600"}, "/attach"),
        ("jsapi", {"out_trade_no": "A1234"}, "/out_trade_no"),
        ("jsapi", {"out_trade_no": "A" * 33}, "/out_trade_no"),
        ("jsapi", {"out_trade_no": "A12345.6"}, "/out_trade_no"),
        ("jsapi", {"out_trade_no": "订单123456"}, "/out_trade_no"),
        ("jsapi", {"notify_url": "http://127.0.0.1:9/notify?a=b"}, "/notify_url"),
        ("jsapi", {"notify_url": "http://127.0.0.1:9/notify#a"}, "/notify_url"),
        ("jsapi", {"notify_url": "127.0.0.1:9/notify"}, "/notify_url"),
        ("jsapi", {"notify_url": "http://127.0.0.1:9/" + "n" * 240}, "/notify_url"),
        ("jsapi", {"amount": {"total": "2"}}, "/amount/total"),
        ("jsapi", {"amount": {"total": 2.0}}, "/amount/total"),
        ("jsapi", {"amount": {"total": True}}, "/amount/total"),
        ("jsapi", {"amount": {"total": 0}}, "/amount/total"),
        ("jsapi", {"amount": {"total": -1}}, "/amount/total"),
        ("jsapi", {"amount": {}}, "/amount/total"),
        ("jsapi", {"amount": {"total": 2, "currency": "USD"}}, "/amount/currency"),
        ("jsapi", {"amount": {"total": 2, "fee": 1}}, "/amount/fee"),
        ("jsapi", {"amount": 2}, "/amount"),
        ("jsapi", {"payer": {}}, "/payer/openid"),
        ("jsapi", {"payer": {"openid": ""}}, "/payer/openid"),
        ("jsapi", {"payer": {"openid": "o" * 129}}, "/payer/openid"),
        ("jsapi", {"payer": {"openid": "oTooShort"}}, "/payer/openid"),
        ("jsapi", {"payer": {"openid": an_openid(), "sub_openid": an_openid()}}, "/payer/sub_openid"),
        ("jsapi", {"time_expire": "2026-11-22 10:00:00"}, "/time_expire"),
        ("jsapi", {"time_expire": "2026-11-22T10:00:00"}, "/time_expire"),
        ("jsapi", {"time_expire": "2026-13-22T10:00:00+08:00"}, "/time_expire"),
        ("jsapi", {"time_expire": "20261122100000"}, "/time_expire"),
        ("jsapi", {"goods_tag": "t" * 33}, "/goods_tag"),
        ("jsapi", {"support_fapiao": "true"}, "/support_fapiao"),
        ("jsapi", {"settle_info": {"profit_sharing": "N"}}, "/settle_info/profit_sharing"),
        ("jsapi", {"detail": {"goods_detail": [{**GOODS, "quantity": 0}]}}, "/detail/goods_detail/0/quantity"),
        ("jsapi", {"detail": {"goods_detail": [GOODS, None]}}, "/detail/goods_detail/1"),
        ("jsapi", {"detail": {"goods_detail": GOODS}}, "/detail/goods_detail"),
        ("jsapi", {"scene_info": {}}, "/scene_info/payer_client_ip"),
        ("jsapi", {"scene_info": {"payer_client_ip": "localhost"}}, "/scene_info/payer_client_ip"),
        ("jsapi", {"scene_info": SCENE}, "/scene_info/h5_info"),
        (
            "jsapi",
            {"scene_info": {"payer_client_ip": "1.2.3.4", "store_info": {"name": "店"}}},
            "/scene_info/store_info/id",
        ),
        ("jsapi", {"total_fee": 2}, "/total_fee"),
        ("jsapi", {"sub_mchid": "1900000103"}, "/sub_mchid"),
        ("native", {"payer": {"openid": an_openid()}}, "/payer"),
        ("h5", {"scene_info": {"payer_client_ip": "1.2.3.4"}}, "/scene_info/h5_info"),
        ("h5", {"scene_info": {**SCENE, "h5_info": {"type": "web"}}}, "/scene_info/h5_info/type"),
        ("h5", {"payer": {"openid": an_openid()}}, "/payer"),
        ("jsapi", {"mchid": "1900000002"}, "/mchid"),
    ],
)
async def test_a_field_that_may_not_be_so_is_named(
    sandbox: SandboxHandle, wechat: WechatClient, product: str, changes: dict[str, Any], field: str
) -> None:
    order = wechat.order(order_number(), product=product) | changes
    assert await wechat.prepay_refused(order, product=product) == (400, "PARAM_ERROR", field)
    assert (await sandbox.control("GET", "/trades"))["trades"] == []


@pytest.mark.parametrize(
    ("product", "missing"),
    [
        *(("jsapi", name) for name in ("appid", "mchid", "description", "out_trade_no", "notify_url", "amount")),
        ("jsapi", "payer"),
        ("h5", "scene_info"),
    ],
)
async def test_a_missing_field_is_named(
    sandbox: SandboxHandle, wechat: WechatClient, product: str, missing: str
) -> None:
    order = without(wechat.order(order_number(), product=product), missing)
    assert await wechat.prepay_refused(order, product=product) == (400, "PARAM_ERROR", f"/{missing}")
    assert (await sandbox.control("GET", "/trades"))["trades"] == []


async def test_everything_documented_is_taken(sandbox: SandboxHandle, wechat: WechatClient) -> None:
    number = order_number()
    await wechat.prepay(
        number,
        product="h5",
        description="长" * 127,
        attach="☕" * 128,
        goods_tag="WXG",
        support_fapiao=False,
        settle_info={"profit_sharing": False},
        detail={"cost_price": 2, "invoice_id": "i1", "goods_detail": [{**GOODS, "goods_name": "咖啡"}]},
        scene_info={
            "payer_client_ip": "2001:db8::1",
            "device_id": "d1",
            "store_info": {"id": "s1", "name": "店", "area_code": "440305", "address": "路"},
            "h5_info": {"type": "iOS", "app_name": "店", "app_url": "http://127.0.0.1", "bundle_id": "b"},
        },
    )
    assert (await sandbox.trade(number))["subject"] == "长" * 127


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b'{"mchid": "1900000001", "mchid": "1900000001"}',
        b'{"amount": NaN}',
        b"\xff",
        b"[" * 100_000,
    ],
)
async def test_a_body_that_is_no_json_object_is_refused(wechat: WechatClient, body: bytes) -> None:
    assert await wechat.refused("POST", f"{wechat.base}/jsapi", body) == (400, "PARAM_ERROR", None)


async def test_a_surrogate_written_as_an_escape_is_refused(wechat: WechatClient) -> None:
    order = wechat.order(order_number(), description="\ud83d")
    refused = await wechat.prepay_refused(json.dumps(order).encode())
    assert refused == (400, "PARAM_ERROR", "/description")


@pytest.mark.parametrize(
    ("appid", "answer"),
    [
        ("wx0000000000000000", (400, "APPID_MCHID_NOT_MATCH", None)),
        ("wx5a0db00000000009", (400, "APPID_MCHID_NOT_MATCH", None)),
    ],
)
async def test_an_app_that_is_not_bound_is_refused(
    sandbox: SandboxHandle, wechat: WechatClient, appid: str, answer: tuple[int, str, str | None]
) -> None:
    assert await wechat.prepay_refused(wechat.order(order_number(), appid=appid)) == answer
    assert (await sandbox.control("GET", "/trades"))["trades"] == []


async def test_a_payer_of_another_app_is_refused(sandbox: SandboxHandle, wechat: WechatClient) -> None:
    app_id = wechat.account["mini_program_appid"]
    users = (await sandbox.control("GET", f"/wechat/users?app_id={app_id}"))["users"]
    payer = {"openid": users[0]["openid"]}
    number = order_number()
    assert await wechat.prepay_refused(wechat.order(number, payer=payer)) == (500, "OPENID_MISMATCH", None)
    assert not await sandbox.has_trade(number)
    await wechat.prepay(number, payer=payer, appid=app_id)


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        ({"payer": {"sub_openid": an_openid()}}, (400, "PARAM_ERROR", "/sub_appid")),
        ({"payer": {}}, (400, "PARAM_ERROR", "/payer")),
        ({"payer": {"sp_openid": an_openid(), "sub_openid": an_openid()}}, (400, "PARAM_ERROR", "/payer")),
        ({"payer": {"openid": an_openid()}}, (400, "PARAM_ERROR", "/payer/openid")),
        ({"sub_mchid": "1900000105"}, (403, "NO_AUTH", None)),
        ({"sp_mchid": "1900000001"}, (400, "PARAM_ERROR", "/sp_mchid")),
        ({"sub_appid": "wx0000000000000000"}, (400, "APPID_MCHID_NOT_MATCH", None)),
        ({"mchid": "1900000003"}, (400, "PARAM_ERROR", "/mchid")),
    ],
)
async def test_a_service_provider_names_one_payer_and_its_own_merchants(
    sandbox: SandboxHandle,
    partner_wechat: WechatClient,
    changes: dict[str, Any],
    answer: tuple[int, str, str | None],
) -> None:
    assert await partner_wechat.prepay_refused(partner_wechat.order(order_number()) | changes) == answer
    assert (await sandbox.control("GET", "/trades"))["trades"] == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "mchid"),
        ("?mchid=", "mchid"),
        ("?mchid=1900000002", "mchid"),
        ("?mchid=1900000001&mchid=1900000001", "mchid"),
        ("?mchid=1900000001&sub_mchid=1", "sub_mchid"),
    ],
)
async def test_a_query_names_its_merchant_and_nothing_else(wechat: WechatClient, query: str, field: str) -> None:
    number = order_number()
    await wechat.prepay(number)
    refused = await wechat.refused("GET", f"{wechat.base}/out-trade-no/{number}{query}")
    assert refused == (400, "PARAM_ERROR", field)


@pytest.mark.parametrize(
    ("body", "field"),
    [({}, "/mchid"), ({"mchid": "1900000002"}, "/mchid"), ({"mchid": "1900000001", "reason": "x"}, "/reason")],
)
async def test_a_close_names_its_merchant_and_nothing_else(
    sandbox: SandboxHandle, wechat: WechatClient, body: dict[str, str], field: str
) -> None:
    number = order_number()
    await wechat.prepay(number)
    target = f"{wechat.base}/out-trade-no/{number}/close"
    assert await wechat.refused("POST", target, body) == (400, "PARAM_ERROR", field)
    assert (await sandbox.trade(number))["status"] == "UNPAID"


async def test_a_product_the_sandbox_does_not_sell_is_not_opened(sandbox: SandboxHandle, wechat: WechatClient) -> None:
    order = without(wechat.order(order_number()), "payer")
    assert await wechat.prepay_refused(order, product="app") == (403, "NO_AUTH", None)
