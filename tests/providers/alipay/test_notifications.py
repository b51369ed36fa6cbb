"""A notification is what Alipay signed, byte for byte, or it is refused; no bytes crash the reader."""

import contextlib
from datetime import UTC, datetime
from urllib.parse import parse_qsl

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from app.clock import Clock
from app.providers.alipay import AlipayProvider
from app.providers.alipay.account import AlipayAccount
from app.providers.alipay.notifications import BODY_LIMIT_BYTES, read_notification
from app.providers.contract import (
    AgreementReport,
    Notification,
    NotificationRefused,
    PaymentReport,
    ReportedAgreement,
    ReportedStatus,
)
from app.providers.transport import open_client
from tests.providers.alipay.keyring import (
    APP_ID,
    PAID_NOTICE,
    SELLER_ID,
    SIGNED_NOTICE,
    UNSIGNED_NOTICE,
    alipay_signature,
    form,
    isv_fields,
    notice_content,
    private_text,
    public_key_fields,
    signed_notice,
    vectors,
)

FORM = {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}


def _account(mode: str = "public_key", **changes: str) -> AlipayAccount:
    provider = AlipayProvider(open_client(), Clock(), timeout_s=1.0)
    fields = (isv_fields() if mode == "isv" else public_key_fields()) | changes
    sealed, credentials = provider.seal_input(mode=mode, fields=fields)
    return provider.open_account(mode=mode, settings=sealed, credentials=credentials)


@pytest.fixture(scope="module")
def account() -> AlipayAccount:
    return _account()


@pytest.fixture(scope="module")
def vector_account() -> AlipayAccount:
    return _account(
        app_private_key=private_text("app"), alipay_public_key=vectors("notify_verify_derived.json")["public_key_b64"]
    )


def reason(account: AlipayAccount, body: bytes, headers: dict[str, str] | None = None) -> str:
    with pytest.raises(NotificationRefused) as refused:
        read_notification(account, FORM if headers is None else headers, body)
    return refused.value.reason


def reported(account: AlipayAccount, body: bytes) -> PaymentReport:
    """The report of a trade's notice, whatever it says about refunds."""
    report = read_notification(account, FORM, body).report
    assert isinstance(report, PaymentReport)
    return report


def agreed(account: AlipayAccount, body: bytes) -> AgreementReport:
    """The report of an agreement's notice."""
    report = read_notification(account, FORM, body).report
    assert isinstance(report, AgreementReport)
    return report


# What each published case means in our words.
_VECTOR_REPORTS: dict[str, tuple[ReportedStatus, int, int | None] | ReportedAgreement] = {
    "trade_success_specials": (ReportedStatus.SUCCESSFUL, 1990, None),
    "partial_refund": (ReportedStatus.SUCCESSFUL, 1990, 500),
    "full_refund_closed": (ReportedStatus.SUCCESSFUL, 1990, 1990),
    "gbk_body": (ReportedStatus.SUCCESSFUL, 1, None),
    "agreement_sign_v1": ReportedAgreement.ACTIVE,
    "agreement_unsign_v1": ReportedAgreement.ENDED,
    "agreement_unsign_v2": ReportedAgreement.ENDED,
}


def test_every_published_notification_is_understood(vector_account: AlipayAccount) -> None:
    cases = vectors("notify_verify_derived.json")["cases"]
    assert {case["name"] for case in cases} == _VECTOR_REPORTS.keys()
    for case in cases:
        expected = _VECTOR_REPORTS[case["name"]]
        if isinstance(expected, ReportedAgreement):
            agreement = agreed(vector_account, case["raw_body"].encode())
            assert agreement.status is expected, case["name"]
            assert agreement.external_agreement_no == case["params"]["external_agreement_no"]
            assert agreement.agreement_no == case["params"]["agreement_no"]
            continue
        notification = read_notification(vector_account, FORM, case["raw_body"].encode())
        assert notification.refund_hint == case["params"].get("out_biz_no"), case["name"]
        report = notification.report
        assert isinstance(report, PaymentReport)
        assert (report.status, report.amount_fen, report.refunded_fen) == expected, case["name"]
        assert report.out_trade_no == case["params"]["out_trade_no"]


