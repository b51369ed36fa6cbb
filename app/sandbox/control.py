"""`/_control`: the tests' handle on the sandbox. JSON in, JSON out; an error says what to change.

{"error": {"code": "TRADE_UNKNOWN", "message": "…", "fix": "…"}}
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.sandbox.clock import MAX_OFFSET, ClockOutOfRange, format_beijing
from app.sandbox.deliveries import Notice
from app.sandbox.desks import (
    AnyDesk,
    Payment,
    RefundingDesk,
    RefundPolicy,
    RefundState,
    all_described,
    described_trade,
    refunding,
)
from app.sandbox.faults import FaultKind
from app.sandbox.options import (
    Body,
    ControlError,
    control_route,
    flag_of,
    number_of,
    read_options,
    seconds_of,
    text_of,
    times_of,
    wrong_type,
)
from app.sandbox.world import World


@dataclass(frozen=True, slots=True)
class _Found:
    desk: AnyDesk
    trade: Any


class Control:
    def __init__(self, world: World) -> None:
        self._world = world

    def routes(self) -> list[Route]:
        trade = "/_control/trades/{out_trade_no}"
        return [
            control_route("/_control/trades", self._trades, "GET"),
            control_route(f"{trade}/open", self._open, "POST"),
            control_route(f"{trade}/pay", self._pay, "POST"),
            control_route(f"{trade}/fail", self._fail, "POST"),
            control_route(f"{trade}/close", self._close, "POST"),
            control_route("/_control/refunds/policy", self._set_refund_policy, "POST"),
            control_route("/_control/refunds/{out_refund_no}/settle", self._settle_refund, "POST"),
            control_route("/_control/notifications", self._notifications, "GET"),
            control_route("/_control/notifications/{notify_id}/resend", self._resend, "POST"),
            control_route("/_control/faults", self._add_fault, "POST"),
            control_route("/_control/faults", self._faults, "GET"),
            control_route("/_control/faults", self._clear_faults, "DELETE"),
            control_route("/_control/clock", self._move_clock, "POST"),
            control_route("/_control/clock", self._clock, "GET"),
            control_route("/_control/calls", self._calls, "GET"),
            control_route("/_control/accounts", self._accounts, "GET"),
            control_route("/_control/reset", self._reset, "POST"),
        ]

    # Trades.

    async def _trades(self, request: Request) -> Response:
        number = request.query_params.get("out_trade_no")
        return JSONResponse({"trades": all_described(self._world.desks, out_trade_no=number)})

    async def _open(self, request: Request) -> Response:
        found = self._find(request)
        await read_options(request, set())
        found.desk.open(found.trade)
        return _trade_answer(found, [])

    async def _pay(self, request: Request) -> Response:
        found = self._find(request)
        payment = _payment(await read_options(request, _PAY_OPTIONS))
        return _trade_answer(found, await found.desk.pay(found.trade, payment))

    async def _fail(self, request: Request) -> Response:
        found = self._find(request)
        options = await read_options(request, {"reason"})
        found.desk.fail(found.trade, text_of(options, "reason") or found.desk.default_failure)
        return _trade_answer(found, [])

    async def _close(self, request: Request) -> Response:
        found = self._find(request)
        options = await read_options(request, {"notify"})
        return _trade_answer(
            found, await found.desk.close(found.trade, notify=flag_of(options, "notify", default=False))
        )

    def _find(self, request: Request) -> _Found:
        number = request.path_params["out_trade_no"]
        seller_id = request.query_params.get("seller_id")
        found = [_Found(desk, trade) for desk in self._world.desks for trade in desk.find(number, seller_id)]
        if not found:
            message = f"the sandbox knows no trade {number}"
            fix = (
                "a page.pay or wap.pay trade is known once its signed URL was requested: GET that URL first;"
                " a QR trade once precreate was called, a WeChat trade once it was ordered"
            )
            raise ControlError(404, "TRADE_UNKNOWN", message, fix)
        if len(found) > 1:
            sellers = ", ".join(entry.desk.described(entry.trade)["seller_id"] for entry in found)
            message = f"{len(found)} sellers have a trade {number}"
            raise ControlError(409, "TRADE_AMBIGUOUS", message, f"add ?seller_id= with one of {sellers}")
        return found[0]

    # Refunds.

    async def _set_refund_policy(self, request: Request) -> Response:
        """`settle` ("now", "hold" or seconds), `as`, `notify_full`; of one `provider`, or of all that play refunds."""
        options = await read_options(request, {"settle", "as", "notify_full", "provider"})
        policy = _refund_policy(options)
        provider = text_of(options, "provider")
        desks = [desk for desk in self._world.desks if provider in (None, desk.provider)]
        if not desks:
            known = ", ".join(sorted({desk.provider for desk in self._world.desks}))
            raise wrong_type("provider", f"one of {known}")
        chosen = [refunding(desk) for desk in desks if provider or isinstance(desk, RefundingDesk)]
        for desk in chosen:
            desk.set_refund_policy(policy)
        return JSONResponse({"providers": [desk.provider for desk in chosen]})

    async def _settle_refund(self, request: Request) -> Response:
        number = request.path_params["out_refund_no"]
        options = await read_options(request, {"as"})
        state = _refund_state(options)
        found = self._find_refunded(number, request.query_params.get("out_trade_no"))
        return _trade_answer(found, await refunding(found.desk).settle_refund(found.trade, number, state))

    def _find_refunded(self, out_refund_no: str, out_trade_no: str | None) -> _Found:
        found = [
            _Found(desk, trade)
            for desk in self._world.desks
            if isinstance(desk, RefundingDesk)
            for trade in desk.listed(out_trade_no=out_trade_no)
            if any(refund["out_refund_no"] == out_refund_no for refund in desk.refunds_of(trade))
        ]
        if not found:
            message = f"the sandbox knows no refund {out_refund_no}"
            raise ControlError(404, "REFUND_UNKNOWN", message, "GET /_control/trades lists them with their trades")
        if len(found) > 1:
            message = f"{len(found)} trades have a refund {out_refund_no}"
            raise ControlError(409, "REFUND_AMBIGUOUS", message, "add ?out_trade_no= with the trade's number")
        return found[0]

    # Notifications.

    async def _notifications(self, request: Request) -> Response:
        number = request.query_params.get("out_trade_no")
        notices = self._world.deliveries.listed(out_trade_no=number)
        return JSONResponse({"notifications": [notice.described() for notice in notices]})

    async def _resend(self, request: Request) -> Response:
        notify_id = request.path_params["notify_id"]
        notice = self._world.deliveries.find(notify_id)
        if notice is None:
            message = f"the sandbox sent no notification {notify_id}"
            raise ControlError(404, "NOTIFICATION_UNKNOWN", message, "GET /_control/notifications lists them")
        options = await read_options(request, {"times", "concurrent", "skew_s"})
        attempts = await self._world.deliveries.resend(
            notice,
            times=times_of(options),
            concurrent=flag_of(options, "concurrent", default=False),
            skew=timedelta(seconds=seconds_of(options, "skew_s") or 0.0),
        )
        return JSONResponse(
            {"notification": notice.described(), "attempts": [attempt.described() for attempt in attempts]}
        )

    # Faults, clock and the rest.

    async def _add_fault(self, request: Request) -> Response:
        options = await read_options(
            request, {"method", "kind", "count", "out_trade_no", "latency_s", "code", "sub_code", "message"}
        )
        method, kind = text_of(options, "method"), text_of(options, "kind")
        kinds = [known.value for known in FaultKind]
        if not method or kind not in kinds:
            fix = f'give "method" (as GET /_control/calls names it, or *) and "kind", one of {", ".join(kinds)}'
            raise ControlError(400, "FAULT_INVALID", "method or kind is missing or unknown", fix)
        try:
            fault = self._world.faults.add(
                method=method,
                kind=FaultKind(kind),
                count=number_of(options, "count", default=1),
                out_trade_no=text_of(options, "out_trade_no"),
                latency_s=seconds_of(options, "latency_s"),
                code=text_of(options, "code"),
                sub_code=text_of(options, "sub_code"),
                message=text_of(options, "message"),
            )
        except ValueError as exc:
            raise ControlError(400, "FAULT_INVALID", str(exc), "correct the number") from exc
        return JSONResponse({"fault": fault.described()}, status_code=201)

    async def _faults(self, _request: Request) -> Response:
        return JSONResponse({"faults": [fault.described() for fault in self._world.faults.listed()]})

    async def _clear_faults(self, _request: Request) -> Response:
        self._world.faults.reset()
        return JSONResponse({"faults": []})

    async def _move_clock(self, request: Request) -> Response:
        """`to` (ISO with an offset) or `advance_s`; answers after everything due on the way was sent.

        With `forward` a clock that is there already is not moved back."""
        options = await read_options(request, {"to", "advance_s", "forward", "strict_timestamps"})
        if "strict_timestamps" in options:
            self._world.clock.strict_timestamps = flag_of(options, "strict_timestamps", default=False)
        deliveries = 0
        target = self._target(options)
        if target is not None:
            try:
                forward = flag_of(options, "forward", default=False)
                deliveries = await self._world.deliveries.move_clock(target, forward=forward)
            except ClockOutOfRange as exc:
                raise ControlError(400, "CLOCK_INVALID", str(exc), "choose a nearer time") from exc
        return JSONResponse({**self._clock_described(), "deliveries": deliveries})

    def _target(self, options: Body) -> datetime | None:
        if ("to" in options) == ("advance_s" in options):
            if options.keys() == {"strict_timestamps"}:
                return None
            raise ControlError(400, "CLOCK_INVALID", "one of to and advance_s is needed", 'give {"advance_s": 240}')
        try:
            if "advance_s" in options:
                return self._world.clock.now() + timedelta(seconds=seconds_of(options, "advance_s") or 0.0)
            target = datetime.fromisoformat(text_of(options, "to") or "")
        except (ValueError, OverflowError) as exc:
            raise ControlError(
                400, "CLOCK_INVALID", "not a time the clock can be moved to", 'give "to" as 2026-11-22T08:00:00+08:00'
            ) from exc
        if target.tzinfo is None:
            raise ControlError(400, "CLOCK_INVALID", "to has no UTC offset", "write it as 2026-11-22T08:00:00+08:00")
        return target

    async def _clock(self, _request: Request) -> Response:
        return JSONResponse(self._clock_described())

    def _clock_described(self) -> Body:
        clock = self._world.clock
        now, next_due = clock.now(), self._world.deliveries.next_due()
        return {
            "now": now.isoformat(),
            "beijing": format_beijing(now),
            "offset_s": round(clock.offset.total_seconds(), 3),
            "next_due": None if next_due is None else next_due.isoformat(),
            "strict_timestamps": clock.strict_timestamps,
        }

    async def _calls(self, request: Request) -> Response:
        query = request.query_params
        calls = self._world.calls.listed(method=query.get("method"), out_trade_no=query.get("out_trade_no"))
        return JSONResponse({"calls": calls, "total": sum(call["count"] for call in calls)})

    async def _accounts(self, _request: Request) -> Response:
        return JSONResponse({"accounts": self._world.accounts})

    async def _reset(self, request: Request) -> Response:
        await read_options(request, set())
        await self._world.reset()
        return JSONResponse({"reset": True, **self._clock_described()})


_FAULT_OPTIONS = {"method", "kind", "count", "out_trade_no", "latency_s", "code", "sub_code", "message"}
_PAY_OPTIONS = {
    "amount",
    "app_id",
    "seller_id",
    "payer",
    "fields",
    "notify",
    "times",
    "distinct_ids",
    "late",
    "break_signature",
    "wait",
    "sign",
    "buyer",
}


def _trade_answer(found: _Found, notices: list[Notice]) -> Response:
    return JSONResponse(
        {"trade": described_trade(found.desk, found.trade), "notifications": [notice.described() for notice in notices]}
    )


def _refund_policy(options: Body) -> RefundPolicy:
    settle = options.get("settle", "now")
    after: timedelta | None = None
    if settle == "now":
        after = timedelta(0)
    elif settle != "hold":
        seconds = settle if isinstance(settle, int | float) and not isinstance(settle, bool) else -1
        if not 0 <= seconds <= MAX_OFFSET.total_seconds():
            raise wrong_type("settle", f'"now", "hold" or a number of seconds within {MAX_OFFSET.days} days')
        after = timedelta(seconds=seconds)
    full = flag_of(options, "notify_full", default=False)
    return RefundPolicy(settle_after=after, settle_as=_refund_state(options), notify_full=full)


def _refund_state(options: Body) -> RefundState:
    ends = [state.value for state in RefundState if state is not RefundState.PROCESSING]
    state = options.get("as", RefundState.REFUNDED.value)
    if state not in ends:
        raise wrong_type("as", f"one of {', '.join(ends)}")
    return RefundState(state)


def _payment(options: Body) -> Payment:
    fields = options.get("fields", {})
    if not isinstance(fields, dict) or not all(isinstance(value, str) for value in fields.values()):
        raise wrong_type("fields", "an object of texts")
    return Payment(
        late=flag_of(options, "late", default=False),
        notify=flag_of(options, "notify", default=True),
        times=times_of(options),
        distinct_ids=flag_of(options, "distinct_ids", default=False),
        break_signature=flag_of(options, "break_signature", default=False),
        wait=flag_of(options, "wait", default=True),
        sign=flag_of(options, "sign", default=True),
        buyer=text_of(options, "buyer"),
        amount=_amount(options),
        app_id=text_of(options, "app_id"),
        seller_id=text_of(options, "seller_id"),
        payer=text_of(options, "payer"),
        overrides=fields,
    )


def _amount(options: Body) -> str | None:
    """Any decimal text: the notice is meant to be wrong."""
    text = text_of(options, "amount")
    if text is not None:
        try:
            Decimal(text)
        except InvalidOperation as exc:
            raise wrong_type("amount", 'an amount in yuan such as "0.02"') from exc
    return text
