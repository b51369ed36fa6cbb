"""APIv3's keys and clocks in mid-traffic: certificates rotated, a merchant moved to a public key, clocks gone wrong.

The sandbox decides which key WeChat signs with; the measure is that no notification fails while anything changes.
"""

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from app.errors import ProviderRejected, ProviderUnavailable
from app.payments.model import Payment
from app.runtime import Runtime
from tests.fixtures.market import Market
from tests.fixtures.shop import ADMIN, BUYER

METHODS = ("WECHAT_NATIVE", "WECHAT_JSAPI", "WECHAT_MINI_PROGRAM", "WECHAT_H5")
SKEWS = [timedelta(minutes=10), timedelta(minutes=-10)]


def outcomes(runtime: Runtime) -> dict[str, float]:
    """What became of WeChat's notifications in one process, by the metric."""
    name = "shouyin_notifications_total"
    [metric] = [each for each in runtime.metrics.registry.collect() if f"{each.name}_total" == name]
    return {sample.labels["outcome"]: sample.value for sample in metric.samples if sample.name == name}


async def signing(market: Market, mode: str, **choice: Any) -> None:
    """Tells WeChat which key to sign with for the merchant of a mode."""
    await market.control("POST", f"/wechat/merchants/{market.records[mode]['mchid']}/signing", **choice)


async def rotated(market: Market, mode: str) -> tuple[str, str]:
    """WeChat publishes one more certificate beside the one that signs; the serials of both, the old one first."""
    answer = await market.control("POST", f"/wechat/merchants/{market.records[mode]['mchid']}/certificates")
    old, new = answer["merchant"]["certificates"]
    assert answer["merchant"]["signing_certificate"] == old
    return old, new


class Traffic:
    """Payments that are made, paid, told of and asked about, several at a time."""

    def __init__(self, market: Market, mode: str) -> None:
        self.market = market
        self.mode = mode
        self.payments: list[Payment] = []

    async def while_(self, change: Awaitable[Any] | None = None) -> None:
        """Eight payments, and in the midst of them a change."""
        orders = [await self.market.shop.order() for _ in range(8)]
        paying = [asyncio.create_task(self._pay(METHODS[order_id % len(METHODS)], order_id)) for order_id in orders]
        if change is not None:
            await change
        await asyncio.gather(*paying)

    async def _pay(self, method: str, order_id: int) -> None:
        payment = await self.market.create(method, mode=self.mode, order_id=order_id)
        self.payments.append(payment)
        assert not payment.checking
        await self.market.pay(payment)
        await self.market.shop.runtime.payments.sync(BUYER, payment.id, correlation_id="c")

    async def assert_nothing_failed(self, *processes: Runtime) -> None:
        """Each notice was taken the first time it came, by the word of both sides, and each payment is paid."""
        for payment in self.payments:
            [notice] = await self.market.notices(payment)
            assert [attempt["acknowledged"] for attempt in notice["attempts"]] == [True]
        counted = [outcomes(process) for process in processes or (self.market.shop.runtime,)]
        assert {outcome for each in counted for outcome in each} == {"accepted"}
        assert sum(each.get("accepted", 0) for each in counted) == len(self.payments)
        await self.market.shop.settle()
        for payment in self.payments:
            assert (await self.market.find(payment)).status == "SUCCESSFUL"
            assert await self.market.shop.status_of(payment.order_id) == "paid"


async def test_certificates_rotated_in_mid_traffic_fail_no_notification(market: Market) -> None:
    traffic = Traffic(market, "v3_certificate")
    mchid = market.records["v3_certificate"]["mchid"]
    await traffic.while_()
    publishing = asyncio.create_task(rotated(market, "v3_certificate"))
    await traffic.while_(publishing)
    old, new = publishing.result()
    await traffic.while_(signing(market, "v3_certificate", key="certificate", serial=new))
    await traffic.while_(signing(market, "v3_certificate", key="certificate", serial=old))
    await traffic.while_(signing(market, "v3_certificate", key="certificate", serial=new))
    await traffic.while_(market.control("DELETE", f"/wechat/merchants/{mchid}/certificates/{old}"))
    # A day later the certificates are fetched once more, in passing; the old one is not among them.
    await market.advance(timedelta(days=1))
    await traffic.while_()
    await traffic.assert_nothing_failed()
    assert len(traffic.payments) == 56
    calls = (await market.control("GET", "/calls?method=wechat.v3.certificates"))["calls"]
    assert sum(row["count"] for row in calls) == 3


