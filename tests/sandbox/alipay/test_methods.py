"""page.pay, wap.pay, precreate, query and close over a trade's life."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.sandbox.alipay.client import AlipayClient, beijing, new_number, now_beijing
from tests.sandbox.handle import SandboxHandle

UNPAID = {
    "buyer_pay_amount": "0.00",
    "invoice_amount": "0.00",
    "point_amount": "0.00",
    "receipt_amount": "0.00",
}


async def precreate(alipay: AlipayClient, number: str, **fields: object) -> str:
    answer = await alipay.succeed("alipay.trade.precreate", alipay.order(number, product="qr", **fields))
    assert answer.keys() == {"code", "msg", "out_trade_no", "qr_code"}
    qr_code: str = answer["qr_code"]
    return qr_code


async def close(alipay: AlipayClient, number: str) -> dict[str, Any]:
    return await alipay.succeed("alipay.trade.close", {"out_trade_no": number})


async def close_refused(alipay: AlipayClient, number: str) -> str:
    return await alipay.refused("alipay.trade.close", {"out_trade_no": number})


async def page_error(alipay: AlipayClient, url: str) -> str:
    """The whole text of Alipay's error page."""
    response = await alipay.http.get(url)
    assert (response.status_code, response.headers["content-type"]) == (200, "text/html;charset=gbk")
    return response.content.decode("gbk")


@pytest.mark.parametrize("product", ["page", "wap"])
async def test_page_trade_exists_only_once_the_payer_came(
    sandbox: SandboxHandle, alipay: AlipayClient, product: str
) -> None:
    number = new_number()
    redirect = await alipay.http.get(alipay.page_url(number, product=product))
    assert redirect.status_code == 302
    assert redirect.headers["location"].startswith("/alipay/pay/")
    assert await alipay.query_refused(number) == "ACQ.TRADE_NOT_EXIST"
    assert await close_refused(alipay, number) == "ACQ.TRADE_NOT_EXIST"
    assert (await sandbox.trade(number))["trade_status"] == "NOT_OPENED"

    await alipay.http.get(sandbox.base_url + redirect.headers["location"])
    answer = await alipay.query(number)
    assert answer == {
        "code": "10000",
        "msg": "Success",
        **UNPAID,
        "buyer_logon_id": "sha***@sandbox.com",
        "buyer_user_id": "2088720000000088",
        "buyer_user_type": "PRIVATE",
        "out_trade_no": number,
        "subject": "一杯咖啡",
        "total_amount": "0.02",
        "trade_no": (await sandbox.trade(number))["trade_no"],
        "trade_status": "WAIT_BUYER_PAY",
    }


async def test_page_form_is_accepted_by_post(alipay: AlipayClient) -> None:
    response = await alipay.send(alipay.signed("alipay.trade.page.pay", alipay.order(new_number())))
    assert response.status_code == 302
    assert response.headers["location"].startswith("/alipay/pay/")


async def test_an_unknown_trade_is_echoed_with_zero_amounts(alipay: AlipayClient) -> None:
    answer = await alipay.execute("alipay.trade.query", {"out_trade_no": "none"})
    assert answer.fields == {
        "code": "40004",
        "msg": "Business Failed",
        "sub_code": "ACQ.TRADE_NOT_EXIST",
        "sub_msg": "交易不存在",
        "out_trade_no": "none",
        **UNPAID,
    }
    assert alipay.signed_by_alipay(answer)


async def test_precreate_trade_exists_only_once_the_code_was_scanned(
    sandbox: SandboxHandle, alipay: AlipayClient
) -> None:
    number = new_number()
    qr_code = await precreate(alipay, number)
    assert qr_code.startswith(f"{sandbox.base_url}/alipay/qr/")
    assert await alipay.query_refused(number) == "ACQ.TRADE_NOT_EXIST"
    page = await alipay.http.get(qr_code, follow_redirects=True)
    assert "一杯咖啡" in page.text
    assert "¥0.02" in page.text
    assert (await alipay.query(number))["trade_status"] == "WAIT_BUYER_PAY"


