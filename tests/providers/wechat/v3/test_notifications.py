"""APIv3 notifications: what is genuine is understood, and any other bytes are refused without a crash."""

import base64
import json
from datetime import timedelta
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.providers.contract import NotificationRefused, PaymentReport, ReportedStatus
from tests.providers.wechat.v3.bench import Bench, benching
from tests.providers.wechat.v3.keyring import (
    APP_ID,
    EVENT_ID,
    MCHID,
    NOW,
    NUMBER,
    OPENID,
    PAID,
    PARTNER_PAID,
    PUBLIC_KEY_ID,
    SUB_APP_ID,
    SUB_MCHID,
    TRANSACTION,
    by_certificate,
    encrypted,
    notice,
    stamped,
)

REASONS = {"signature", "timestamp", "malformed", "unsupported", "keys_unavailable"}


async def _reason(bench: Bench, body: bytes, headers: dict[str, str] | None = None, *, tail: str = "") -> str:
    """Why it is refused; fails the test when it is not."""
    with pytest.raises(NotificationRefused) as refused:
        await bench.read(stamped(body) if headers is None else headers, body, tail)
    return refused.value.reason


async def test_a_payment_is_understood(any_bench: Bench) -> None:
    partner = any_bench.account.mode == "v3_partner"
    body = notice(PARTNER_PAID if partner else PAID)
    how = by_certificate("one") if any_bench.account.mode == "v3_certificate" else {}
    notification = await any_bench.read(stamped(body, **how), body)
    assert notification.report == PaymentReport(
        out_trade_no=NUMBER,
        status=ReportedStatus.SUCCESSFUL,
        source="notification",
        amount_fen=1990,
        currency="CNY",
        transaction_id=TRANSACTION,
        payer_id=OPENID,
        paid_at=NOW.replace(second=1),
        account_claims={"sp_appid": APP_ID, "sp_mchid": MCHID, "sub_appid": SUB_APP_ID, "sub_mchid": SUB_MCHID}
        if partner
        else {"appid": APP_ID, "mchid": MCHID},
    )


async def test_repeats_are_one_event_and_other_contents_another(bench: Bench) -> None:
    async def event(body: bytes) -> str:
        notification = await bench.read(stamped(body, nonce="another"), body)
        assert isinstance(notification.event_key, str)
        return notification.event_key

    first = await event(notice())
    assert first.startswith(f"{EVENT_ID}:")
    # A repeat is encrypted anew and may say something else about itself.
    assert await event(notice(create_time="2026-11-22T10:00:00+08:00", summary="again")) == first
    assert await event(notice(PAID | {"attach": "", "bank_type": "CMB"})) == first
    others = [
        notice(id="EV-other"),
        notice(PAID | {"amount": {"total": 1991}}),
        notice(PAID | {"out_trade_no": "SY20261122000002"}),
        notice(PAID | {"transaction_id": "42"}),
        notice(PAID | {"mchid": "1900000002"}),
        notice(PAID | {"payer": {"openid": "oSomebodyElse"}}),
        notice(PAID | {"trade_state": "CLOSED"}),
        notice(PAID | {"amount": {"total": 1990, "currency": "HKD"}}),
    ]
    keys = [await event(body) for body in others]
    assert len({first, *keys}) == len(others) + 1


@pytest.mark.parametrize("seconds", [-300, 300, -600, 600, -86_400, 10**9])
async def test_a_distant_time_is_refused_before_any_key_is_looked_for(client: httpx.AsyncClient, seconds: int) -> None:
    async with benching(client, "v3_certificate") as bench:
        body = notice()
        headers = stamped(body, at=NOW + timedelta(seconds=seconds), by="one", named="5A" * 20)
        assert await _reason(bench, body, headers) == "timestamp"
        assert bench.wechat.downloads == 0


@pytest.mark.parametrize("seconds", [-299, 299])
async def test_a_near_time_is_taken(bench: Bench, seconds: int) -> None:
    body = notice()
    assert await bench.read(stamped(body, at=NOW + timedelta(seconds=seconds)), body)


async def test_a_probe_is_refused_and_the_notice_after_it_is_not(bench: Bench) -> None:
    body = notice()
    genuine = stamped(body)
    probe = {"wechatpay-signature": f"WECHATPAY/SIGNTEST/{genuine['wechatpay-signature']}"}
    assert await _reason(bench, body, genuine | probe) == "signature"
    assert await bench.read(genuine, body)


