"""page.sign, query, unsign and modify of agreements; paying with signing, and deducting.

As in methods.py, every function returns the business fields of a success or raises a Refusal.
"""

import secrets
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from app.sandbox.alipay.agreement_desk import AgreementDesk
from app.sandbox.alipay.agreement_fields import (
    AGREEMENT_QUERY,
    PAGE_SIGN,
    PAY_AND_SIGN,
    PLAN_MODIFY,
    UNSIGN,
    parse_day,
    read_sign_terms,
)
from app.sandbox.alipay.agreement_notices import query_fields
from app.sandbox.alipay.agreements import NO_SCENE, Agreement, AgreementBook, AgreementStatus, SignTerms
from app.sandbox.alipay.callers import Call, check_fresh
from app.sandbox.alipay.deductions import DeductionPolicy, Deductions, refusal_of
from app.sandbox.alipay.errors import BusinessRefusal, invalid_field
from app.sandbox.alipay.fields import APP_PAY, DEDUCT, Field, check_fields, format_amount, read_biz_content
from app.sandbox.alipay.methods import amounts
from app.sandbox.alipay.orders import PAGE_TIMEOUT, new_trade
from app.sandbox.alipay.payers import logon_id_of, payer_of
from app.sandbox.alipay.trades import Product, Trade, TradeBook
from app.sandbox.clock import BEIJING, SandboxClock, format_beijing

DEDUCTION_TIMEOUT = timedelta(days=15)