async def test_a_process_that_starts_during_the_rotation_knows_both_certificates(market: Market) -> None:
    traffic = Traffic(market, "v3_certificate")
    await traffic.while_()
    _, new = await rotated(market, "v3_certificate")
    young = await market.shop.open()
    market.notified = young
    await traffic.while_(signing(market, "v3_certificate", key="certificate", serial=new))
    await traffic.while_()
    await traffic.assert_nothing_failed(market.shop.runtime, young)


@pytest.mark.parametrize("door", ["the process that changes the account", "another process"])
async def test_a_merchant_moved_to_the_public_key_in_mid_traffic_fails_no_notification(
    market: Market, door: str
) -> None:
    mode = "v3_certificate"
    traffic = Traffic(market, mode)
    account_id = await market.account(mode)
    processes = [market.shop.runtime]
    if door == "another process":
        market.notified = await market.shop.open()
        processes.append(market.notified)
    await traffic.while_()
    shown = (await market.control("GET", f"/wechat/merchants/{market.records[mode]['mchid']}"))["merchant"]
    fields = {name: shown[name] for name in ("public_key_id", "public_key")}
    await traffic.while_(market.shop.runtime.accounts.change(ADMIN, account_id, fields=fields))
    await traffic.while_(signing(market, mode, key="alternating"))
    await traffic.while_()
    await traffic.while_(rotated(market, mode))
    await traffic.while_(signing(market, mode, key="public_key"))
    # In the end WeChat has no certificate for this merchant any more, and says so a day later, also to a new process.
    gone = {"kind": "business_error", "code": "RESOURCE_NOT_EXISTS", "count": 1000}
    await market.control("POST", "/faults", method="wechat.v3.certificates", **gone)
    await market.advance(timedelta(days=1))
    await traffic.while_()
    market.notified = await market.shop.open()
    await traffic.while_()
    await traffic.assert_nothing_failed(*processes, market.notified)
    signed = {received.headers["wechatpay-serial"][:10] for received in market.received}
    assert len(signed) == 2
    assert "PUB_KEY_ID" in signed


async def test_a_public_key_that_is_entered_late_costs_a_repeat_and_no_notification(market: Market) -> None:
    mode = "v3_certificate"
    payment = await market.create("WECHAT_NATIVE", mode=mode)
    await signing(market, mode, key="public_key")
    await market.pay(payment)
    assert outcomes(market.shop.runtime) == {"signature": 1}
    shown = (await market.control("GET", f"/wechat/merchants/{market.records[mode]['mchid']}"))["merchant"]
    fields = {name: shown[name] for name in ("public_key_id", "public_key")}
    await market.shop.runtime.accounts.change(ADMIN, await market.account(mode), fields=fields)
    await market.advance(timedelta(seconds=15))
    assert outcomes(market.shop.runtime) == {"signature": 1, "accepted": 1}
    await market.shop.settle()
    assert (await market.find(payment)).status == "SUCCESSFUL"


async def test_certificates_that_cannot_be_fetched_cost_a_repeat_and_no_notification(market: Market) -> None:
    payment = await market.create("WECHAT_NATIVE", mode="v3_certificate")
    young = market.notified = await market.shop.open()
    await market.control("POST", "/faults", method="wechat.v3.certificates", kind="http_500", count=1000)
    await market.pay(payment)
    assert outcomes(young) == {"keys_unavailable": 1}
    # What such a process is asked to order it does not even send: it could not read the answer.
    with pytest.raises(ProviderUnavailable):
        await market.create("WECHAT_NATIVE", young, mode="v3_certificate")
    assert len((await market.control("GET", "/trades"))["trades"]) == 1
    await market.control("DELETE", "/faults")
    await market.advance(timedelta(seconds=15))
    assert outcomes(young) == {"keys_unavailable": 1, "accepted": 1}
    await market.shop.settle()
    assert (await market.find(payment)).status == "SUCCESSFUL"
    assert (await market.create("WECHAT_NATIVE", young, mode="v3_certificate")).status == "PENDING"


async def test_strangers_who_name_certificates_delay_no_rotation(market: Market) -> None:
    """Each unknown serial could be a new certificate: we look, but not as often as anybody likes."""
    traffic = Traffic(market, "v3_certificate")
    await traffic.while_()
    _, new = await rotated(market, "v3_certificate")
    true = market.received[-1]
    for number in range(30):
        forged = replace(true, headers=true.headers | {"wechatpay-serial": f"{0x5A00000000 + number:040X}"})
        answer = await market.deliver(forged)
        assert 400 <= answer.status_code < 600
    calls = (await market.control("GET", "/calls?method=wechat.v3.certificates"))["calls"]
    assert sum(row["count"] for row in calls) <= 3
    accepted = outcomes(market.shop.runtime)["accepted"]
    await traffic.while_(signing(market, "v3_certificate", key="certificate", serial=new))
    assert outcomes(market.shop.runtime)["accepted"] == accepted + 8
    assert outcomes(market.shop.runtime)["signature"] == 30


