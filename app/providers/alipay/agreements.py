"""Alipay's agreements (周期扣款): signing, asking, cancelling, putting off, and taking money.

    sign, plain               a link for the wallet, no call    Alipay knows of nothing until the payer has opened it
    sign, with first payment  an app order for the wallet       one payment, and later one notice for each of the two
    query, cancel             by their number, or before there is one by ours with its scene
    put_off                   later only; Alipay says which date the plan then stands at
    deduct                    a refusal is checked against the trade: see `_refused`

A payer who cancels in Alipay is announced at the application's gateway address only, which is set in the console; an
agreement that runs out is not announced at all.

Source: opendocs.alipay.com/open/041bxs, /open/08bpuc and /support/01rg2a, as mirrored in 2024; the models
AlipayUserAgreement*Model, SignParams and PeriodRuleParams of alipay-sdk-python 3.7.1411; support answers at
developer.aliyun.com/ask/285540 to 285590.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta
from typing import Any, Literal
from urllib.parse import quote

import structlog

from app.clock import SHANGHAI
from app.errors import InvalidAmount, InvalidInput, SceneNotAllowed
from app.money import format_yuan
from app.providers.alipay.account import AlipayAccount, opened
from app.providers.alipay.agreement_reports import agreement_report, day
from app.providers.alipay.answers import Answered, Refused
from app.providers.alipay.deduction_refusals import deduction_refusal
from app.providers.alipay.deductions import DEDUCT, deduction_content, read_deduction_answer
from app.providers.alipay.gateway import Gateway
from app.providers.alipay.orders import (
    KNOWN_ALREADY,
    MAXIMUM_AMOUNT_FEN,
    check_number,
    check_return_url,
    check_subject,
    order_content,
)
from app.providers.alipay.trade_calls import close_trade, query_trade
from app.providers.alipay.trades import texts
from app.providers.contract import (
    Accepted,
    Account,
    AgreementKey,
    AgreementOutcome,
    AgreementReport,
    AgreementRequest,
    AgreementTerms,
    Closed,
    CreateOutcome,
    DeductionOutcome,
    DeductionRefusal,
    DeductionRefused,
    DeductionRequest,
    FirstPayment,
    NeverOpened,
    NotReached,
    PaymentMethod,
    PaymentReport,
    PutOff,
    PutOffOutcome,
    ReportedAgreement,
    ReportedStatus,
    Unknown,
)

_SIGN = "alipay.user.agreement.page.sign"
_QUERY = "alipay.user.agreement.query"
_UNSIGN = "alipay.user.agreement.unsign"
_PUT_OFF = "alipay.user.agreement.executionplan.modify"
_PAY_AND_SIGN = "alipay.trade.app.pay"

# Both links open the wallet: one shows a page in it, the other hands it an app's order.
_PAGE_IN_WALLET = "alipays://platformapi/startapp?appId=20000067&url="
_ORDER_IN_WALLET = "alipays://platformapi/startapp?appId=60000157&orderStr="
# The page is always shown inside the wallet, scanned or opened: Alipay lets nobody sign in a browser.
_CHANNEL = "ALIPAYAPP"

_EXTERNAL_NO = re.compile(r"[A-Za-z0-9]{1,32}", re.ASCII)
_PAYER_NAME_LIMIT = 100

_OVER = "AGREEMENT_HAS_UNSIGNED"
_NO_SUCH_AGREEMENT = frozenset({"USER_AGREEMENT_NOT_EXIST", "AGREEMENT_NOT_EXIST"})
# Answers to a cancellation that may only mean that there is nothing left to cancel.
_MAY_BE_OVER = _NO_SUCH_AGREEMENT | {
    "USER_AGREEMENT_STATUS_NOT_NORMAL",
    "USER_AGREEMENT_QUERY_FAIL",
    "USER_AGREEMENT_UNSIGN_FAIL",
    "ASYNC_UNSIGN_CAN_NOT_REJECT",
}
# Of a deduction's number they say that it was used before: ask, for it may have taken the money then.
_NUMBER_USED = KNOWN_ALREADY | {"CONTEXT_INCONSISTENT"}

_log = structlog.get_logger(__name__)


class AlipayAgreements:
    """Agreements at Alipay; stateless but for the gateway. Every method may be called again with the same input."""

    method = PaymentMethod.ALIPAY_CYCLE
    # Long enough to find the phone; until it is over nobody else can sign in its place.
    signing_life = timedelta(hours=1)
    # Close together while a person is signing, then until the link is over.
    query_schedule: Sequence[timedelta] = (
        timedelta(seconds=30),
        timedelta(minutes=1),
        timedelta(minutes=2),
        timedelta(minutes=5),
        timedelta(minutes=10),
        timedelta(minutes=20),
        timedelta(minutes=40),
    )

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def terms(self, account: Account) -> AgreementTerms:
        """As the account's settings say."""
        return opened(account).terms

    def check_agreement(self, account: Account, request: AgreementRequest) -> None:
        """What Alipay would refuse in any case, said before a row exists. What is ours to make raises ValueError."""
        _check_ours(request)
        terms = opened(account).terms
        _check_amounts(request, terms)
        check_subject(request.subject)
        _check_plan(request, terms)
        _check_scene(request.scene, terms)
        if request.return_url is not None:
            check_return_url(request.return_url)

    async def sign(self, account: Account, request: AgreementRequest) -> CreateOutcome:
        """A signed link, made without any call: Redirect to sign alone, QrCode to pay and sign."""
        alipay = opened(account)
        content = _signing_content(alipay, request)
        if request.first_payment is not None:
            return self._pay_and_sign(alipay, request, request.first_payment, content)
        query = self._gateway.signed_query(
            alipay, _SIGN, content, notify_url=request.notify_url, return_url=request.return_url
        )
        url = f"{alipay.gateway}?{query}"
        return Accepted(action={"kind": "Redirect", "url": url, "deepLink": _PAGE_IN_WALLET + quote(url, safe="")})

    async def query_agreement(self, account: Account, key: AgreementKey) -> AgreementOutcome:
        """alipay.user.agreement.query. An agreement that had a number of Alipay's and is not there any more is over."""
        alipay = opened(account)
        judged = await self._gateway.execute(alipay, _QUERY, _key_content(alipay, key))
        if isinstance(judged, NotReached | Unknown):
            return judged
        if isinstance(judged, Answered):
            return _read_query(judged.fields, key)
        if judged.reason == _OVER or (judged.reason in _NO_SUCH_AGREEMENT and key.agreement_no is not None):
            return _report(key, ReportedAgreement.ENDED, "query")
        if judged.reason in _NO_SUCH_AGREEMENT:
            return _report(key, ReportedAgreement.NOT_FOUND, "query")
        return judged.words

    async def cancel_agreement(self, account: Account, key: AgreementKey) -> AgreementOutcome:
        """alipay.user.agreement.unsign. Where a refusal may mean that nothing is left to cancel, Alipay is asked."""
        alipay = opened(account)
        content = _key_content(alipay, key)
        judged = await self._gateway.execute(alipay, _UNSIGN, content, notify_url=key.notify_url)
        if isinstance(judged, NotReached | Unknown):
            return judged
        if isinstance(judged, Answered):
            return _names_another(texts(judged.fields), key) or _report(key, ReportedAgreement.ENDED, "answer")
        if judged.reason == _OVER:
            return _report(key, ReportedAgreement.ENDED, "answer")
        if judged.reason not in _MAY_BE_OVER:
            return judged.words
        found = await self.query_agreement(account, key)
        if not isinstance(found, AgreementReport):
            return Unknown(f"refused with {judged.words.code}, and Alipay did not say why", judged.words)
        return judged.words if found.status is ReportedAgreement.ACTIVE else found

    async def put_off(self, account: Account, key: AgreementKey, deduct_on: date) -> PutOffOutcome:
        """alipay.user.agreement.executionplan.modify. Whether the date may be chosen is Alipay's to say."""
        content = {"agreement_no": _signed_number(key), "deduct_time": deduct_on.isoformat()}
        judged = await self._gateway.execute(opened(account), _PUT_OFF, content)
        if isinstance(judged, NotReached | Unknown):
            return judged
        if isinstance(judged, Refused):
            return judged.words
        said = texts(judged.fields)
        another = _names_another(said, key)
        if another is not None:
            return another
        stands_at = day(said, "deduct_time")
        return Unknown("the answer holds no date") if stands_at is None else PutOff(stands_at)

    async def deduct(self, account: Account, request: DeductionRequest) -> DeductionOutcome:
        """alipay.trade.pay under our own number. What the gateway itself turned away was not looked at: NotReached."""
        alipay = opened(account)
        content = deduction_content(request, product_code=alipay.cycle_product)
        judged = await self._gateway.execute(alipay, DEDUCT, content, notify_url=request.notify_url)
        if isinstance(judged, NotReached | Unknown):
            return judged
        if isinstance(judged, Answered):
            return read_deduction_answer(judged.fields, request)
        if not judged.by_product:
            return NotReached(f"turned away by the gateway: {judged.words.code}", judged.words)
        if judged.reason in _NUMBER_USED:
            return Unknown(f"Alipay knows this number already: {judged.words.code}", judged.words)
        return await self._refused(alipay, request, judged)

    async def _refused(self, account: AlipayAccount, request: DeductionRequest, judged: Refused) -> DeductionOutcome:
        """A refusal, once Alipay holds no trade of this number that is or could still be paid.

        A repeat may be refused because the first call took the money: it moves the plan on, and then today is no day of
        the plan any more. And a refused deduction may leave its trade behind unpaid, which is closed."""
        found = await query_trade(self._gateway, account, request.out_trade_no)
        if not isinstance(found, PaymentReport):
            return Unknown(f"refused with {judged.words.code}, and Alipay did not say what became of it", judged.words)
        if found.status is ReportedStatus.SUCCESSFUL:
            return found
        if found.status is ReportedStatus.PENDING:
            closed = await close_trade(self._gateway, account, request.out_trade_no)
            if not isinstance(closed, Closed | NeverOpened):
                return Unknown(f"refused with {judged.words.code}, and its trade is open", judged.words)
        known = deduction_refusal(judged.reason)
        if known is None:
            _log.warning(
                "alipay.unknown_deduction_refusal", sub_code=judged.words.code, out_trade_no=request.out_trade_no
            )
        return DeductionRefused(DeductionRefusal.FINAL if known is None else known.kind, judged.words)

    def _pay_and_sign(
        self, account: AlipayAccount, request: AgreementRequest, payment: FirstPayment, signing: dict[str, object]
    ) -> Accepted:
        """The order is sold as the deductions will be. Alipay announces payment and signing by two notices."""
        content = order_content(
            out_trade_no=payment.out_trade_no,
            amount_fen=payment.amount_fen,
            subject=request.subject,
            product_code=account.cycle_product,
            created_at=request.created_at,
            expires_at=request.expires_at,
        )
        content["agreement_sign_params"] = signing | {"sign_notify_url": request.notify_url}
        order = self._gateway.signed_query(account, _PAY_AND_SIGN, content, notify_url=request.notify_url)
        link = _ORDER_IN_WALLET + quote(order, safe="")
        return Accepted(action={"kind": "QrCode", "codeUrl": link, "deepLink": link})


