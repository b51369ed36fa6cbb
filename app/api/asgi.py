"""The few ASGI pieces the endpoints share: answers, bodies with a limit, callers' tokens and origins.

The endpoints are plain ASGI. Routing, request objects and middleware of a framework cost a third of a payment's time on
the hot path and give these three routes nothing.
"""

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

import orjson

from app.auth import Authenticator, Principal
from app.errors import Unauthenticated

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Headers: TypeAlias = dict[bytes, bytes]

JSON: Final = b"application/json; charset=utf-8"


class BodyTooLarge(Exception):
    """The body is longer than its limit; the rest of it was not read."""


class ClientGone(Exception):
    """The client went away before its body had arrived."""


async def read_body(headers: Headers, receive: Receive, limit: int) -> bytes:
    """The request body. Stops reading at `limit` bytes. Raises BodyTooLarge, ClientGone."""
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and int(declared) > limit:
        raise BodyTooLarge
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGone
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        if len(body) > limit:
            raise BodyTooLarge
        return body
    parts, length = [body], len(body)
    while message.get("more_body", False):
        if length > limit:
            raise BodyTooLarge
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        parts.append(message.get("body", b""))
        length += len(parts[-1])
    if length > limit:
        raise BodyTooLarge
    return b"".join(parts)


async def respond(
    send: Send,
    status: int,
    body: bytes,
    *,
    content_type: bytes = JSON,
    headers: Sequence[tuple[bytes, bytes]] = (),
) -> None:
    """Sends one whole answer. 204 has neither a body nor, by HTTP's rule, a length."""
    length = str(len(body)).encode()
    own = [*headers] if status == 204 else [(b"content-type", content_type), (b"content-length", length), *headers]
    await send({"type": "http.response.start", "status": status, "headers": own})
    await send({"type": "http.response.body", "body": body})


async def respond_json(send: Send, status: int, answer: object, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
    """Sends one whole answer as JSON."""
    await respond(send, status, orjson.dumps(answer), headers=headers)


def client_address(scope: Scope) -> str | None:
    """Where the request came from, as the server believes it; behind a proxy, what a trusted proxy says."""
    client = scope.get("client")
    return client[0] if client else None


def bearer_token(header: str | bytes | None) -> str | None:
    """The token of an `authorization` header, None without the header. Raises Unauthenticated for another scheme."""
    if header is None:
        return None
    text = header.decode("latin-1") if isinstance(header, bytes) else header
    scheme, _, token = text.strip().partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated("the authorization header is not of the form: Bearer <token>")
    return token.strip()


async def find_principal(auth: Authenticator, header: str | bytes | None) -> Principal | None:
    """Who a header speaks for; None without one. Raises Unauthenticated for a token that is refused."""
    token = bearer_token(header)
    return None if token is None else await auth.principal(token)


def origin_allowed(headers: Headers, allowed: Sequence[str]) -> bool:
    """Whether a browser's page of that origin may talk to us: our own host's, or one that ALLOWED_ORIGINS names.

    A client that is no browser sends no origin and may."""
    origin = headers.get(b"origin")
    if origin is None:
        return True
    text = origin.decode("latin-1")
    if text in allowed:
        return True
    return urlsplit(text).netloc.lower().encode("latin-1") == headers.get(b"host", b"").lower() != b""
