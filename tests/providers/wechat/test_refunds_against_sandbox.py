"""Refunds of every interface and the sandbox, which share no code, agree from the asking to the notice."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from functools import cache
from typing import Any

import httpx
import pytest

from app.clock import Clock
from app.providers.contract import (
    Accepted,
    Notification,
    NotificationRefused,
    PaymentMethod,
    PaymentRequest,
    RefundOutcome,
    RefundReport,
    RefundRequest,
    Rejected,
    ReportedRefund,
    ReportedStatus,
    Unknown,
)
from app.providers.gateways import GatewayRule
from app.providers.wechat import WechatProvider
from app.sandbox.main import run_in_process
from tests.providers.scripted import Received, ScriptedServer, answering, serving
from tests.providers.wechat.reports import refund_in

NUMBER, REFUND_NUMBER = "SY20261122000001E2E", "SR20261122000001E2E"
PAYER = "oSandboxPayer000000000000001"
MODES = ("v3", "v3_certificate", "v3_partner", "v2", "v2_partner", "cloud")
INTERFACE = {mode: mode.partition("_")[0] for mode in MODES}
QUESTIONS = {"v3": "refund_query", "v2": "refundquery", "cloud": "queryrefund"}
CODES = {"v3": "NOT_ENOUGH", "v2": "NOTENOUGH", "cloud": "NOTENOUGH"}
_UNUSED = httpx.AsyncClient()


class Shop:
    """A merchant with one account at the sandbox, a payment of 19.90 yuan, and an address for its notices."""

    def __init__(self, client: httpx.AsyncClient, url: str, printed: dict[str, str], notified: ScriptedServer) -> None:
        self.client = client
        self.url = url
        self.mode = printed["mode"]
        self.notified = notified
        self.clock = Clock()
        self.provider = WechatProvider(client, self.clock, timeout_s=5.0, gateways=GatewayRule())
        settings, credentials = _sealed(tuple(printed.items()))
        self.account = self.provider.open_account(mode=self.mode, settings=settings, credentials=credentials)

    @property
    def notify_url(self) -> str:
        return self.notified.url("/notify/wechat/7")

    def call(self, question: bool = False) -> str:
        """What the sandbox calls this interface's call."""
        interface = INTERFACE[self.mode]
        return f"wechat.{interface}.{QUESTIONS[interface] if question else 'refund'}"

    async def pay(self) -> None:
        now = self.clock.now()
        method = PaymentMethod.WECHAT_CLOUD if self.mode == "cloud" else PaymentMethod.WECHAT_JSAPI
        order = PaymentRequest(
            method=method,
            out_trade_no=NUMBER,
            amount_fen=1990,
            subject="月卡",
            notify_url=self.notify_url,
            created_at=now,
            expires_at=now + timedelta(minutes=30),
            openid=PAYER,
            client_address="127.0.0.1",
        )
        assert isinstance(await self.provider.create_payment(self.account, order), Accepted)
        await self.control(f"/trades/{NUMBER}/pay", notify=False)

    def request(self, **changes: Any) -> RefundRequest:
        wanted = RefundRequest(
            out_trade_no=NUMBER,
            out_refund_no=REFUND_NUMBER,
            amount_fen=501,
            total_fen=1990,
            notify_url=self.notify_url,
            created_at=self.clock.now(),
            reason='少了 "一杯" & 100% <b>]]>' + "茶" * 40,
        )
        return replace(wanted, **changes)

    async def refund(self, **changes: Any) -> RefundOutcome:
        return await self.provider.create_refund(self.account, self.request(**changes))

    async def ask(self, **changes: Any) -> RefundOutcome:
        return await self.provider.query_refund(self.account, self.request(**changes))

    async def control(self, path: str, *, verb: str = "POST", **options: Any) -> Any:
        body = options if verb != "GET" else None
        answer = await self.client.request(verb, f"{self.url}/_control{path}", json=body)
        assert answer.is_success, answer.text
        return answer.json()

    async def hold(self) -> None:
        await self.control("/refunds/policy", provider="WECHAT", settle="hold")

    async def settle(self, status: str) -> None:
        await self.control(f"/refunds/{REFUND_NUMBER}/settle", **{"as": status})

    async def truth(self) -> tuple[int, list[tuple[str, int, str]]]:
        [trade] = (await self.control(f"/trades?out_trade_no={NUMBER}", verb="GET"))["trades"]
        refunds = [(one["out_refund_no"], one["amount_fen"], one["status"]) for one in trade["refunds"]]
        return trade["refunded_fen"], refunds

    async def notices(self, count: int) -> list[Notification]:
        async with asyncio.timeout(10):
            while len(self.notified.received) < count:
                await asyncio.sleep(0.01)
        return [await self.read(one) for one in self.notified.received[:count]]

    async def read(self, notice: Received) -> Notification:
        tail = notice.target.rpartition("/")[2] if self.mode == "cloud" else ""
        return await self.provider.read_notification(self.account, notice.headers, notice.body, tail=tail)