def _signing_content(account: AlipayAccount, request: AgreementRequest) -> dict[str, object]:
    """What the payer agrees to. The same request gives the same content."""
    return {
        "personal_product_code": _personal_product(account),
        "product_code": account.cycle_product,
        "sign_scene": request.scene,
        "external_agreement_no": request.external_agreement_no,
        "external_logon_id": request.payer_name,
        "access_params": {"channel": _CHANNEL},
        "period_rule_params": {
            "period_type": "DAY",
            "period": request.interval_days,
            "execute_time": request.first_deduction_on.isoformat(),
            "single_amount": format_yuan(request.ceiling_fen),
        },
        "effect_time": int((request.expires_at - request.created_at).total_seconds()),
    }


def _key_content(account: AlipayAccount, key: AgreementKey) -> dict[str, object]:
    """Their number alone where there is one: Alipay ignores all else beside it."""
    if key.agreement_no is not None:
        return {"agreement_no": key.agreement_no}
    return {
        "personal_product_code": _personal_product(account),
        "sign_scene": key.scene,
        "external_agreement_no": key.external_agreement_no,
    }


def _personal_product(account: AlipayAccount) -> str:
    return f"{account.cycle_product}_P"


def _signed_number(key: AgreementKey) -> str:
    if key.agreement_no is None:
        raise ValueError("an agreement that is not signed has no plan")
    return key.agreement_no


