"""WeChat as one provider: which interface answers for an account, and what is refused before anything is sent."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.clock import Clock
from app.errors import CallerError, InvalidAmount, InvalidInput
from app.providers.contract import (
    AccountInvalid,
    NotificationRefused,
    PaymentMethod,
    PaymentRequest,
    Provider,
    Rejected,
)
from app.providers.gateways import GatewayRule
from app.providers.wechat import WechatProvider
from app.providers.wechat.cloud import CloudDialect
from app.providers.wechat.v2 import V2Dialect
from app.providers.wechat.v3 import V3Dialect
from tests.providers.wechat.refunding import refund_request
from tests.providers.wechat.v3.keyring import FIELDS_OF_MODE as V3_FIELDS

NOW = datetime(2026, 11, 22, 1, 2, 3, tzinfo=UTC)
METHODS = sorted(method for method in PaymentMethod if method.startswith("WECHAT_"))
WITH_PAYER = ("WECHAT_MINI_PROGRAM", "WECHAT_JSAPI", "WECHAT_CLOUD")
APP_ID = "wx0000000000000001"
FIELDS: dict[str, dict[str, str]] = {
    "v2": {"mch_id": "1900000001", "appid": APP_ID, "api_key": "0123456789abcdefABCDEF0123456789"},
    "cloud": {"sub_mch_id": "1900000001", "appid": APP_ID, "env_id": "prod-1", "cloud_service": "shouyin"},
}
FIELDS["v2_partner"] = FIELDS["v2"] | {"sub_mch_id": "1900000109"}


# For what makes no call; opening one takes as long as reading all certificate authorities does.
_UNUSED = httpx.AsyncClient()


def _provider() -> WechatProvider:
    return WechatProvider(_UNUSED, Clock(), timeout_s=1.0, gateways=GatewayRule())


def _request(method: PaymentMethod, **changes: Any) -> PaymentRequest:
    fields: dict[str, Any] = {
        "method": method,
        "out_trade_no": "SY20261122000001",
        "amount_fen": 1990,
        "subject": '会员 "月卡" + 100% <b>&',
        "notify_url": "https://pay.example.com/notify/wechat/1",
        "created_at": NOW,
        "expires_at": NOW + timedelta(minutes=30),
        "openid": "oTestOpenid_-0001" if method in WITH_PAYER else None,
        "client_address": "203.0.113.7",
    }
    return PaymentRequest(**(fields | changes))


def _fault(method: PaymentMethod, **changes: Any) -> CallerError:
    with pytest.raises(CallerError) as fault:
        _provider().check_request(_request(method, **changes))
    return fault.value


def _is_provider(provider: Provider) -> Provider:
    return provider


def test_it_is_a_provider_of_every_way_of_wechats() -> None:
    provider = _is_provider(_provider())
    assert provider.name == "WECHAT"
    assert provider.methods == frozenset(METHODS)
    assert provider.methods_with_payer == frozenset(WITH_PAYER)
    assert list(provider.modes) == ["v3", "v3_certificate", "v3_partner", "v2", "v2_partner", "cloud"]
    assert list(provider.query_schedule) == sorted(set(provider.query_schedule))
    assert sum(age <= timedelta(minutes=10) for age in provider.query_schedule) <= 10
    assert provider.query_schedule[-1] <= provider.maximum_expiry


def test_a_refund_is_asked_about_as_wechat_recommends() -> None:
    ages = [int(age.total_seconds()) // 60 for age in _provider().refund_schedule]
    gaps = [later - earlier for earlier, later in pairwise([0, *ages])]
    assert gaps == [1, 1, 1, 1, 1, 5, 10, 20, 30, 60]
    assert _provider().refund_window == timedelta(days=365)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"out_refund_no": ""}, "out_refund_no is ours to make"),
        ({"out_refund_no": "x" * 65}, "out_refund_no is ours to make"),
        ({"out_refund_no": "SR/1"}, "out_refund_no is ours to make"),
        ({"amount_fen": 0}, "at least one fen"),
        ({"amount_fen": -1}, "at least one fen"),
        ({"amount_fen": 1991}, "at most the whole order"),
        ({"notify_url": "https://a.example.com/n?x=1"}, "notification address"),
        ({"notify_url": "/notify"}, "notification address"),
    ],
    ids=str,
)
async def test_a_refund_wechat_would_not_take_is_a_fault_of_ours(changes: dict[str, Any], message: str) -> None:
    provider = _provider()
    settings, credentials = provider.seal_input(mode="v2", fields=FIELDS["v2"])
    account = provider.open_account(mode="v2", settings=settings, credentials=credentials)
    with pytest.raises(ValueError, match=message):
        await provider.create_refund(account, refund_request(**changes))
    outcome = await provider.create_refund(account, refund_request(amount_fen=1990))
    assert isinstance(outcome, Rejected)
    assert outcome.code == "CLIENT_CERTIFICATE_MISSING"
    for call in (provider.create_refund, provider.query_refund):
        with pytest.raises(TypeError, match="WeChat provider"):
            await call(account.own, refund_request())


@pytest.mark.parametrize(
    ("mode", "dialect"),
    [
        ("v3", V3Dialect), ("v3_certificate", V3Dialect), ("v3_partner", V3Dialect),
        ("v2", V2Dialect), ("v2_partner", V2Dialect), ("cloud", CloudDialect),
    ],
)  # fmt: skip
async def test_the_mode_picks_the_interface(mode: str, dialect: type) -> None:
    provider = _provider()
    fields = V3_FIELDS[mode]() if mode in V3_FIELDS else FIELDS[mode]
    settings, credentials = provider.seal_input(mode=mode, fields=fields)
    assert provider.seal_input(mode=mode, fields=settings | credentials) == (settings, credentials)
    assert not settings.keys() & credentials.keys()
    account = provider.open_account(mode=mode, settings=settings, credentials=credentials)
    assert isinstance(account.dialect, dialect)
    offered = {"WECHAT_CLOUD"} if mode == "cloud" else set(METHODS) - {"WECHAT_CLOUD"}
    assert set(account.offers) == offered
    assert all(apps for apps in account.offers.values())
    assert account.expected_claims
    with pytest.raises(NotificationRefused):
        await provider.read_notification(account, {}, b"")
    with pytest.raises(NotificationRefused):
        await provider.read_notification(account, {}, b"x", tail="x")
    assert provider.acknowledge(account, accepted=True) != provider.acknowledge(account, accepted=False)


@pytest.mark.parametrize("mode", ["v3", "v3_certificate", "v3_partner", "v2", "v2_partner", "cloud"])
async def test_an_application_the_account_has_lost_opens_nothing(mode: str) -> None:
    """What begins under it could be paid, and its notice would not be this account's."""
    provider = _provider()
    fields = V3_FIELDS[mode]() if mode in V3_FIELDS else FIELDS[mode]
    settings, credentials = provider.seal_input(mode=mode, fields=fields | {"gateway": "http://127.0.0.1:1"})
    account = provider.open_account(mode=mode, settings=settings, credentials=credentials)
    method = PaymentMethod.WECHAT_CLOUD if mode == "cloud" else PaymentMethod.WECHAT_MINI_PROGRAM
    outcome = await provider.create_payment(account, _request(method, app_id="wx00000000000000ff"))
    assert isinstance(outcome, Rejected)
    assert outcome.code == "APPID_MCHID_NOT_MATCH"
    assert "wx00000000000000ff" in outcome.message