async def test_a_paid_trade_is_found_by_either_number(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    number = new_number()
    await alipay.opened(number)
    await sandbox.pay(number)
    by_ours = await alipay.query(number)
    assert by_ours["trade_status"] == "TRADE_SUCCESS"
    assert by_ours["receipt_amount"] == by_ours["buyer_pay_amount"] == by_ours["invoice_amount"] == "0.02"
    assert by_ours["fund_bill_list"] == [{"fund_channel": "ALIPAYACCOUNT", "amount": "0.02"}]
    paid_at = datetime.fromisoformat((await sandbox.trade(number))["paid_at"])
    assert by_ours["send_pay_date"] == beijing(paid_at)
    # trade_no wins over a number that is wrong.
    either = {"trade_no": by_ours["trade_no"], "out_trade_no": "none"}
    assert await alipay.succeed("alipay.trade.query", either) == by_ours


async def test_another_seller_does_not_see_the_trade(
    alipay: AlipayClient, certificate_alipay: AlipayClient, sandbox: SandboxHandle
) -> None:
    number = new_number()
    await alipay.opened(number)
    assert await certificate_alipay.query_refused(number) == "ACQ.TRADE_NOT_EXIST"
    trade_no = (await alipay.query(number))["trade_no"]
    assert await certificate_alipay.refused("alipay.trade.close", {"trade_no": trade_no}) == "ACQ.TRADE_NOT_EXIST"
    assert (await sandbox.trade(number))["trade_status"] == "WAIT_BUYER_PAY"


async def test_close_ends_an_unpaid_trade_for_good(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    number = new_number()
    await alipay.opened(number)
    trade_no = (await alipay.query(number))["trade_no"]
    assert await close(alipay, number) == {
        "code": "10000",
        "msg": "Success",
        "out_trade_no": number,
        "trade_no": trade_no,
    }
    assert (await alipay.query(number))["trade_status"] == "TRADE_CLOSED"
    assert await close_refused(alipay, number) == "ACQ.TRADE_STATUS_ERROR"
    await sandbox.control("POST", f"/trades/{number}/pay", {}, status=409)
    assert (await sandbox.trade(number))["trade_status"] == "TRADE_CLOSED"
    assert await sandbox.notices() == []


async def test_a_paid_trade_cannot_be_closed(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    number = new_number()
    await alipay.opened(number)
    await sandbox.pay(number)
    assert await close_refused(alipay, number) == "ACQ.TRADE_STATUS_ERROR"
    assert (await sandbox.trade(number))["trade_status"] == "TRADE_SUCCESS"


async def test_a_link_closed_before_anybody_came_can_still_be_paid(
    sandbox: SandboxHandle, alipay: AlipayClient
) -> None:
    number = new_number()
    qr_code = await precreate(alipay, number)
    assert await close_refused(alipay, number) == "ACQ.TRADE_NOT_EXIST"
    await alipay.http.get(qr_code)
    await sandbox.pay(number)
    assert (await alipay.query(number))["trade_status"] == "TRADE_SUCCESS"


async def test_the_same_number_with_the_same_order_resumes(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    number = new_number()
    first = await alipay.open_page(number)
    again = await alipay.open_page(number)
    assert first.url == again.url
    assert (await sandbox.trade(number))["trade_status"] == "WAIT_BUYER_PAY"


@pytest.mark.parametrize(
    "difference", [{"total_amount": "0.03"}, {"subject": "两杯咖啡"}, {"body": "加糖"}, {"passback_params": "x"}]
)
async def test_the_same_number_with_another_order_is_inconsistent(
    sandbox: SandboxHandle, alipay: AlipayClient, difference: dict[str, str]
) -> None:
    number = new_number()
    await alipay.opened(number)
    assert "ACQ.CONTEXT_INCONSISTENT" in await page_error(alipay, alipay.page_url(number, biz=difference))
    assert (await sandbox.trade(number))["total_amount"] == "0.02"
    sub_code = await alipay.refused("alipay.trade.precreate", alipay.order(number, product="qr"))
    assert sub_code == "ACQ.CONTEXT_INCONSISTENT"


async def test_a_paid_number_is_not_sold_again(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    number = new_number()
    await alipay.opened(number)
    await sandbox.pay(number)
    assert "ACQ.TRADE_HAS_SUCCESS" in await page_error(alipay, alipay.page_url(number))
    order = alipay.order(number, product="qr")
    assert await alipay.refused("alipay.trade.precreate", order) == "ACQ.TRADE_HAS_SUCCESS"


async def test_a_closed_number_needs_a_new_one(alipay: AlipayClient) -> None:
    number = new_number()
    await alipay.opened(number)
    await close(alipay, number)
    assert "ACQ.TRADE_HAS_CLOSE" in await page_error(alipay, alipay.page_url(number))
    order = alipay.order(number, product="qr")
    assert await alipay.refused("alipay.trade.precreate", order) == "ACQ.TRADE_HAS_CLOSE"


async def test_precreate_repeated_gives_the_same_code_until_the_code_runs_out(
    sandbox: SandboxHandle, alipay: AlipayClient
) -> None:
    number = new_number()
    first = await precreate(alipay, number, timeout_express="1d")
    assert await precreate(alipay, number, timeout_express="1d") == first
    await sandbox.advance(2 * 3600)
    order = alipay.order(number, product="qr", timeout_express="1d")
    assert await alipay.refused("alipay.trade.precreate", order) == "ACQ.APPLY_PC_MERCHANT_CODE_ERROR"
    scanned = await alipay.http.get(first, follow_redirects=True)
    assert scanned.status_code == 409
    assert await alipay.query_refused(number) == "ACQ.TRADE_NOT_EXIST"


async def test_qr_code_timeout_express_sets_the_life_of_the_code(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    number = new_number()
    qr_code = await precreate(alipay, number, qr_code_timeout_express="5m")
    await sandbox.advance(300)
    assert (await alipay.http.get(qr_code, follow_redirects=True)).status_code == 409


async def test_an_unpaid_trade_closes_itself_at_its_time(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    number = new_number()
    time_expire = now_beijing(minutes=5)
    await alipay.opened(number, biz={"time_expire": time_expire, "timeout_express": "1h"})
    trade = await sandbox.trade(number)
    assert beijing(datetime.fromisoformat(trade["expires_at"])) == time_expire
    expires_at = datetime.fromisoformat(trade["expires_at"])
    await sandbox.control("POST", "/clock", {"to": (expires_at - timedelta(seconds=30)).isoformat()})
    assert (await alipay.query(number))["trade_status"] == "WAIT_BUYER_PAY"
    await sandbox.control("POST", "/clock", {"to": expires_at.isoformat()})
    assert (await alipay.query(number))["trade_status"] == "TRADE_CLOSED"
    assert (await sandbox.trade(number))["closed_at"] == trade["expires_at"]


@pytest.mark.parametrize(
    ("fields", "seconds"), [({"timeout_express": "30m"}, 1800), ({"timeout_express": "2d"}, 172800), ({}, 15 * 86400)]
)
async def test_a_page_expires_as_long_after_its_timestamp_as_it_says(
    sandbox: SandboxHandle, alipay: AlipayClient, fields: dict[str, str], seconds: int
) -> None:
    number = new_number()
    timestamp = now_beijing(minutes=-1)
    await alipay.opened(number, biz=fields, timestamp=timestamp)
    made_at = datetime.fromisoformat(timestamp + "+08:00")
    expires_at = datetime.fromisoformat((await sandbox.trade(number))["expires_at"])
    assert (expires_at - made_at).total_seconds() == seconds


async def test_a_link_that_names_its_timeout_may_be_opened_until_then(
    sandbox: SandboxHandle, alipay: AlipayClient
) -> None:
    number = new_number()
    url = alipay.page_url(number, biz={"timeout_express": "30m"}, timestamp=now_beijing(minutes=-29))
    assert (await alipay.http.get(url)).status_code == 302
    late = new_number()
    url = alipay.page_url(late, biz={"timeout_express": "30m"}, timestamp=now_beijing(minutes=-31))
    assert "ACQ.NOW_TIME_AFTER_EXPIRE_TIME_ERROR" in await page_error(alipay, url)
    assert not await sandbox.has_trade(late)


async def test_a_link_that_names_no_timeout_is_good_for_ten_minutes(
    sandbox: SandboxHandle, alipay: AlipayClient
) -> None:
    number = new_number()
    url = alipay.page_url(number, timestamp=now_beijing(minutes=-11))
    assert "isv.invalid-timestamp" in await page_error(alipay, url)
    assert not await sandbox.has_trade(number)


async def test_a_page_nobody_opened_in_time_leaves_its_number_free(
    sandbox: SandboxHandle, alipay: AlipayClient
) -> None:
    number = new_number()
    url = alipay.page_url(number, biz={"timeout_express": "1m"}, timestamp=now_beijing(seconds=-50))
    redirect = await alipay.http.get(url)
    await sandbox.advance(60)
    page = await alipay.http.get(sandbox.base_url + redirect.headers["location"])
    assert (page.status_code, "付款链接已过期" in page.text) == (409, True)
    assert await alipay.query_refused(number) == "ACQ.TRADE_NOT_EXIST"
    await alipay.opened(number, biz={"total_amount": "0.05", "timeout_express": "30m"})
    assert (await sandbox.trade(number))["total_amount"] == "0.05"


@pytest.mark.parametrize("product", ["page", "wap"])
async def test_gateway_refusals_of_a_page_are_shown_in_gbk(
    sandbox: SandboxHandle, alipay: AlipayClient, product: str
) -> None:
    number = new_number()
    text = await page_error(alipay, alipay.page_url(number, product=product) + "x")
    assert "isv.invalid-signature" in text
    assert not await sandbox.has_trade(number)


async def test_certificate_answers_name_the_alipay_certificate(
    certificate_alipay: AlipayClient, accounts: dict[str, dict[str, str]]
) -> None:
    answer = await certificate_alipay.execute("alipay.trade.query", {"out_trade_no": "none"})
    assert list(answer.envelope) == ["alipay_trade_query_response", "alipay_cert_sn", "sign"]
    assert certificate_alipay.signed_by_alipay(answer)


async def test_an_isv_collects_for_its_merchant(sandbox: SandboxHandle, isv_alipay: AlipayClient) -> None:
    number = new_number()
    await isv_alipay.opened(number)
    await sandbox.pay(number)
    assert (await isv_alipay.query(number))["trade_status"] == "TRADE_SUCCESS"
    trade = await sandbox.trade(number)
    assert (trade["app_id"], trade["auth_app_id"], trade["seller_id"]) == (
        isv_alipay.account["app_id"],
        isv_alipay.account["auth_app_id"],
        isv_alipay.account["seller_id"],
    )


async def test_answers_escape_slashes_as_alipay_does(alipay: AlipayClient) -> None:
    answer = await alipay.execute("alipay.trade.precreate", alipay.order(new_number(), product="qr"))
    assert b'"qr_code":"http:\\/\\/127.0.0.1' in answer.signed_text
