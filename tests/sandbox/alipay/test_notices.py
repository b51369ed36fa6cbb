"""Notifications and return URLs: fields, signatures, acknowledgement, and the retry gaps on the moved clock."""

import asyncio
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from tests.sandbox.alipay.client import AlipayClient, beijing, is_signed, new_number, without
from tests.sandbox.handle import SandboxHandle
from tests.sandbox.merchant_server import MerchantServer

GAPS_S = [240, 600, 600, 3600, 7200, 21600, 54000]


async def opened(alipay: AlipayClient, merchant: MerchantServer, **options: Any) -> str:
    number = new_number()
    await alipay.opened(number, notify_url=merchant.notify_url, **options)
    return number


async def test_a_notification_carries_the_documented_fields_and_verifies(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer
) -> None:
    biz = {"body": "加糖 + 冰 = 好", "passback_params": "a%3D1%26b%3D%E4%B8%AD"}
    number = await opened(alipay, merchant, biz=biz)
    (notice,) = await sandbox.pay(number)
    (received,) = merchant.received
    assert received.headers["content-type"] == "application/x-www-form-urlencoded; charset=utf-8"
    fields = alipay.read_notification(received.body)
    trade = await sandbox.trade(number)
    assert fields == {
        "notify_type": "trade_status_sync",
        "notify_id": notice["notify_id"],
        "notify_time": beijing(datetime.fromisoformat(notice["attempts"][0]["due_at"])),
        "app_id": alipay.account["app_id"],
        "auth_app_id": alipay.account["app_id"],
        "charset": "utf-8",
        "version": "1.0",
        "sign_type": "RSA2",
        "sign": fields["sign"],
        "trade_no": trade["trade_no"],
        "out_trade_no": number,
        "trade_status": "TRADE_SUCCESS",
        "total_amount": "0.02",
        "receipt_amount": "0.02",
        "invoice_amount": "0.02",
        "buyer_pay_amount": "0.02",
        "point_amount": "0.00",
        "seller_id": alipay.account["seller_id"],
        "buyer_id": "2088720000000088",
        "buyer_logon_id": "sha***@sandbox.com",
        "subject": "一杯咖啡",
        "body": "加糖 + 冰 = 好",
        "passback_params": "a%3D1%26b%3D%E4%B8%AD",
        "gmt_create": beijing(datetime.fromisoformat(trade["opened_at"])),
        "gmt_payment": beijing(datetime.fromisoformat(trade["paid_at"])),
        "fund_bill_list": '[{"amount":"0.02","fundChannel":"ALIPAYACCOUNT"}]',
    }
    assert (notice["state"], notice["next_at"], len(notice["attempts"])) == ("ACKNOWLEDGED", None, 1)


async def test_an_unacknowledged_notification_comes_eight_times_at_the_documented_gaps(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer
) -> None:
    merchant.otherwise = (500, b"")
    number = await opened(alipay, merchant)
    (notice,) = await sandbox.pay(number)
    assert notice["state"] == "WAITING"
    moved = await sandbox.advance(sum(GAPS_S) + 60)
    assert moved["deliveries"] == 7
    (notice,) = await sandbox.notices()
    due = [datetime.fromisoformat(attempt["due_at"]) for attempt in notice["attempts"]]
    assert [(later - earlier).total_seconds() for earlier, later in pairwise(due)] == GAPS_S
    assert (notice["state"], notice["next_at"]) == ("GIVEN_UP", None)
    for attempt in notice["attempts"]:
        late = datetime.fromisoformat(attempt["sent_at"]) - datetime.fromisoformat(attempt["due_at"])
        assert timedelta(0) <= late < timedelta(seconds=5)

    sent = [alipay.read_notification(received.body) for received in merchant.received]
    assert {fields["notify_id"] for fields in sent} == {notice["notify_id"]}
    assert [fields["notify_time"] for fields in sent] == [beijing(instant) for instant in due]
    await sandbox.advance(30 * 86400)
    assert len(merchant.received) == 8


async def test_nothing_is_sent_a_moment_before_it_is_due(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer
) -> None:
    merchant.answers = [(500, b"")]
    number = await opened(alipay, merchant)
    (notice,) = await sandbox.pay(number)
    next_at = datetime.fromisoformat(notice["next_at"])
    assert datetime.fromisoformat((await sandbox.control("GET", "/clock"))["next_due"]) == next_at
    before = {"to": (next_at - timedelta(seconds=60)).isoformat()}
    assert (await sandbox.control("POST", "/clock", before))["deliveries"] == 0
    assert (await sandbox.control("POST", "/clock", {"to": next_at.isoformat()}))["deliveries"] == 1
    (notice,) = await sandbox.notices()
    assert (notice["state"], len(notice["attempts"])) == ("ACKNOWLEDGED", 2)
    assert (await sandbox.advance(86400))["deliveries"] == 0