@pytest.mark.parametrize("mode", ["", "V3", "public_key", "v4"])
def test_another_mode_is_refused(mode: str) -> None:
    for call in (
        lambda: _provider().seal_input(mode=mode, fields={}),
        lambda: _provider().open_account(mode=mode, settings={}, credentials={}),
    ):
        with pytest.raises(AccountInvalid, match="no WeChat mode: use one of v3, v3_certificate") as invalid:
            call()
        assert invalid.value.field == "mode"


async def test_an_account_of_another_provider_is_a_fault_of_ours() -> None:
    provider = _provider()
    account = provider.open_account(
        mode="v2", settings={name: FIELDS["v2"][name] for name in ("mch_id", "appid")},
        credentials={"api_key": FIELDS["v2"]["api_key"]},
    )  # fmt: skip
    with pytest.raises(TypeError, match="WeChat provider"):
        await provider.query_payment(account.own, "SY20261122000001")


@pytest.mark.parametrize("method", METHODS)
def test_an_ordinary_request_passes(method: PaymentMethod) -> None:
    provider = _provider()
    for changes in (
        {}, {"amount_fen": 1}, {"amount_fen": 10_000_000_000}, {"subject": "茶"}, {"subject": "茶" * 127},
        {"subject": "全角　空格"}, {"out_trade_no": "A-b_c*|"}, {"out_trade_no": "1" * 32},
        {"expires_at": NOW + timedelta(minutes=1)}, {"expires_at": NOW + timedelta(hours=2)},
        {"return_url": "https://shop.example.com/done?id=1&x=%E4%B8%AD"}, {"client_address": "2001:db8::1"},
        {"notify_url": "http://127.0.0.1:8000/notify/wechat/1"},
    ):  # fmt: skip
        provider.check_request(_request(method, **changes))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("subject", "word"),
    [
        ("", "empty"), (" \u3000", "empty"), ("茶" * 128, "127"), ("茶🍵", "emoji"), ("\U00020000", "emoji"),
        ("a\nb", "invisible"), ("a\x00", "invisible"), ("\u202eabc", "invisible"), ("a\ud800", "invisible"),
        ("\ufffe", "invisible"), ("a\u2028", "invisible"),
    ],
)  # fmt: skip
def test_a_subject_wechat_would_refuse_is_refused(method: PaymentMethod, subject: str, word: str) -> None:
    fault = _fault(method, subject=subject)
    assert isinstance(fault, InvalidInput)
    assert fault.field == "subject"
    assert word in fault.message
    assert "商品描述" in fault.message_zh