def test_no_changed_byte_of_a_published_notification_passes(vector_account: AlipayAccount) -> None:
    for case in vectors("notify_verify_derived.json")["cases"]:
        raw = case["raw_body"].encode()
        meant = dict(parse_qsl(case["raw_body"], encoding="latin-1"))
        for at in range(0, len(raw), 3):
            changed = raw[:at] + bytes([raw[at] ^ 0x01]) + raw[at + 1 :]
            # %2F and %2f are one text, and an empty field's name is nothing signed: neither makes another message.
            if dict(parse_qsl(changed.decode("latin-1"), encoding="latin-1")) == meant:
                continue
            assert reason(vector_account, changed) in ("signature", "malformed"), (case["name"], at)


def test_a_payment_is_reported_with_all_that_was_said(account: AlipayAccount) -> None:
    report = reported(account, signed_notice(PAID_NOTICE))
    assert report.out_trade_no == "SY20261122000001"
    assert report.status is ReportedStatus.SUCCESSFUL
    assert report.source == "notification"
    assert (report.amount_fen, report.currency, report.refunded_fen) == (1990, "CNY", None)
    assert report.transaction_id == "2026112222001400000000000001"
    assert report.payer_id == "2088000000000002"
    assert report.paid_at == datetime(2026, 11, 22, 0, 0, tzinfo=UTC)
    assert report.account_claims == {"app_id": APP_ID, "seller_id": SELLER_ID, "auth_app_id": APP_ID}
    assert report.failure is None


@pytest.mark.parametrize(
    ("changes", "status", "refunded_fen"),
    [
        ({"trade_status": "WAIT_BUYER_PAY"}, ReportedStatus.PENDING, None),
        ({"trade_status": "TRADE_SUCCESS"}, ReportedStatus.SUCCESSFUL, None),
        ({"trade_status": "TRADE_FINISHED"}, ReportedStatus.SUCCESSFUL, None),
        ({"trade_status": "TRADE_SUCCESS", "refund_fee": "5.01"}, ReportedStatus.SUCCESSFUL, 501),
        ({"trade_status": "TRADE_CLOSED", "gmt_payment": ""}, ReportedStatus.CLOSED, None),
        ({"trade_status": "TRADE_CLOSED", "gmt_payment": "", "refund_fee": "0.00"}, ReportedStatus.CLOSED, 0),
        ({"trade_status": "TRADE_CLOSED", "refund_fee": "19.90"}, ReportedStatus.SUCCESSFUL, 1990),
        ({"trade_status": "TRADE_CLOSED"}, ReportedStatus.SUCCESSFUL, 1990),
        (
            {"trade_status": "TRADE_CLOSED", "gmt_payment": "", "gmt_refund": "2026-11-22 09:00:00.143"},
            ReportedStatus.SUCCESSFUL,
            1990,
        ),
        ({"trade_status": "TRADE_ROLLED_BACK"}, ReportedStatus.PENDING, None),
        ({"trade_status": "trade_success"}, ReportedStatus.PENDING, None),
    ],
)
def test_every_word_about_a_trade_has_a_meaning(
    account: AlipayAccount, changes: dict[str, str], status: ReportedStatus, refunded_fen: int | None
) -> None:
    report = reported(account, signed_notice(PAID_NOTICE | changes))
    assert (report.status, report.amount_fen, report.refunded_fen) == (status, 1990, refunded_fen)


def test_an_unknown_word_is_pending_and_warned_about(account: AlipayAccount) -> None:
    with capture_logs() as logs:
        read_notification(account, FORM, signed_notice(PAID_NOTICE | {"trade_status": "TRADE_ROLLED_BACK"}))
    assert [(line["event"], line["trade_status"], line["log_level"]) for line in logs] == [
        ("alipay.unknown_trade_status", "TRADE_ROLLED_BACK", "warning")
    ]


