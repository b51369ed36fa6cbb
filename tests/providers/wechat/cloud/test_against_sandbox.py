"""Cloud pay's dialect and the sandbox, which share no code, agree from the order to the callback."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

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
from app.providers.wechat.cloud import CloudDialect
from app.sandbox.accounts import load_or_create_accounts
from app.sandbox.main import run_in_process
from tests.providers.scripted import Received, ScriptedServer, answering, serving
from tests.providers.wechat.reports import payment_in

NUMBER = "SY20261122_E2E"
PAYER = "oSandboxPayer000000000000001"


class Shop:
    """A merchant in WeChat's cloud, and the container that its callbacks reach."""

    def __init__(
        self, client: httpx.AsyncClient, sandbox_url: str, printed: dict[str, str], container: ScriptedServer
    ) -> None:
        self.client = client
        self.sandbox_url = sandbox_url
        self.container = container
        self.clock = Clock()
        self.dialect = CloudDialect(client, self.clock, timeout_s=5.0, gateways=GatewayRule())
        fields = {name: text for name, text in printed.items() if name not in ("provider", "mode")}
        settings, credentials = self.dialect.seal(mode="cloud", fields=fields, now=self.clock.now())
        self.account = self.dialect.open(mode="cloud", settings=settings, credentials=credentials)

    def request(self, **changes: Any) -> PaymentRequest:
        now = self.clock.now()
        fields: dict[str, Any] = {
            "method": PaymentMethod.WECHAT_CLOUD,
            "out_trade_no": NUMBER,
            "amount_fen": 1990,
            "subject": '会员 "月卡" & 100%',
            "notify_url": "https://pay.example.com/shop/notify/wechat/7",
            "created_at": now,
            "expires_at": now + timedelta(minutes=30),
            "openid": PAYER,
        }
        return PaymentRequest(**(fields | changes))

    async def create(self, **changes: Any) -> Any:
        return await self.dialect.create(self.account, self.request(**changes))

    async def query(self) -> Any:
        return await self.dialect.query(self.account, NUMBER)

    async def close(self) -> Any:
        return await self.dialect.close(self.account, NUMBER)

    async def control(self, path: str, **options: Any) -> Any:
        answer = await self.client.post(f"{self.sandbox_url}/_control{path}", json=options)
        assert answer.is_success, answer.text
        return answer.json()

    async def callbacks(self, count: int) -> list[Received]:
        async with asyncio.timeout(10):
            while len(self.container.received) < count:
                await asyncio.sleep(0.01)
        return self.container.received[:count]

    async def read(self, callback: Received) -> Notification:
        tail = callback.target.rpartition("/")[2]
        return await self.dialect.read_notification(self.account, callback.headers, callback.body, tail)


@pytest.fixture(scope="module")
async def sandbox(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[str, Path]]:
    folder = tmp_path_factory.mktemp("sandbox")
    async with run_in_process(folder) as url:
        yield url, folder


@pytest.fixture
async def shop(client: httpx.AsyncClient, sandbox: tuple[str, Path]) -> AsyncIterator[Shop]:
    """A shop at a sandbox that has just forgotten everything but where its container is."""
    url, folder = sandbox
    printed = {account["mode"]: account for account in load_or_create_accounts(folder, url)}["cloud"]
    async with serving(answering(b'{"errcode":0,"errmsg":"SUCCESS"}')) as container:
        made = Shop(client, url, printed, container)
        await made.control("/reset")
        await made.control("/wechat/cloud", callback_base_url=container.origin)
        yield made


async def test_a_payment_from_order_to_callback(shop: Shop) -> None:
    assert await shop.query() == PaymentReport(NUMBER, ReportedStatus.NOT_FOUND, "query")
    outcome = await shop.create()
    assert isinstance(outcome, Accepted)
    params = {name: text for name, text in outcome.action.items() if name != "kind"}
    page = await shop.client.get(f"{shop.sandbox_url}/wechat/bridge", params=params)
    assert page.status_code == 302, page.text
    assert (await shop.query()).status is ReportedStatus.PENDING

    await shop.control(f"/trades/{NUMBER}/pay")
    [callback] = await shop.callbacks(1)
    assert callback.target == f"/internal/notify/wechat/7/{shop.account.notify_token}"
    notification = await shop.read(callback)
    queried = await shop.query()
    for report in (payment_in(notification), queried):
        assert (report.out_trade_no, report.status) == (NUMBER, ReportedStatus.SUCCESSFUL)
        assert (report.amount_fen, report.payer_id) == (1990, PAYER)
        assert report.paid_at is not None
        assert abs(shop.clock.now() - report.paid_at) < timedelta(seconds=30)
        expected = shop.account.expected_claims
        assert all(report.account_claims[name] in one for name, one in expected.items())
    assert notification.event_key.startswith(queried.transaction_id + ":")
    assert isinstance(await shop.close(), NotClosed)


async def test_a_cancelled_payment_has_no_callback_and_is_ended_by_closing(shop: Shop) -> None:
    assert await shop.close() == NeverOpened()
    await shop.create()
    assert (await shop.query()).status is ReportedStatus.PENDING
    assert await shop.close() == Closed()
    assert (await shop.query()).status is ReportedStatus.CLOSED
    assert shop.container.received == []
    assert isinstance(await shop.create(), Unknown)


