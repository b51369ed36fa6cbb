"""`/_control` for Alipay's agreements and deductions.

GET  /_control/agreements       ?external_agreement_no= ?agreement_no= ?payer=   the provider's truth, oldest first
POST /_control/agreements/{external_agreement_no}/sign     {"payer"?, "notify"?, "times"?, "wait"?}   as the payer would
POST /_control/agreements/{external_agreement_no}/unsign   {"notify"?, "wait"?}   the payer ends it in Alipay's app
POST /_control/agreements/{external_agreement_no}/expire   its validity is over now; nobody is told
GET  /_control/alipay/agreements/policy
POST /_control/alipay/agreements/policy   {"window_days"?, "max_modifications"?, "ended_as"?, "signed_by"?}
     what is not given stays: days before the planned date on which one may deduct; how often an agreement's plan may
     be put off (null: without a bound); how a query answers once it is over ("STOP", "USER_AGREEMENT_NOT_EXIST" or
     "AGREEMENT_HAS_UNSIGNED"); the rule that signs notices of agreements ("V1" or "V2")
POST /_control/alipay/deductions/policy   {"answer", "sub_code"?, "settle"?, "as"?, "leave_trade"?, "late"?, "count"?,
     "external_agreement_no"?}   how deductions end that break no rule; see below
GET  /_control/alipay/apps/{app_id}
POST /_control/alipay/apps/{app_id}       {"app_gateway": url or null}

An agreement is named by the merchant's number, or by Alipay's where there is none; with `?seller_id=` where two
merchants have the same.

A deduction policy holds for one agreement if it names one, or else for all that have none of their own, for `count`
deductions or until the next one.

    "answer": "now"             paid at once: 10000
    "answer": "processing"      10003; ends after "settle" seconds of the sandbox clock or, with "hold" (which is
                                meant when nothing is given), by POST /_control/trades/{out_trade_no}/pay or /close
    "answer": "refused"         40004 with "sub_code"; "answer": "ACQ.…" is short for it. No trade is left, unless
                                "leave_trade": one in WAIT_BUYER_PAY, which "settle" may still end
    "as": "paid" or "closed"    how it ends
    "late": true                paid even if it was closed or ran out before it ends
"""

from collections.abc import Callable, Container
from datetime import timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.sandbox.alipay.agreement_desk import AgreementDesk
from app.sandbox.alipay.agreements import Agreement, AgreementPolicy
from app.sandbox.alipay.callers import HTTP_URL
from app.sandbox.alipay.deductions import NOW, PROCESSING, DeductionPolicy, Deductions
from app.sandbox.alipay.payers import PAYER_ID
from app.sandbox.clock import MAX_OFFSET
from app.sandbox.deliveries import Notice
from app.sandbox.options import (
    Body,
    ControlError,
    control_route,
    flag_of,
    number_of,
    read_options,
    text_of,
    times_of,
    wrong_type,
)

ENDED_AS = ("STOP", "USER_AGREEMENT_NOT_EXIST", "AGREEMENT_HAS_UNSIGNED")
MOST_WINDOW_DAYS = 366