def test_a_time_that_cannot_be_read_loses_only_the_time(account: AlipayAccount) -> None:
    report = reported(account, signed_notice(PAID_NOTICE | {"gmt_payment": "yesterday"}))
    assert (report.status, report.paid_at) == (ReportedStatus.SUCCESSFUL, None)


@pytest.mark.parametrize("rule", [1, 2])
@pytest.mark.parametrize("charset", ["utf-8", "UTF-8", "gbk", "GBK", "gb2312", "GB18030"])
def test_both_rules_and_every_charset_verify(account: AlipayAccount, rule: int, charset: str) -> None:
    notice = PAID_NOTICE | {"charset": charset, "subject": "测试商品"}
    report = reported(account, signed_notice(notice, rule=rule, charset=charset))
    assert (report.status, report.amount_fen) == (ReportedStatus.SUCCESSFUL, 1990)


def test_order_spelling_and_empty_fields_do_not_matter(account: AlipayAccount) -> None:
    fields = dict(parse_qsl(signed_notice(PAID_NOTICE).decode(), keep_blank_values=True))
    known = read_notification(account, FORM, signed_notice(PAID_NOTICE))
    backwards = form(dict(reversed(fields.items())))
    spelt = b"&".join(
        name.encode() + b"=" + "".join(f"%{byte:02x}" for byte in value.encode()).encode()
        for name, value in fields.items()
    )
    for body in (backwards, spelt, backwards + b"&new_field=", form(fields).replace(b"+", b"%20")):
        assert read_notification(account, FORM, body) == known


def test_an_unknown_field_is_covered_by_the_signature_and_ignored(account: AlipayAccount) -> None:
    notice = PAID_NOTICE | {"brand_new": "值 &=%", "zz": '{"a":"\\u4e2d"}'}
    assert reported(account, signed_notice(notice)).amount_fen == 1990


def test_an_isv_notice_names_both_apps(account: AlipayAccount) -> None:
    notice = PAID_NOTICE | {"auth_app_id": "2021000000000009"}
    claims = read_notification(_account("isv"), FORM, signed_notice(notice)).report.account_claims
    assert claims == {"app_id": APP_ID, "seller_id": SELLER_ID, "auth_app_id": "2021000000000009"}


# One event and its repeats


def _event_key(account: AlipayAccount, **changes: str) -> str:
    return read_notification(account, FORM, signed_notice(PAID_NOTICE | changes)).event_key


def test_a_repeat_is_the_same_event_whatever_time_it_was_sent(account: AlipayAccount) -> None:
    first = _event_key(account)
    assert _event_key(account, notify_time="2026-11-22 08:04:01") == first
    assert _event_key(account, receipt_amount="19.80", buyer_logon_id="a***@b") == first


@pytest.mark.parametrize(
    "changes",
    [
        {"notify_id": "2026112200222000000000000000000002"},
        {"trade_status": "TRADE_FINISHED"},
        {"total_amount": "19.91"},
        {"refund_fee": "5.00"},
        {"refund_fee": "5.00", "out_biz_no": "R1"},
        {"out_trade_no": "SY20261122000002"},
        {"trade_no": "2026112222001400000000000002"},
        {"app_id": "2021000000000001"},
        {"seller_id": "2088000000000003"},
    ],
)
def test_other_content_is_another_event(account: AlipayAccount, changes: dict[str, str]) -> None:
    assert _event_key(account, **changes) != _event_key(account)


def test_moving_text_between_fields_makes_another_event(account: AlipayAccount) -> None:
    assert _event_key(account, out_trade_no="AB", trade_no="C") != _event_key(account, out_trade_no="A", trade_no="BC")


# Agreements


def test_a_signed_agreement_is_reported_with_all_that_was_said(account: AlipayAccount) -> None:
    assert read_notification(account, FORM, signed_notice(SIGNED_NOTICE)).refund_hint is None
    assert agreed(account, signed_notice(SIGNED_NOTICE)) == AgreementReport(
        status=ReportedAgreement.ACTIVE,
        source="notification",
        external_agreement_no="SA20261122000001",
        agreement_no="20265522000000000001",
        scene="INDUSTRY|DIGITAL_MEDIA",
        payer_id="2088000000000002",
        signed_at=datetime(2026, 11, 22, 0, 0, tzinfo=UTC),
        valid_until=datetime(2115, 1, 31, 16, 0, tzinfo=UTC),
        account_claims={"app_id": APP_ID, "auth_app_id": APP_ID},
    )


