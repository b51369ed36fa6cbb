"""The adapter and the sandbox, which share no code, agree in every mode from the order to the notification."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.clock import Clock
from app.providers.alipay import AlipayProvider
from app.providers.alipay.account import MODES, AlipayAccount
from app.providers.contract import (
    Accepted,
    Closed,
    NeverOpened,
    NotClosed,
    NotificationRefused,
    NotReached,
    PaymentMethod,
    PaymentReport,
    PaymentRequest,
    RefundReport,
    RefundRequest,
    Rejected,
    ReportedRefund,
    ReportedStatus,
    Unknown,
)
from app.providers.redirect_form import redirect_form
from app.sandbox.accounts import load_or_create_accounts
from app.sandbox.main import run_in_process
from tests.providers.scripted import ScriptedServer, answering, serving

NUMBER = "SY20261122_E2E"


class Shop:
    """A merchant with one account at the sandbox, and an address for its notifications."""

    def __init__(
        self, client: httpx.AsyncClient, sandbox_url: str, printed: dict[str, str], notified: ScriptedServer
    ) -> None:
        self.client = client
        self.sandbox_url = sandbox_url
        self.notified = notified
        self.clock = Clock()
        self.provider = AlipayProvider(client, self.clock, timeout_s=5.0)
        sealed, credentials = _sealed(tuple(printed.items()))
        self.account: AlipayAccount = self.provider.open_account(
            mode=printed["mode"], settings=sealed, credentials=credentials
        )

    def request(self, method: PaymentMethod, **changes: Any) -> PaymentRequest:
        now = self.clock.now()
        fields: dict[str, Any] = {
            "method": method,
            "out_trade_no": NUMBER,
            "amount_fen": 1990,
            "subject": '会员 "月卡" + 100% <b> 🎁',
            "notify_url": self.notified.url("/notify/alipay/1?x=1"),
            "created_at": now,
            "expires_at": now + timedelta(minutes=30),
            "return_url": "http://127.0.0.1:8000/done?id=1",
        }
        made = PaymentRequest(**(fields | changes))
        self.provider.check_request(made)
        return made

    async def create(self, method: PaymentMethod, **changes: Any) -> Any:
        return await self.provider.create_payment(self.account, self.request(method, **changes))

    async def opened_page(self) -> None:
        outcome = await self.create(PaymentMethod.ALIPAY_PAGE)
        assert isinstance(outcome, Accepted)
        assert (await self.browse(outcome.action["url"])).status_code == 200

    async def browse(self, url: str, **how: Any) -> httpx.Response:
        return await self.client.get(url, follow_redirects=True, **how)

    async def query(self) -> Any:
        return await self.provider.query_payment(self.account, NUMBER)

    async def close(self) -> Any:
        return await self.provider.close_payment(self.account, NUMBER)

    async def paid(self) -> None:
        await self.opened_page()
        await self.control(f"/trades/{NUMBER}/pay", notify=False)

    def refund_request(self, fen: int, number: str = "SR1") -> RefundRequest:
        return RefundRequest(
            out_trade_no=NUMBER,
            out_refund_no=number,
            amount_fen=fen,
            total_fen=1990,
            notify_url="http://127.0.0.1:9/not-for-alipay",
            created_at=self.clock.now(),
            reason='少了 "一杯" + 100% <b> 🎁',
        )

    async def refund(self, fen: int, number: str = "SR1") -> Any:
        return await self.provider.create_refund(self.account, self.refund_request(fen, number))

    async def query_refund(self, fen: int, number: str = "SR1") -> Any:
        return await self.provider.query_refund(self.account, self.refund_request(fen, number))

    async def refunded_fen(self) -> int:
        """The provider's truth."""
        [trade] = (await self.client.get(f"{self.sandbox_url}/_control/trades")).json()["trades"]
        fen: int = trade["refunded_fen"]
        return fen

    async def control(self, path: str, **options: Any) -> Any:
        answer = await self.client.post(f"{self.sandbox_url}/_control{path}", json=options)
        assert answer.is_success, answer.text
        return answer.json()

    async def notifications(self, count: int) -> list[Any]:
        """The first `count` notifications, read by the adapter."""
        async with asyncio.timeout(10):
            while len(self.notified.received) < count:
                await asyncio.sleep(0.01)
        return [
            await self.provider.read_notification(self.account, one.headers, one.body)
            for one in self.notified.received[:count]
        ]


