"""Cycle payments over the API, against the sandbox: from the click to the last state, as a page sees it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from tests.api.conftest import Api, serving_api
from tests.api.test_sse import Events
from tests.cycles.conftest import EARLY, SCENE, Club
from tests.fixtures.market import Market

FIELDS = """
  id orderId price maxPrice subject intervalDays scene status cancelling suspendedFor agreementNo firstDeductionOn
  nextDeductionOn paidDeductions failure { code providerCode explanation explanationZh }
  action { __typename ... on Redirect { url html deepLink } ... on QrCode { codeUrl deepLink } }
  payments { id orderId method status amount } upcoming { dueOn price }
  deductions { dueOn sequence price status orderId nextAttemptAt failure { providerCode } payments { status } }
  order { id } createdAt updatedAt signedAt endedAt expiresAt version
"""
START = f"mutation ($input: StartCyclePaymentInput!) {{ startCyclePayment(input: $input) {{ {FIELDS} }} }}"


@dataclass
class Counter:
    """A club whose members come over HTTP."""

    club: Club
    api: Api

    async def start(self, **changes: Any) -> dict[str, Any]:
        """The answer of startCyclePayment for a new order of user 7's."""
        order_id = await self.club.market.shop.order(amount="9.90", title="Club")
        wanted = {
            "orderId": str(order_id),
            "price": "9.90",
            "subject": "Club",
            "intervalDays": 7,
            "scene": SCENE,
        }
        return await self.api.post(START, {"input": wanted | changes})

    @asynccontextmanager
    async def watched(self, cycle_id: str) -> AsyncIterator[Events]:
        query = f'subscription {{ cyclePayment(id: "{cycle_id}") {{ {FIELDS} }} }}'
        # A stream ends with its token, and these live through weeks.
        token = self.api.token(ttl=timedelta(days=60))
        headers = {"authorization": f"Bearer {token}", "accept": "text/event-stream"}
        async with self.api.http.stream("POST", self.api.url, json={"query": query}, headers=headers) as stream:
            yield Events(stream)

    async def sign(self, cycle_id: str) -> None:
        cycle = (await self.club.runtime.cycles.by_ids([int(cycle_id)]))[int(cycle_id)]
        await self.club.sign(cycle)


@pytest.fixture
async def counter(standing_market: Market) -> AsyncIterator[Counter]:
    """A club's counter, on a morning before the hour of deductions."""
    await standing_market.clear()
    club = Club(standing_market)
    await club.at(club.today() + timedelta(days=1), EARLY)
    async with serving_api(standing_market.shop, introspection=True) as api:
        yield Counter(club, api)


async def until(events: Events, condition: Any) -> dict[str, Any]:
    """The first state the page sees that is so."""
    while True:
        name, answer = await events.read()
        assert name == "next", (name, answer)
        row: dict[str, Any] = answer["data"]["cyclePayment"]
        if condition(row):
            return row


async def test_a_page_watches_from_the_signature_to_the_end(counter: Counter) -> None:
    club = counter.club
    started = (await counter.start())["data"]["startCyclePayment"]
    assert (started["status"], started["price"], started["maxPrice"]) == ("PENDING", "9.90", "9.90")
    assert started["action"]["__typename"] == "Redirect"
    assert started["action"]["deepLink"].startswith("alipays://platformapi/startapp?appId=20000067&url=")
    assert started["upcoming"][0] == {"dueOn": str(club.today()), "price": "9.90"}
    async with counter.watched(started["id"]) as events:
        assert (await until(events, lambda row: True))["version"] >= started["version"]
        await counter.sign(started["id"])
        active = await until(events, lambda row: row["status"] == "ACTIVE")
        assert (active["action"], active["nextDeductionOn"]) == (None, str(club.today()))
        assert active["agreementNo"]
        await club.at(club.today())
        paid = await until(events, lambda row: row["paidDeductions"] == 1)
        (deduction,) = paid["deductions"]
        assert (deduction["dueOn"], deduction["status"]) == (str(club.today()), "PAID")
        assert deduction["payments"] == [{"status": "SUCCESSFUL"}]
        assert paid["nextDeductionOn"] == str(club.today() + timedelta(days=7))
        await club.policy("ACQ.BUYER_BALANCE_NOT_ENOUGH")
        await club.at(club.today() + timedelta(days=7))
        failed = await until(events, lambda row: row["failure"] is not None)
        assert failed["failure"]["providerCode"] == "ACQ.BUYER_BALANCE_NOT_ENOUGH"
        assert failed["failure"]["explanationZh"]
        assert failed["deductions"][0]["nextAttemptAt"] is not None
        cancelled = await counter.api.post(f'mutation {{ cancelCyclePayment(id: "{started["id"]}") {{ status }} }}')
        assert cancelled["data"]["cancelCyclePayment"]["status"] == "CANCELLED"
        ended = await until(events, lambda row: row["status"] == "CANCELLED")
        assert (ended["nextDeductionOn"], ended["upcoming"]) == (None, [])
    mine = await counter.api.post("{ myCyclePayments { id status } }")
    assert mine["data"]["myCyclePayments"] == [{"id": started["id"], "status": "CANCELLED"}]