@pytest.mark.parametrize("rule", [1, 2])
def test_a_cancelled_agreement_is_reported_by_both_rules(account: AlipayAccount, rule: int) -> None:
    assert agreed(account, signed_notice(UNSIGNED_NOTICE, rule=rule)) == AgreementReport(
        status=ReportedAgreement.ENDED,
        source="notification",
        external_agreement_no="SA20261122000001",
        agreement_no="20265522000000000001",
        scene="INDUSTRY|DIGITAL_MEDIA",
        payer_id="2088000000000002",
        ended_at=datetime(2026, 12, 1, 1, 30, tzinfo=UTC),
        account_claims={"app_id": APP_ID, "auth_app_id": APP_ID},
    )


@pytest.mark.parametrize(
    ("notice", "word", "status", "warned"),
    [
        (SIGNED_NOTICE, "NORMAL", ReportedAgreement.ACTIVE, False),
        (SIGNED_NOTICE, "TEMP", ReportedAgreement.PENDING, False),
        (SIGNED_NOTICE, "STOP", ReportedAgreement.PENDING, True),
        (SIGNED_NOTICE, "normal", ReportedAgreement.PENDING, True),
        (UNSIGNED_NOTICE, "UNSIGN", ReportedAgreement.ENDED, False),
        (UNSIGNED_NOTICE, "STOP", ReportedAgreement.ENDED, False),
        (UNSIGNED_NOTICE, "NORMAL", ReportedAgreement.PENDING, True),
        (UNSIGNED_NOTICE, "FROZEN", ReportedAgreement.PENDING, True),
    ],
)
def test_every_word_about_an_agreement_has_a_meaning(
    account: AlipayAccount, notice: dict[str, str], word: str, status: ReportedAgreement, warned: bool
) -> None:
    with capture_logs() as logs:
        assert agreed(account, signed_notice(notice | {"status": word})).status is status
    said = [(line["event"], line["status"], line["log_level"]) for line in logs]
    assert said == ([("alipay.unknown_agreement_status", word, "warning")] if warned else [])


def test_a_payer_may_be_known_by_open_id_and_a_bad_time_loses_only_the_time(account: AlipayAccount) -> None:
    notice = SIGNED_NOTICE | {"alipay_user_id": "", "alipay_open_id": "074a1CcTG", "sign_time": "just now"}
    report = agreed(account, signed_notice(notice))
    assert (report.payer_id, report.signed_at, report.status) == ("074a1CcTG", None, ReportedAgreement.ACTIVE)


def test_an_agreement_made_elsewhere_is_reported_by_their_number_alone(account: AlipayAccount) -> None:
    report = agreed(account, signed_notice(SIGNED_NOTICE | {"external_agreement_no": ""}))
    assert (report.external_agreement_no, report.agreement_no) == (None, "20265522000000000001")


def test_a_deductions_notice_is_a_payments(account: AlipayAccount) -> None:
    numbers = {name: SIGNED_NOTICE[name] for name in ("agreement_no", "external_agreement_no")}
    plain, deducted = (reported(account, signed_notice(notice)) for notice in (PAID_NOTICE, PAID_NOTICE | numbers))
    assert plain == deducted