@cache
def _sealed(printed: tuple[tuple[str, str], ...]) -> tuple[dict[str, Any], dict[str, str]]:
    """What the sandbox prints of an account, entered unchanged; once, for testing a key takes its time."""
    provider = AlipayProvider(httpx.AsyncClient(), Clock(), timeout_s=1.0)
    fields = dict(printed)
    mode = fields.pop("mode")
    assert fields.pop("provider") == provider.name
    return provider.seal_input(mode=mode, fields=fields)


@pytest.fixture(scope="module")
async def sandbox(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[str, Path]]:
    folder = tmp_path_factory.mktemp("sandbox")
    async with run_in_process(folder) as url:
        yield url, folder


@pytest.fixture(params=MODES)
async def shop(
    request: pytest.FixtureRequest, client: httpx.AsyncClient, sandbox: tuple[str, Path]
) -> AsyncIterator[Shop]:
    """One shop per mode, at a sandbox that has just forgotten everything."""
    url, folder = sandbox
    printed = {account["mode"]: account for account in load_or_create_accounts(folder, url)}[request.param]
    async with serving(answering(b"success", content_type="text/plain")) as notified:
        made = Shop(client, url, printed, notified)
        await made.control("/reset")
        yield made


@pytest.mark.parametrize("method", [PaymentMethod.ALIPAY_PAGE, PaymentMethod.ALIPAY_WAP])
async def test_a_page_payment_from_link_to_notification(shop: Shop, method: PaymentMethod) -> None:
    outcome = await shop.create(method)
    assert isinstance(outcome, Accepted)
    assert await shop.query() == PaymentReport(NUMBER, ReportedStatus.NOT_FOUND, "query")
    assert await shop.close() == NeverOpened()

    page = await shop.browse(outcome.action["url"])
    assert (page.status_code, page.charset_encoding) == (200, "utf-8")
    assert "19.90" in page.text
    waiting = await shop.query()
    assert (waiting.status, waiting.amount_fen, waiting.paid_at) == (ReportedStatus.PENDING, 1990, None)

    await shop.control(f"/trades/{NUMBER}/pay")
    [notification] = await shop.notifications(1)
    queried = await shop.query()
    for report in (notification.report, queried):
        assert (report.status, report.amount_fen, report.refunded_fen) == (ReportedStatus.SUCCESSFUL, 1990, None)
        assert report.out_trade_no == NUMBER
        assert report.transaction_id is not None
        assert abs(shop.clock.now() - report.paid_at) < timedelta(seconds=30)
    assert notification.report.transaction_id == queried.transaction_id
    claims = notification.report.account_claims
    assert claims.keys() == {"app_id", "seller_id", "auth_app_id"}
    assert all(claims[name] in expected for name, expected in shop.account.expected_claims.items())
    assert isinstance(await shop.close(), NotClosed)


async def test_a_qr_payment_from_code_to_notification(shop: Shop) -> None:
    outcome = await shop.create(PaymentMethod.ALIPAY_QR)
    assert isinstance(outcome, Accepted)
    assert outcome.action["kind"] == "QrCode"
    assert outcome.action["codeUrl"].startswith(shop.sandbox_url)
    assert (await shop.query()).status is ReportedStatus.NOT_FOUND
    assert await shop.close() == NeverOpened()
    assert (await shop.browse(outcome.action["codeUrl"])).status_code == 200
    assert (await shop.query()).status is ReportedStatus.PENDING
    await shop.control(f"/trades/{NUMBER}/pay")
    [notification] = await shop.notifications(1)
    assert (notification.report.status, notification.report.amount_fen) == (ReportedStatus.SUCCESSFUL, 1990)


