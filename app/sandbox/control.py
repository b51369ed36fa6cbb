"""`/_control`: the tests' handle on the sandbox. JSON in, JSON out; an error says what to change.

    {"error": {"code": "TRADE_UNKNOWN", "message": "…", "fix": "…"}}

Bodies are objects whose unknown keys are refused, so that a misspelt option never passes for its default.
"""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.sandbox.alipay.desk import DEFAULT_FAILURE, Desk, Payment, amount_overrides
from app.sandbox.alipay.errors import BusinessRefusal
from app.sandbox.alipay.trades import Trade
from app.sandbox.clock import ClockOutOfRange, format_beijing
from app.sandbox.deliveries import Notice
from app.sandbox.faults import FaultKind
from app.sandbox.world import World

MAX_TIMES = 1000
MAX_BODY_BYTES = 1 << 20

Body = dict[str, Any]
Endpoint = Callable[[Request], Awaitable[Response]]


class ControlError(Exception):
    """A request /_control cannot do; nothing was changed."""

    def __init__(self, status: int, code: str, message: str, fix: str) -> None:
        super().__init__(message)
        self.status = status
        self.content = {"error": {"code": code, "message": message, "fix": fix}}


@dataclass(frozen=True, slots=True)
class _Found:
    desk: Desk
    trade: Trade