@pytest.mark.parametrize(
    "answer",
    [
        (200, b"SUCCESS"),
        (200, b"success\n"),
        (200, b'"success"'),
        (200, b"\xef\xbb\xbfsuccess"),
        (200, b"fail"),
        (200, b""),
        (200, b"success" + b" " * 5000),
        (201, b"success"),
        (302, b"success"),
        (500, b"success"),
        None,
    ],
    ids=["capitals", "newline", "quotes", "BOM", "fail", "empty", "long", "201", "redirect", "500", "no answer"],
)
async def test_only_the_seven_bytes_with_200_acknowledge(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer, answer: tuple[int, bytes] | None
) -> None:
    merchant.answers = [answer]
    number = await opened(alipay, merchant)
    (notice,) = await sandbox.pay(number)
    assert notice["state"] == "WAITING"
    assert [attempt["acknowledged"] for attempt in notice["attempts"]] == [False]
    assert notice["attempts"][0]["http_status"] == (answer[0] if answer else None)
    assert (notice["attempts"][0]["error"] is None) == (answer is not None)
    assert [received.target for received in merchant.received] == ["/notify"]


async def test_a_merchant_that_is_down_gets_the_notice_later(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer
) -> None:
    number = new_number()
    await alipay.opened(number, notify_url="http://127.0.0.1:9/notify")
    (notice,) = await sandbox.pay(number)
    assert notice["attempts"][0]["error"].startswith("ConnectError")
    assert notice["state"] == "WAITING"


@pytest.mark.parametrize("url", ["http://192.0.2.1/notify", "http://shop.example/notify", "https://127.0.0.1.nip.io/n"])
async def test_nothing_is_sent_beyond_this_machine(sandbox: SandboxHandle, alipay: AlipayClient, url: str) -> None:
    number = new_number()
    await alipay.opened(number, notify_url=url)
    (notice,) = await sandbox.pay(number)
    assert (notice["state"], notice["attempts"], notice["next_at"]) == ("BLOCKED", [], None)
    resent = await sandbox.control("POST", f"/notifications/{notice['notify_id']}/resend", {"times": 3})
    assert resent["attempts"] == []


async def test_without_notify_url_there_is_no_notification(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    number = new_number()
    await alipay.opened(number)
    assert await sandbox.pay(number) == []
    assert await sandbox.notices() == []


async def test_duplicates_of_one_notice_arrive_at_once_and_are_the_same(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer
) -> None:
    number = await opened(alipay, merchant)
    (notice,) = await sandbox.pay(number, times=5)
    assert len(notice["attempts"]) == len(merchant.received) == 5
    assert len({received.body for received in merchant.received}) == 1


async def test_distinct_notices_of_one_payment_have_their_own_ids(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer
) -> None:
    number = await opened(alipay, merchant)
    notices = await sandbox.pay(number, times=3, distinct_ids=True)
    sent = [alipay.read_notification(received.body) for received in merchant.received]
    assert [fields["notify_id"] for fields in sent] == [notice["notify_id"] for notice in notices]
    assert len({fields["notify_id"] for fields in sent}) == 3


@pytest.mark.parametrize("concurrent", [True, False])
async def test_a_notice_is_sent_again_on_request(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer, concurrent: bool
) -> None:
    merchant.answers = [(500, b"")]
    number = await opened(alipay, merchant)
    (notice,) = await sandbox.pay(number)
    path = f"/notifications/{notice['notify_id']}/resend"
    answer = await sandbox.control("POST", path, {"times": 4, "concurrent": concurrent})
    assert [attempt["kind"] for attempt in answer["attempts"]] == ["resend"] * 4
    assert len(merchant.received) == 5
    assert (answer["notification"]["state"], answer["notification"]["next_at"]) == ("ACKNOWLEDGED", None)
    assert (await sandbox.advance(86400))["deliveries"] == 0


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"amount": "0.03"}, {"total_amount": "0.03", "receipt_amount": "0.03", "buyer_pay_amount": "0.03"}),
        ({"app_id": "2021000000000009"}, {"app_id": "2021000000000009", "total_amount": "0.02"}),
        ({"seller_id": "2088000000000009"}, {"seller_id": "2088000000000009"}),
        ({"payer": "2088000000000077"}, {"buyer_id": "2088000000000077", "total_amount": "0.02"}),
        ({"fields": {"out_trade_no": "other", "trade_status": "TRADE_FINISHED"}}, {"out_trade_no": "other"}),
    ],
)
async def test_a_lying_notice_is_properly_signed_and_the_truth_stays(
    sandbox: SandboxHandle,
    alipay: AlipayClient,
    merchant: MerchantServer,
    options: dict[str, object],
    expected: dict[str, str],
) -> None:
    number = await opened(alipay, merchant)
    await sandbox.pay(number, **options)
    fields = alipay.read_notification(merchant.received[0].body)
    assert {name: fields[name] for name in expected} == expected
    assert (await alipay.query(number))["total_amount"] == "0.02"
    assert (await sandbox.trade(number))["seller_id"] == alipay.account["seller_id"]


async def test_a_broken_signature_is_well_formed_and_wrong(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer
) -> None:
    number = await opened(alipay, merchant)
    await sandbox.pay(number, break_signature=True)
    fields = dict(parse_qsl(merchant.received[0].body.decode("ascii")))
    text = without(fields, "sign", "sign_type")
    assert not is_signed(alipay.account["alipay_public_key"], text.encode(), fields["sign"])