async def test_the_form_opens_the_same_page_as_the_link(shop: Shop) -> None:
    outcome = await shop.create(PaymentMethod.ALIPAY_PAGE)
    submitted = _Submitted(redirect_form(outcome.action["url"]))
    page = await shop.browse(submitted.action, params=submitted.fields)
    assert page.status_code == 200
    assert "19.90" in page.text
    assert (await shop.query()).status is ReportedStatus.PENDING


async def test_a_closed_payment_is_closed_and_one_paid_late_is_reported(shop: Shop) -> None:
    await shop.opened_page()
    assert await shop.close() == Closed()
    assert (await shop.query()).status is ReportedStatus.CLOSED
    assert isinstance(await shop.close(), NotClosed)
    await shop.control(f"/trades/{NUMBER}/pay", late=True)
    [notification] = await shop.notifications(1)
    assert notification.report.status is ReportedStatus.SUCCESSFUL
    assert (await shop.query()).status is ReportedStatus.SUCCESSFUL


async def test_repeats_share_their_event_and_separate_notices_do_not(shop: Shop) -> None:
    await shop.opened_page()
    paid = await shop.control(f"/trades/{NUMBER}/pay")
    assert "notifications" in paid
    await shop.notifications(1)
    [notice] = (await shop.client.get(f"{shop.sandbox_url}/_control/notifications")).json()["notifications"]
    await shop.control(f"/notifications/{notice['notify_id']}/resend", times=3, concurrent=True)
    assert len({one.event_key for one in await shop.notifications(4)}) == 1


async def test_other_receivers_and_amounts_reach_the_caller_as_they_are(shop: Shop) -> None:
    await shop.opened_page()
    wrong = {"amount": "19.91", "app_id": "2021999999999999", "seller_id": "2088999999999999"}
    await shop.control(f"/trades/{NUMBER}/pay", **wrong)
    [notification] = await shop.notifications(1)
    assert notification.report.amount_fen == 1991
    assert notification.report.account_claims["app_id"] == "2021999999999999"
    assert notification.report.account_claims["seller_id"] == "2088999999999999"


async def test_a_broken_signature_is_refused(shop: Shop) -> None:
    await shop.opened_page()
    await shop.control(f"/trades/{NUMBER}/pay", break_signature=True)
    with pytest.raises(NotificationRefused, match="not signed by this account's Alipay key"):
        await shop.notifications(1)


@pytest.mark.parametrize(
    "fault", [{"kind": "http_500"}, {"kind": "20000"}, {"kind": "lost_reply"}, {"kind": "bad_signature"},
              {"kind": "business_error", "sub_code": "ACQ.SYSTEM_ERROR"}, {"kind": "timeout", "latency_s": 0.1}],
    ids=lambda fault: fault["kind"],
)  # fmt: skip
async def test_every_doubtful_answer_is_unknown_and_repeating_is_safe(shop: Shop, fault: dict[str, Any]) -> None:
    await shop.control("/faults", method="alipay.trade.precreate", **fault)
    again = shop.request(PaymentMethod.ALIPAY_QR)
    assert isinstance(await shop.provider.create_payment(shop.account, again), Unknown)
    first = await shop.provider.create_payment(shop.account, again)
    second = await shop.provider.create_payment(shop.account, again)
    assert isinstance(first, Accepted)
    assert first == second
    trades = (await shop.client.get(f"{shop.sandbox_url}/_control/trades")).json()["trades"]
    assert len(trades) == 1

    await shop.browse(first.action["codeUrl"])
    await shop.control("/faults", method="alipay.trade.query", **fault)
    assert isinstance(await shop.query(), Unknown)
    assert (await shop.query()).status is ReportedStatus.PENDING
    await shop.control("/faults", method="alipay.trade.close", **fault)
    assert isinstance(await shop.close(), Unknown)
    assert isinstance(await shop.close(), Closed | NotClosed)


