"""Refunds and permissions over the API, for each kind of caller, against a provider; and the customer's page, live."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import httpx
import pytest

from app.activation.permissions import Reach
from app.auth import Principal
from app.payments.model import Payment
from app.refunds.actions import RefundPayment
from app.refunds.model import Refund
from tests.api.conftest import Api, serving_api
from tests.api.test_sse import Events
from tests.fixtures.market import Market
from tests.fixtures.shop import ADMIN

# sub, roles. User 7 owns the order; `clerk` is granted refunds of everybody's payments, `support` nothing.
WHO: dict[str, tuple[str, str]] = {
    "owner": ("7", "user"),
    "stranger": ("8", "user"),
    "support": ("s-1", "support"),
    "clerk": ("c-1", "clerk"),
    "colleague": ("c-2", "clerk"),
    "admin": ("root", "admin"),
}
NOBODY = {"anonymous": "UNAUTHENTICATED", "expired": "UNAUTHENTICATED"}
OWN_ROWS = {
    "owner": "data",
    "stranger": "null",
    "support": "null",
    "clerk": "null",
    "colleague": "null",
    "admin": "data",
}
ADMIN_S = dict.fromkeys(("owner", "stranger", "support", "clerk", "colleague"), "FORBIDDEN") | {"admin": "data"}

# What each caller gets: "data" when it is served, else the code; `null` is how a query hides what is not yours.
OPERATIONS: dict[str, tuple[str, dict[str, str]]] = {
    "refundPayment": (
        'mutation { refundPayment(input: {paymentId: "$payment", amount: "1.00"}) { id status } }',
        {
            "owner": "FORBIDDEN", "stranger": "NOT_FOUND", "support": "NOT_FOUND", "clerk": "data",
            "colleague": "data", "admin": "FORBIDDEN",
        },
    ),
    "refund": ('{ refund(id: "$refund") { id status } }', OWN_ROWS | {"clerk": "data"}),
    "Payment.refunds": ('{ payment(id: "$payment") { refunds { id } } }', OWN_ROWS),
    "Order.payments.refunds": ('{ order(id: "$order") { payments { refunds { id } } } }', OWN_ROWS),
    "syncRefund": (
        'mutation { syncRefund(id: "$refund") { id status } }',
        {
            "owner": "data", "stranger": "NOT_FOUND", "support": "NOT_FOUND", "clerk": "data",
            "colleague": "NOT_FOUND", "admin": "data",
        },
    ),
    "subscription refund": (
        'subscription { refund(id: "$refund") { id status } }',
        {
            "owner": "data", "stranger": "NOT_FOUND", "support": "NOT_FOUND", "clerk": "data",
            "colleague": "NOT_FOUND", "admin": "data",
        },
    ),
    "subscription refunds": (
        'subscription { refunds(paymentId: "$payment") { id status } }',
        {
            "owner": "data", "stranger": "NOT_FOUND", "support": "NOT_FOUND", "clerk": "NOT_FOUND",
            "colleague": "NOT_FOUND", "admin": "data",
        },
    ),
    "grantPermission": (
        'mutation { grantPermission(role: "auditor", action: "payment.refund", largestRefund: "50.00") }',
        ADMIN_S,
    ),
    "revokePermission": ('mutation { revokePermission(role: "auditor", action: "payment.refund") }', ADMIN_S),
    "permissions": ("{ permissions { role action scope largestRefund grantedBy } }", ADMIN_S),
    "setPlan": ('mutation { setPlan(plan: "pro", expiresAt: "2126-01-01T00:00:00Z") { plan } }', ADMIN_S),
}  # fmt: skip


@pytest.fixture
async def desk(standing_market: Market) -> AsyncIterator["Desk"]:
    """The API of a shop whose provider is the sandbox, and one refund of a paid payment, held there."""
    await standing_market.clear()
    async with serving_api(standing_market.shop) as api:
        permissions = standing_market.shop.runtime.permissions
        await permissions.grant(ADMIN, "clerk", "payment.refund", Reach("ALL"))
        yield Desk(standing_market, api)
        await standing_market.shop.connection.execute(
            "delete from shouyin.permission where role in ('auditor', 'admin')"
        )


class Desk:
    """See the fixture."""

    def __init__(self, market: Market, api: Api) -> None:
        self.market, self.api = market, api

    async def paid(self, method: str = "ALIPAY_PAGE") -> Payment:
        payment = await self.market.create(method)
        await self.market.pay(payment)
        await self.market.shop.settle()
        return await self.market.find(payment)

    async def held(self, payment: Payment) -> Refund:
        """A refund of the clerk's that its provider works on."""
        await self.market.control("POST", "/refunds/policy", settle="hold")
        clerk = Principal(sub="c-1", roles=frozenset({"clerk"}))
        return await self.market.shop.runtime.refunds.create(
            clerk, RefundPayment(payment.id, 200), correlation_id="made-by-test"
        )

    def headers(self, caller: str) -> dict[str, str]:
        if caller == "anonymous":
            return {}
        if caller == "expired":
            return {"authorization": f"Bearer {self.api.token('root', 'admin', ttl=timedelta(seconds=-60))}"}
        return self.api.headers(*WHO[caller])

    async def answer(self, caller: str, query: str) -> dict[str, Any]:
        """The answer of an operation, or a subscription's first event."""
        if query.startswith("subscription"):
            async with self.streamed(caller, query) as events:
                name, answer = await events.read()
                assert name == "next"
        else:
            got = await self.api.http.post(self.api.url, json={"query": query}, headers=self.headers(caller))
            answer = got.json()
        found: dict[str, Any] = answer
        return found

    @asynccontextmanager
    async def streamed(self, caller: str, query: str) -> AsyncIterator[Events]:
        headers = self.headers(caller) | {"accept": "text/event-stream"}
        async with self.api.http.stream(
            "POST", self.api.url, json={"query": query}, headers=headers, timeout=httpx.Timeout(20)
        ) as response:
            yield Events(response)

    async def traces(self) -> dict[str, str]:
        """Everything an operation could leave behind, here and at the provider."""
        fetch = self.market.shop.connection.fetchval
        tables = ("payment", "refund", "event", "audit", "permission", "activation", "difference", "flow_run")
        kept = {
            table: str(await fetch(f"select jsonb_agg(to_jsonb(t) order by to_jsonb(t)::text) from shouyin.{table} t"))
            for table in tables
        }
        trades = await self.market.control("GET", "/trades")
        return kept | {"calls": json.dumps(await self.market.control("GET", "/calls")), "trades": json.dumps(trades)}


