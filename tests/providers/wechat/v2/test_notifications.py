"""An APIv2 notification is what WeChat signed, field for field, or it is refused; no bytes crash the reader."""

from collections import Counter
from datetime import UTC, datetime

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from app.clock import Clock
from app.providers.contract import Notification, NotificationRefused, PaymentReport, ReportedStatus
from app.providers.gateways import GatewayRule
from app.providers.wechat.v2 import V2Dialect
from app.providers.wechat.v2.account import V2Account
from app.providers.wechat.v2.notifications import read_notice, read_payment_notification
from app.providers.wechat.xml import BODY_LIMIT_BYTES
from tests.providers.wechat.reports import payment_in
from tests.providers.wechat.v2.merchant import (
    API_KEY,
    APP_ID,
    MCH_ID,
    NUMBER,
    OPENID,
    PAID,
    SUB_APP_ID,
    SUB_MCH_ID,
    document,
    partner_fields,
    signed,
    v2_fields,
    vector_bytes,
    wechat_sign,
)

XML = {"content-type": "text/xml"}
DIALECT = V2Dialect(httpx.AsyncClient(), Clock(), timeout_s=1.0, gateways=GatewayRule())
PARTNER_PAID = PAID | {"sub_mch_id": SUB_MCH_ID, "sub_appid": SUB_APP_ID, "sub_openid": "oSub", "openid": "oSp"}


def _opened(mode: str = "v2", **changes: str) -> V2Account:
    fields = partner_fields(**changes) if mode == "v2_partner" else v2_fields(**changes)
    settings, credentials = DIALECT.seal(mode=mode, fields=fields, now=datetime(2026, 11, 22, tzinfo=UTC))
    return DIALECT.open(mode=mode, settings=settings, credentials=credentials)


ACCOUNT = _opened()


def read(body: bytes, account: V2Account = ACCOUNT) -> Notification:
    return read_payment_notification(account, read_notice(XML, body))


def reason(body: bytes, account: V2Account = ACCOUNT, headers: dict[str, str] | None = None) -> str:
    with pytest.raises(NotificationRefused) as refused:
        read_payment_notification(account, read_notice(XML if headers is None else headers, body))
    return refused.value.reason


@pytest.mark.parametrize("account_signs", ["MD5", "HMAC-SHA256"])
@pytest.mark.parametrize("sign_type", ["MD5", "HMAC-SHA256"])
def test_a_payment_is_reported_with_all_that_was_said(sign_type: str, account_signs: str) -> None:
    account = _opened(sign_type=account_signs)
    for named in ({}, {"sign_type": sign_type}):
        assert read(signed(PAID | named, sign_type), account).report == PaymentReport(
            out_trade_no=NUMBER,
            status=ReportedStatus.SUCCESSFUL,
            source="notification",
            amount_fen=1990,
            currency="CNY",
            transaction_id="4200000000202611220000000001",
            payer_id=OPENID,
            paid_at=datetime(2026, 11, 22, 0, 0, tzinfo=UTC),
            account_claims={"appid": APP_ID, "mch_id": MCH_ID},
        )


def test_the_published_notice_is_understood_once_signed_with_our_key_and_refused_before() -> None:
    published = vector_bytes("php_fixture_paysuccess.notification.sample.xml")
    assert reason(published) == "signature"
    fields = {
        "appid": "wx2421b1c4370ec43b", "attach": "支付测试", "bank_type": "CFT", "fee_type": "CNY",
        "is_subscribe": "Y", "mch_id": "10000100", "nonce_str": "5d2b6c2a8db53831f7eda20af46e531c",
        "openid": "oUpF8uMEb4qRXf22hE3X68TekukE", "out_trade_no": "1409811653", "result_code": "SUCCESS",
        "return_code": "SUCCESS", "time_end": "20140903131540", "total_fee": "1", "coupon_fee": "10",
        "coupon_count": "1", "coupon_type": "CASH", "coupon_id": "10000", "trade_type": "JSAPI",
        "transaction_id": "1004400740201409030005092168",
    }  # fmt: skip
    ours = published.replace(b"B552ED6B279343CB493C5DD0D78AB241", wechat_sign(fields, "MD5").encode())
    report = payment_in(read(ours))
    assert (report.status, report.amount_fen, report.out_trade_no) == (ReportedStatus.SUCCESSFUL, 1, "1409811653")
    assert report.paid_at == datetime(2014, 9, 3, 5, 15, 40, tzinfo=UTC)
    # Whose it is, the caller compares.
    assert report.account_claims == {"appid": "wx2421b1c4370ec43b", "mch_id": "10000100"}