async def test_a_refusal_of_the_gateway_is_explained(shop: Shop) -> None:
    await shop.control("/faults", method="*", kind="error_response", code="40006", sub_code="isv.no-permission")
    outcome = await shop.query()
    assert isinstance(outcome, Rejected)
    assert outcome.code == "isv.no-permission"
    assert "Sign the product" in outcome.explanation


async def test_another_key_than_the_one_on_file_is_refused(
    client: httpx.AsyncClient, sandbox: tuple[str, Path]
) -> None:
    url, folder = sandbox
    accounts = {account["mode"]: account for account in load_or_create_accounts(folder, url)}
    printed = accounts["public_key"] | {
        name: accounts["isv"][name] for name in ("app_private_key", "app_private_key_pkcs8", "app_public_key")
    }
    async with serving(answering(b"success")) as notified:
        shop = Shop(client, url, printed, notified)
        outcome = await shop.create(PaymentMethod.ALIPAY_QR)
        assert isinstance(outcome, Rejected)
        assert outcome.code == "isv.invalid-signature"
        assert "app_private_key" in outcome.explanation
        page = await shop.browse((await shop.create(PaymentMethod.ALIPAY_PAGE)).action["url"])
        assert "isv.invalid-signature" in page.content.decode("gbk")


async def test_every_amount_of_the_range_is_taken(shop: Shop) -> None:
    for number, fen in enumerate((1, 2, 10, 99, 100, 101, 1990, 100_000, 9_999_999_999)):
        out_trade_no = f"{NUMBER}_{number}"
        outcome = await shop.create(PaymentMethod.ALIPAY_QR, out_trade_no=out_trade_no, amount_fen=fen)
        assert isinstance(outcome, Accepted)
        await shop.browse(outcome.action["codeUrl"])
        report = await shop.provider.query_payment(shop.account, out_trade_no)
        assert isinstance(report, PaymentReport)
        assert report.amount_fen == fen


async def test_the_shortest_and_the_longest_expiry_are_taken(shop: Shop) -> None:
    provider = shop.provider
    for number, (method, life) in enumerate(
        [
            (PaymentMethod.ALIPAY_QR, provider.minimum_expiry),
            (PaymentMethod.ALIPAY_QR, timedelta(hours=2)),
            (PaymentMethod.ALIPAY_PAGE, provider.minimum_expiry),
            (PaymentMethod.ALIPAY_WAP, provider.maximum_expiry),
        ]
    ):
        now = shop.clock.now()
        made = shop.request(method, out_trade_no=f"{NUMBER}_{number}", created_at=now, expires_at=now + life)
        outcome = await provider.create_payment(shop.account, made)
        assert isinstance(outcome, Accepted)
        page = await shop.browse(outcome.action.get("codeUrl") or outcome.action["url"])
        assert "19.90" in page.text


async def test_partial_refunds_from_call_to_notice(shop: Shop) -> None:
    await shop.paid()
    first = await shop.refund(501)
    assert (first.status, first.source, first.amount_fen) == (ReportedRefund.REFUNDED, "answer", None)
    assert abs(shop.clock.now() - first.refunded_at) < timedelta(seconds=30)
    [notice] = await shop.notifications(1)
    assert notice.refund_hint == "SR1"
    assert (notice.report.status, notice.report.amount_fen) == (ReportedStatus.SUCCESSFUL, 1990)
    assert notice.report.refunded_fen == 501
    asked = await shop.query_refund(501)
    assert (asked.status, asked.source, asked.amount_fen) == (ReportedRefund.REFUNDED, "query", 501)
    assert asked.refunded_at == first.refunded_at

    assert (await shop.refund(1, "SR2")).status is ReportedRefund.REFUNDED
    [_, second] = await shop.notifications(2)
    assert (second.refund_hint, second.report.refunded_fen) == ("SR2", 502)
    assert second.event_key != notice.event_key
    assert (await shop.query()).status is ReportedStatus.SUCCESSFUL
    assert (await shop.query_refund(1, "SR3")).status is ReportedRefund.NOT_FOUND
    assert await shop.refunded_fen() == 502