async def test_a_page_sees_the_first_payment_arrive_after_the_signature(counter: Counter) -> None:
    club = counter.club
    started = (await counter.start(payNow=True))["data"]["startCyclePayment"]
    (payment,) = await club.payments(await club.runtime.cycles.reload(int(started["id"])))
    async with counter.watched(started["id"]) as events:
        await counter.sign(started["id"])
        active = await until(events, lambda row: row["status"] == "ACTIVE")
        assert [row["status"] for row in active["payments"]] == ["PENDING"]
        await club.market.control("POST", f"/trades/{payment.out_trade_no}/pay", sign=False)
        await club.settle()
        paid = await until(events, lambda row: row["payments"][0]["status"] == "SUCCESSFUL")
        assert paid["version"] > active["version"]


async def test_paying_now_gives_one_link_for_both(counter: Counter) -> None:
    started = (await counter.start(payNow=True))["data"]["startCyclePayment"]
    assert started["action"]["__typename"] == "QrCode"
    assert started["action"]["deepLink"].startswith("alipays://platformapi/startapp?appId=60000157&")
    assert [(row["method"], row["status"], row["orderId"]) for row in started["payments"]] == [
        ("ALIPAY_CYCLE", "PENDING", started["orderId"])
    ]
    assert started["firstDeductionOn"] == str(counter.club.today() + timedelta(days=7))


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"price": "100.01"}, "INVALID_AMOUNT", "price"),
        ({"price": "0.00"}, "INVALID_AMOUNT", "price"),
        ({"maxPrice": "9.89"}, "INVALID_AMOUNT", "maxPrice"),
        ({"intervalDays": 6}, "INVALID_INPUT", "intervalDays"),
        ({"scene": "INDUSTRY|NOWHERE"}, "SCENE_NOT_ALLOWED", "scene"),
        ({"firstDeductionOn": "2020-01-01"}, "INVALID_INPUT", "firstDeductionOn"),
        ({"subject": ""}, "INVALID_INPUT", "subject"),
        ({"subject": "a&b"}, "INVALID_INPUT", "subject"),
        ({"orderId": "999999"}, "ORDER_NOT_FOUND", "orderId"),
        ({"orderId": "x"}, "INVALID_INPUT", "orderId"),
        ({"merchantAccountId": "999"}, "METHOD_NOT_CONFIGURED", "merchantAccountId"),
        ({"returnUrl": "nowhere"}, "INVALID_INPUT", "returnUrl"),
        ({"payNow": True, "price": "9.80"}, "AMOUNT_MISMATCH", "price"),
    ],
)
async def test_what_is_refused_names_the_field_and_leaves_nothing(
    counter: Counter, changes: dict[str, Any], code: str, field: str
) -> None:
    answer = await counter.start(**changes)
    (error,) = answer["errors"]
    assert (error["extensions"]["code"], error["extensions"].get("field")) == (code, field)
    assert error["extensions"]["messageZh"]
    shop = counter.club.market.shop
    assert [await shop.count(table) for table in ("cycle_payment", "payment", "event", "kept_order")] == [0, 0, 0, 0]


async def test_an_amount_with_three_decimals_is_refused(counter: Counter) -> None:
    answer = await counter.start(price="9.901")
    assert answer["errors"][0]["extensions"]["code"] == "INVALID_AMOUNT"


async def test_the_same_key_gives_the_same_answer_also_the_day_after(counter: Counter) -> None:
    today = str(counter.club.today())
    first = await counter.start(idempotencyKey="k-1", firstDeductionOn=today)
    order_id = first["data"]["startCyclePayment"]["orderId"]
    await counter.club.at(counter.club.today() + timedelta(days=1), EARLY)
    again = await counter.start(idempotencyKey="k-1", firstDeductionOn=today, orderId=order_id)
    assert again["data"]["startCyclePayment"]["id"] == first["data"]["startCyclePayment"]["id"]
    other = await counter.start(idempotencyKey="k-1", firstDeductionOn=today)
    assert other["errors"][0]["extensions"]["code"] == "IDEMPOTENCY_CONFLICT"
    assert await counter.club.market.shop.count("cycle_payment") == 1


async def test_a_second_signature_in_a_scene_is_refused_with_the_way_out(counter: Counter) -> None:
    first = (await counter.start())["data"]["startCyclePayment"]
    (error,) = (await counter.start())["errors"]
    assert error["extensions"]["code"] == "SCENE_ALREADY_SIGNED"
    assert error["extensions"]["cyclePaymentId"] == first["id"]
    assert "cancelCyclePayment" in error["message"]
    assert "商户协议状态不正常" in error["extensions"]["messageZh"]
    assert "data" in await counter.start(scene="INDUSTRY|EDU")


async def test_a_payment_of_a_deduction_is_not_closed_by_hand(counter: Counter) -> None:
    club = counter.club
    cycle = await club.member()
    await club.policy("processing", settle="hold")
    await club.at(club.today())
    (payment,) = await club.payments(cycle)
    assert payment.api_status == "PENDING"
    closed = await counter.api.error(f'mutation {{ closePayment(id: "{payment.id}") {{ id }} }}')
    assert (closed["code"], closed["field"]) == ("INVALID_INPUT", "id")