def test_one_agreement_event_is_one_whatever_time_and_rule(account: AlipayAccount) -> None:
    def key(rule: int, changes: dict[str, str]) -> str:
        return read_notification(account, FORM, signed_notice(SIGNED_NOTICE | changes, rule=rule)).event_key

    first = key(1, {})
    assert key(2, {}) == first
    assert key(1, {"notify_time": "2026-11-22 08:04:01", "alipay_logon_id": "a***@b"}) == first
    for changes in (
        {"notify_id": "2026112200222000000000000000000012"},
        # One notify_id, and signed and cancelled: two events.
        {"notify_type": "dut_user_unsign", "status": "UNSIGN"},
        {"status": "TEMP"},
        {"agreement_no": "20265522000000000002"},
        {"external_agreement_no": "SA20261122000002"},
        {"sign_scene": "INDUSTRY|EDU"},
        {"alipay_user_id": "2088000000000003"},
        {"sign_time": "2026-11-22 08:00:09"},
        {"invalid_time": "2027-02-01 00:00:00"},
        {"app_id": "2021000000000001"},
        {"auth_app_id": "2021000000000001"},
    ):
        assert key(1, changes) != first, changes


@pytest.mark.parametrize("name", ["notify_id", "app_id", "agreement_no", "status"])
@pytest.mark.parametrize("notice", [SIGNED_NOTICE, UNSIGNED_NOTICE])
def test_an_agreement_notice_without_a_needed_field_is_refused(
    account: AlipayAccount, notice: dict[str, str], name: str
) -> None:
    assert reason(account, signed_notice(notice | {name: ""})) == "malformed"


@pytest.mark.parametrize("signer", ["app", "other"])
def test_an_agreement_notice_by_another_key_is_refused(account: AlipayAccount, signer: str) -> None:
    for rule in (1, 2):
        assert reason(account, signed_notice(UNSIGNED_NOTICE, rule=rule, by=signer)) == "signature"


@pytest.mark.parametrize("name", ["status", "agreement_no", "external_agreement_no", "notify_type", "unsign_time"])
def test_an_agreement_notice_cut_at_other_places_is_refused(account: AlipayAccount, name: str) -> None:
    # A payer's name in the shop reaches the notice: nothing in it may pass for a field that decides.
    smuggled = SIGNED_NOTICE | {"external_logon_id": f"x&{name}=1"}
    assert reason(account, signed_notice(smuggled)) == "signature"
    harmless = SIGNED_NOTICE | {"external_logon_id": "x&alipay_logon_id=1"}
    assert agreed(account, signed_notice(harmless)).status is ReportedAgreement.ACTIVE


def test_what_only_decides_about_agreements_may_stand_in_a_trades_text(account: AlipayAccount) -> None:
    assert reported(account, signed_notice(PAID_NOTICE | {"body": "a&status=1"})).amount_fen == 1990
    assert reason(account, signed_notice(PAID_NOTICE | {"body": "a&notify_type=dut_user_sign"})) == "signature"
    assert (
        reason(account, signed_notice(SIGNED_NOTICE | {"notify_type": "", "body": "a&total_amount=1"})) == "signature"
    )


# What is refused


def test_an_unsigned_or_wrongly_signed_notice_is_refused(account: AlipayAccount) -> None:
    good = dict(parse_qsl(signed_notice(PAID_NOTICE).decode(), keep_blank_values=True))
    assert reason(account, form({name: value for name, value in good.items() if name != "sign"})) == "signature"
    assert reason(account, form({**good, "sign": ""})) == "signature"
    assert reason(account, form({**good, "sign": "x"})) == "signature"
    assert reason(account, form({**good, "total_amount": "0.01"})) == "signature"
    assert reason(account, form({**good, "passback_params": ""})) == "signature"
    assert reason(account, form({**good, "subject": good["subject"].strip()})) == "signature"
    assert reason(account, form({**good, "added": "1"})) == "signature"


@pytest.mark.parametrize("signer", ["app", "other"])
def test_another_key_than_alipays_is_refused(account: AlipayAccount, signer: str) -> None:
    assert reason(account, signed_notice(PAID_NOTICE, by=signer)) == "signature"


@pytest.mark.parametrize("named", ["RSA", "rsa2", "none", "HMAC"])
@pytest.mark.parametrize("rule", [1, 2])
def test_the_message_may_not_choose_its_algorithm(account: AlipayAccount, named: str, rule: int) -> None:
    assert reason(account, signed_notice(PAID_NOTICE, rule=rule, sign_type=named)) == "signature"


