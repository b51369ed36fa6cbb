"""The inbox: only what the provider signed gets in, once, before it is acknowledged; and all of it is applied."""

import asyncio
import json
from datetime import timedelta
from urllib.parse import parse_qsl, urlencode

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from app.clock import Clock
from app.errors import NotFound
from app.payments.actions import CreatePayment
from app.payments.model import Payment
from app.providers.contract import PaymentMethod
from app.runtime import Runtime, open_runtime
from tests.fixtures.alipay import FORM, signed_notice
from tests.fixtures.shop import ADMIN, BUYER, Shop

Keys = tuple[rsa.RSAPrivateKey, rsa.RSAPrivateKey]


async def pending(shop: Shop) -> Payment:
    request = CreatePayment(await shop.order(), PaymentMethod.ALIPAY_PAGE, None, "Tea")
    return await shop.runtime.payments.create(BUYER, request, correlation_id="c-1")


async def deliver(runtime: Runtime, payment: Payment, body: bytes) -> bytes:
    """What the provider reads back."""
    answer = await runtime.inbox.receive("alipay", payment.merchant_account_id, FORM, body, correlation_id="c-2")
    return answer.body


async def test_a_notice_is_committed_acknowledged_and_applied(shop: Shop, rsa_keys: Keys) -> None:
    payment = await pending(shop)
    body = signed_notice(rsa_keys[1], out_trade_no=payment.out_trade_no)
    assert await deliver(shop.runtime, payment, body) == b"success"
    row = await shop.connection.fetchrow(
        "select body, received_count, handled_count, due_at is null from shouyin.notification"
    )
    assert row is not None
    assert tuple(row) == (body, 1, 0, False)
    await shop.settle()
    assert await shop.status_of(payment.order_id) == "paid"
    row = await shop.connection.fetchrow("select received_count, handled_count, due_at from shouyin.notification")
    assert row is not None
    assert tuple(row) == (1, 1, None)


async def test_fifty_identical_notices_at_once_make_one_transition_and_one_effect(shop: Shop, rsa_keys: Keys) -> None:
    payment = await pending(shop)
    other = await shop.open()
    body = signed_notice(rsa_keys[1], out_trade_no=payment.out_trade_no)
    await shop.connection.execute("create table public.effects (order_id bigint, already boolean)")
    answers = await asyncio.gather(*(deliver(process, payment, body) for process in (shop.runtime, other) * 25))
    assert answers == [b"success"] * 50
    await asyncio.gather(shop.settle(), shop.settle(other))
    await shop.settle()
    assert await shop.count("notification") == 1
    kinds = await shop.events(payment.id)
    assert (kinds.count("payment.successful"), kinds.count("payment.repeated")) == (1, 49)
    assert await shop.status_of(payment.order_id) == "paid"
    done = await shop.connection.fetch("select status, count(*) as n from shouyin.flow_run group by status")
    # Ours has nothing to do for a repeat, and is not asked to; a merchant's own flow is (tests/flows).
    assert [tuple(row) for row in done] == [("DONE", 1)]


async def test_a_repeat_after_it_was_handled_reaches_the_flow_again(shop: Shop, rsa_keys: Keys) -> None:
    payment = await pending(shop)
    body = signed_notice(rsa_keys[1], out_trade_no=payment.out_trade_no)
    await deliver(shop.runtime, payment, body)
    await shop.settle()
    await deliver(shop.runtime, payment, body)
    await shop.settle()
    assert (await shop.events(payment.id))[2:] == ["payment.successful", "payment.repeated"]


@pytest.mark.parametrize("field", ["total_amount", "trade_status", "out_trade_no", "app_id", "sign", "notify_id"])
async def test_an_altered_notice_is_refused_and_leaves_nothing(shop: Shop, rsa_keys: Keys, field: str) -> None:
    payment = await pending(shop)
    fields = dict(parse_qsl(signed_notice(rsa_keys[1], out_trade_no=payment.out_trade_no).decode()))
    fields[field] = fields[field][:-1] + ("0" if fields[field][-1] != "0" else "1")
    assert await deliver(shop.runtime, payment, urlencode(fields).encode()) != b"success"
    assert await shop.count("notification") == 0
    await shop.settle()
    assert (await shop.runtime.payments.find(BUYER, payment.id)) == payment