def test_a_partners_notice_names_the_merchant_and_its_own_user() -> None:
    account = _opened("v2_partner")
    report = payment_in(read(signed(PARTNER_PAID), account))
    assert report.payer_id == "oSub"
    assert report.account_claims == {
        "appid": APP_ID,
        "mch_id": MCH_ID,
        "sub_appid": SUB_APP_ID,
        "sub_mch_id": SUB_MCH_ID,
    }
    assert all(report.account_claims[name] in expected for name, expected in account.expected_claims.items())
    assert payment_in(read(signed(PARTNER_PAID), _opened("v2_partner", sub_appid=""))).payer_id == "oSp"
    assert reason(signed(PAID), account) == "malformed"


def test_no_changed_bit_of_a_notice_passes() -> None:
    raw = signed(PAID)
    meant = read(raw)
    outcomes: Counter[str] = Counter()
    for at in range(len(raw)):
        for bit in (0x01, 0x04, 0x20, 0x80):
            outcome = _outcome(raw[:at] + bytes([raw[at] ^ bit]) + raw[at + 1 :])
            if isinstance(outcome, Notification):
                # Blanks between the fields are no part of the message.
                assert outcome == meant, at
                assert raw[at : at + 1] in (b" ", b"\n")
                continue
            outcomes[outcome] += 1
    assert outcomes.keys() == {"signature", "malformed"}
    assert outcomes["signature"] > 500


def _outcome(body: bytes) -> Notification | str:
    try:
        return read(body)
    except NotificationRefused as exc:
        return exc.reason


@pytest.mark.parametrize("name", sorted(PAID))
def test_no_field_can_be_left_out_or_changed(name: str) -> None:
    whole = PAID | {"sign": wechat_sign(PAID)}
    without = {key: text for key, text in whole.items() if key != name}
    assert reason(document(without)) == "signature"
    assert reason(document(whole | {name: whole[name] + "1"})) == "signature"
    assert reason(document(whole | {name: ""})) == "signature"


@pytest.mark.parametrize(
    "body",
    [
        document(PAID),
        document(PAID | {"sign": ""}),
        document(PAID | {"sign": wechat_sign(PAID, key=API_KEY[::-1])}),
        document(PAID | {"sign": wechat_sign(PAID), "unknown": "x"}),
        document(PAID | {"sign_type": "MD5", "sign": wechat_sign(PAID)}),
        document({"return_code": "SUCCESS", "return_msg": "OK"}),
        document({"return_code": "FAIL", "return_msg": "签名失败"}),
        b"<xml></xml>",
    ],
)
def test_what_is_not_signed_with_the_accounts_key_is_refused(body: bytes) -> None:
    assert reason(body) == "signature"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"total_fee": "19.90"}, "malformed"),
        ({"total_fee": "-1990"}, "malformed"),
        ({"total_fee": "+1990"}, "malformed"),
        ({"total_fee": "01990"}, "malformed"),
        ({"total_fee": " 1990"}, "malformed"),
        ({"total_fee": "１９９０"}, "malformed"),
        ({"total_fee": "1e3"}, "malformed"),
        ({"total_fee": ""}, "malformed"),
        ({"transaction_id": ""}, "malformed"),
        ({"out_trade_no": ""}, "malformed"),
        ({"result_code": ""}, "malformed"),
        ({"appid": ""}, "malformed"),
        ({"mch_id": ""}, "malformed"),
        ({"return_code": "FAIL"}, "malformed"),
    ],
    ids=str,
)
def test_a_signed_notice_that_cannot_be_understood_is_refused(changes: dict[str, str], why: str) -> None:
    assert reason(signed(PAID | changes)) == why


def test_a_failed_attempt_is_no_failed_payment() -> None:
    failed = {name: text for name, text in PAID.items() if name not in ("transaction_id", "total_fee", "time_end")}
    report = payment_in(read(signed(failed | {"result_code": "FAIL", "err_code": "NOTENOUGH"})))
    assert (report.status, report.amount_fen, report.paid_at) == (ReportedStatus.PENDING, None, None)


def test_a_currency_other_than_ours_reaches_the_caller() -> None:
    assert payment_in(read(signed(PAID | {"fee_type": "USD"}))).currency == "USD"
    assert payment_in(read(signed(PAID | {"fee_type": ""}))).currency == "CNY"