def outcome(answer: dict[str, Any]) -> str:
    """A code, `null`, or "data"."""
    if "errors" in answer:
        (error,) = answer["errors"]
        assert not any((answer.get("data") or {}).values())
        code: str = error["extensions"]["code"]
        return code
    (value,) = answer["data"].values()
    return "null" if value is None else "data"


# What a served operation leaves behind; all others leave nothing, whoever asks.
LEAVES = {
    "refundPayment": {"payment", "refund", "event", "audit", "calls", "trades"},
    "syncRefund": {"calls", "refund", "trades", "payment", "event"},
    "grantPermission": {"permission", "audit"},
    "revokePermission": {"permission", "audit"},
    "setPlan": {"activation", "audit", "event"},
}


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_each_kind_of_caller(desk: Desk, operation: str) -> None:
    payment = await desk.paid()
    refund = await desk.held(payment)
    query, expected = OPERATIONS[operation]
    query = (
        query.replace("$payment", str(payment.id))
        .replace("$refund", str(refund.id))
        .replace("$order", str(payment.order_id))
    )
    if operation == "revokePermission":
        await desk.market.shop.runtime.permissions.grant(ADMIN, "auditor", "payment.refund")
    for caller, wanted in (NOBODY | expected).items():
        before = await desk.traces()
        answer = await desk.answer(caller, query)
        assert (caller, outcome(answer)) == (caller, wanted), answer
        after = await desk.traces()
        left = {name for name in after if after[name] != before[name]}
        assert left <= (LEAVES.get(operation, set()) if wanted == "data" else set()), (caller, left)
        if wanted == "data" and operation in ("refundPayment", "grantPermission", "revokePermission"):
            assert "audit" in left


async def test_an_administrator_gives_back_once_somebody_granted_it_and_no_longer_once_it_is_revoked(
    desk: Desk,
) -> None:
    payment = await desk.paid()
    query = OPERATIONS["refundPayment"][0].replace("$payment", str(payment.id))
    assert outcome(await desk.answer("admin", query)) == "FORBIDDEN"
    assert (
        outcome(await desk.answer("admin", 'mutation { grantPermission(role: "admin", action: "payment.refund") }'))
        == "data"
    )
    assert outcome(await desk.answer("admin", query)) == "data"
    revoke = 'mutation { revokePermission(role: "admin", action: "payment.refund") }'
    assert outcome(await desk.answer("admin", revoke)) == "data"
    before = await desk.traces()
    assert outcome(await desk.answer("admin", query)) == "FORBIDDEN"
    assert await desk.traces() == before
    audited = await desk.market.shop.connection.fetch(
        "select action, actor, address, correlation_id from shouyin.audit order by id desc limit 3"
    )
    assert [row["action"] for row in audited] == ["permission.revoke", "payment.refund", "permission.grant"]
    assert {(row["actor"], row["address"]) for row in audited} == {("root", "127.0.0.1")}
    assert all(row["correlation_id"] for row in audited)


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"amount": "12.31"}, "REFUND_EXCEEDS_PAYMENT", "amount"),
        ({"amount": "0"}, "INVALID_AMOUNT", "amount"),
        ({"amount": "-1"}, "INVALID_AMOUNT", "amount"),
        ({"amount": "0.001"}, "INVALID_AMOUNT", "amount"),
        ({"amount": 1}, "INVALID_AMOUNT", "amount"),
        ({"amount": "1e2"}, "INVALID_AMOUNT", "amount"),
        ({"amount": None}, "INVALID_INPUT", "amount"),
        ({"paymentId": "999999"}, "NOT_FOUND", "paymentId"),
        ({"paymentId": "99999999999999999999"}, "INVALID_INPUT", "paymentId"),
        ({"paymentId": "x"}, "INVALID_INPUT", "paymentId"),
        ({"reason": "x" * 81}, "INVALID_INPUT", "reason"),
        ({"idempotencyKey": ""}, "INVALID_INPUT", "idempotencyKey"),
        ({"currency": "CNY"}, "INVALID_INPUT", "input"),
    ],
    ids=lambda value: json.dumps(value)[:40],
)
async def test_refused_inputs_name_the_field_and_leave_nothing(
    desk: Desk, changes: dict[str, Any], code: str, field: str
) -> None:
    payment = await desk.paid()
    before = await desk.traces()
    given = {"input": {"paymentId": str(payment.id), "amount": "1.00"} | changes}
    query = "mutation ($input: RefundPaymentInput!) { refundPayment(input: $input) { id } }"
    refused = await desk.api.error(query, given, sub="c-1", role="clerk")
    assert (refused["code"], refused.get("field")) == (code, field)
    assert refused["messageZh"]
    assert await desk.traces() == before