class AgreementMethods:
    """`follow_deduction` sees to what comes after one that was accepted: its notice, or its settling."""

    def __init__(
        self,
        book: TradeBook,
        agreements: AgreementBook,
        deductions: Deductions,
        desk: AgreementDesk,
        clock: SandboxClock,
        *,
        follow_deduction: Callable[[Trade, DeductionPolicy], None],
    ) -> None:
        self._book = book
        self._agreements = agreements
        self._deductions = deductions
        self._desk = desk
        self._clock = clock
        self._follow_deduction = follow_deduction
        self.page: Mapping[str, Callable[[Call], str]] = {
            "alipay.user.agreement.page.sign": self._page_sign,
            "alipay.trade.app.pay": self._app_pay,
        }
        self.execute: Mapping[str, Callable[[Call], dict[str, object]]] = {
            "alipay.user.agreement.query": self._query,
            "alipay.user.agreement.unsign": self._unsign,
            "alipay.user.agreement.executionplan.modify": self._modify,
            "alipay.trade.pay": self._deduct,
        }

    def _page_sign(self, call: Call) -> str:
        """The signing page of a link, which may be opened for as long as its `effect_time` says."""
        content = read_biz_content(call.biz_content)
        terms = self._sign_terms(call, content, PAGE_SIGN)
        agreement = self._agreement(call, content, terms, notify_url=call.notify_url)
        if "effect_time" not in content:
            check_fresh(call.generated_at, self._clock)
        elif agreement.link_expires_at <= self._clock.now():
            raise BusinessRefusal("ILLEGAL_PARAMS", "签约链接已过期，请返回商户重新签约")
        return f"/alipay/sign/{self._agreements.offer(agreement).token}"

    def _app_pay(self, call: Call) -> str:
        """The payment page of an app's order string, on which the payer may sign as well."""
        content = read_biz_content(call.biz_content)
        check_fields(content, APP_PAY)
        if not {"time_expire", "timeout_express"} & content.keys():
            check_fresh(call.generated_at, self._clock)
        agreement = self._offered(call, content)
        order = new_trade(call, content, Product.APP, self._clock, default_timeout=PAGE_TIMEOUT, agreement=agreement)
        return f"/alipay/pay/{self._book.offer(order).token}"

    def _offered(self, call: Call, content: dict[str, Any]) -> Agreement | None:
        """The agreement that is offered with a payment, in the book."""
        params = content.get("agreement_sign_params")
        if params is None:
            if content["product_code"] != "QUICK_MSECURITY_PAY":
                raise invalid_field("agreement_sign_params", "不能为空")
            return None
        terms = self._sign_terms(call, params, PAY_AND_SIGN)
        notify_url = params.get("sign_notify_url", call.notify_url)
        agreement = self._agreement(call, params, terms, notify_url=notify_url, out_trade_no=content["out_trade_no"])
        return self._agreements.offer(agreement)

    def _sign_terms(self, call: Call, params: dict[str, Any], fields: dict[str, Field]) -> SignTerms:
        made_on = call.generated_at.astimezone(BEIJING).date()
        return read_sign_terms(params, fields, app_id=call.account.app_id, today=made_on)

    def _agreement(
        self, call: Call, params: dict[str, Any], terms: SignTerms, *, notify_url: str, out_trade_no: str = ""
    ) -> Agreement:
        """In no book yet."""
        expires_at = self._clock.now() + PAGE_TIMEOUT
        if "effect_time" in params:
            expires_at = call.generated_at + timedelta(seconds=int(params["effect_time"]))
        return Agreement(
            account=call.account,
            terms=terms,
            charset=call.charset,
            codec=call.codec,
            notify_url=notify_url,
            return_url=call.return_url,
            created_at=self._clock.now(),
            link_expires_at=expires_at,
            token=secrets.token_urlsafe(18),
            payer=payer_of(terms.external_logon_id),
            out_trade_no=out_trade_no,
        )

    def _query(self, call: Call) -> dict[str, object]:
        content = _checked(call, AGREEMENT_QUERY, "INVALID_PARAMETER")
        agreement = self._find(call, content)
        if agreement is None or agreement.status is AgreementStatus.OFFERED:
            raise BusinessRefusal("USER_AGREEMENT_NOT_EXIST", "用户协议不存在")
        ended_as = self._agreements.policy.ended_as
        if agreement.status is not AgreementStatus.NORMAL and ended_as != "STOP":
            raise BusinessRefusal(ended_as, "用户协议不存在或已经解约")
        return query_fields(agreement)

    def _unsign(self, call: Call) -> dict[str, object]:
        content = _checked(call, UNSIGN, "ILLEGAL_PARAMS")
        agreement = self._find(call, content)
        if agreement is None or agreement.status is AgreementStatus.OFFERED:
            raise BusinessRefusal("AGREEMENT_NOT_EXIST", "用户协议不存在")
        self._agreements.unsign(agreement)
        self._desk.follow_unsign(agreement, call.notify_url)
        return {}

    def _modify(self, call: Call) -> dict[str, object]:
        content = _checked(call, PLAN_MODIFY, "INVALID_PARAMETER")
        agreement = self._agreements.find_signed(call.account.seller_id, content["agreement_no"])
        if agreement is None:
            raise BusinessRefusal("ILLEGAL_AGREEMENT", "用户协议不存在")
        self._agreements.put_off(agreement, parse_day("deduct_time", content["deduct_time"]))
        return {"agreement_no": agreement.agreement_no, "deduct_time": content["deduct_time"]}

    def _find(self, call: Call, content: dict[str, Any]) -> Agreement | None:
        """By Alipay's number alone, by the merchant's with product and scene, or by payer with product and scene."""
        seller_id = call.account.seller_id
        if "agreement_no" in content:
            return self._agreements.find_signed(seller_id, content["agreement_no"])
        if "personal_product_code" not in content:
            raise BusinessRefusal("INVALID_PARAMETER", "参数无效：agreement_no 与 personal_product_code 不能同时为空")
        scene = content.get("sign_scene", NO_SCENE)
        if "external_agreement_no" in content:
            found = self._agreements.find_by_external_no(seller_id, content["external_agreement_no"])
        elif "alipay_user_id" in content:
            found = self._agreements.find_in_force(content["alipay_user_id"], seller_id, scene)
        elif {"alipay_open_id", "alipay_logon_id"} & content.keys():
            raise BusinessRefusal("USER_NOT_EXIST_ERROR", "用户不存在：沙箱的用户没有 open_id，登录名也只有掩码")
        else:
            raise BusinessRefusal("INVALID_PARAMETER", "参数无效：缺少协议号，或者用户")
        named = (scene, content["personal_product_code"])
        return found if found and (found.terms.scene, found.terms.personal_product_code) == named else None

    def _deduct(self, call: Call) -> dict[str, object]:
        content = read_biz_content(call.biz_content)
        check_fields(content, DEDUCT)
        is_async = content.get("is_async_pay") in (True, "true")
        if is_async and content["product_code"] != "GENERAL_WITHHOLDING":
            raise invalid_field("is_async_pay", "仅商家扣款可用")
        agreement_no = content["agreement_params"]["agreement_no"]
        seller_id = call.account.seller_id
        agreement = self._deductions.agreement_for(seller_id, agreement_no, content["product_code"])
        wanted = new_trade(
            call, content, Product.DEDUCTION, self._clock, default_timeout=DEDUCTION_TIMEOUT, agreement=agreement
        )
        trade, policy = self._deductions.begin(wanted, is_async=is_async)
        self._follow_deduction(trade, policy)
        if refusal := refusal_of(policy):
            raise refusal
        return _deduction_answer(trade, is_async=is_async)


def _checked(call: Call, fields: dict[str, Field], sub_code: str) -> dict[str, Any]:
    """The agreement methods have their own word for a wrong parameter, without `ACQ.`."""
    content = read_biz_content(call.biz_content)
    try:
        check_fields(content, fields)
    except BusinessRefusal as refused:
        raise BusinessRefusal(sub_code, refused.sub_msg) from refused
    return content


def _deduction_answer(trade: Trade, *, is_async: bool) -> dict[str, object]:
    answer: dict[str, object] = {
        "buyer_logon_id": logon_id_of(trade.buyer_id),
        "buyer_user_id": trade.buyer_id,
        "out_trade_no": trade.out_trade_no,
        "total_amount": format_amount(trade.terms.total_amount_fen),
        "trade_no": trade.trade_no,
    }
    if trade.paid_at is None:
        answer |= {"code": "10003", "msg": "order success pay inprocess"}
        return answer | ({"async_pay_apply_status": "S"} if is_async else {})
    amount = format_amount(trade.terms.total_amount_fen)
    return {
        **answer,
        **amounts(trade.terms.total_amount_fen),
        "gmt_payment": format_beijing(trade.paid_at),
        "fund_bill_list": [{"fund_channel": "ALIPAYACCOUNT", "amount": amount}],
    }