@given(st.text(min_size=1, max_size=127))
def test_every_subject_is_either_refused_or_can_be_sent(subject: str) -> None:
    try:
        _provider().check_request(_request(PaymentMethod.WECHAT_JSAPI, subject=subject))
    except InvalidInput:
        return
    assert all(len(character.encode()) <= 3 for character in subject)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "life", [timedelta(0), timedelta(seconds=59), timedelta(hours=2, seconds=1), timedelta(days=7)]
)
def test_a_life_wechat_cannot_give_is_refused(method: PaymentMethod, life: timedelta) -> None:
    fault = _fault(method, expires_at=NOW + life)
    assert (fault.field, "60 and 7200" in fault.message, "2 小时" in fault.message_zh) == (
        "expiresInSeconds",
        True,
        True,
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("amount_fen", [0, -1])
def test_an_amount_below_a_fen_is_refused(method: PaymentMethod, amount_fen: int) -> None:
    fault = _fault(method, amount_fen=amount_fen)
    assert isinstance(fault, InvalidAmount)
    assert fault.field == "amount"


@pytest.mark.parametrize("method", WITH_PAYER)
def test_a_payer_has_to_be_named(method: str) -> None:
    fault = _fault(PaymentMethod(method), openid=None)
    assert fault.field == "openid"
    assert "wechatLogin" in fault.message
    assert "wechatLogin" in fault.message_zh
    for openid in ("", "o x", "汉", "o\n", "x" * 129, "openid;"):
        fault = _fault(PaymentMethod(method), openid=openid)
        assert fault.field == "openid"


@pytest.mark.parametrize("method", [PaymentMethod.WECHAT_H5, PaymentMethod.WECHAT_NATIVE])
def test_a_payer_nobody_asked_for_is_refused(method: PaymentMethod) -> None:
    fault = _fault(method, openid="oTestOpenid0001")
    assert (fault.field, "leave openid out" in fault.message) == ("openid", True)


@pytest.mark.parametrize("address", [None, "", "unknown", "203.0.113.7:80", "1.2.3", "localhost"])
def test_h5_needs_the_payers_address(address: str | None) -> None:
    fault = _fault(PaymentMethod.WECHAT_H5, client_address=address)
    assert fault.field == "method"
    assert "IP" in fault.message
    for method in set(METHODS) - {"WECHAT_H5"}:
        _provider().check_request(_request(PaymentMethod(method), client_address=address))


@pytest.mark.parametrize(
    "url",
    ["", "shop.example.com", "/done", "javascript:alert(1)", "https://", "https://a b", "https://例.cn/", "http://[x"],
)
def test_an_h5_way_back_has_to_be_an_address(url: str) -> None:
    assert _fault(PaymentMethod.WECHAT_H5, return_url=url).field == "returnUrl"
    _provider().check_request(_request(PaymentMethod.WECHAT_NATIVE, return_url=url))


@pytest.mark.parametrize("number", ["", "12345", "1" * 33, "SY 2026", "SY2026/1", "ＳＹ２０２６１１", "SY20261\n"])
def test_a_number_wechat_would_not_take_is_a_fault_of_ours(number: str) -> None:
    with pytest.raises(ValueError, match="out_trade_no is ours to make"):
        _provider().check_request(_request(PaymentMethod.WECHAT_JSAPI, out_trade_no=number))


@pytest.mark.parametrize(
    "url",
    ["https://a.example.com/n?x=1", "https://a.example.com/n#x", "ftp://a.example.com/", "https://a/" + "x" * 255],
)
def test_a_notification_address_wechat_would_not_take_is_a_fault_of_ours(url: str) -> None:
    with pytest.raises(ValueError, match="notification address"):
        _provider().check_request(_request(PaymentMethod.WECHAT_JSAPI, notify_url=url))