EVERYTHING = "id paymentId amount outRefundNo providerRefundId status final checking reason failure { code } version"


@pytest.mark.parametrize("method", ["ALIPAY_PAGE", "WECHAT_NATIVE"])
async def test_the_customer_sees_a_refund_arrive_and_end(desk: Desk, method: str) -> None:
    payment = await desk.paid(method)
    await desk.market.control("POST", "/refunds/policy", settle="hold")
    watch_payment = f'subscription {{ payment(id: "{payment.id}") {{ status refundedAmount version }} }}'
    watch_refunds = f'subscription {{ refunds(paymentId: "{payment.id}") {{ {EVERYTHING} }} }}'
    given = f'{{paymentId: "{payment.id}", amount: "2.30", reason: "cold"}}'
    ask = f"mutation {{ refundPayment(input: {given}) {{ {EVERYTHING} }} }}"
    async with desk.streamed("owner", watch_payment) as payments, desk.streamed("owner", watch_refunds) as refunds:
        first = (await payments.read())[1]["data"]["payment"]
        assert (first["status"], first["refundedAmount"]) == ("SUCCESSFUL", "0.00")
        made = (await desk.answer("clerk", ask))["data"]["refundPayment"]
        assert (made["status"], made["amount"], made["final"], made["reason"]) == ("PENDING", "2.30", False, "cold")
        seen = await _until(refunds, "refunds", lambda row: not row["checking"])
        assert seen == made
        watch_one = f'subscription {{ refund(id: "{made["id"]}", untilFinal: true) {{ status final version }} }}'
        async with desk.streamed("owner", watch_one) as one:
            assert (await one.read())[1]["data"]["refund"]["status"] == "PENDING"
            await desk.market.control("POST", f"/refunds/{made['outRefundNo']}/settle", **{"as": "REFUNDED"})
            await desk.market.advance(timedelta(minutes=5))
            await desk.market.shop.settle()
            last = await _until(one, "refund", lambda row: row["final"])
            assert last["status"] == "REFUNDED"
            assert await one.read() == ("complete", None)
            assert await one.ended()
        ended = await _until(refunds, "refunds", lambda row: row["final"])
        assert (ended["id"], ended["status"], ended["version"] > made["version"]) == (made["id"], "REFUNDED", True)
        after = await _until(payments, "payment", lambda row: row["refundedAmount"] != "0.00")
        assert (after["status"], after["refundedAmount"]) == ("PARTIALLY_REFUNDED", "2.30")
        assert after["version"] > first["version"]


async def test_until_final_of_a_refund_that_ended_is_one_event(desk: Desk) -> None:
    payment = await desk.paid()
    refund = await desk.held(payment)
    await desk.market.control("POST", f"/refunds/{refund.out_refund_no}/settle", **{"as": "REFUNDED"})
    assert (await desk.answer("owner", f'mutation {{ syncRefund(id: "{refund.id}") {{ status }} }}')) == {
        "data": {"syncRefund": {"status": "REFUNDED"}}
    }
    query = f'subscription {{ refund(id: "{refund.id}", untilFinal: true) {{ status }} }}'
    async with desk.streamed("owner", query) as events:
        assert await events.read() == ("next", {"data": {"refund": {"status": "REFUNDED"}}})
        assert await events.read() == ("complete", None)
        assert await events.ended()


async def _until(events: Events, field: str, wanted: Any) -> dict[str, Any]:
    """The first state that is wanted; each that comes before it is newer than the last."""
    version = 0
    while True:
        name, answer = await events.read()
        assert name == "next", answer
        row: dict[str, Any] = answer["data"][field]
        assert row["version"] > version
        version = row["version"]
        if wanted(row):
            return row