async def test_a_repeated_refund_is_the_same_refund(shop: Shop) -> None:
    await shop.paid()
    await shop.refund(1990)
    again = await shop.refund(1990)
    assert (again.status, again.source, again.amount_fen) == (ReportedRefund.REFUNDED, "query", 1990)
    assert await shop.refunded_fen() == 1990


@pytest.mark.parametrize("told", [False, True])
async def test_a_payment_refunded_in_full_stays_successful(shop: Shop, told: bool) -> None:
    await shop.paid()
    await shop.control("/refunds/policy", notify_full=told)
    assert (await shop.refund(1990)).status is ReportedRefund.REFUNDED
    queried = await shop.query()
    assert (queried.status, queried.amount_fen, queried.refunded_fen) == (ReportedStatus.SUCCESSFUL, 1990, 1990)
    if told:
        [notice] = await shop.notifications(1)
        assert (notice.refund_hint, notice.report.refunded_fen) == ("SR1", 1990)
        assert notice.report.status is ReportedStatus.SUCCESSFUL
    else:
        await shop.control("/clock", advance_s=0)
        assert shop.notified.received == []
    refused = await shop.refund(1, "SR2")
    assert isinstance(refused, Rejected)
    assert refused.code == "ACQ.TRADE_HAS_CLOSE"


async def test_a_slow_refund_is_pending_until_it_is_known(shop: Shop) -> None:
    await shop.paid()
    await shop.control("/refunds/policy", settle="hold")
    assert (await shop.refund(501)).status is ReportedRefund.PENDING
    assert (await shop.query_refund(501)).status is ReportedRefund.NOT_FOUND
    # Asked for once more, as whoever finds no refund does: it is still one.
    assert (await shop.refund(501)).status is ReportedRefund.PENDING
    await shop.control("/refunds/SR1/settle", **{"as": "REFUNDED"})
    assert (await shop.query_refund(501)).status is ReportedRefund.REFUNDED
    assert (await shop.refund(501)).status is ReportedRefund.REFUNDED
    assert await shop.refunded_fen() == 501


async def test_a_refund_that_failed_late_succeeds_under_its_own_number(shop: Shop) -> None:
    await shop.paid()
    await shop.control("/refunds/policy", settle="hold")
    await shop.refund(501)
    await shop.control("/refunds/SR1/settle", **{"as": "FAILED"})
    assert (await shop.query_refund(501)).status is ReportedRefund.NOT_FOUND
    await shop.control("/refunds/policy", settle="now")
    assert (await shop.refund(501)).status is ReportedRefund.REFUNDED
    assert await shop.refunded_fen() == 501


@pytest.mark.parametrize(
    ("fen", "code"),
    [(1991, "ACQ.REFUND_AMT_NOT_EQUAL_TOTAL"), (1890, "ACQ.REASON_TRADE_REFUND_FEE_ERR")],
)
async def test_more_than_is_left_is_refused_and_gives_nothing_back(shop: Shop, fen: int, code: str) -> None:
    await shop.paid()
    await shop.refund(101)
    refused = await shop.refund(fen, "SR2")
    assert isinstance(refused, Rejected)
    assert refused.code == code
    assert await shop.refunded_fen() == 101


async def test_a_number_used_with_another_amount_reports_what_was_given_back(shop: Shop) -> None:
    await shop.paid()
    await shop.refund(501)
    outcome = await shop.refund(502)
    assert isinstance(outcome, RefundReport)
    assert (outcome.status, outcome.amount_fen) == (ReportedRefund.REFUNDED, 501)
    assert await shop.refunded_fen() == 501


