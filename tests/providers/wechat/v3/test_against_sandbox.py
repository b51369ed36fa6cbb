"""The APIv3 adapter and the sandbox, which share no code, agree in every mode from the order to the notification."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from app.clock import Clock
from app.providers.contract import (
    Accepted,
    Closed,
    NeverOpened,
    NotClosed,
    Notification,
    NotificationRefused,
    NotReached,
    PaymentMethod,
    PaymentReport,
    PaymentRequest,
    Rejected,
    ReportedStatus,
    Unknown,
)
from app.providers.gateways import GatewayRule
from app.providers.wechat import WechatProvider
from app.providers.wechat.provider import WechatAccount
from app.providers.wechat.v3 import V3Dialect
from app.sandbox.accounts import load_or_create_accounts
from app.sandbox.main import run_in_process
from tests.providers.scripted import ScriptedServer, answering, serving
from tests.providers.wechat.reports import payment_in
from tests.providers.wechat.v3.bench import UNUSED

NUMBER = "SY20261122000001E2E"
OPENID = "oSandboxPayer000000000000001"
MODES = ("v3", "v3_certificate", "v3_partner")
METHODS = (
    PaymentMethod.WECHAT_MINI_PROGRAM,
    PaymentMethod.WECHAT_JSAPI,
    PaymentMethod.WECHAT_H5,
    PaymentMethod.WECHAT_NATIVE,
)
JSAPI = PaymentMethod.WECHAT_JSAPI


class Shop:
    """A merchant with one account at the sandbox, and an address for its notifications."""

    def __init__(
        self, client: httpx.AsyncClient, sandbox_url: str, printed: dict[str, str], notified: ScriptedServer
    ) -> None:
        self.client = client
        self.sandbox_url = sandbox_url
        self.printed = printed
        self.notified = notified
        self.clock = Clock()
        self.provider = WechatProvider(client, self.clock, timeout_s=5.0, gateways=GatewayRule())
        self.account = self.opened(printed)

    def opened(self, printed: dict[str, str]) -> WechatAccount:
        settings, credentials = _sealed(tuple(printed.items()))
        return self.provider.open_account(mode=printed["mode"], settings=settings, credentials=credentials)

    def request(self, method: PaymentMethod = JSAPI, **changes: Any) -> PaymentRequest:
        now = self.clock.now()
        fields: dict[str, Any] = {
            "method": method,
            "out_trade_no": NUMBER,
            "amount_fen": 1990,
            "subject": '会员 "月卡" + 100% <b>&',
            "notify_url": self.notified.url("/notify/wechat/1"),
            "created_at": now,
            "expires_at": now + timedelta(minutes=30),
            "return_url": "http://127.0.0.1:8000/done?id=1&x=2",
            "openid": OPENID if method in self.provider.methods_with_payer else None,
            "client_address": "127.0.0.1",
        }
        made = PaymentRequest(**(fields | changes))
        self.provider.check_request(made)
        return made

    async def create(self, method: PaymentMethod = JSAPI, **changes: Any) -> Any:
        return await self.provider.create_payment(self.account, self.request(method, **changes))

    async def query(self, out_trade_no: str = NUMBER) -> Any:
        return await self.provider.query_payment(self.account, out_trade_no)

    async def close(self) -> Any:
        return await self.provider.close_payment(self.account, NUMBER)

    async def control(self, path: str, *, verb: str = "POST", **options: Any) -> Any:
        body = options if verb != "GET" else None
        answer = await self.client.request(verb, f"{self.sandbox_url}/_control{path}", json=body)
        assert answer.is_success, answer.text
        return answer.json()

    async def merchant(self, path: str, *, verb: str = "POST", **options: Any) -> Any:
        """The sandbox's control over this merchant's keys."""
        return (await self.control(f"/wechat/merchants/{self.printed['mchid']}{path}", verb=verb, **options))[
            "merchant"
        ]

    async def arrived(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.notified.received) < count:
                await asyncio.sleep(0.01)

    async def notifications(self, count: int) -> list[Notification]:
        """The first `count` notifications, read by the adapter."""
        await self.arrived(count)
        return [
            await self.provider.read_notification(self.account, one.headers, one.body)
            for one in self.notified.received[:count]
        ]


@cache
def _sealed(printed: tuple[tuple[str, str], ...]) -> tuple[dict[str, Any], dict[str, str]]:
    """What the sandbox prints of an account, entered unchanged; once, for testing a key takes its time."""
    provider = WechatProvider(UNUSED, Clock(), timeout_s=1.0, gateways=GatewayRule())
    fields = dict(printed)
    mode = fields.pop("mode")
    assert fields.pop("provider") == provider.name
    return provider.seal_input(mode=mode, fields=fields)


@pytest.fixture(scope="module")
async def sandbox(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[str, Path]]:
    folder = tmp_path_factory.mktemp("sandbox")
    async with run_in_process(folder) as url:
        yield url, folder


async def _shop(client: httpx.AsyncClient, sandbox: tuple[str, Path], mode: str) -> AsyncIterator[Shop]:
    """A shop at a sandbox that has just forgotten everything."""
    url, _ = sandbox
    accounts = (await client.get(f"{url}/_control/accounts")).json()["accounts"]
    [printed] = [one for one in accounts if one["provider"] == "WECHAT" and one["mode"] == mode]
    async with serving(answering(b"", status=204)) as notified:
        made = Shop(client, url, printed, notified)
        await made.control("/reset")
        yield made


@pytest.fixture(params=MODES)
async def shop(
    request: pytest.FixtureRequest, client: httpx.AsyncClient, sandbox: tuple[str, Path]
) -> AsyncIterator[Shop]:
    """A shop for each mode in turn."""
    async for made in _shop(client, sandbox, request.param):
        yield made


@pytest.fixture
async def certified(client: httpx.AsyncClient, sandbox: tuple[str, Path]) -> AsyncIterator[Shop]:
    """A shop whose merchant has platform certificates."""
    async for made in _shop(client, sandbox, "v3_certificate"):
        yield made


def _action_of(outcome: Any) -> dict[str, Any]:
    assert isinstance(outcome, Accepted), outcome
    return dict(outcome.action)


@pytest.mark.parametrize("method", METHODS)
async def test_a_payment_from_order_to_notification(shop: Shop, method: PaymentMethod) -> None:
    assert await shop.query() == PaymentReport(NUMBER, ReportedStatus.NOT_FOUND, "query")
    assert await shop.close() == NeverOpened()
    action = _action_of(await shop.create(method))
    assert action["kind"] == {"WECHAT_H5": "Redirect", "WECHAT_NATIVE": "QrCode"}.get(method, "WechatPayParams")

    waiting = await shop.query()
    assert (waiting.status, waiting.amount_fen, waiting.paid_at) == (ReportedStatus.PENDING, 1990, None)

    await shop.control(f"/trades/{NUMBER}/pay")
    [notification] = await shop.notifications(1)
    queried = await shop.query()
    for report in (payment_in(notification), queried):
        assert (report.status, report.amount_fen, report.currency) == (ReportedStatus.SUCCESSFUL, 1990, "CNY")
        assert report.out_trade_no == NUMBER
        assert report.transaction_id is not None
        assert report.paid_at is not None
        assert abs(shop.clock.now() - report.paid_at) < timedelta(seconds=30)
        if method in shop.provider.methods_with_payer:
            assert report.payer_id == OPENID
        claims, expected = report.account_claims, shop.account.expected_claims
        assert expected.keys() <= claims.keys()
        assert all(claims[name] in allowed for name, allowed in expected.items())
    assert payment_in(notification).transaction_id == queried.transaction_id
    assert isinstance(await shop.close(), NotClosed)
    dialect = shop.account.dialect
    assert isinstance(dialect, V3Dialect)
    assert await dialect.query_transaction(shop.account.own, queried.transaction_id) == queried


@pytest.mark.parametrize("method", [PaymentMethod.WECHAT_MINI_PROGRAM, JSAPI])
async def test_wechats_own_client_takes_the_parameters(shop: Shop, method: PaymentMethod) -> None:
    action = _action_of(await shop.create(method))
    assert action.pop("kind") == "WechatPayParams"
    opened = await shop.client.get(
        f"{shop.sandbox_url}/wechat/bridge", params=action | {"return_url": "http://127.0.0.1/"}
    )
    assert opened.status_code in (200, 302, 303), opened.text
    assert "/wechat/pay/" in opened.headers.get("location", str(opened.url))
    damaged = action | {"timeStamp": str(int(action["timeStamp"]) + 1), "return_url": "http://127.0.0.1/"}
    refused = await shop.client.get(f"{shop.sandbox_url}/wechat/bridge", params=damaged)
    assert "/wechat/pay/" not in refused.headers.get("location", "")


async def test_the_h5_link_opens_and_leads_back(shop: Shop) -> None:
    action = _action_of(await shop.create(PaymentMethod.WECHAT_H5))
    assert action["url"].startswith(shop.sandbox_url)
    back = parse_qs(urlsplit(action["url"]).query)["redirect_url"]
    assert back == ["http://127.0.0.1:8000/done?id=1&x=2"]
    page = await shop.client.get(
        action["url"], headers={"referer": "http://127.0.0.1:8000/shop"}, follow_redirects=True
    )
    assert page.status_code == 200
    assert "19.90" in page.text


async def test_asking_again_renews_the_credential_and_changing_anything_does_not(shop: Shop) -> None:
    again = shop.request()
    first = await shop.provider.create_payment(shop.account, again)
    second = await shop.provider.create_payment(shop.account, again)
    assert _action_of(first)["kind"] == _action_of(second)["kind"] == "WechatPayParams"
    trades = (await shop.control("/trades", verb="GET"))["trades"]
    assert [trade["out_trade_no"] for trade in trades] == [NUMBER]
    for changes in ({"amount_fen": 1991}, {"subject": "another"}):
        outcome = await shop.create(created_at=again.created_at, expires_at=again.expires_at, **changes)
        assert isinstance(outcome, Unknown), outcome
    assert (await shop.query()).amount_fen == 1990
    await shop.control(f"/trades/{NUMBER}/pay")
    assert isinstance(await shop.provider.create_payment(shop.account, again), Unknown)


async def test_a_closed_payment_is_closed_and_one_paid_late_is_reported(shop: Shop) -> None:
    again = shop.request()
    _action_of(await shop.provider.create_payment(shop.account, again))
    assert await shop.close() == Closed()
    assert await shop.close() == Closed()
    assert (await shop.query()).status is ReportedStatus.CLOSED
    assert isinstance(await shop.provider.create_payment(shop.account, again), Unknown)
    await shop.control(f"/trades/{NUMBER}/pay", late=True)
    [notification] = await shop.notifications(1)
    assert notification.report.status is ReportedStatus.SUCCESSFUL
    assert (await shop.query()).status is ReportedStatus.SUCCESSFUL


async def test_repeats_share_their_event(shop: Shop) -> None:
    await shop.create()
    await shop.control(f"/trades/{NUMBER}/pay")
    [first] = await shop.notifications(1)
    [notice] = (await shop.control("/notifications", verb="GET"))["notifications"]
    await shop.control(f"/notifications/{notice['notify_id']}/resend", times=3, concurrent=True)
    assert {one.event_key for one in await shop.notifications(4)} == {first.event_key}
    assert len({one.body for one in shop.notified.received}) > 1


async def test_other_receivers_and_amounts_reach_the_caller_as_they_are(shop: Shop) -> None:
    await shop.create()
    other_app, other_merchant = "wx9999999999999999", "1999999999"
    await shop.control(f"/trades/{NUMBER}/pay", amount="19.91", app_id=other_app, seller_id=other_merchant)
    [notification] = await shop.notifications(1)
    report = notification.report
    assert isinstance(report, PaymentReport)
    assert report.amount_fen == 1991
    claims, expected = report.account_claims, shop.account.expected_claims
    wrong = {name for name, claim in claims.items() if name in expected and claim not in expected[name]}
    assert wrong == ({"sp_appid", "sub_mchid"} if "sub_mchid" in claims else {"appid", "mchid"})


async def test_a_broken_signature_and_a_probe_are_refused(shop: Shop) -> None:
    await shop.create()
    await shop.control(f"/trades/{NUMBER}/pay", break_signature=True)
    await shop.arrived(1)
    await shop.control(f"/wechat/trades/{NUMBER}/probe", follow=True)
    await shop.arrived(3)
    reasons = []
    for one in shop.notified.received:
        try:
            await shop.provider.read_notification(shop.account, one.headers, one.body)
        except NotificationRefused as exc:
            reasons.append(exc.reason)
    assert reasons == ["signature", "signature"]


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "http_500"}, {"kind": "20000"}, {"kind": "error_response"}, {"kind": "lost_reply"},
        {"kind": "bad_signature"}, {"kind": "timeout", "latency_s": 0.1},
        {"kind": "business_error", "code": "SYSTEM_ERROR"},
    ],
    ids=lambda fault: fault["kind"],
)  # fmt: skip
async def test_every_doubtful_answer_is_unknown_and_repeating_is_safe(shop: Shop, fault: dict[str, Any]) -> None:
    await shop.query()
    await shop.control("/faults", method="wechat.v3.prepay", **fault)
    again = shop.request()
    assert isinstance(await shop.provider.create_payment(shop.account, again), Unknown)
    assert _action_of(await shop.provider.create_payment(shop.account, again))["kind"] == "WechatPayParams"
    assert len((await shop.control("/trades", verb="GET"))["trades"]) == 1

    await shop.control("/faults", method="wechat.v3.query", **fault)
    assert isinstance(await shop.query(), Unknown)
    assert (await shop.query()).status is ReportedStatus.PENDING
    await shop.control("/faults", method="wechat.v3.close", **fault)
    assert isinstance(await shop.close(), Unknown)
    assert await shop.close() == Closed()


@pytest.mark.parametrize(
    ("code", "created", "words"),
    [
        ("APPID_MCHID_NOT_MATCH", Rejected, "not bound"),
        ("NO_AUTH", Rejected, "Open the product"),
        ("PARAM_ERROR", Rejected, "a field"),
        ("SIGN_ERROR", Rejected, "serial_no"),
        ("MCH_NOT_EXISTS", Rejected, "merchant number"),
        ("RULE_LIMIT", Rejected, "risk control"),
        ("OPENID_MISMATCH", Rejected, "wechatLogin"),
        ("ORDER_PAID", Unknown, ""),
        ("ORDER_CLOSED", Unknown, ""),
        ("OUT_TRADE_NO_USED", Unknown, ""),
        ("INVALID_REQUEST", Unknown, ""),
        ("FREQUENCY_LIMITED", NotReached, ""),
        ("RATELIMIT_EXCEEDED", NotReached, ""),
    ],
)
async def test_every_error_ends_as_it_must(shop: Shop, code: str, created: type, words: str) -> None:
    await shop.query()
    await shop.control("/faults", method="wechat.v3.prepay", kind="business_error", code=code)
    outcome = await shop.create()
    assert isinstance(outcome, created), outcome
    if isinstance(outcome, Rejected):
        assert outcome.code == code
        assert words in outcome.explanation
    assert (await shop.query()).status is ReportedStatus.NOT_FOUND


async def test_a_close_while_the_payer_types_is_not_closed(shop: Shop) -> None:
    await shop.create()
    await shop.control("/faults", method="wechat.v3.close", kind="business_error", code="FREQUENCY_LIMITED")
    assert isinstance(await shop.close(), NotClosed)
    assert (await shop.query()).status is ReportedStatus.PENDING


async def test_another_key_than_the_one_on_file_is_refused_and_explained(
    client: httpx.AsyncClient, sandbox: tuple[str, Path], certified: Shop
) -> None:
    url, folder = sandbox
    records = {one["mode"]: one for one in load_or_create_accounts(folder, url) if one["provider"] == "WECHAT"}
    printed = {name: text for name, text in certified.printed.items() if name != "merchant_certificate"}
    certified.account = certified.opened(printed | {"private_key": records["v3"]["private_key"]})
    outcome = await certified.create()
    assert isinstance(outcome, Rejected)
    assert outcome.code == "SIGN_ERROR"
    assert "private_key" in outcome.explanation
    assert (await certified.control("/trades", verb="GET"))["trades"] == []


@pytest.mark.parametrize("minutes", [-10, 10])
async def test_a_wrong_clock_is_refused_and_named(shop: Shop, minutes: int) -> None:
    await shop.create()
    await shop.control(f"/trades/{NUMBER}/pay")
    await shop.arrived(1)
    shop.clock.advance(timedelta(minutes=minutes))
    received = shop.notified.received[0]
    with pytest.raises(NotificationRefused) as refused:
        await shop.provider.read_notification(shop.account, received.headers, received.body)
    assert refused.value.reason == "timestamp"
    for outcome in (await shop.create(out_trade_no="SY20261122000002"), await shop.query(), await shop.close()):
        assert isinstance(outcome, Rejected)
        assert outcome.code == "SIGN_ERROR"
        assert "clock" in outcome.explanation
        assert "时间" in outcome.explanation_zh
    shop.clock.advance(timedelta(minutes=-minutes))
    assert (await shop.notifications(1))[0].report.status is ReportedStatus.SUCCESSFUL
    assert (await shop.query()).status is ReportedStatus.SUCCESSFUL


# Keys in mid-traffic


async def _paid(shop: Shop, numbers: list[str]) -> None:
    """Orders, pays and asks about these payments, all at once."""

    async def one(number: str) -> None:
        assert isinstance(await shop.create(out_trade_no=number), Accepted)
        await shop.control(f"/trades/{number}/pay")
        assert (await shop.query(number)).status is ReportedStatus.SUCCESSFUL

    await asyncio.gather(*(one(number) for number in numbers))


def _numbers(start: int) -> list[str]:
    return [f"SY2026112200{number:04d}" for number in range(start, start + 8)]


async def test_certificates_are_rotated_in_mid_traffic(certified: Shop) -> None:
    await _paid(certified, _numbers(0))
    before = await certified.merchant("/certificates")
    await _paid(certified, _numbers(8))
    await certified.merchant("/signing", key="certificate", serial=before["certificates"][-1])
    await _paid(certified, _numbers(16))
    await certified.merchant(f"/certificates/{before['certificates'][0]}", verb="DELETE")
    await _paid(certified, _numbers(24))
    reports = [one.report for one in await certified.notifications(32) if isinstance(one.report, PaymentReport)]
    assert {report.out_trade_no for report in reports} == {f"SY2026112200{number:04d}" for number in range(32)}
    assert {report.status for report in reports} == {ReportedStatus.SUCCESSFUL}
    serials = {one.headers["wechatpay-serial"] for one in certified.notified.received}
    assert serials == set(before["certificates"])


async def test_a_merchant_moves_to_the_public_key_in_mid_traffic(certified: Shop) -> None:
    await _paid(certified, _numbers(0))
    shown = await certified.merchant("", verb="GET")
    key = {"public_key_id": shown["public_key_id"], "public_key": shown["public_key"]}
    read = await certified.notifications(8)
    certified.account = certified.opened(certified.printed | key)
    await certified.merchant("/signing", key="alternating")
    await _paid(certified, _numbers(8))
    read += (await certified.notifications(16))[8:]
    certified.account = certified.opened(certified.printed | key | {"mode": "v3"})
    await _paid(certified, _numbers(16))
    read += (await certified.notifications(24))[16:]
    await certified.merchant("/signing", key="public_key")
    await _paid(certified, _numbers(24))
    read += (await certified.notifications(32))[24:]
    reports = [one.report for one in read if isinstance(one.report, PaymentReport)]
    assert {report.out_trade_no for report in reports} == {f"SY2026112200{number:04d}" for number in range(32)}
    assert {report.status for report in reports} == {ReportedStatus.SUCCESSFUL}
    kinds = {one.headers["wechatpay-serial"][:11] == "PUB_KEY_ID_" for one in certified.notified.received}
    assert kinds == {True, False}


async def test_every_amount_of_the_range_is_taken(shop: Shop) -> None:
    for number, fen in enumerate((1, 2, 10, 99, 100, 101, 1990, 100_000, 9_999_999)):
        out_trade_no = f"{NUMBER}_{number}"
        assert isinstance(await shop.create(out_trade_no=out_trade_no, amount_fen=fen), Accepted)
        assert (await shop.query(out_trade_no)).amount_fen == fen


async def test_the_shortest_and_the_longest_expiry_are_taken(shop: Shop) -> None:
    for number, life in enumerate((shop.provider.minimum_expiry, shop.provider.maximum_expiry)):
        now = shop.clock.now()
        outcome = await shop.create(out_trade_no=f"{NUMBER}_{number}", created_at=now, expires_at=now + life)
        assert isinstance(outcome, Accepted)