class Control:
    def __init__(self, world: World) -> None:
        self._world = world

    def routes(self) -> list[Route]:
        trade = "/_control/trades/{out_trade_no}"
        return [
            _route("/_control/trades", self._trades, "GET"),
            _route(f"{trade}/open", self._open, "POST"),
            _route(f"{trade}/pay", self._pay, "POST"),
            _route(f"{trade}/fail", self._fail, "POST"),
            _route(f"{trade}/close", self._close, "POST"),
            _route("/_control/notifications", self._notifications, "GET"),
            _route("/_control/notifications/{notify_id}/resend", self._resend, "POST"),
            _route("/_control/faults", self._add_fault, "POST"),
            _route("/_control/faults", self._faults, "GET"),
            _route("/_control/faults", self._clear_faults, "DELETE"),
            _route("/_control/clock", self._move_clock, "POST"),
            _route("/_control/clock", self._clock, "GET"),
            _route("/_control/calls", self._calls, "GET"),
            _route("/_control/accounts", self._accounts, "GET"),
            _route("/_control/reset", self._reset, "POST"),
        ]

    # Trades.

    async def _trades(self, request: Request) -> Response:
        number = request.query_params.get("out_trade_no")
        described = [desk.described(trade) for desk in self._world.desks for trade in desk.listed(out_trade_no=number)]
        return JSONResponse({"trades": described})

    async def _open(self, request: Request) -> Response:
        found = self._find(request)
        await _options(request, set())
        found.desk.open(found.trade)
        return _trade_answer(found, [])

    async def _pay(self, request: Request) -> Response:
        found = self._find(request)
        payment = _payment(await _options(request, _PAY_OPTIONS))
        return _trade_answer(found, await found.desk.pay(found.trade, payment))

    async def _fail(self, request: Request) -> Response:
        found = self._find(request)
        options = await _options(request, {"reason"})
        found.desk.fail(found.trade, _text(options, "reason") or DEFAULT_FAILURE)
        return _trade_answer(found, [])

    async def _close(self, request: Request) -> Response:
        found = self._find(request)
        options = await _options(request, {"notify"})
        return _trade_answer(found, await found.desk.close(found.trade, notify=_flag(options, "notify", default=False)))

    def _find(self, request: Request) -> _Found:
        number = request.path_params["out_trade_no"]
        seller_id = request.query_params.get("seller_id")
        found = [_Found(desk, trade) for desk in self._world.desks for trade in desk.find(number, seller_id)]
        if not found:
            message = f"the sandbox knows no trade {number}"
            fix = (
                "a page.pay or wap.pay trade is known once its signed URL was requested: GET that URL first;"
                " a QR trade once precreate was called"
            )
            raise ControlError(404, "TRADE_UNKNOWN", message, fix)
        if len(found) > 1:
            sellers = ", ".join(entry.trade.account.seller_id for entry in found)
            message = f"{len(found)} sellers have a trade {number}"
            raise ControlError(409, "TRADE_AMBIGUOUS", message, f"add ?seller_id= with one of {sellers}")
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
        options = await _options(request, {"times", "concurrent"})
        attempts = await self._world.deliveries.resend(
            notice, times=_times(options), concurrent=_flag(options, "concurrent", default=False)
        )
        return JSONResponse(
            {"notification": notice.described(), "attempts": [attempt.described() for attempt in attempts]}
        )

    # Faults, clock and the rest.

    async def _add_fault(self, request: Request) -> Response:
        options = await _options(request, {"method", "kind", "count", "out_trade_no", "latency_s", "code", "sub_code"})
        method, kind = _text(options, "method"), _text(options, "kind")
        kinds = [known.value for known in FaultKind]
        if not method or kind not in kinds:
            fix = f'give "method" (such as alipay.trade.query, or *) and "kind", one of {", ".join(kinds)}'
            raise ControlError(400, "FAULT_INVALID", "method or kind is missing or unknown", fix)
        try:
            fault = self._world.faults.add(
                method=method,
                kind=FaultKind(kind),
                count=_whole_number(options, "count", default=1),
                out_trade_no=_text(options, "out_trade_no"),
                latency_s=_seconds(options, "latency_s"),
                code=_text(options, "code"),
                sub_code=_text(options, "sub_code"),
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
        """`to` (ISO with an offset) or `advance_s`; answers after everything due on the way was sent."""
        options = await _options(request, {"to", "advance_s", "strict_timestamps"})
        if "strict_timestamps" in options:
            self._world.clock.strict_timestamps = _flag(options, "strict_timestamps", default=False)
        deliveries = 0
        target = self._target(options)
        if target is not None:
            try:
                deliveries = await self._world.deliveries.move_clock(target)
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
                return self._world.clock.now() + timedelta(seconds=_seconds(options, "advance_s") or 0.0)
            target = datetime.fromisoformat(_text(options, "to") or "")
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
        now = clock.now()
        return {
            "now": now.isoformat(),
            "beijing": format_beijing(now),
            "offset_s": round(clock.offset.total_seconds(), 3),
            "strict_timestamps": clock.strict_timestamps,
        }

    async def _calls(self, request: Request) -> Response:
        query = request.query_params
        calls = self._world.calls.listed(method=query.get("method"), out_trade_no=query.get("out_trade_no"))
        return JSONResponse({"calls": calls, "total": sum(call["count"] for call in calls)})

    async def _accounts(self, _request: Request) -> Response:
        return JSONResponse({"accounts": self._world.accounts})

    async def _reset(self, request: Request) -> Response:
        await _options(request, set())
        await self._world.reset()
        return JSONResponse({"reset": True, **self._clock_described()})


_PAY_OPTIONS = {
    "amount",
    "app_id",
    "seller_id",
    "fields",
    "notify",
    "times",
    "distinct_ids",
    "late",
    "break_signature",
    "wait",
}


def _route(path: str, endpoint: Endpoint, method: str) -> Route:
    return Route(path, _guarded(endpoint), methods=[method])


def _guarded(endpoint: Endpoint) -> Endpoint:
    """Errors as JSON; a web page of another site may not drive the sandbox."""

    async def guarded(request: Request) -> Response:
        if request.headers.get("sec-fetch-site") == "cross-site":
            refused = ControlError(403, "CROSS_SITE", "a page of another site asked", "call from a test or a tool")
            return JSONResponse(refused.content, status_code=refused.status)
        try:
            return await endpoint(request)
        except ControlError as exc:
            return JSONResponse(exc.content, status_code=exc.status)
        except BusinessRefusal as exc:
            fix = _FIXES.get(exc.sub_code, "look at GET /_control/trades")
            return JSONResponse(ControlError(409, exc.sub_code, exc.sub_msg, fix).content, status_code=409)

    return guarded


_FIXES = {
    "ACQ.TRADE_HAS_CLOSE": 'pay it all the same with {"late": true}',
    "ACQ.NOW_TIME_AFTER_EXPIRE_TIME_ERROR": 'pay it all the same with {"late": true}, or reset the clock',
    "ACQ.TRADE_HAS_SUCCESS": "to repeat the notice, POST /_control/notifications/{notify_id}/resend",
    "ACQ.TRADE_STATUS_ERROR": "only a trade in WAIT_BUYER_PAY can; POST /_control/trades/{out_trade_no}/open opens one",
}


def _trade_answer(found: _Found, notices: list[Notice]) -> Response:
    return JSONResponse(
        {"trade": found.desk.described(found.trade), "notifications": [notice.described() for notice in notices]}
    )


def _payment(options: Body) -> Payment:
    overrides: dict[str, str] = {}
    amount = _text(options, "amount")
    if amount is not None:
        overrides |= amount_overrides(_yuan(amount))
    for name in ("app_id", "seller_id"):
        if (value := _text(options, name)) is not None:
            overrides[name] = value
    fields = options.get("fields", {})
    if not isinstance(fields, dict) or not all(isinstance(value, str) for value in fields.values()):
        raise _wrong_type("fields", "an object of texts")
    return Payment(
        late=_flag(options, "late", default=False),
        notify=_flag(options, "notify", default=True),
        times=_times(options),
        distinct_ids=_flag(options, "distinct_ids", default=False),
        break_signature=_flag(options, "break_signature", default=False),
        wait=_flag(options, "wait", default=True),
        overrides=overrides | fields,
    )


# Options of a body.


async def _options(request: Request, known: set[str]) -> Body:
    """The body's object; an empty body is an empty one."""
    raw = await request.body()
    try:
        options = json.loads(raw) if raw.strip() else {}
    except ValueError as exc:
        raise ControlError(400, "JSON_INVALID", "the body is not JSON", "send a JSON object or nothing") from exc
    if not isinstance(options, dict):
        raise ControlError(400, "JSON_INVALID", "the body is not a JSON object", "send a JSON object or nothing")
    if unknown := sorted(options.keys() - known):
        listed = ", ".join(sorted(known)) or "no options here"
        raise ControlError(400, "OPTION_UNKNOWN", f"unknown option {', '.join(unknown)}", f"known: {listed}")
    return options


def _wrong_type(name: str, wanted: str) -> ControlError:
    return ControlError(400, "OPTION_INVALID", f"{name} is not {wanted}", f"send {name} as {wanted}")


def _text(options: Body, name: str) -> str | None:
    value = options.get(name)
    if value is not None and not isinstance(value, str):
        raise _wrong_type(name, "a text")
    return value


def _flag(options: Body, name: str, *, default: bool) -> bool:
    value = options.get(name, default)
    if not isinstance(value, bool):
        raise _wrong_type(name, "true or false")
    return value


def _whole_number(options: Body, name: str, *, default: int) -> int:
    value = options.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong_type(name, "a whole number")
    return value


def _times(options: Body) -> int:
    times = _whole_number(options, "times", default=1)
    if not 1 <= times <= MAX_TIMES:
        raise _wrong_type("times", f"a number from 1 to {MAX_TIMES}")
    return times


def _seconds(options: Body, name: str) -> float | None:
    value = options.get(name)
    if value is not None and (not isinstance(value, int | float) or isinstance(value, bool)):
        raise _wrong_type(name, "a number of seconds")
    return value


def _yuan(text: str) -> str:
    """Any decimal text: the notice is meant to be wrong."""
    try:
        Decimal(text)
    except InvalidOperation as exc:
        raise _wrong_type("amount", 'an amount in yuan such as "0.02"') from exc
    return text
