"""How a request of /_control is read and refused; the providers' own /_control paths use the same.

Bodies are objects whose unknown keys are refused, so that a misspelt option never passes for its default.
"""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.sandbox.desks import DeskRefusal

MAX_TIMES = 1000

Body = dict[str, Any]
Endpoint = Callable[[Request], Awaitable[Response]]


class ControlError(Exception):
    """A request /_control cannot do; nothing was changed."""

    def __init__(self, status: int, code: str, message: str, fix: str) -> None:
        super().__init__(message)
        self.status = status
        self.content = {"error": {"code": code, "message": message, "fix": fix}}


def control_route(path: str, endpoint: Endpoint, method: str) -> Route:
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
        except DeskRefusal as exc:
            return JSONResponse(ControlError(409, exc.code, exc.message, exc.fix).content, status_code=409)

    return guarded


async def read_options(request: Request, known: set[str]) -> Body:
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


def wrong_type(name: str, wanted: str) -> ControlError:
    return ControlError(400, "OPTION_INVALID", f"{name} is not {wanted}", f"send {name} as {wanted}")


def text_of(options: Body, name: str) -> str | None:
    value = options.get(name)
    if value is not None and not isinstance(value, str):
        raise wrong_type(name, "a text")
    return value


def flag_of(options: Body, name: str, *, default: bool) -> bool:
    value = options.get(name, default)
    if not isinstance(value, bool):
        raise wrong_type(name, "true or false")
    return value


def number_of(options: Body, name: str, *, default: int) -> int:
    value = options.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool):
        raise wrong_type(name, "a whole number")
    return value


def times_of(options: Body) -> int:
    times = number_of(options, "times", default=1)
    if not 1 <= times <= MAX_TIMES:
        raise wrong_type("times", f"a number from 1 to {MAX_TIMES}")
    return times


def seconds_of(options: Body, name: str) -> float | None:
    value = options.get(name)
    if value is not None and (not isinstance(value, int | float) or isinstance(value, bool)):
        raise wrong_type(name, "a number of seconds")
    return value