def _read_query(fields: Mapping[str, Any], key: AgreementKey) -> AgreementReport | Unknown:
    said = texts(fields)
    asked_by = "external_agreement_no" if key.agreement_no is None else "agreement_no"
    if asked_by not in said:
        return Unknown("the answer does not name its agreement")
    another = _names_another(said, key)
    if another is not None:
        return another
    if "status" not in said:
        return Unknown("the answer holds no status")
    report = agreement_report(said, "query")
    if report.status is ReportedAgreement.ACTIVE and report.agreement_no is None:
        return Unknown("the answer holds no agreement_no")
    return replace(report, external_agreement_no=key.external_agreement_no)


def _names_another(said: Mapping[str, str], key: AgreementKey) -> Unknown | None:
    for name, ours in (("agreement_no", key.agreement_no), ("external_agreement_no", key.external_agreement_no)):
        if ours is not None and said.get(name, ours) != ours:
            return Unknown(f"the answer is about another {name}")
    return None


def _report(key: AgreementKey, status: ReportedAgreement, source: Literal["query", "answer"]) -> AgreementReport:
    return AgreementReport(
        status=status,
        source=source,
        external_agreement_no=key.external_agreement_no,
        agreement_no=key.agreement_no,
    )


def _check_ours(request: AgreementRequest) -> None:
    if _EXTERNAL_NO.fullmatch(request.external_agreement_no) is None:
        raise ValueError("external_agreement_no is ours to make: 1 to 32 letters and digits")
    if not request.payer_name.strip() or len(request.payer_name) > _PAYER_NAME_LIMIT:
        raise ValueError(f"payer_name is ours to make: 1 to {_PAYER_NAME_LIMIT} characters")
    if request.expires_at - request.created_at < timedelta(minutes=1):
        raise ValueError("the link must live for a minute at least")
    if request.first_payment is not None:
        check_number(request.first_payment.out_trade_no)