async def test_what_was_not_paid_cannot_be_refunded(shop: Shop) -> None:
    await shop.create(PaymentMethod.ALIPAY_QR)
    outcome = await shop.refund(501)
    assert isinstance(outcome, Rejected)
    assert outcome.code == "ACQ.TRADE_NOT_EXIST"
    assert (await shop.query_refund(501)).status is ReportedRefund.NOT_FOUND


async def test_a_refund_in_full_after_a_lost_reply_is_found_though_the_trade_is_closed(shop: Shop) -> None:
    await shop.paid()
    await shop.control("/faults", method="alipay.trade.refund", kind="lost_reply")
    assert isinstance(await shop.refund(1990), Unknown)
    assert await shop.refunded_fen() == 1990
    # As if Alipay looked at the trade before it looked at the number.
    await shop.control("/faults", method="alipay.trade.refund", kind="business_error", sub_code="ACQ.TRADE_HAS_CLOSE")
    outcome = await shop.refund(1990)
    assert (outcome.status, outcome.amount_fen) == (ReportedRefund.REFUNDED, 1990)


@pytest.mark.parametrize(
    "fault", [{"kind": "http_500"}, {"kind": "20000"}, {"kind": "lost_reply"}, {"kind": "bad_signature"},
              {"kind": "business_error", "sub_code": "ACQ.SYSTEM_ERROR"}, {"kind": "timeout", "latency_s": 0.1}],
    ids=lambda fault: fault["kind"],
)  # fmt: skip
async def test_every_doubtful_refund_is_unknown_and_repeating_gives_back_once(
    shop: Shop, fault: dict[str, Any]
) -> None:
    await shop.paid()
    await shop.control("/faults", method="alipay.trade.refund", **fault)
    assert isinstance(await shop.refund(501), Unknown)
    assert (await shop.refund(501)).status is ReportedRefund.REFUNDED
    assert await shop.refunded_fen() == 501
    await shop.control("/faults", method="alipay.trade.fastpay.refund.query", **fault)
    assert isinstance(await shop.query_refund(501), Unknown)
    assert (await shop.query_refund(501)).status is ReportedRefund.REFUNDED


async def test_without_the_money_or_the_turn_nothing_is_given_back(shop: Shop) -> None:
    await shop.paid()
    empty = {"kind": "business_error", "sub_code": "ACQ.SELLER_BALANCE_NOT_ENOUGH"}
    await shop.control("/faults", method="alipay.trade.refund", **empty)
    outcome = await shop.refund(501)
    assert isinstance(outcome, Rejected)
    assert outcome.code == "ACQ.SELLER_BALANCE_NOT_ENOUGH"
    assert "Top it up" in outcome.explanation
    limited = {"kind": "error_response", "code": "40005", "sub_code": "isv.app-call-limited"}
    await shop.control("/faults", method="alipay.trade.refund", **limited)
    assert isinstance(await shop.refund(501), NotReached)
    assert await shop.refunded_fen() == 0


async def test_every_amount_of_the_range_is_given_back(shop: Shop) -> None:
    for number, fen in enumerate((1, 2, 10, 99, 100, 101, 1989, 1990, 100_000, 9_999_999_999)):
        out_trade_no = f"{NUMBER}_{number}"
        outcome = await shop.create(PaymentMethod.ALIPAY_QR, out_trade_no=out_trade_no, amount_fen=fen)
        assert isinstance(outcome, Accepted)
        await shop.browse(outcome.action["codeUrl"])
        await shop.control(f"/trades/{out_trade_no}/pay", notify=False)
        request = replace(shop.refund_request(fen), out_trade_no=out_trade_no, total_fen=fen)
        assert isinstance(await shop.provider.create_refund(shop.account, request), RefundReport)
        known = await shop.provider.query_refund(shop.account, request)
        assert isinstance(known, RefundReport)
        assert (known.status, known.amount_fen) == (ReportedRefund.REFUNDED, fen)


class _Submitted(HTMLParser):
    """What a browser sends when it submits the form."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.action = ""
        self.fields: dict[str, str] = {}
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.action = named["action"]
        elif tag == "input":
            self.fields[named["name"]] = named["value"]