async def test_a_notice_signed_with_our_own_key_is_refused(shop: Shop, rsa_keys: Keys) -> None:
    payment = await pending(shop)
    body = signed_notice(rsa_keys[0], out_trade_no=payment.out_trade_no)
    assert await deliver(shop.runtime, payment, body) != b"success"
    assert await shop.count("notification") == 0


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"total_amount": "12.29"}, "amount_fen"),
        ({"app_id": "2021000000000002"}, "app_id"),
        ({"seller_id": "2088000000000002"}, "seller_id"),
        ({"out_trade_no": "SY20261121200000AAAAAAAAAA"}, "out_trade_no"),
    ],
)
async def test_a_true_notice_that_does_not_fit_is_recorded_and_changes_nothing(
    shop: Shop, rsa_keys: Keys, changes: dict[str, str], field: str
) -> None:
    payment = await pending(shop)
    body = signed_notice(rsa_keys[1], **{"out_trade_no": payment.out_trade_no} | changes)
    assert await deliver(shop.runtime, payment, body) == b"success"
    await shop.settle()
    assert await shop.runtime.payments.find(BUYER, payment.id) == payment
    assert await shop.status_of(payment.order_id) == "unpaid"
    assert await shop.connection.fetchval("select array_agg(field) from shouyin.difference") == [field]
    counted = shop.runtime.metrics.registry.get_sample_value("shouyin_differences_total", {"field": field})
    assert counted == 1.0


async def test_a_key_that_was_changed_elsewhere_costs_no_notification(
    shop: Shop, rsa_keys: Keys, account_fields: dict[str, str]
) -> None:
    """The account is rotated in the database while this process still holds the old one."""
    payment = await pending(shop)
    wrong = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    body = signed_notice(wrong, out_trade_no=payment.out_trade_no)
    assert await deliver(shop.runtime, payment, body) != b"success"
    from tests.fixtures.shop import public_pem

    other = await shop.open()
    created = await other.accounts.create(
        ADMIN, provider="ALIPAY", mode="public_key", name="New",
        fields={**account_fields, "alipay_public_key": public_pem(wrong)},
    )  # fmt: skip
    # The new key under the old id: sealed for its own row, so that it is sealed again for this one.
    from app.vault import Vault

    vault = Vault(shop.config.master_keys)
    sealed = await shop.connection.fetchval("select sealed from shouyin.merchant_account where id = $1", created.id)
    opened = vault.open(sealed, row=f"merchant_account:{created.id}")
    resealed = vault.seal(opened, row=f"merchant_account:{payment.merchant_account_id}")
    await shop.connection.execute(
        "update shouyin.merchant_account set sealed = $2 where id = $1", payment.merchant_account_id, resealed
    )
    assert await deliver(shop.runtime, payment, body) == b"success"


async def test_an_account_or_provider_that_is_not_there_is_not_found(shop: Shop, rsa_keys: Keys) -> None:
    for provider, account_id in (("alipay", 999), ("wechat", 1)):
        with pytest.raises(NotFound):
            await shop.runtime.inbox.receive(provider, account_id, FORM, b"x=1", correlation_id="c")


async def test_a_notification_that_cannot_be_applied_stays_and_is_tried_again(shop: Shop, rsa_keys: Keys) -> None:
    payment = await pending(shop)
    await deliver(shop.runtime, payment, signed_notice(rsa_keys[1], out_trade_no=payment.out_trade_no))
    await shop.connection.execute(
        "alter table shouyin.payment add constraint broken check (status <> 'SUCCESSFUL') not valid"
    )
    await shop.runtime.inbox.drain()
    row = await shop.connection.fetchrow(
        "select handled_count, error, due_at > now() as later from shouyin.notification"
    )
    assert row is not None
    assert (row["handled_count"], row["later"], "CheckViolation" in row["error"]) == (0, True, True)
    await shop.connection.execute("alter table shouyin.payment drop constraint broken")
    shop.clock.advance(timedelta(minutes=1))
    await shop.settle()
    assert await shop.status_of(payment.order_id) == "paid"


async def test_what_is_said_of_an_agreement_of_nobody_is_kept_whole_and_recorded(shop: Shop, rsa_keys: Keys) -> None:
    payment = await pending(shop)
    body = signed_notice(
        rsa_keys[1],
        **dict.fromkeys(("trade_status", "trade_no", "total_amount", "gmt_create", "gmt_payment", "seller_id"), ""),
        notify_type="dut_user_sign",
        status="NORMAL",
        agreement_no="20265522000000000001",
        external_agreement_no="SA1",
        sign_scene="INDUSTRY|EDU",
        alipay_user_id="2088000000000002",
        sign_time="2026-11-21 20:00:00",
        invalid_time="2115-02-01 00:00:00",
    )
    assert await deliver(shop.runtime, payment, body) == b"success"
    assert await deliver(shop.runtime, payment, body) == b"success"
    events = await shop.count("event")
    await shop.runtime.inbox.drain()
    row = await shop.connection.fetchrow(
        "select report, received_count, handled_count, error from shouyin.notification"
    )
    assert row is not None
    assert (row["received_count"], row["handled_count"], row["error"]) == (2, 2, None)
    assert await shop.count("event") == events
    difference = await shop.connection.fetchrow("select field, reported from shouyin.difference")
    assert difference is not None
    assert tuple(difference) == ("external_agreement_no", "SA1")
    assert json.loads(row["report"]) == {
        "about": "agreement",
        "status": "ACTIVE",
        "source": "notification",
        "external_agreement_no": "SA1",
        "agreement_no": "20265522000000000001",
        "scene": "INDUSTRY|EDU",
        "payer_id": "2088000000000002",
        "signed_at": "2026-11-21T12:00:00+00:00",
        "valid_until": "2115-01-31T16:00:00+00:00",
        "account_claims": {"app_id": "2021000000000001", "auth_app_id": "2021000000000001"},
    }