async def test_no_changed_byte_passes(bench: Bench) -> None:
    body = notice()
    headers = stamped(body)
    assert await bench.read(headers, body)
    for at in range(len(body)):
        for bit in (1, 32, 128):
            changed = body[:at] + bytes([body[at] ^ bit]) + body[at + 1 :]
            assert await _reason(bench, changed, headers) == "signature"
    for changed in (body[:-1], body + b" ", b" " + body, body + b"\n", body[1:], body + body):
        assert await _reason(bench, changed, headers) == "signature"
    assert await _reason(bench, b"", headers) == "malformed"


async def test_no_changed_header_passes(bench: Bench) -> None:
    body = notice()
    headers = stamped(body)
    for name in ("wechatpay-timestamp", "wechatpay-nonce", "wechatpay-serial", "wechatpay-signature"):
        text = headers[name]
        for at in range(len(text)):
            changed = text[:at] + ("1" if text[at] != "1" else "2") + text[at + 1 :]
            assert await _reason(bench, body, headers | {name: changed}) in ("signature", "timestamp")
        for other in ("", text + "1", text[:-1], text + "\n", "\x00", "漢", " " + text, "1" * 5000):
            assert await _reason(bench, body, headers | {name: other}) in ("signature", "timestamp")
        assert await _reason(bench, body, {one: text for one, text in headers.items() if one != name}) == "signature"


async def test_another_merchants_genuine_notice_is_refused(bench: Bench) -> None:
    # The platform's keys are everybody's; only the APIv3 key tells merchants apart.
    body = notice(apiv3_key="another merchant's key, 32 bytes")
    assert await _reason(bench, body) == "malformed"


async def test_the_merchants_own_signature_is_worth_nothing(bench: Bench) -> None:
    body = notice()
    for by in ("merchant", "stranger"):
        assert await _reason(bench, body, stamped(body, by=by)) == "signature"


@pytest.mark.parametrize("event_type", ["REFUND.OTHER", "REFUND.PROCESSING", "TRANSACTION.OTHER", "x"])
async def test_other_events_are_refused(bench: Bench, event_type: str) -> None:
    assert await _reason(bench, notice(event_type=event_type)) == "unsupported"


async def test_a_notification_on_another_path_is_refused(bench: Bench) -> None:
    assert await _reason(bench, notice(), tail="x") == "malformed"


async def test_a_compressed_body_is_refused(bench: Bench) -> None:
    body = notice()
    assert await _reason(bench, body, stamped(body) | {"content-encoding": "gzip"}) == "malformed"
    assert await bench.read(stamped(body) | {"content-encoding": "identity"}, body)


_SEALED = encrypted(json.dumps(PAID).encode())

_NO_AMOUNTS: tuple[Any, ...] = (
    [], "1990", {"total": "1990"}, {"total": 19.9}, {"total": 1e3}, {"total": True}, {"total": -1}, {"total": 2**63},
    {"total": 1990, "currency": []},
)  # fmt: skip


def _cut(count: int) -> str:
    return base64.b64encode(base64.b64decode(_SEALED["ciphertext"])[:count]).decode()


@pytest.mark.parametrize(
    "body",
    [
        b" ", b"null", b"[]", b'"x"', b"{}", b'{"id":1}', b"\xff\xfe{\x00}\x00", b"\xef\xbb\xbf{}", b"{" * 60_000,
        b"[" * 60_000, b'{"a":1e400}', b'{"id":NaN}', b"x" * 65_537, notice() + b" " * 65_000,
        notice(id=None), notice(id=""), notice(id=7), notice(id="x" * 65), notice(event_type=None),
        notice(event_type=[]),
        notice(id="a\x00b"), b'{"id":"\\ud800","event_type":"TRANSACTION.SUCCESS"}',
        notice().replace(b'"id"', b'"id": "x", "id"'), notice().replace(b'"algorithm"', b'"nonce": "x", "algorithm"'),
        notice(resource={"algorithm": None}), notice(resource={"algorithm": "AEAD_SM4_GCM"}),
        notice(resource={"nonce": None}), notice(resource={"nonce": ""}), notice(resource={"nonce": "x" * 11}),
        notice(resource={"nonce": "x" * 13}), notice(resource={"nonce": "x" * 12}), notice(resource={"nonce": 12}),
        notice(resource={"nonce": "汉" * 12}), notice(resource={"nonce": "汉" * 4}),
        notice(resource={"associated_data": "汉"}), notice(resource={"associated_data": "x" * 17}),
        notice(resource={"associated_data": 7}), notice(resource={"associated_data": "certificate"}),
        notice(resource={"associated_data": ""}), notice(resource={"associated_data": None}),
        notice(resource={"ciphertext": None}), notice(resource={"ciphertext": ""}),
        notice(resource={"ciphertext": "*"}),
        notice(resource={"ciphertext": "AAAA"}), notice(resource={"ciphertext": 7}),
        notice(resource=_SEALED | {"ciphertext": _cut(16)}), notice(resource=_SEALED | {"ciphertext": _cut(15)}),
        notice(resource=_SEALED | {"ciphertext": _cut(100)}), notice(resource={"original_type": "refund"}),
        notice(b""), notice(b"null"), notice(b"[]"), notice(b"{}"), notice(b"\xff"), notice(b'{"a":1,"a":2}'),
        notice(json.dumps(PAID).replace('"total": 1990', '"total": 1990, "total": 1').encode()),
        notice(json.dumps(PAID).encode() + b"x"), notice(json.dumps(PAID).encode("utf-16")),
        *(notice({name: value for name, value in PAID.items() if name != gone})
          for gone in ("out_trade_no", "trade_state", "mchid", "appid")),
        *(notice(PAID | {"amount": amount}) for amount in _NO_AMOUNTS),
        notice(PAID | {"out_trade_no": "\ud800"}), notice(PAID | {"out_trade_no": "a\x00"}),
        notice(PAID | {"out_trade_no": "x" * 1025}), notice(PAID | {"trade_state": 1}),
    ],
    ids=lambda body: body[:24].decode("latin-1"),
)  # fmt: skip
async def test_signed_bytes_that_are_no_notice_are_refused(bench: Bench, body: bytes) -> None:
    assert await _reason(bench, body) == "malformed"