class AgreementControl:
    def __init__(self, desk: AgreementDesk, deductions: Deductions, app_ids: Container[str]) -> None:
        self._desk = desk
        self._deductions = deductions
        self._app_ids = app_ids

    def routes(self) -> list[Route]:
        agreement, alipay = "/_control/agreements/{number}", "/_control/alipay"
        return [
            control_route("/_control/agreements", self._list, "GET"),
            control_route(f"{agreement}/sign", self._sign, "POST"),
            control_route(f"{agreement}/unsign", self._unsign, "POST"),
            control_route(f"{agreement}/expire", self._expire, "POST"),
            control_route(f"{alipay}/agreements/policy", self._policy, "GET"),
            control_route(f"{alipay}/agreements/policy", self._set_policy, "POST"),
            control_route(f"{alipay}/deductions/policy", self._set_deduction_policy, "POST"),
            control_route(f"{alipay}/apps/{{app_id}}", self._app, "GET"),
            control_route(f"{alipay}/apps/{{app_id}}", self._set_app, "POST"),
        ]

    async def _list(self, request: Request) -> Response:
        query, book = request.query_params, self._desk.agreements
        number = query.get("external_agreement_no")
        found = book.listed() if number is None else book.of_number(number)
        kept: dict[str, Callable[[Agreement], str]] = {
            "agreement_no": lambda agreement: agreement.agreement_no,
            "payer": lambda agreement: agreement.payer,
        }
        for name, value_of in kept.items():
            if name in query:
                found = [agreement for agreement in found if value_of(agreement) == query[name]]
        return JSONResponse({"agreements": [self._desk.described(agreement) for agreement in found]})

    async def _sign(self, request: Request) -> Response:
        agreement = self._find(request)
        options = await read_options(request, {"payer", "notify", "times", "wait"})
        payer = text_of(options, "payer")
        if payer is not None and not PAYER_ID.fullmatch(payer):
            raise wrong_type("payer", "16 digits that begin with 2088")
        notices = await self._desk.sign(
            agreement,
            payer=payer,
            notify=flag_of(options, "notify", default=True),
            times=times_of(options),
            wait=flag_of(options, "wait", default=True),
        )
        return self._answer(agreement, notices)

    async def _unsign(self, request: Request) -> Response:
        agreement = self._find(request)
        options = await read_options(request, {"notify", "wait"})
        told, wait = flag_of(options, "notify", default=True), flag_of(options, "wait", default=True)
        return self._answer(agreement, await self._desk.unsign(agreement, notify=told, wait=wait))

    async def _expire(self, request: Request) -> Response:
        agreement = self._find(request)
        await read_options(request, set())
        self._desk.run_out(agreement)
        return self._answer(agreement, [])

    def _answer(self, agreement: Agreement, notices: list[Notice]) -> Response:
        described = self._desk.described(agreement)
        return JSONResponse({"agreement": described, "notifications": [notice.described() for notice in notices]})

    def _find(self, request: Request) -> Agreement:
        number, seller_id = request.path_params["number"], request.query_params.get("seller_id")
        found = self._desk.agreements.of_number(number)
        if not found:
            found = [agreement for agreement in self._desk.agreements.listed() if agreement.agreement_no == number]
        found = [agreement for agreement in found if seller_id in (None, agreement.account.seller_id)]
        if not found:
            message = f"the sandbox knows no agreement {number}"
            fix = "an agreement is known once the signed URL of page.sign or app.pay was requested: GET that URL first"
            raise ControlError(404, "AGREEMENT_UNKNOWN", message, fix)
        if len(found) > 1:
            sellers = ", ".join(agreement.account.seller_id for agreement in found)
            message = f"{len(found)} sellers have an agreement {number}"
            raise ControlError(409, "AGREEMENT_AMBIGUOUS", message, f"add ?seller_id= with one of {sellers}")
        return found[0]

    # Policies and apps.

    async def _policy(self, _request: Request) -> Response:
        return JSONResponse({"policy": _described(self._desk.agreements.policy)})

    async def _set_policy(self, request: Request) -> Response:
        book = self._desk.agreements
        options = await read_options(request, {"window_days", "max_modifications", "ended_as", "signed_by"})
        present = book.policy
        window = number_of(options, "window_days", default=present.window_days)
        if not 0 <= window <= MOST_WINDOW_DAYS:
            raise wrong_type("window_days", f"a number from 0 to {MOST_WINDOW_DAYS}")
        most = present.max_modifications
        if "max_modifications" in options:
            is_bound = options["max_modifications"] is not None
            most = number_of(options, "max_modifications", default=0) if is_bound else None
        book.policy = AgreementPolicy(
            window_days=window,
            max_modifications=most,
            ended_as=_one_of(options, "ended_as", ENDED_AS, present.ended_as),
            signed_by=_one_of(options, "signed_by", ("V1", "V2"), present.signed_by),
        )
        return JSONResponse({"policy": _described(book.policy)})

    async def _set_deduction_policy(self, request: Request) -> Response:
        known = {"answer", "sub_code", "settle", "as", "leave_trade", "late", "count", "external_agreement_no"}
        options = await read_options(request, known)
        policy = _deduction_policy(options)
        self._deductions.order(policy, text_of(options, "external_agreement_no"))
        settle = policy.settle_after
        described = {
            "answer": policy.answer,
            "settle": "hold" if settle is None else settle.total_seconds(),
            "as": "paid" if policy.settles_paid else "closed",
            "leave_trade": policy.leaves_trade,
            "late": policy.late,
            "count": policy.remaining,
        }
        return JSONResponse({"policy": described})

    async def _app(self, request: Request) -> Response:
        return self._app_answer(self._app_id(request))

    async def _set_app(self, request: Request) -> Response:
        app_id = self._app_id(request)
        options = await read_options(request, {"app_gateway"})
        url = text_of(options, "app_gateway")
        if "app_gateway" not in options or (url is not None and not HTTP_URL.fullmatch(url)):
            raise wrong_type("app_gateway", "an absolute http(s) URL, or null")
        if url is None:
            self._desk.app_gateways.pop(app_id, None)
        else:
            self._desk.app_gateways[app_id] = url
        return self._app_answer(app_id)

    def _app_id(self, request: Request) -> str:
        app_id: str = request.path_params["app_id"]
        if app_id not in self._app_ids:
            raise ControlError(404, "APP_UNKNOWN", f"no app {app_id} at Alipay", "GET /_control/accounts lists them")
        return app_id

    def _app_answer(self, app_id: str) -> Response:
        return JSONResponse({"app_id": app_id, "app_gateway": self._desk.app_gateways.get(app_id)})