def test_a_notice_decoded_twice_does_not_verify(account: AlipayAccount) -> None:
    fields = dict(parse_qsl(signed_notice(PAID_NOTICE).decode(), keep_blank_values=True))
    twice = {**fields, "passback_params": "k=v&x=1"}
    assert reason(account, form(twice)) == "signature"


def test_a_notice_cut_at_other_places_is_refused_though_its_signature_is_right(account: AlipayAccount) -> None:
    # A cent was paid for something named like this; the signed text stays the same, only the fields are cut anew.
    paid = PAID_NOTICE | {"subject": "x&total_amount=19.90&total_amount_=1", "total_amount": "0.01"}
    forged = {**paid, "subject": "x", "total_amount": "19.90", "total_amount_": "1&total_amount=0.01"}
    assert notice_content(forged) == notice_content(paid)
    signature = alipay_signature(notice_content(paid).encode())
    assert reason(account, form({**paid, "sign_type": "RSA2", "sign": signature})) == "signature"
    assert reason(account, form({**forged, "sign_type": "RSA2", "sign": signature})) == "signature"


def test_a_field_that_comes_twice_is_refused(account: AlipayAccount) -> None:
    good = signed_notice(PAID_NOTICE)
    assert reason(account, good + b"&total_amount=19.90") == "malformed"
    assert reason(account, b"total_amount=99.00&" + good) == "malformed"
    assert reason(account, good + b"&total%5famount=19.90") == "malformed"


@pytest.mark.parametrize("name", ["notify_id", "app_id", "out_trade_no", "trade_no", "trade_status", "total_amount"])
def test_a_signed_notice_without_a_needed_field_is_refused(account: AlipayAccount, name: str) -> None:
    assert reason(account, signed_notice(PAID_NOTICE | {name: ""})) == "malformed"


@pytest.mark.parametrize(
    "amount",
    ["19.901", "1e3", "-1.00", "+1.00", "1,000.00", "NaN", " 19.90", "19.90 ", "１９.９０", "19.", ".9", "0x10"],
)
@pytest.mark.parametrize("name", ["total_amount", "refund_fee"])
def test_an_amount_that_is_not_exact_yuan_is_refused(account: AlipayAccount, name: str, amount: str) -> None:
    assert reason(account, signed_notice(PAID_NOTICE | {name: amount})) == "malformed"


def test_another_kind_of_notice_is_refused(account: AlipayAccount) -> None:
    assert reason(account, signed_notice(PAID_NOTICE | {"notify_type": "open_app_auth_notify"})) == "unsupported"
    assert reason(account, signed_notice(SIGNED_NOTICE | {"notify_type": "dut_user_sign2"})) == "unsupported"
    assert reason(account, signed_notice(PAID_NOTICE | {"notify_type": "dut_user_sign"})) == "malformed"
    assert reason(account, signed_notice(SIGNED_NOTICE | {"notify_type": "trade_status_sync"})) == "malformed"


def test_a_notice_not_in_the_charset_it_names_is_refused(account: AlipayAccount) -> None:
    notice = PAID_NOTICE | {"subject": "测试商品"}
    assert reason(account, signed_notice(notice, charset="gbk")) == "encoding"
    assert reason(account, signed_notice(notice | {"charset": "utf-7"})) == "encoding"
    assert reason(account, signed_notice(notice | {"charset": "\u00fc"})) == "encoding"


def test_a_zero_byte_is_refused_because_no_database_keeps_it(account: AlipayAccount) -> None:
    assert reason(account, signed_notice(PAID_NOTICE | {"buyer_id": "2088\x00"})) == "malformed"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"&",
        b"=",
        b"a",
        b"a=1&&b=2",
        b'{"out_trade_no":"1"}',
        b"<xml></xml>",
        b"\x1f\x8b\x08\x00",
        b"a=" + b"x" * BODY_LIMIT_BYTES,
        b"&".join(b"f%d=1" % number for number in range(300)),
    ],
)
def test_what_is_no_form_is_refused(account: AlipayAccount, body: bytes) -> None:
    assert reason(account, body) == "malformed"


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "application/json"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"CONTENT-TYPE": ""},
        {"content-type": "text/plain"},
        {**FORM, "content-encoding": "gzip"},
    ],
)
def test_a_body_of_another_kind_is_refused_even_when_signed(account: AlipayAccount, headers: dict[str, str]) -> None:
    assert reason(account, signed_notice(PAID_NOTICE), headers) == "malformed"


