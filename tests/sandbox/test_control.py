"""/_control: shapes, refusals that say what to do, clock and reset."""

from datetime import UTC, datetime, timedelta

import pytest

from tests.sandbox.alipay.client import AlipayClient, new_number
from tests.sandbox.handle import SandboxHandle
from tests.sandbox.merchant_server import MerchantServer


async def error_of(sandbox: SandboxHandle, method: str, path: str, body: object = None, *, status: int) -> str:
    error = (await sandbox.control(method, path, body, status=status))["error"]
    assert error.keys() == {"code", "message", "fix"}
    code: str = error["code"]
    return code


@pytest.mark.parametrize("action", ["open", "pay", "fail", "close"])
async def test_an_unknown_trade_says_how_to_make_one(sandbox: SandboxHandle, action: str) -> None:
    answer = await sandbox.control("POST", f"/trades/none/{action}", {}, status=404)
    assert answer["error"]["code"] == "TRADE_UNKNOWN"
    assert "GET that URL first" in answer["error"]["fix"]


async def test_a_trade_is_shown_with_everything_about_it(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer
) -> None:
    number = new_number()
    await alipay.opened(number, notify_url=merchant.notify_url, return_url="http://127.0.0.1:8000/done")
    answer = await sandbox.control("POST", f"/trades/{number}/pay")
    trade = answer["trade"]
    assert trade == await sandbox.trade(number)
    moments = {name: trade.pop(name) for name in ("created_at", "opened_at", "paid_at", "expires_at")}
    assert (list(moments.values()), trade.pop("closed_at")) == (sorted(moments.values()), None)
    assert trade.pop("pay_url").startswith(f"{sandbox.base_url}/alipay/pay/")
    assert len(trade["trade_no"]) == 28
    assert trade.pop("transaction_id") == trade.pop("trade_no")
    assert trade == {
        "provider": "ALIPAY",
        "product": "page",
        "app_id": alipay.account["app_id"],
        "auth_app_id": alipay.account["app_id"],
        "seller_id": alipay.account["seller_id"],
        "buyer_id": "2088720000000088",
        "agreement_no": None,
        "external_agreement_no": None,
        "out_trade_no": number,
        "trade_status": "TRADE_SUCCESS",
        "status": "PAID",
        "paid": True,
        "total_amount": "0.02",
        "amount_fen": 2,
        "subject": "一杯咖啡",
        "notify_url": merchant.notify_url,
        "return_url": "http://127.0.0.1:8000/done",
        "last_failure": None,
        "notify_ids": [answer["notifications"][0]["notify_id"]],
        "refunded_fen": 0,
        "refunds": [],
    }
    (notice,) = answer["notifications"]
    assert notice["attempts"][0]["answer"] == "success"
    assert notice.keys() == {
        "notify_id",
        "provider",
        "out_trade_no",
        "url",
        "state",
        "next_at",
        "summary",
        "attempts",
    }


async def test_pay_opens_a_page_nobody_has_looked_at(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    number = new_number()
    await alipay.http.get(alipay.page_url(number))
    await sandbox.pay(number)
    assert (await alipay.query(number))["trade_status"] == "TRADE_SUCCESS"


async def test_open_stands_for_the_payer_who_arrives(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    number = new_number()
    await alipay.succeed("alipay.trade.precreate", alipay.order(number, product="qr"))
    answer = await sandbox.control("POST", f"/trades/{number}/open")
    assert answer["trade"]["trade_status"] == "WAIT_BUYER_PAY"
    assert (await alipay.query(number))["trade_status"] == "WAIT_BUYER_PAY"


async def test_a_second_payment_is_refused(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer
) -> None:
    number = new_number()
    await alipay.opened(number, notify_url=merchant.notify_url)
    await sandbox.pay(number)
    code = await error_of(sandbox, "POST", f"/trades/{number}/pay", {"late": True}, status=409)
    assert (code, len(merchant.received)) == ("ACQ.TRADE_HAS_SUCCESS", 1)


async def test_an_expired_trade_is_paid_only_late(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    number = new_number()
    await alipay.opened(number, biz={"timeout_express": "5m"})
    await sandbox.advance(300)
    code = await error_of(sandbox, "POST", f"/trades/{number}/pay", {}, status=409)
    assert (code, (await sandbox.trade(number))["trade_status"]) == ("ACQ.TRADE_HAS_CLOSE", "TRADE_CLOSED")
    await sandbox.pay(number, late=True)
    assert (await alipay.query(number))["trade_status"] == "TRADE_SUCCESS"


async def test_fail_leaves_the_trade_waiting_with_a_reason(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer
) -> None:
    number = new_number()
    await alipay.opened(number, notify_url=merchant.notify_url)
    answer = await sandbox.control("POST", f"/trades/{number}/fail", {"reason": "余额不足"})
    assert (answer["trade"]["trade_status"], answer["notifications"]) == ("WAIT_BUYER_PAY", [])
    assert (await alipay.query(number))["unpaid_reason"] == "余额不足"
    assert merchant.received == []
    await sandbox.pay(number)
    assert "unpaid_reason" not in await alipay.query(number)


async def test_close_closes_only_what_waits(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    number = new_number()
    await alipay.http.get(alipay.page_url(number))
    assert await error_of(sandbox, "POST", f"/trades/{number}/close", status=409) == "ACQ.TRADE_STATUS_ERROR"
    await sandbox.control("POST", f"/trades/{number}/open")
    answer = await sandbox.control("POST", f"/trades/{number}/close")
    assert (answer["trade"]["trade_status"], answer["notifications"]) == ("TRADE_CLOSED", [])


async def test_a_number_of_two_sellers_needs_the_seller(
    sandbox: SandboxHandle, alipay: AlipayClient, isv_alipay: AlipayClient
) -> None:
    number = new_number()
    await alipay.opened(number)
    await isv_alipay.opened(number)
    assert await error_of(sandbox, "POST", f"/trades/{number}/pay", status=409) == "TRADE_AMBIGUOUS"
    seller_id = isv_alipay.account["seller_id"]
    await sandbox.control("POST", f"/trades/{number}/pay?seller_id={seller_id}")
    assert (await isv_alipay.query(number))["trade_status"] == "TRADE_SUCCESS"
    assert (await alipay.query(number))["trade_status"] == "WAIT_BUYER_PAY"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"ammount": "0.03"}, "OPTION_UNKNOWN"),
        ({"amount": 3}, "OPTION_INVALID"),
        ({"amount": "three"}, "OPTION_INVALID"),
        ({"times": 0}, "OPTION_INVALID"),
        ({"times": 1001}, "OPTION_INVALID"),
        ({"times": True}, "OPTION_INVALID"),
        ({"notify": "no"}, "OPTION_INVALID"),
        ({"fields": {"total_amount": 3}}, "OPTION_INVALID"),
        ([], "JSON_INVALID"),
    ],
)
async def test_options_that_are_wrong_pay_nothing(
    sandbox: SandboxHandle, alipay: AlipayClient, body: object, code: str
) -> None:
    number = new_number()
    await alipay.opened(number)
    assert await error_of(sandbox, "POST", f"/trades/{number}/pay", body, status=400) == code
    assert (await sandbox.trade(number))["paid"] is False