async def test_notify_false_pays_in_silence(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer
) -> None:
    number = await opened(alipay, merchant)
    assert await sandbox.pay(number, notify=False) == []
    assert (await alipay.query(number))["trade_status"] == "TRADE_SUCCESS"
    assert merchant.received == []


async def test_wait_false_returns_before_the_merchant_answers(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer
) -> None:
    number = await opened(alipay, merchant)
    (notice,) = await sandbox.pay(number, wait=False)
    assert notice["attempts"] == []
    (received,) = await merchant.wait_for(1)
    assert alipay.read_notification(received.body)["out_trade_no"] == number


async def test_a_late_payment_is_dated_after_its_expiry(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer
) -> None:
    number = await opened(alipay, merchant, biz={"timeout_express": "5m"})
    await alipay.succeed("alipay.trade.close", {"out_trade_no": number})
    await sandbox.pay(number, late=True)
    trade = await sandbox.trade(number)
    assert trade["trade_status"] == "TRADE_SUCCESS"
    assert datetime.fromisoformat(trade["paid_at"]) > datetime.fromisoformat(trade["expires_at"])
    fields = alipay.read_notification(merchant.received[0].body)
    assert fields["trade_status"] == "TRADE_SUCCESS"
    assert fields["gmt_payment"] == beijing(datetime.fromisoformat(trade["paid_at"]))
    assert "gmt_close" not in fields


async def test_a_closing_notice_is_sent_when_asked_for(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer
) -> None:
    number = await opened(alipay, merchant)
    await sandbox.control("POST", f"/trades/{number}/close", {"notify": True})
    fields = alipay.read_notification(merchant.received[0].body)
    assert fields["trade_status"] == "TRADE_CLOSED"
    assert "gmt_close" in fields
    assert "gmt_payment" not in fields


async def test_an_isv_notice_names_both_apps(
    sandbox: SandboxHandle, isv_alipay: AlipayClient, merchant: MerchantServer
) -> None:
    number = await opened(isv_alipay, merchant)
    await sandbox.pay(number)
    fields = isv_alipay.read_notification(merchant.received[0].body)
    assert fields["app_id"] == isv_alipay.account["app_id"]
    assert fields["auth_app_id"] == isv_alipay.account["auth_app_id"]


async def test_a_gbk_order_is_notified_in_gbk(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer
) -> None:
    number = new_number()
    order = alipay.order(number, product="qr")
    changes = {"charset": "gbk", "notify_url": merchant.notify_url}
    await alipay.send(alipay.signed("alipay.trade.precreate", order, changes=changes), codec="gbk")
    await sandbox.pay(number)
    (received,) = merchant.received
    assert received.headers["content-type"] == "application/x-www-form-urlencoded; charset=gbk"
    fields = alipay.read_notification(received.body, codec="gbk")
    assert (fields["subject"], fields["charset"]) == ("一杯咖啡", "gbk")


@pytest.mark.parametrize("product", ["page", "wap"])
async def test_the_payer_returns_with_the_documented_signed_fields(
    sandbox: SandboxHandle, alipay: AlipayClient, product: str
) -> None:
    number = new_number()
    await alipay.opened(number, product=product, return_url="http://127.0.0.1:8000/done?order=7")
    trade = await sandbox.trade(number)
    response = await alipay.http.post(f"{trade['pay_url']}/pay")
    assert response.status_code == 303
    target = urlsplit(response.headers["location"])
    assert target.geturl().startswith("http://127.0.0.1:8000/done?order=7&")
    fields = dict(parse_qsl(target.query))
    assert fields.pop("order") == "7"
    assert fields == {
        "app_id": alipay.account["app_id"],
        "auth_app_id": alipay.account["app_id"],
        "charset": "utf-8",
        "method": f"alipay.trade.{product}.pay.return",
        "out_trade_no": number,
        "seller_id": alipay.account["seller_id"],
        "sign": fields["sign"],
        "sign_type": "RSA2",
        "timestamp": fields["timestamp"],
        "total_amount": "0.02",
        "trade_no": (await alipay.query(number))["trade_no"],
        "version": "1.0",
    }
    text = without(fields, "sign", "sign_type")
    assert is_signed(alipay.account["alipay_public_key"], text.encode(), fields["sign"])


async def test_many_payments_at_once_are_each_notified_once(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer
) -> None:
    numbers = [await opened(alipay, merchant) for _ in range(30)]
    await asyncio.gather(*(sandbox.pay(number) for number in numbers))
    sent = [alipay.read_notification(received.body)["out_trade_no"] for received in merchant.received]
    assert sorted(sent) == sorted(numbers)


async def test_a_reset_ends_what_a_moving_clock_waits_for(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer
) -> None:
    merchant.answers = [(500, b"")]
    number = await opened(alipay, merchant)
    await sandbox.pay(number)
    released = merchant.hold()
    moving = asyncio.create_task(sandbox.advance(240))
    await merchant.wait_for(2)
    await sandbox.control("POST", "/reset")
    assert (await moving)["deliveries"] == 0
    released.set()
    assert await sandbox.notices() == []