async def test_a_poison_notification_does_not_hold_up_the_others(shop: Shop, rsa_keys: Keys) -> None:
    poisoned, healthy = await pending(shop), await pending(shop)
    await shop.connection.execute(
        f"alter table shouyin.payment add constraint poison check (status <> 'SUCCESSFUL' or id <> {poisoned.id})"
    )
    for number, payment in enumerate((poisoned, healthy)):
        body = signed_notice(rsa_keys[1], out_trade_no=payment.out_trade_no, notify_id=f"n{number}")
        await deliver(shop.runtime, payment, body)
    await shop.settle()
    assert (await shop.status_of(poisoned.order_id), await shop.status_of(healthy.order_id)) == ("unpaid", "paid")


async def test_clocks_that_disagree_delay_nothing(shop: Shop, rsa_keys: Keys) -> None:
    """The process that received it is ten minutes ahead of the one that applies it."""
    payment = await pending(shop)
    ahead = await open_runtime(shop.config, clock=Clock(timedelta(minutes=10)), realtime=False)
    shop.opened.append(ahead)
    await deliver(ahead, payment, signed_notice(rsa_keys[1], out_trade_no=payment.out_trade_no))
    await ahead.flows.dispatch()
    await shop.settle()
    assert await shop.status_of(payment.order_id) == "paid"


async def test_a_notice_replayed_without_end_is_counted_and_reaches_the_flow_a_hundred_times(
    shop: Shop, rsa_keys: Keys
) -> None:
    payment = await pending(shop)
    body = signed_notice(rsa_keys[1], out_trade_no=payment.out_trade_no)
    await deliver(shop.runtime, payment, body)
    await shop.settle()
    for _ in range(2):
        await shop.connection.execute("update shouyin.notification set received_count = received_count + 1000")
        await deliver(shop.runtime, payment, body)
        await shop.settle()
    kinds = await shop.events(payment.id)
    assert (kinds.count("payment.successful"), kinds.count("payment.repeated")) == (1, 99)
    assert await shop.count("flow_run") == 1
    assert await shop.connection.fetchval("select received_count = handled_count from shouyin.notification")


async def test_unsigned_floods_open_no_account_again(shop: Shop, rsa_keys: Keys) -> None:
    """Parsing keys costs milliseconds: whoever can post must not be able to make us do it."""
    payment = await pending(shop)
    opened = await shop.runtime.accounts.open(payment.merchant_account_id)
    for body in (b"x=1", b"", b"\xff", signed_notice(rsa_keys[0], out_trade_no=payment.out_trade_no)):
        assert await deliver(shop.runtime, payment, body) == b"fail"
    assert await shop.runtime.accounts.open(payment.merchant_account_id) is opened


async def test_the_reason_of_a_failure_is_kept_whatever_it_holds(
    shop: Shop, rsa_keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    payment = await pending(shop)
    await deliver(shop.runtime, payment, signed_notice(rsa_keys[1], out_trade_no=payment.out_trade_no))

    async def broken(*_: object, **__: object) -> None:
        raise ValueError("zero \x00 half \ud800")

    with monkeypatch.context() as patch:
        patch.setattr("app.notifications.inbox.apply_within", broken)
        await shop.runtime.inbox.drain()
    error = await shop.connection.fetchval("select error from shouyin.notification where due_at > now()")
    assert error == "ValueError: zero \ufffd half ?"


async def test_money_is_recorded_while_the_merchant_holds_the_order(shop: Shop, rsa_keys: Keys) -> None:
    """A nightly job of theirs that updates every order in one transaction must not keep results waiting."""
    payment = await pending(shop)
    await deliver(shop.runtime, payment, signed_notice(rsa_keys[1], out_trade_no=payment.out_trade_no))
    async with shop.connection.transaction():
        await shop.connection.execute("update orders set title = title")
        async with asyncio.timeout(10):
            assert await shop.runtime.inbox.drain() == 1
        found = await shop.runtime.payments.find(BUYER, payment.id)
        assert found is not None
        assert found.status == "SUCCESSFUL"
    await shop.settle()
    assert await shop.status_of(payment.order_id) == "paid"