async def test_without_associated_data_it_opens_where_it_was_sealed_so(bench: Bench) -> None:
    sealed = encrypted(json.dumps(PAID).encode(), associated_data="")
    assert await bench.read(stamped(body := notice(resource=sealed)), body)
    assert await bench.read(stamped(body := notice(resource=sealed | {"associated_data": None})), body)


async def test_what_is_unknown_in_a_notice_changes_nothing(bench: Bench) -> None:
    body = notice(PAID | {"promotion_detail": [{"coupon_id": "1"}], "new": {"a": [1]}}, extra=1, resource={"new": "x"})
    assert (await bench.read(stamped(body), body)).report.amount_fen == 1990


async def test_every_amount_arrives_to_the_fen(bench: Bench) -> None:
    for fen in (1, 2, 9, 10, 99, 100, 101, 1990, 999_999, 1_000_000, 2**53 + 1, 2**63 - 1):
        body = notice(PAID | {"amount": {"total": fen, "currency": "CNY"}})
        assert (await bench.read(stamped(body), body)).report.amount_fen == fen


async def test_an_amount_that_is_not_there_is_left_to_the_caller(bench: Bench) -> None:
    amounts: tuple[Any, ...] = (None, {}, {"total": None})
    for amount in amounts:
        body = notice(PAID | {"amount": amount})
        assert (await bench.read(stamped(body), body)).report.amount_fen is None


async def test_nothing_of_a_notice_stands_in_the_refusal(bench: Bench) -> None:
    body = notice(PAID | {"trade_state": 1})
    with pytest.raises(NotificationRefused) as refused:
        await bench.read(stamped(body), body)
    for secret in (OPENID, NUMBER, TRANSACTION):
        assert secret not in str(refused.value)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=300), signed=st.booleans())
async def test_no_bytes_crash_it(bench: Bench, body: bytes, signed: bool) -> None:
    headers = stamped(body) if signed else {"wechatpay-serial": PUBLIC_KEY_ID}
    assert await _reason(bench, body, headers) in REASONS


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plaintext=st.binary(max_size=200))
async def test_no_encrypted_bytes_crash_it(bench: Bench, plaintext: bytes) -> None:
    body = notice(plaintext)
    assert await _reason(bench, body) == "malformed"


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(sorted(PAID)), value=_VALUES)
async def test_no_value_of_any_field_crashes_it(bench: Bench, name: str, value: Any) -> None:
    body = notice(json.dumps(PAID | {name: value}).encode())
    refused = ""
    try:
        report = (await bench.read(stamped(body), body)).report
    except NotificationRefused as exc:
        refused = exc.reason
    if refused:
        assert refused == "malformed"
        return
    assert report.out_trade_no == (value if name == "out_trade_no" else NUMBER)
    # Whatever is passed on can be stored.
    texts = [
        report.out_trade_no,
        report.transaction_id,
        report.payer_id,
        report.currency,
        *report.account_claims.values(),
    ]
    assert b"\x00" not in json.dumps(texts, ensure_ascii=False).replace("\\u0000", "\x00").encode()