@cache
def _sealed(printed: tuple[tuple[str, str], ...]) -> tuple[dict[str, Any], dict[str, str]]:
    """What the sandbox prints of an account, entered unchanged; once, for testing a key takes its time."""
    fields = dict(printed)
    mode = fields.pop("mode")
    assert fields.pop("provider") == "WECHAT"
    return WechatProvider(_UNUSED, Clock(), timeout_s=1.0, gateways=GatewayRule()).seal_input(mode=mode, fields=fields)


@pytest.fixture(scope="module")
async def sandbox(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    async with run_in_process(tmp_path_factory.mktemp("sandbox")) as url:
        yield url


@pytest.fixture(params=MODES)
async def shop(request: pytest.FixtureRequest, client: httpx.AsyncClient, sandbox: str) -> AsyncIterator[Shop]:
    """A shop whose payment is paid, for each mode in turn, at a sandbox that has just forgotten everything else."""
    accounts = (await client.get(f"{sandbox}/_control/accounts")).json()["accounts"]
    [printed] = [one for one in accounts if one["provider"] == "WECHAT" and one["mode"] == request.param]
    async with serving(answering(b"", status=500)) as notified:
        made = Shop(client, sandbox, printed, notified)
        accepted = made.provider.acknowledge(made.account, accepted=True)
        notified.behave = answering(accepted.body, status=accepted.status_code, content_type=accepted.content_type)
        await made.control("/reset")
        await made.control("/wechat/cloud", callback_base_url=notified.origin)
        await made.pay()
        yield made


def known(outcome: RefundOutcome) -> RefundReport:
    assert isinstance(outcome, RefundReport), outcome
    return outcome


async def test_a_refund_from_asking_to_notice(shop: Shop) -> None:
    assert known(await shop.ask()).status is ReportedRefund.NOT_FOUND
    await shop.hold()
    taken = known(await shop.refund())
    assert (taken.status, taken.source, taken.amount_fen) == (ReportedRefund.PENDING, "answer", 501)
    assert taken.provider_refund_id is not None
    waiting = known(await shop.ask())
    assert (waiting.status, waiting.amount_fen, waiting.failure) == (ReportedRefund.PENDING, 501, None)

    await shop.settle("REFUNDED")
    [notification] = await shop.notices(1)
    asked = known(await shop.ask())
    for said in (refund_in(notification), asked):
        assert (said.out_trade_no, said.out_refund_no) == (NUMBER, REFUND_NUMBER)
        assert (said.status, said.amount_fen) == (ReportedRefund.REFUNDED, 501)
        assert said.provider_refund_id == taken.provider_refund_id
        assert said.refunded_at is not None
        assert abs(shop.clock.now() - said.refunded_at) < timedelta(seconds=30)
        expected = shop.account.expected_claims
        assert all(claim in expected[name] for name, claim in said.account_claims.items() if name in expected)
    assert refund_in(notification).source == "notification"
    assert await shop.truth() == (501, [(REFUND_NUMBER, 501, "REFUNDED")])
    paid: Any = await shop.provider.query_payment(shop.account, NUMBER)
    assert (paid.status, paid.amount_fen) == (ReportedStatus.SUCCESSFUL, 1990)


@pytest.mark.parametrize(
    ("settled", "status"), [("FAILED", ReportedRefund.FAILED), ("ABNORMAL", ReportedRefund.PENDING)]
)
async def test_a_refund_that_comes_to_nothing_says_why(shop: Shop, settled: str, status: ReportedRefund) -> None:
    await shop.hold()
    await shop.refund()
    await shop.settle(settled)
    [notification] = await shop.notices(1)
    for said in (refund_in(notification), known(await shop.ask())):
        assert (said.status, said.amount_fen) == (status, 501)
        assert said.failure is not None
        assert said.failure.explanation_zh
    assert (await shop.truth())[0] == 0


async def test_repeats_under_one_number_give_back_once(shop: Shop) -> None:
    first = known(await shop.refund())
    for _ in range(3):
        again = known(await shop.refund())
        assert (again.provider_refund_id, again.amount_fen) == (first.provider_refund_id, 501)
    assert await shop.truth() == (501, [(REFUND_NUMBER, 501, "REFUNDED")])


async def test_by_wechats_own_number_too(shop: Shop) -> None:
    paid: Any = await shop.provider.query_payment(shop.account, NUMBER)
    assert known(await shop.refund(transaction_id=paid.transaction_id)).out_trade_no == NUMBER
    assert (await shop.truth())[0] == 501


async def test_another_amount_under_a_used_number_is_never_a_failure(shop: Shop) -> None:
    await shop.refund()
    outcome = await shop.refund(amount_fen=502)
    # What it holds is what was asked for first: the caller compares.
    assert known(outcome).amount_fen == 501
    assert await shop.truth() == (501, [(REFUND_NUMBER, 501, "REFUNDED")])


async def test_more_than_is_left_is_refused_and_the_rest_still_goes(shop: Shop) -> None:
    await shop.refund()
    refused = await shop.refund(out_refund_no="SR2", amount_fen=1490)
    assert isinstance(refused, Rejected)
    assert refused.explanation
    assert known(await shop.refund(out_refund_no="SR3", amount_fen=1489)).status is ReportedRefund.PENDING
    assert (await shop.truth())[0] == 1990
    assert isinstance(await shop.refund(out_refund_no="SR4", amount_fen=1), Rejected)


async def test_an_answer_that_was_lost_is_unknown_and_found_by_asking(shop: Shop) -> None:
    await shop.control("/faults", method=shop.call(), kind="lost_reply", count=1)
    assert isinstance(await shop.refund(), Unknown)
    assert known(await shop.ask()).amount_fen == 501
    assert known(await shop.refund()).amount_fen == 501
    assert await shop.truth() == (501, [(REFUND_NUMBER, 501, "REFUNDED")])


async def test_an_empty_balance_is_refused_and_nothing_was_given_back(shop: Shop) -> None:
    code = CODES[INTERFACE[shop.mode]]
    await shop.control("/faults", method=shop.call(), kind="business_error", code=code, count=1)
    outcome = await shop.refund()
    assert isinstance(outcome, Rejected)
    assert (outcome.code, "Top it up" in outcome.explanation) == (code, True)
    assert await shop.truth() == (0, [])
    assert known(await shop.refund()).status is ReportedRefund.PENDING


async def test_a_rate_limit_leaves_a_refund_unknown(shop: Shop) -> None:
    await shop.control("/faults", method=shop.call(), kind="business_error", code="FREQUENCY_LIMITED", count=1)
    assert isinstance(await shop.refund(), Unknown)


async def test_an_order_that_does_not_exist_is_refused(shop: Shop) -> None:
    outcome = await shop.refund(out_trade_no="SY_OF_NOBODY")
    assert isinstance(outcome, Rejected)
    assert "no paid order" in outcome.explanation


async def test_a_notice_that_wechat_does_not_confirm_is_refused(shop: Shop) -> None:
    """APIv3 signs its notices; of the others only the answer to a question counts."""
    await shop.hold()
    await shop.refund()
    await shop.settle("REFUNDED")
    await shop.notices(1)
    await shop.control("/faults", method=shop.call(question=True), kind="business_error", code="SYSTEMERROR", count=1)
    if INTERFACE[shop.mode] == "v3":
        assert refund_in(await shop.read(shop.notified.received[0])).status is ReportedRefund.REFUNDED
        return
    with pytest.raises(NotificationRefused) as refused:
        await shop.read(shop.notified.received[0])
    assert refused.value.reason == "unconfirmed"
    assert refund_in(await shop.read(shop.notified.received[0])).status is ReportedRefund.REFUNDED


@pytest.mark.parametrize("shop", ["cloud"], indirect=True)
async def test_a_cloud_that_lists_nothing_leaves_it_to_a_person(shop: Shop) -> None:
    await shop.refund()
    await shop.control("/wechat/cloud/refund_lists", empty=True)
    said = known(await shop.ask())
    assert (said.status, said.amount_fen) == (ReportedRefund.PENDING, None)
    assert said.failure is not None
    assert said.failure.code == "REFUND_NOT_LISTED"
    assert known(await shop.ask(out_refund_no="SR_OF_NOBODY")).status is ReportedRefund.NOT_FOUND
