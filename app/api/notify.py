"""Where providers report: `POST /notify/{provider}/{merchant account}`; where nothing is signed, it is
`POST /internal/notify/{provider}/{merchant account}/{tail}`, which only the provider's own network should reach and
nobody can guess.

The body goes on as the bytes that came; verification, storing and the words of the answer belong to the inbox. There is
no token here: the provider's signature is the only proof, and nothing of the request but its bytes and headers counts.
"""

import re
from typing import Final

import structlog

from app.api.asgi import BodyTooLarge, ClientGone, Headers, Receive, Scope, Send, read_body, respond
from app.errors import NotFound
from app.runtime import Runtime

# The documented notifications stay below 10 kB.
_BODY_LIMIT: Final = 262_144
# A tail on the internal path, and none elsewhere: with it the public path would be a second way in.
_PATH: Final = re.compile(r"(/internal)?/notify/([a-z]{1,20})/([1-9][0-9]{0,17})(?(1)/([A-Za-z0-9_-]{1,64}))", re.ASCII)
_TEXT: Final = b"text/plain; charset=utf-8"

_log = structlog.stdlib.get_logger("shouyin.notify")


class NotifyEndpoint:
    """Hands notifications to the inbox and its acknowledgement back."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def __call__(self, scope: Scope, receive: Receive, send: Send, correlation_id: str) -> int:
        """Answers one notification; returns the status it sent."""
        if scope["method"] != "POST":
            await respond(send, 405, b"notifications come by POST", content_type=_TEXT, headers=[(b"allow", b"POST")])
            return 405
        place = _PATH.fullmatch(scope["path"])
        if place is None:
            return await _unknown(send)
        headers: Headers = dict(scope["headers"])
        try:
            body = await read_body(headers, receive, _BODY_LIMIT)
        except BodyTooLarge:
            await respond(send, 413, b"too large", content_type=_TEXT, headers=[(b"connection", b"close")])
            return 413
        except ClientGone:
            return 499
        shown = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers.items()}
        provider, account_id = place[2].upper(), int(place[3])
        try:
            answer = await self._runtime.inbox.receive(
                provider, account_id, shown, body, correlation_id=correlation_id, tail=place[4] or ""
            )
        except NotFound:
            _log.warning("notification_for_nobody", provider=provider, merchant_account_id=account_id)
            return await _unknown(send)
        await respond(send, answer.status_code, answer.body, content_type=answer.content_type.encode("latin-1"))
        return answer.status_code


async def _unknown(send: Send) -> int:
    await respond(send, 404, b"no such merchant account", content_type=_TEXT)
    return 404
