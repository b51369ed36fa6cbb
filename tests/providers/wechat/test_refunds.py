"""Refunds as all of WeChat's interfaces have them: states, reasons, and what a refusal proves."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from app.providers.contract import NotReached, RefundOutcome, Rejected, ReportedRefund, Unknown
from app.providers.wechat.explanations import explain, explain_refund
from app.providers.wechat.refunds import (
    REASON_LIMIT_BYTES,
    REFUND_NUMBER,
    STATUSES,
    refund_event_key,
    refusal_outcome,
    reported_refund,
    shown_reason,
)
from tests.providers.wechat.refunding import NOT_FOUND, report

_HAN = re.compile(r"[\u4e00-\u9fff]")


# States


@pytest.mark.parametrize(
    ("word", "status", "needs_words"),
    [
        ("PROCESSING", ReportedRefund.PENDING, False),
        ("SUCCESS", ReportedRefund.REFUNDED, False),
        ("CLOSED", ReportedRefund.FAILED, True),
        ("REFUNDCLOSE", ReportedRefund.FAILED, True),
        ("ABNORMAL", ReportedRefund.PENDING, True),
        ("CHANGE", ReportedRefund.PENDING, True),
    ],
)
def test_every_documented_word(word: str, status: ReportedRefund, needs_words: bool) -> None:
    with capture_logs() as logs:
        reported, failure = reported_refund(word, "SR1")
    assert (reported, failure is not None, logs) == (status, needs_words, [])
    if failure is not None:
        assert failure.code == word
        assert _HAN.search(failure.explanation_zh)
    assert word in STATUSES


def test_an_abnormal_refund_says_who_has_to_do_what() -> None:
    _, failure = reported_refund("ABNORMAL", "SR1")
    assert failure is not None
    assert "bank did not take" in failure.explanation
    assert "退款管理" in failure.explanation_zh


@given(st.text().filter(lambda word: word not in STATUSES))
def test_an_unknown_word_is_waited_for_and_logged(word: str) -> None:
    with capture_logs() as logs:
        assert reported_refund(word, "SR1") == (ReportedRefund.PENDING, None)
    assert [(one["event"], one["log_level"]) for one in logs] == [("wechat.unknown_refund_status", "warning")]


# Reasons


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        (None, None),
        ("少了一杯", "少了一杯"),
        ("x" * 81, "x" * 80),
        ("茶" * 27, "茶" * 26),
        ("x" + "茶" * 27, "x" + "茶" * 26),
        ("xx" + "茶" * 26, "xx" + "茶" * 26),
        ("杯 🍵 少了", "杯  少了"),
        ("🍵", None),
        ("", None),
        ("a\x00b\n", "ab"),
        ("\ud800x\ufffe", "x"),
    ],
)
def test_a_reason_is_cut_between_two_characters(reason: str | None, shown: str | None) -> None:
    assert shown_reason(reason) == shown


@given(st.text(max_size=200))
def test_a_reason_always_fits(reason: str) -> None:
    shown = shown_reason(reason)
    if shown is not None:
        assert 0 < len(shown.encode()) <= REASON_LIMIT_BYTES
        assert all(character in reason and character <= "\uffff" for character in shown)


@pytest.mark.parametrize("number", ["SR20261122000001", "a", "x" * 64, "A-b_c*|@9"])
def test_our_numbers_are_among_those_wechat_takes(number: str) -> None:
    assert REFUND_NUMBER.fullmatch(number)


@pytest.mark.parametrize("number", ["", "x" * 65, "a/b", "a b", "退", "a\n", "a?b"])
def test_no_other_text_is_a_refund_number(number: str) -> None:
    assert REFUND_NUMBER.fullmatch(number) is None


# Refusals


def words(code: str, message: str = "微信说的话") -> Rejected:
    return Rejected(code, message, *explain(code, message))


@pytest.mark.parametrize("known", [ReportedRefund.PENDING, ReportedRefund.REFUNDED, ReportedRefund.FAILED])
def test_a_refund_that_wechat_holds_is_what_it_says_whatever_it_refused(known: ReportedRefund) -> None:
    held = report(known, amount_fen=501)
    assert refusal_outcome(words("NOT_ENOUGH"), held) is held
    assert refusal_outcome(words("REFUND_FEE_MISMATCH"), held) is held


@pytest.mark.parametrize("code", ["NOT_ENOUGH", "NOTENOUGH", "RESOURCE_NOT_EXISTS", "ERROR", "A_CODE_OF_TOMORROW"])
def test_a_refusal_counts_once_wechat_holds_no_such_refund(code: str) -> None:
    outcome = refusal_outcome(words(code), NOT_FOUND)
    assert isinstance(outcome, Rejected)
    assert (outcome.code, outcome.message) == (code, "微信说的话")
    expected = explain_refund(code, "微信说的话") or explain(code, "微信说的话")
    assert (outcome.explanation, outcome.explanation_zh) == expected


@pytest.mark.parametrize(
    "said",
    [
        words("REFUND_FEE_MISMATCH"),
        words("INVALID_REQUEST", "订单金额或退款金额与之前请求不一致，请核实后再试"),
        words("INVALID_REQUEST", "请求重入时，参数与首次请求时不一致"),
    ],
    ids=str,
)
def test_a_number_that_is_used_and_not_found_is_unknown(said: Rejected) -> None:
    assert isinstance(refusal_outcome(said, NOT_FOUND), Unknown)


@pytest.mark.parametrize("asked", [Unknown("x"), NotReached("x"), words("SYSTEM_ERROR"), words("PARAM_ERROR")], ids=str)
@pytest.mark.parametrize("code", ["NOT_ENOUGH", "SIGN_ERROR", "INVALID_REQUEST"])
def test_a_refusal_without_an_answer_to_the_question_is_unknown(code: str, asked: RefundOutcome) -> None:
    outcome = refusal_outcome(words(code), asked)
    assert isinstance(outcome, Unknown)
    # Worth showing while it is asked.
    assert outcome.words is not None
    assert outcome.words.code == code


@pytest.mark.parametrize(("one", "other"), [("SIGN_ERROR", "SIGNERROR"), ("NO_AUTH", "NO_AUTH"), ("40097", "40097")])
def test_what_turns_both_away_at_the_door_looked_at_neither(one: str, other: str) -> None:
    outcome = refusal_outcome(words(one), words(other, "anders"))
    assert isinstance(outcome, Rejected)
    assert (outcome.code, outcome.message) == (one, "微信说的话")


# Explanations


@pytest.mark.parametrize(
    ("codes", "english", "chinese"),
    [
        (("NOT_ENOUGH", "NOTENOUGH"), "Top it up", "余额不足"),
        (("TRADE_OVERDUE",), "older than a year", "一年"),
        (("REFUND_FEE_MISMATCH",), "another amount", "另一金额"),
        (("RESOURCE_NOT_EXISTS", "ORDERNOTEXIST", "INVALID_TRANSACTIONID"), "no paid order", "已支付订单"),
        (("USER_ACCOUNT_ABNORMAL",), "another way", "其他方式"),
        (("NO_AUTH", "NOAUTH"), "may not refund", "无退款权限"),
        (("INVALID_REQUEST",), "as a whole", "可退金额"),
        (("ERROR",), "its message says why", "退款被拒绝"),
        (("CLOSED", "REFUNDCLOSE"), "new refund", "重新发起退款"),
        (("ABNORMAL", "CHANGE"), "do not ask for another", "请勿重复发起"),
        (("CLIENT_CERTIFICATE_MISSING",), "updateMerchantAccount", "client_certificate_p12"),
        (("CLIENT_CERTIFICATE_EXPIRED",), "updateMerchantAccount", "client_certificate_p12"),
    ],
)
def test_every_code_says_what_to_do_about_a_refund(codes: tuple[str, ...], english: str, chinese: str) -> None:
    for code in codes:
        explained = explain_refund(code, "")
        assert explained is not None
        assert english in explained.english
        assert chinese in explained.chinese


@pytest.mark.parametrize(
    ("code", "message", "english"),
    [
        ("INVALID_REQUEST", "订单金额或退款金额与之前请求不一致，请核实后再试", "another amount"),
        ("INVALID_REQUEST", "订单已全额退款", "not that much left"),
        ("INVALID_REQUEST", "累计退款金额大于支付金额", "not that much left"),
        ("ERROR", "基本账户余额不足，请充值后重新发起", "Top it up"),
        ("FAIL", "商户证书已过期", "apiclient_cert.p12"),
        ("INVALID_REQUEST", "订单已超过可退款的最大期限（一年）", "older than a year"),
        ("PARAM_ERROR", "部分退款次数超过限制", "50 times"),
    ],
)
def test_a_message_says_more_than_its_code(code: str, message: str, english: str) -> None:
    explained = explain_refund(code, message)
    assert explained is not None
    assert english in explained.english


@given(st.text(max_size=40), st.text(max_size=80))
def test_what_means_nothing_special_for_refunds_is_left_to_the_general_table(code: str, message: str) -> None:
    explained = explain_refund(code, message)
    assert explained is None or (explained.english and _HAN.search(explained.chinese))
    for code, others in (("SIGN_ERROR", "商户证书序列号有误"), ("SIGN_ERROR", ""), ("MCH_NOT_EXISTS", "商户号不存在")):
        assert explain_refund(code, others) is None
    missing = explain_refund("RESOURCE_NOT_EXISTS", "无可用的平台证书，请申请使用微信支付公钥")
    assert missing is not None
    assert "client_certificate_p12" not in missing.english


def test_two_contents_are_never_one_event() -> None:
    reports = [
        report(ReportedRefund.REFUNDED, amount_fen=501),
        report(ReportedRefund.REFUNDED, amount_fen=502),
        report(ReportedRefund.REFUNDED),
        report(ReportedRefund.FAILED, amount_fen=501),
        report(ReportedRefund.REFUNDED, amount_fen=501, provider_refund_id="1"),
        report(ReportedRefund.REFUNDED, amount_fen=501, account_claims={"mchid": "1"}),
        report(ReportedRefund.PENDING, amount_fen=501, failure=words("ABNORMAL")),
        report(ReportedRefund.PENDING, amount_fen=501),
    ]
    keys = {refund_event_key("EV", one) for one in reports} | {refund_event_key("EV2", reports[0])}
    assert len(keys) == len(reports) + 1
    assert refund_event_key("EV", reports[0]) == refund_event_key("EV", report(ReportedRefund.REFUNDED, amount_fen=501))
