"""Orders of APIv3: made, asked for, closed; by merchants and by service providers."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.sandbox.handle import SandboxHandle
from tests.sandbox.wechat.client import WechatClient, an_openid, order_number


async def test_a_jsapi_order_is_made_paid_and_found_by_both_numbers(
    sandbox: SandboxHandle, wechat: WechatClient
) -> None:
    number, account = order_number(), wechat.account
    answer = await wechat.prepay(number, attach="uid=7")
    assert list(answer) == ["prepay_id"]
    assert (answer["prepay_id"][:2], len(answer["prepay_id"])) == ("wx", 38)
    unpaid = {
        "appid": account["appid"],
        "mchid": account["mchid"],
        "out_trade_no": number,
        "trade_state": "NOTPAY",
        "trade_state_desc": "订单未支付",
        "amount": {"total": 2, "currency": "CNY"},
    }
    assert await wechat.query(number) == unpaid

    await sandbox.pay(number)
    paid = await wechat.query(number)
    transaction_id, success_time = paid.pop("transaction_id"), paid.pop("success_time")
    assert paid == unpaid | {
        "trade_type": "JSAPI",
        "trade_state": "SUCCESS",
        "trade_state_desc": "支付成功",
        "bank_type": "OTHERS",
        "attach": "uid=7",
        "payer": {"openid": an_openid()},
        "amount": {"total": 2, "payer_total": 2, "currency": "CNY", "payer_currency": "CNY"},
    }
    assert (transaction_id[:4], len(transaction_id)) == ("4200", 28)
    paid_at = datetime.fromisoformat(success_time)
    assert (paid_at.utcoffset(), abs(datetime.now(UTC) - paid_at) < timedelta(minutes=1)) == (timedelta(hours=8), True)
    by_theirs = await wechat.call("GET", f"{wechat.base}/id/{transaction_id}?mchid={account['mchid']}")
    assert by_theirs == await wechat.query(number)


async def test_native_and_h5_orders_hand_out_their_urls(sandbox: SandboxHandle, wechat: WechatClient) -> None:
    native, h5 = order_number(), order_number()
    code_url = (await wechat.prepay(native, product="native"))["code_url"]
    assert code_url.startswith("weixin://wxpay/bizpayurl?pr=")
    h5_url = (await wechat.prepay(h5, product="h5"))["h5_url"]
    assert h5_url.startswith(f"{sandbox.base_url}/wechat/h5/checkmweb?prepay_id=wx")
    for number, trade_type in ((native, "NATIVE"), (h5, "MWEB")):
        await sandbox.pay(number)
        paid = await wechat.query(number)
        assert (paid["trade_type"], paid["payer"]["openid"][0]) == (trade_type, "o")


async def test_a_service_providers_order_names_both_merchants(
    sandbox: SandboxHandle, partner_wechat: WechatClient
) -> None:
    partner, number = partner_wechat, order_number()
    account = partner.account
    sub_appid = account["mini_program_appid"]
    await partner.prepay(number, sub_appid=sub_appid, payer={"sub_openid": an_openid()})
    await sandbox.pay(number)
    paid = await partner.query(number)
    assert {name: paid[name] for name in ("sp_appid", "sp_mchid", "sub_appid", "sub_mchid")} == {
        "sp_appid": account["appid"],
        "sp_mchid": account["mchid"],
        "sub_appid": sub_appid,
        "sub_mchid": account["sub_mchid"],
    }
    assert (paid["payer"]["sub_openid"], paid["payer"].keys()) == (an_openid(), {"sp_openid", "sub_openid"})
    assert not {"appid", "mchid"} & paid.keys()
    trade = await sandbox.trade(number)
    assert (trade["seller_id"], trade["mchid"]) == (account["sub_mchid"], account["mchid"])


async def test_ordering_again_renews_only_the_same_order(sandbox: SandboxHandle, wechat: WechatClient) -> None:
    number = order_number()
    first = await wechat.prepay(number)
    assert (await wechat.prepay(number))["prepay_id"] != first["prepay_id"]
    other_amount = wechat.order(number, amount={"total": 3, "currency": "CNY"})
    assert await wechat.prepay_refused(other_amount) == (400, "INVALID_REQUEST", None)
    other_goods = wechat.order(number, goods_tag="x")
    assert await wechat.prepay_refused(other_goods) == (400, "INVALID_REQUEST", None)
    other_app = wechat.order(number, appid=wechat.account["mini_program_appid"])
    assert await wechat.prepay_refused(other_app) == (403, "OUT_TRADE_NO_USED", None)
    trade = await sandbox.trade(number)
    assert (trade["amount_fen"], trade["app_id"]) == (2, wechat.account["appid"])


async def test_a_number_that_is_paid_or_closed_is_not_ordered_again(
    sandbox: SandboxHandle, wechat: WechatClient
) -> None:
    paid, closed = order_number(), order_number()
    for number in (paid, closed):
        await wechat.prepay(number)
    await sandbox.pay(paid)
    assert (await wechat.close(closed)).status_code == 204
    assert await wechat.prepay_refused(wechat.order(paid)) == (400, "ORDER_PAID", None)
    assert await wechat.prepay_refused(wechat.order(closed)) == (400, "ORDER_CLOSED", None)


async def test_close_answers_204_signed_over_nothing_and_may_be_repeated(
    sandbox: SandboxHandle, wechat: WechatClient
) -> None:
    number = order_number()
    await wechat.prepay(number)
    for _ in range(2):
        response = await wechat.close(number)
        assert (response.status_code, response.content) == (204, b"")
        assert wechat.signed_by_wechat(response.headers, b"")
    assert (await wechat.query(number))["trade_state"] == "CLOSED"
    assert (await sandbox.trade(number))["status"] == "CLOSED"


async def test_a_paid_order_is_not_closed(sandbox: SandboxHandle, wechat: WechatClient) -> None:
    number = order_number()
    await wechat.prepay(number)
    await sandbox.pay(number)
    response = await wechat.close(number)
    assert (response.status_code, response.json()["code"]) == (400, "ORDER_PAID")
    assert (await sandbox.trade(number))["status"] == "PAID"


async def test_an_unknown_order_is_not_found_by_anybody(
    sandbox: SandboxHandle, wechat: WechatClient, certificate_wechat: WechatClient
) -> None:
    number = order_number()
    await wechat.prepay(number)
    assert await certificate_wechat.query_refused(number) == (404, "ORDER_NOT_EXIST", None)
    assert await wechat.query_refused("none-at-all") == (404, "ORDER_NOT_EXIST", None)
    assert (await wechat.close("none-at-all")).json()["code"] == "ORDER_NOT_EXIST"
    target = f"{wechat.base}/id/4200000000000000000000000000?mchid={wechat.account['mchid']}"
    assert await wechat.refused("GET", target) == (404, "ORDER_NOT_EXIST", None)


@pytest.mark.parametrize(
    ("wanted", "given"), [(None, 7 * 86400), (-3600, 60), (30, 60), (1800, 1800), (86400 * 400, 90 * 86400)]
)
async def test_the_last_moment_to_pay_is_kept_within_its_bounds(
    sandbox: SandboxHandle, wechat: WechatClient, wanted: int | None, given: int
) -> None:
    number = order_number()
    fields: dict[str, Any] = {}
    now = datetime.now(UTC)
    if wanted is not None:
        fields["time_expire"] = (now + timedelta(seconds=wanted)).isoformat(timespec="seconds")
    await wechat.prepay(number, **fields)
    expires_at = datetime.fromisoformat((await sandbox.trade(number))["expires_at"])
    assert abs((expires_at - now).total_seconds() - given) < 5


async def test_an_expired_order_is_closed_and_paid_only_late(sandbox: SandboxHandle, wechat: WechatClient) -> None:
    number = order_number()
    expires_at = (datetime.now(UTC) + timedelta(minutes=10)).isoformat(timespec="seconds")
    await wechat.prepay(number, time_expire=expires_at)
    await sandbox.advance(600)
    assert (await wechat.query(number))["trade_state"] == "CLOSED"
    refused = await sandbox.control("POST", f"/trades/{number}/pay", {}, status=409)
    assert refused["error"]["code"] == "ORDER_CLOSED"
    await sandbox.pay(number, late=True)
    paid = await wechat.query(number)
    assert (paid["trade_state"], datetime.fromisoformat(paid["success_time"]) > datetime.fromisoformat(expires_at)) == (
        "SUCCESS",
        True,
    )


async def test_a_failed_attempt_leaves_the_order_unpaid(sandbox: SandboxHandle, wechat: WechatClient) -> None:
    number = order_number()
    await wechat.prepay(number)
    await sandbox.control("POST", f"/trades/{number}/fail", {})
    assert (await wechat.query(number))["trade_state"] == "NOTPAY"
    assert (await sandbox.trade(number))["last_failure"] == "零钱余额不足"
    await sandbox.pay(number)
    assert (await sandbox.control("POST", f"/trades/{number}/fail", {}, status=409))["error"]["code"] == "ORDER_PAID"


async def test_an_order_is_described_with_everything_about_it(sandbox: SandboxHandle, wechat: WechatClient) -> None:
    number, account = order_number(), wechat.account
    prepay_id = (await wechat.prepay(number))["prepay_id"]
    trade = await sandbox.trade(number)
    assert trade.pop("pay_url").startswith(f"{sandbox.base_url}/wechat/pay/")
    assert trade.pop("created_at") < trade.pop("expires_at")
    assert trade == {
        "provider": "WECHAT",
        "channel": "v3",
        "product": "JSAPI",
        "app_id": account["appid"],
        "sub_appid": None,
        "mchid": account["mchid"],
        "sub_mchid": None,
        "seller_id": account["mchid"],
        "out_trade_no": number,
        "transaction_id": None,
        "trade_state": "NOTPAY",
        "status": "UNPAID",
        "paid": False,
        "amount_fen": 2,
        "subject": "一杯咖啡",
        "attach": None,
        "openid": an_openid(),
        "payer": None,
        "notify_url": "http://127.0.0.1:9/notify",
        "prepay_id": prepay_id,
        "paid_at": None,
        "closed_at": None,
        "last_failure": None,
        "notify_ids": [],
        "refunded_fen": 0,
        "refunds": [],
    }


async def test_the_same_number_of_two_merchants_needs_the_seller(
    sandbox: SandboxHandle, wechat: WechatClient, certificate_wechat: WechatClient
) -> None:
    number = order_number()
    await wechat.prepay(number)
    await certificate_wechat.download_certificates()
    await certificate_wechat.prepay(number)
    error = (await sandbox.control("POST", f"/trades/{number}/pay", {}, status=409))["error"]
    assert error["code"] == "TRADE_AMBIGUOUS"
    assert error["fix"].endswith("1900000001, 1900000002")
    await sandbox.control("POST", f"/trades/{number}/pay?seller_id=1900000002", {})
    assert (await wechat.query(number))["trade_state"] == "NOTPAY"
    assert (await certificate_wechat.query(number))["trade_state"] == "SUCCESS"