@pytest.mark.parametrize(
    "text", ["2026112208000", "20261322080000", "00000000000000", "2026-11-22 08:00", "２０２６１１２２０８００００"]
)
def test_a_time_that_cannot_be_read_loses_only_itself(text: str) -> None:
    with capture_logs() as logs:
        report = payment_in(read(signed(PAID | {"time_end": text})))
    assert (report.status, report.paid_at) == (ReportedStatus.SUCCESSFUL, None)
    assert [entry["event"] for entry in logs] == ["wechat.unreadable_time"]


def test_repeats_share_their_event_and_another_content_does_not() -> None:
    first = read(signed(PAID)).event_key
    assert first.startswith("4200000000202611220000000001:")
    again = PAID | {"nonce_str": "other", "sign_type": "MD5"}
    assert read(signed(again, "MD5")).event_key == first
    others = [
        {"total_fee": "1991"}, {"openid": "oOther"}, {"appid": "wx00000000000000aa"}, {"mch_id": "1900000002"},
        {"out_trade_no": NUMBER + "2"}, {"transaction_id": "42"}, {"time_end": "20261122080001"},
        {"fee_type": "USD"}, {"result_code": "FAIL"},
    ]  # fmt: skip
    keys = {read(signed(PAID | changes)).event_key for changes in others} | {first}
    assert len(keys) == len(others) + 1


def test_a_field_cut_out_of_anothers_text_is_refused() -> None:
    """attach is somebody's free text, and its & is not escaped in what is signed."""
    smuggling = PAID | {"attach": "x&total_fee=1"}
    assert reason(signed(smuggling)) == "signature"
    # The same signed text, cut at other places: as many fields as names, each once.
    cut = {name: text for name, text in PAID.items() if name not in ("bank_type", "attach")}
    joined = PAID | {"attach": f"{PAID['attach']}&bank_type={PAID['bank_type']}"}
    assert wechat_sign({name: text for name, text in joined.items() if name in cut or name == "attach"}) == wechat_sign(
        PAID
    )
    # bank_type decides nothing: that one is let through, as any text with a & is.
    taken = read(document({**{n: t for n, t in joined.items() if n != "bank_type"}, "sign": wechat_sign(PAID)})).report
    assert isinstance(taken, PaymentReport)
    assert taken.amount_fen == 1990
    decisive = {**{n: t for n, t in PAID.items() if n != "mch_id"}, "is_subscribe": f"Y&mch_id={MCH_ID}"}
    assert wechat_sign(decisive) == wechat_sign(PAID)
    assert reason(document({**decisive, "sign": wechat_sign(PAID)})) == "signature"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"out_trade_no=1&sign=x",
        b"<xml>" + b"<a>1</a>" * 2,
        b"<?xml version='1.0'?><!DOCTYPE xml [<!ENTITY x 'y'>]>" + signed(PAID),
        signed(PAID).replace(b"<xml>", b"<xml><total_fee>1</total_fee>"),
        signed(PAID).replace(b"<total_fee>1990", b"<total_fee><a>1</a>1990"),
        signed(PAID | {"attach": "x" * BODY_LIMIT_BYTES}),
        signed(PAID).decode().encode("utf-16"),
    ],
)
def test_what_is_no_flat_document_is_refused(body: bytes) -> None:
    assert reason(body) == "malformed"


def test_a_compressed_body_is_refused() -> None:
    assert reason(signed(PAID), headers={"content-encoding": "gzip"}) == "malformed"
    assert read_notice({"content-encoding": "identity"}, signed(PAID))["total_fee"] == "1990"


async def test_nothing_may_follow_the_account_in_the_path() -> None:
    with pytest.raises(NotificationRefused) as refused:
        await DIALECT.read_notification(ACCOUNT, XML, signed(PAID), "tail")
    assert refused.value.reason == "malformed"
    report = (await DIALECT.read_notification(ACCOUNT, XML, signed(PAID), "")).report
    assert isinstance(report, PaymentReport)
    assert report.amount_fen == 1990


def test_the_answer_is_the_documented_xml_either_way() -> None:
    taken, refused = (DIALECT.acknowledge(ACCOUNT, accepted=accepted) for accepted in (True, False))
    assert (taken.status_code, taken.content_type) == (200, "text/xml; charset=utf-8")
    assert taken.body == (
        b"<xml><return_code><![CDATA[SUCCESS]]></return_code><return_msg><![CDATA[OK]]></return_msg></xml>"
    )
    assert refused.status_code == 200
    assert b"<return_code><![CDATA[FAIL]]></return_code>" in refused.body


@given(st.binary(max_size=300))
def test_no_bytes_crash_the_reader(body: bytes) -> None:
    for candidate in (body, b"<xml><sign>" + body + b"</sign></xml>"):
        assert reason(candidate) in ("malformed", "signature")
