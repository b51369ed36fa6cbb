"""APIv2's dialect and the sandbox, which share no code, agree in both modes from the order to the notification."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest

from app.clock import Clock
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
    Rejected,
    ReportedStatus,
    Unknown,
)
from app.providers.gateways import GatewayRule
from app.providers.wechat.v2 import V2Dialect
from app.providers.wechat.v2.account import MODES, V2Account
from app.sandbox.accounts import load_or_create_accounts
from app.sandbox.main import run_in_process
from tests.providers.scripted import ScriptedServer, answering, serving

NUMBER = "SY20261122_E2E"
PAYER = "oSandboxPayer000000000000001"
_DIALECT = V2Dialect(httpx.AsyncClient(), Clock(), timeout_s=1.0, gateways=GatewayRule())


class Shop:
    """A merchant with one account at the sandbox, and an address for its notifications."""

    def __init__(
        self, client: httpx.AsyncClient, sandbox_url: str, account: V2Account, notified: ScriptedServer
    ) -> None:
        self.client = client
        self.sandbox_url = sandbox_url
        self.account = account
        self.notified = notified
        self.clock = Clock()
        self.dialect = V2Dialect(client, self.clock, timeout_s=5.0, gateways=GatewayRule())

    def request(self, method: PaymentMethod, **changes: Any) -> PaymentRequest:
        now = self.clock.now()
        inside = method in (PaymentMethod.WECHAT_JSAPI, PaymentMethod.WECHAT_MINI_PROGRAM)
        fields: dict[str, Any] = {
            "method": method,
            "out_trade_no": NUMBER,
            "amount_fen": 1990,
            "subject": '会员 "月卡" & 100% <b>]]>',
            "notify_url": self.notified.url("/notify/wechat/1"),
            "created_at": now,
            "expires_at": now + timedelta(minutes=30),
            "return_url": "http://127.0.0.1:8000/done?id=1",
            "openid": PAYER if inside else None,
            "client_address": "203.0.113.7",
        }
        return PaymentRequest(**(fields | changes))

    async def create(self, method: PaymentMethod = PaymentMethod.WECHAT_JSAPI, **changes: Any) -> Any:
        return await self.dialect.create(self.account, self.request(method, **changes))

    async def query(self) -> Any:
        return await self.dialect.query(self.account, NUMBER)

    async def close(self) -> Any:
        return await self.dialect.close(self.account, NUMBER)

    async def control(self, path: str, **options: Any) -> Any:
        answer = await self.client.post(f"{self.sandbox_url}/_control{path}", json=options)
        assert answer.is_success, answer.text
        return answer.json()

    async def notifications(self, count: int) -> list[Any]:
        """The first `count` notifications, read by the dialect."""
        async with asyncio.timeout(10):
            while len(self.notified.received) < count:
                await asyncio.sleep(0.01)
        return [
            await self.dialect.read_notification(self.account, one.headers, one.body, "")
            for one in self.notified.received[:count]
        ]


@cache
def _opened(printed: tuple[tuple[str, str], ...], sign_type: str) -> V2Account:
    """What the sandbox prints of an account, entered unchanged but for the algorithm."""
    fields = dict(printed)
    mode = fields.pop("mode")
    assert fields.pop("provider") == "WECHAT"
    settings, credentials = _DIALECT.seal(mode=mode, fields=fields | {"sign_type": sign_type}, now=Clock().now())
    return _DIALECT.open(mode=mode, settings=settings, credentials=credentials)


@pytest.fixture(scope="module")
async def sandbox(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[str, Path]]:
    folder = tmp_path_factory.mktemp("sandbox")
    async with run_in_process(folder) as url:
        yield url, folder


@pytest.fixture(params=[(mode, sign_type) for mode in MODES for sign_type in ("HMAC-SHA256", "MD5")], ids="-".join)
async def shop(
    request: pytest.FixtureRequest, client: httpx.AsyncClient, sandbox: tuple[str, Path]
) -> AsyncIterator[Shop]:
    """One shop per mode and algorithm, at a sandbox that has just forgotten everything."""
    url, folder = sandbox
    mode, sign_type = request.param
    printed = {account["mode"]: account for account in load_or_create_accounts(folder, url)}[mode]
    accepted = _DIALECT.acknowledge(_opened(tuple(printed.items()), sign_type), accepted=True)
    async with serving(answering(accepted.body, content_type=accepted.content_type)) as notified:
        made = Shop(client, url, _opened(tuple(printed.items()), sign_type), notified)
        await made.control("/reset")
        yield made


@pytest.mark.parametrize(
    "method",
    [
        PaymentMethod.WECHAT_JSAPI,
        PaymentMethod.WECHAT_MINI_PROGRAM,
        PaymentMethod.WECHAT_NATIVE,
        PaymentMethod.WECHAT_H5,
    ],
)
async def test_a_payment_from_order_to_notification(shop: Shop, method: PaymentMethod) -> None:
    assert await shop.query() == PaymentReport(NUMBER, ReportedStatus.NOT_FOUND, "query")
    assert isinstance(await shop.create(method), Accepted)
    waiting = await shop.query()
    assert (waiting.status, waiting.paid_at) == (ReportedStatus.PENDING, None)

    await shop.control(f"/trades/{NUMBER}/pay")
    [notification] = await shop.notifications(1)
    queried = await shop.query()
    for report in (notification.report, queried):
        assert (report.out_trade_no, report.status) == (NUMBER, ReportedStatus.SUCCESSFUL)
        assert (report.amount_fen, report.currency) == (1990, "CNY")
        assert abs(shop.clock.now() - report.paid_at) < timedelta(seconds=30)
        expected = shop.account.expected_claims
        assert report.account_claims.keys() >= expected.keys() - {"sub_appid"}
        assert all(
            report.account_claims[name] in one for name, one in expected.items() if name in report.account_claims
        )
        if method in (PaymentMethod.WECHAT_JSAPI, PaymentMethod.WECHAT_MINI_PROGRAM):
            assert report.payer_id == PAYER
    assert notification.report.transaction_id == queried.transaction_id
    assert isinstance(await shop.close(), NotClosed)
    [notice] = (await shop.client.get(f"{shop.sandbox_url}/_control/notifications")).json()["notifications"]
    assert [attempt["acknowledged"] for attempt in notice["attempts"]] == [True]


async def test_the_bridge_takes_the_parameters_as_they_are(shop: Shop) -> None:
    outcome = await shop.create()
    assert isinstance(outcome, Accepted)
    params = {name: text for name, text in outcome.action.items() if name != "kind"}
    page = await shop.client.get(f"{shop.sandbox_url}/wechat/bridge", params=params)
    assert page.status_code == 302, page.text
    for name in params:
        changed = await shop.client.get(f"{shop.sandbox_url}/wechat/bridge", params=params | {name: params[name] + "1"})
        assert changed.status_code != 302, name


async def test_a_code_can_be_scanned_and_a_link_leads_back(shop: Shop) -> None:
    code = await shop.create(PaymentMethod.WECHAT_NATIVE)
    assert code.action["codeUrl"].startswith("weixin://")
    page = await shop.client.get(
        f"{shop.sandbox_url}/wechat/scan", params={"code_url": code.action["codeUrl"]}, follow_redirects=True
    )
    assert (page.status_code, "19.90" in page.text) == (200, True)
    link = await shop.create(PaymentMethod.WECHAT_H5, out_trade_no=NUMBER + "2")
    url = urlsplit(link.action["url"])
    assert f"{url.scheme}://{url.netloc}" == shop.sandbox_url
    assert dict(parse_qsl(url.query))["redirect_url"] == "http://127.0.0.1:8000/done?id=1"
    page = await shop.client.get(
        link.action["url"], follow_redirects=True, headers={"referer": "http://127.0.0.1:8000/"}
    )
    assert (page.status_code, "19.90" in page.text) == (200, True)


async def test_a_payment_is_closed_once_and_one_that_never_was_is_told_apart(shop: Shop) -> None:
    assert await shop.close() == NeverOpened()
    await shop.create()
    assert await shop.close() == Closed()
    assert (await shop.query()).status is ReportedStatus.CLOSED
    assert await shop.close() == Closed()
    assert isinstance(await shop.create(), Unknown)


async def test_repeating_renews_and_a_number_that_is_taken_is_asked_about(shop: Shop) -> None:
    again = shop.request(PaymentMethod.WECHAT_JSAPI)
    for _ in range(2):
        assert isinstance(await shop.dialect.create(shop.account, again), Accepted)
    others: dict[str, Any] = {"amount_fen": 1991, "created_at": again.created_at, "expires_at": again.expires_at}
    assert isinstance(await shop.create(**others), Unknown)
    assert (await shop.query()).status is ReportedStatus.PENDING
    await shop.control(f"/trades/{NUMBER}/pay")
    assert isinstance(await shop.dialect.create(shop.account, again), Unknown)


async def test_other_receivers_and_amounts_reach_the_caller_as_they_are(shop: Shop) -> None:
    await shop.create()
    wrong = {"amount": "19.91", "app_id": "wxffffffffffffffff", "payer": "oSandboxPayer000000000000002"}
    await shop.control(f"/trades/{NUMBER}/pay", **wrong)
    [notification] = await shop.notifications(1)
    assert notification.report.amount_fen == 1991
    assert notification.report.account_claims["appid"] == "wxffffffffffffffff"
    assert notification.report.payer_id == "oSandboxPayer000000000000002"


async def test_a_broken_signature_is_refused(shop: Shop) -> None:
    await shop.create()
    await shop.control(f"/trades/{NUMBER}/pay", break_signature=True)
    with pytest.raises(NotificationRefused) as refused:
        await shop.notifications(1)
    assert refused.value.reason == "signature"


async def test_repeats_share_their_event(shop: Shop) -> None:
    await shop.create()
    await shop.control(f"/trades/{NUMBER}/pay")
    await shop.notifications(1)
    [notice] = (await shop.client.get(f"{shop.sandbox_url}/_control/notifications")).json()["notifications"]
    await shop.control(f"/notifications/{notice['notify_id']}/resend", times=3, concurrent=True)
    assert len({one.event_key for one in await shop.notifications(4)}) == 1


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"kind": "http_500"}, Unknown),
        ({"kind": "lost_reply"}, Unknown),
        ({"kind": "bad_signature"}, Unknown),
        ({"kind": "timeout", "latency_s": 0.1}, Unknown),
        ({"kind": "error_response"}, Unknown),
        ({"kind": "business_error", "code": "SYSTEMERROR"}, Unknown),
        ({"kind": "business_error", "code": "FREQUENCY_LIMITED"}, NotReached),
        ({"kind": "business_error", "code": "APPID_MCHID_NOT_MATCH"}, Rejected),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_every_fault_is_judged_and_repeating_is_safe(shop: Shop, fault: dict[str, Any], expected: type) -> None:
    again = shop.request(PaymentMethod.WECHAT_NATIVE)
    await shop.control("/faults", method="wechat.v2.unifiedorder", **fault)
    assert isinstance(await shop.dialect.create(shop.account, again), expected)
    assert isinstance(await shop.dialect.create(shop.account, again), Accepted)
    trades = (await shop.client.get(f"{shop.sandbox_url}/_control/trades")).json()["trades"]
    assert len(trades) == 1
    await shop.control("/faults", method="wechat.v2.orderquery", **fault)
    assert isinstance(await shop.query(), expected)
    assert (await shop.query()).status is ReportedStatus.PENDING
    await shop.control("/faults", method="wechat.v2.closeorder", **fault)
    assert isinstance(await shop.close(), expected)
    assert isinstance(await shop.close(), Closed)


async def test_another_key_than_the_merchants_is_refused_and_explained(shop: Shop) -> None:
    fields = {"mch_id": shop.account.mch_id, "appid": shop.account.appid, "api_key": "0" * 32}
    settings, credentials = shop.dialect.seal(
        mode="v2", fields=fields | {"gateway": shop.sandbox_url}, now=shop.clock.now()
    )
    wrong = shop.dialect.open(mode="v2", settings=settings, credentials=credentials)
    outcome = await shop.dialect.create(wrong, shop.request(PaymentMethod.WECHAT_NATIVE))
    assert isinstance(outcome, Rejected)
    assert outcome.code == "SIGNERROR"
    assert "api_key" in outcome.explanation
    assert isinstance(await shop.dialect.query(wrong, NUMBER), Rejected)


async def test_every_amount_is_taken(shop: Shop) -> None:
    for number, fen in enumerate((1, 2, 10, 99, 100, 101, 1990, 100_000, 9_999_999_999)):
        out_trade_no = f"{NUMBER}_{number}"
        assert isinstance(
            await shop.create(PaymentMethod.WECHAT_NATIVE, out_trade_no=out_trade_no, amount_fen=fen), Accepted
        )
        await shop.control(f"/trades/{out_trade_no}/pay", notify=False)
        report = await shop.dialect.query(shop.account, out_trade_no)
        assert isinstance(report, PaymentReport)
        assert report.amount_fen == fen


async def test_the_shortest_and_the_longest_expiry_are_taken(shop: Shop) -> None:
    for number, life in enumerate((timedelta(minutes=1), timedelta(hours=2))):
        now = shop.clock.now()
        changes = {"out_trade_no": f"{NUMBER}_{number}", "created_at": now, "expires_at": now + life}
        assert isinstance(await shop.create(PaymentMethod.WECHAT_JSAPI, **changes), Accepted)