async def test_a_field_the_charset_cannot_hold_pays_nothing(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    number = new_number()
    order = alipay.order(number, product="qr")
    await alipay.send(alipay.signed("alipay.trade.precreate", order, changes={"charset": "gbk"}), codec="gbk")
    body = {"fields": {"subject": "☕🍵"}}
    code = await error_of(sandbox, "POST", f"/trades/{number}/pay", body, status=409)
    assert (code, (await sandbox.trade(number))["paid"]) == ("ACQ.INVALID_PARAMETER", False)


async def test_the_clock_moves_and_runs_on(sandbox: SandboxHandle) -> None:
    at_rest = await sandbox.control("GET", "/clock")
    assert (at_rest["offset_s"], at_rest["strict_timestamps"]) == (0, False)
    moved = await sandbox.advance(90)
    assert moved["deliveries"] == 0
    assert 90 <= moved["offset_s"] < 91
    target = datetime(2027, 2, 1, 8, tzinfo=UTC)
    set_to = await sandbox.control("POST", "/clock", {"to": "2027-02-01T16:00:00+08:00"})
    assert timedelta(0) <= datetime.fromisoformat(set_to["now"]) - target < timedelta(seconds=5)
    assert set_to["beijing"].startswith("2027-02-01 16:00:0")
    stays = await sandbox.control("POST", "/clock", {"to": datetime.now(UTC).isoformat(), "forward": True})
    assert abs(stays["offset_s"] - set_to["offset_s"]) < 1
    assert stays["next_due"] is None
    back = await sandbox.control("POST", "/clock", {"to": datetime.now(UTC).isoformat()})
    assert abs(back["offset_s"]) < 5


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"to": "2027-02-01T16:00:00+08:00", "advance_s": 1},
        {"to": "tomorrow"},
        {"to": "2027-02-01T16:00:00"},
        {"to": "2127-02-01T16:00:00Z"},
        {"advance_s": 1e300},
    ],
)
async def test_a_time_the_clock_cannot_take_leaves_it_alone(sandbox: SandboxHandle, body: object) -> None:
    assert await error_of(sandbox, "POST", "/clock", body, status=400) == "CLOCK_INVALID"
    assert (await sandbox.control("GET", "/clock"))["offset_s"] == 0


async def test_reset_forgets_everything_but_the_accounts(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer
) -> None:
    merchant.otherwise = (500, b"")
    accounts = await sandbox.control("GET", "/accounts")
    number = new_number()
    page = await alipay.open_page(number, notify_url=merchant.notify_url)
    await sandbox.pay(number)
    await sandbox.control("POST", "/faults", {"method": "*", "kind": "20000"}, status=201)
    await sandbox.control("POST", "/clock", {"advance_s": 60, "strict_timestamps": True})
    answer = await sandbox.control("POST", "/reset")
    assert (answer["reset"], answer["offset_s"], answer["strict_timestamps"]) == (True, 0, False)
    assert (await sandbox.control("GET", "/trades"))["trades"] == []
    assert await sandbox.notices() == []
    assert (await sandbox.control("GET", "/faults"))["faults"] == []
    assert (await sandbox.control("GET", "/calls"))["total"] == 0
    assert (await alipay.http.get(page.url)).status_code == 404
    assert await sandbox.control("GET", "/accounts") == accounts
    assert (await sandbox.advance(86400))["deliveries"] == 0
    assert len(merchant.received) == 1


async def test_a_page_of_another_site_cannot_drive_the_sandbox(sandbox: SandboxHandle) -> None:
    response = await sandbox.http.post(
        f"{sandbox.base_url}/_control/clock", json={"advance_s": 60}, headers={"sec-fetch-site": "cross-site"}
    )
    assert response.status_code == 403
    assert (await sandbox.control("GET", "/clock"))["offset_s"] == 0


async def test_an_unknown_notification_is_not_resent(sandbox: SandboxHandle) -> None:
    assert await error_of(sandbox, "POST", "/notifications/none/resend", status=404) == "NOTIFICATION_UNKNOWN"