@pytest.mark.parametrize(
    "headers",
    [{}, {"Content-Type": "application/x-www-form-urlencoded"}, {"content-type": "Application/X-WWW-Form-Urlencoded"}],
)
def test_headers_that_say_nothing_else_are_taken(account: AlipayAccount, headers: dict[str, str]) -> None:
    assert read_notification(account, headers, signed_notice(PAID_NOTICE)) == _MEANT


@settings(max_examples=500, deadline=None)
@given(st.one_of(st.binary(max_size=300), st.text("&=%+abs\u00ff0F\x00", max_size=80).map(lambda text: text.encode())))
def test_any_bytes_are_refused_and_crash_nothing(body: bytes) -> None:
    assert reason(_ACCOUNT, body) in ("malformed", "signature")


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([*PAID_NOTICE, "refund_fee", "out_biz_no", "x"]),
        st.text(st.characters(codec="utf-8"), max_size=30),
        max_size=6,
    )
)
def test_whatever_alipay_signs_is_reported_or_refused(changes: dict[str, str]) -> None:
    with contextlib.suppress(NotificationRefused):
        notification = read_notification(_ACCOUNT, FORM, signed_notice(PAID_NOTICE | changes))
        assert isinstance(notification, Notification)
        assert isinstance(notification.report, PaymentReport)
        assert notification.report.out_trade_no == (PAID_NOTICE | changes)["out_trade_no"]


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([SIGNED_NOTICE, UNSIGNED_NOTICE]),
    st.dictionaries(st.sampled_from([*SIGNED_NOTICE, "x"]), st.text(st.characters(codec="utf-8"), max_size=30)),
)
def test_whatever_alipay_signs_about_agreements_is_reported_or_refused(
    notice: dict[str, str], changes: dict[str, str]
) -> None:
    with contextlib.suppress(NotificationRefused):
        report = read_notification(_ACCOUNT, FORM, signed_notice(notice | changes)).report
        assert isinstance(report, AgreementReport)
        assert report.agreement_no == (notice | changes)["agreement_no"]


@pytest.mark.parametrize("of", ["trade", "agreement"])
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_no_single_change_of_a_signed_notice_changes_its_meaning(of: str, data: st.DataObject) -> None:
    signed, meant = _SIGNED[of]
    body = bytearray(signed)
    at = data.draw(st.integers(0, len(body) - 1))
    kind = data.draw(st.sampled_from(["set", "drop", "insert"]))
    if kind == "drop":
        del body[at]
    elif kind == "set":
        body[at] = data.draw(st.integers(0, 255))
    else:
        body.insert(at, data.draw(st.integers(0, 255)))
    with contextlib.suppress(NotificationRefused):
        assert read_notification(_ACCOUNT, FORM, bytes(body)) == meant


def test_acknowledgements_are_the_exact_bytes() -> None:
    provider = AlipayProvider(open_client(), Clock(), timeout_s=1.0)
    accepted, refused = (provider.acknowledge(_ACCOUNT, accepted=word) for word in (True, False))
    assert (accepted.status_code, accepted.body, accepted.content_type) == (
        200,
        b"success",
        "text/plain; charset=utf-8",
    )
    assert (refused.status_code, refused.body) == (400, b"fail")


_ACCOUNT = _account()
_MEANT = read_notification(_ACCOUNT, FORM, signed_notice(PAID_NOTICE))
# Signed once, and what it means.
_SIGNED = {
    of: (signed_notice(notice, rule=rule), read_notification(_ACCOUNT, FORM, signed_notice(notice, rule=rule)))
    for of, notice, rule in (("trade", PAID_NOTICE, 1), ("agreement", UNSIGNED_NOTICE, 2))
}