def _check_amounts(request: AgreementRequest, terms: AgreementTerms) -> None:
    largest = terms.largest_deduction_fen
    if not 1 <= request.ceiling_fen <= largest:
        raise InvalidAmount(
            f"this merchant account agrees on deductions from 0.01 to {format_yuan(largest)} yuan",
            message_zh=f"每次扣款金额须在 0.01 至 {format_yuan(largest)} 元之间",
            field="maxPrice",
        )
    # The first payment is a payment like any other, outside the agreement's own limits.
    if request.first_payment is not None and not 1 <= request.first_payment.amount_fen <= MAXIMUM_AMOUNT_FEN:
        raise InvalidAmount(
            "Alipay takes amounts from 0.01 to 99999999.99 yuan",
            message_zh="支付宝的金额范围为 0.01 至 99999999.99 元",
            field="price",
        )


def _check_plan(request: AgreementRequest, terms: AgreementTerms) -> None:
    shortest = terms.shortest_interval_days
    if request.interval_days < shortest:
        raise InvalidInput(
            f"intervalDays must be at least {shortest}",
            message_zh=f"扣款周期至少为 {shortest} 天",
            field="intervalDays",
        )
    today = request.created_at.astimezone(SHANGHAI).date()
    if request.first_deduction_on < today:
        raise InvalidInput(
            f"firstDeductionOn must be {today.isoformat()} or later: it is a day in China's time",
            message_zh=f"首次扣款日期不能早于今天（{today.isoformat()}）",
            field="firstDeductionOn",
        )


def _check_scene(scene: str, terms: AgreementTerms) -> None:
    if scene in terms.scenes:
        return
    if not terms.scenes:
        raise SceneNotAllowed(
            "this merchant account signs no agreements: set its cycle_scenes",
            message_zh="该商户账号未开通周期扣款",
            field="scene",
        )
    allowed = ", ".join(sorted(terms.scenes))
    raise SceneNotAllowed(
        f"scene must be one that this merchant account has signed: {allowed}",
        message_zh=f"商户未开通该签约场景，可用场景：{allowed}",
        field="scene",
    )