@pytest.mark.parametrize("mode", ["v3", "v3_certificate", "v3_partner"])
async def test_a_signature_probe_is_refused_and_the_true_notice_taken(market: Market, mode: str) -> None:
    payment = await market.create("WECHAT_JSAPI", mode=mode)
    await market.pay(payment, notify=False)
    sent = await market.control("POST", f"/wechat/trades/{payment.out_trade_no}/probe", follow=True)
    probe, true = sent["notifications"]
    assert [attempt["http_status"] // 100 for attempt in probe["attempts"]] == [4]
    assert [attempt["acknowledged"] for attempt in true["attempts"]] == [True]
    assert outcomes(market.shop.runtime) == {"signature": 1, "accepted": 1}
    assert await market.shop.count("notification") == 1
    await market.shop.settle()
    assert (await market.find(payment)).status == "SUCCESSFUL"


# --- clocks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("skew", SKEWS, ids=str)
@pytest.mark.parametrize("mode", ["v3", "v3_certificate", "v3_partner"])
async def test_a_clock_that_is_wrong_gives_the_documented_refusal_and_charges_nothing(
    market: Market, mode: str, skew: timedelta
) -> None:
    await market.create("WECHAT_NATIVE", mode=mode)
    await market.control("POST", "/clock", strict_timestamps=True)
    market.shop.clock.advance(skew)
    with pytest.raises(ProviderRejected) as rejected:
        await market.create("WECHAT_NATIVE", mode=mode)
    assert rejected.value.extra["provider"]["code"] == "SIGN_ERROR"
    assert "clock" in rejected.value.message
    assert "时间" in (rejected.value.message_zh or "")
    statuses = await market.shop.connection.fetch("select status from shouyin.payment order by id")
    assert [row["status"] for row in statuses] == ["PENDING", "FAILED"]
    assert len((await market.control("GET", "/trades"))["trades"]) == 1
    market.shop.clock.advance(-skew)
    assert (await market.create("WECHAT_NATIVE", mode=mode)).status == "PENDING"


@pytest.mark.parametrize("skew", SKEWS, ids=str)
@pytest.mark.parametrize("whose", ["ours", "theirs"])
async def test_notices_of_another_time_are_refused_counted_and_taken_when_the_clock_is_right(
    market: Market, whose: str, skew: timedelta
) -> None:
    payment = await market.create("WECHAT_H5", mode="v3")
    await market.show(payment)
    await market.control("POST", "/clock", strict_timestamps=True)
    if whose == "ours":
        market.shop.clock.advance(skew)
    else:
        await market.control("POST", "/wechat/skew", seconds=skew.total_seconds())
    await market.control("POST", f"/trades/{payment.out_trade_no}/pay")
    assert outcomes(market.shop.runtime) == {"timestamp": 1}
    assert await market.shop.count("notification") == 0
    assert (await market.find(payment)).status == "PENDING"
    if whose == "ours":
        market.shop.clock.advance(-skew)
    else:
        await market.control("POST", "/wechat/skew", seconds=0)
    await market.advance(timedelta(seconds=15))
    assert outcomes(market.shop.runtime) == {"timestamp": 1, "accepted": 1}
    await market.shop.settle()
    assert (await market.find(payment)).status == "SUCCESSFUL"


@pytest.mark.parametrize("mode", ["v3", "v3_certificate", "v3_partner"])
async def test_an_old_notice_played_again_is_refused(market: Market, mode: str) -> None:
    payment = await market.create("WECHAT_NATIVE", mode=mode)
    await market.pay(payment)
    old = market.received[-1]
    await market.advance(timedelta(minutes=4))
    assert (await market.deliver(old)).status_code in (200, 204)
    await market.advance(timedelta(minutes=1, seconds=1))
    answer = await market.deliver(old)
    assert 400 <= answer.status_code < 500
    assert outcomes(market.shop.runtime) == {"accepted": 1, "repeated": 1, "timestamp": 1}
    assert await market.shop.connection.fetchval("select received_count from shouyin.notification") == 2
    # A younger stamp on an old signature is a forgery.
    stamp = str(int(market.shop.clock.now().timestamp()))
    answer = await market.deliver(replace(old, headers=old.headers | {"wechatpay-timestamp": stamp}))
    assert 400 <= answer.status_code < 500
    assert outcomes(market.shop.runtime)["signature"] == 1