def _described(policy: AgreementPolicy) -> dict[str, Any]:
    return {
        "window_days": policy.window_days,
        "max_modifications": policy.max_modifications,
        "ended_as": policy.ended_as,
        "signed_by": policy.signed_by,
    }


def _deduction_policy(options: Body) -> DeductionPolicy:
    answer = text_of(options, "answer") or NOW
    sub_code = text_of(options, "sub_code")
    if answer == "refused" and sub_code:
        answer = sub_code
    elif sub_code:
        raise wrong_type("answer", '"refused" beside a sub_code')
    if answer == "refused" or (answer not in (NOW, PROCESSING) and not answer.removeprefix("ACQ.").isupper()):
        raise wrong_type("answer", '"now", "processing", "refused" with a sub_code, or a sub_code')
    count = number_of(options, "count", default=1) if "count" in options else None
    if count is not None and count < 1:
        raise wrong_type("count", "a number from 1")
    return DeductionPolicy(
        answer=answer,
        settle_after=_settle_after(options),
        settles_paid=_one_of(options, "as", ("paid", "closed"), "paid") == "paid",
        leaves_trade=flag_of(options, "leave_trade", default=False),
        late=flag_of(options, "late", default=False),
        remaining=count,
    )


def _settle_after(options: Body) -> timedelta | None:
    settle = options.get("settle", "hold")
    if settle == "hold":
        return None
    seconds = settle if isinstance(settle, int | float) and not isinstance(settle, bool) else -1
    if not 0 <= seconds <= MAX_OFFSET.total_seconds():
        raise wrong_type("settle", f'"hold" or a number of seconds within {MAX_OFFSET.days} days')
    return timedelta(seconds=seconds)


def _one_of(options: Body, name: str, known: tuple[str, ...], present: str) -> str:
    chosen = text_of(options, name) or present
    if chosen not in known:
        raise wrong_type(name, f"one of {', '.join(known)}")
    return chosen