@pytest.mark.parametrize(
    "wrong",
    [
        {"amount": "0.01"},
        {"app_id": "wxffffffffffffffff"},
        {"seller_id": "1900000777"},
        {"payer": "oSandboxPayer000000000000002"},
        {"fields": {"transactionId": "4200000000000000000000000042"}},
    ],
    ids=str,
)
async def test_a_callback_that_tells_otherwise_counts_as_nothing(shop: Shop, wrong: dict[str, Any]) -> None:
    await shop.create()
    await shop.control(f"/trades/{NUMBER}/pay", **wrong)
    [callback] = await shop.callbacks(1)
    report = (await shop.read(callback)).report
    assert report.status is ReportedStatus.PENDING
    true = await shop.query()
    assert (true.status, true.amount_fen, true.payer_id) == (ReportedStatus.SUCCESSFUL, 1990, PAYER)
    assert (report.amount_fen, report.payer_id, report.transaction_id, report.account_claims) != (
        true.amount_fen, true.payer_id, true.transaction_id, true.account_claims,
    )  # fmt: skip


async def test_a_callback_about_an_unpaid_number_is_not_confirmed(shop: Shop) -> None:
    await shop.create()
    await shop.create(out_trade_no=NUMBER + "2")
    await shop.control(f"/trades/{NUMBER}2/pay", fields={"outTradeNo": NUMBER})
    [callback] = await shop.callbacks(1)
    with pytest.raises(NotificationRefused) as refused:
        await shop.read(callback)
    assert refused.value.reason == "unconfirmed"


async def test_a_callback_without_its_source_is_refused(shop: Shop) -> None:
    await shop.create()
    await shop.control(f"/trades/{NUMBER}/pay", break_signature=True)
    [callback] = await shop.callbacks(1)
    with pytest.raises(NotificationRefused) as refused:
        await shop.read(callback)
    assert refused.value.reason == "source"


async def test_repeats_share_their_event_and_a_silent_wechat_is_asked_again(shop: Shop) -> None:
    await shop.create()
    await shop.control("/faults", method="wechat.cloud.queryorder", kind="http_500")
    await shop.control(f"/trades/{NUMBER}/pay", times=2)
    first, second = await shop.callbacks(2)
    with pytest.raises(NotificationRefused) as refused:
        await shop.read(first)
    assert refused.value.reason == "unconfirmed"
    assert await shop.read(first) == await shop.read(second)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"kind": "http_500"}, Unknown),
        ({"kind": "lost_reply"}, Unknown),
        ({"kind": "timeout", "latency_s": 0.1}, Unknown),
        ({"kind": "error_response"}, Unknown),
        ({"kind": "error_response", "code": "45009"}, NotReached),
        ({"kind": "error_response", "code": "40097"}, Rejected),
        ({"kind": "business_error", "code": "SYSTEMERROR"}, Unknown),
        ({"kind": "business_error", "code": "NOAUTH"}, Rejected),
    ],
    ids=str,
)
async def test_every_fault_is_judged_and_repeating_is_safe(shop: Shop, fault: dict[str, Any], expected: type) -> None:
    again = shop.request()
    await shop.control("/faults", method="wechat.cloud.unifiedorder", **fault)
    assert isinstance(await shop.dialect.create(shop.account, again), expected)
    assert isinstance(await shop.dialect.create(shop.account, again), Accepted)
    trades = (await shop.client.get(f"{shop.sandbox_url}/_control/trades")).json()["trades"]
    assert len(trades) == 1
    await shop.control("/faults", method="wechat.cloud.queryorder", **fault)
    assert isinstance(await shop.query(), expected)
    assert (await shop.query()).status is ReportedStatus.PENDING
    await shop.control("/faults", method="wechat.cloud.closeorder", **fault)
    assert isinstance(await shop.close(), expected)
    assert isinstance(await shop.close(), Closed)


async def test_other_details_under_the_same_number_are_no_second_order(shop: Shop) -> None:
    now = shop.clock.now()
    at = {"created_at": now, "expires_at": now + timedelta(minutes=30)}
    assert isinstance(await shop.create(**at), Accepted)
    assert isinstance(await shop.create(amount_fen=1991, **at), Unknown)
    await shop.control(f"/trades/{NUMBER}/pay", notify=False)
    assert (await shop.query()).amount_fen == 1990


async def test_an_account_that_the_cloud_does_not_know_is_explained(shop: Shop) -> None:
    fields = {"sub_mch_id": "1900000777", "appid": shop.account.appid, "env_id": "x", "cloud_service": "y"}
    settings, credentials = shop.dialect.seal(
        mode="cloud", fields=fields | {"gateway": shop.sandbox_url}, now=shop.clock.now()
    )
    stranger = shop.dialect.open(mode="cloud", settings=settings, credentials=credentials)
    outcome = await shop.dialect.create(stranger, shop.request())
    assert isinstance(outcome, Rejected)
    assert "authorise the merchant in the Cloud Run console" in outcome.explanation
