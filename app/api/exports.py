"""The books as files: `GET /exports/payments.csv?from=2026-11-01&to=2026-11-30`, and `refunds.csv`.

A bearer token, like everywhere; the caller needs the permission payment.export. `status` may be given, and repeated.
The file is streamed as it is read. One that breaks off has no line of totals, and its transfer has no proper end.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Final
from urllib.parse import parse_qs

from app.api.asgi import Headers, Receive, Scope, Send, client_address, find_principal, respond_json
from app.auth import Principal
from app.errors import Forbidden, InvalidInput, NotFound, ShouyinError, Unauthenticated
from app.exports.books import Book
from app.runtime import Runtime

_PATH: Final = re.compile(r"/exports/([a-z]{1,20})\.csv", re.ASCII)
_FIELDS: Final = ("from", "to", "status")
_PRIVATE: Final = [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]
_QUERY_LIMIT: Final = 1024
_STATUSES: Final = ((Unauthenticated, 401), (Forbidden, 403), (NotFound, 404))


class ExportEndpoint:
    """Serves the books of one process."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def __call__(self, scope: Scope, receive: Receive, send: Send, correlation_id: str) -> None:
        """Answers one request."""
        if scope["method"] != "GET":
            await respond_json(send, 405, {"error": "GET only"}, [(b"allow", b"GET"), *_PRIVATE])
            return
        try:
            book = await self._open(scope, correlation_id)
        except ShouyinError as exc:
            await _explain(send, exc)
            return
        await self._stream(book, receive, send)

    async def _open(self, scope: Scope, correlation_id: str) -> Book:
        headers: Headers = dict(scope["headers"])
        caller: Principal | None = await find_principal(self._runtime.auth, headers.get(b"authorization"))
        if caller is None:
            raise Unauthenticated("no token came with the request: send it as authorization: Bearer …")
        place = _PATH.fullmatch(scope["path"])
        if place is None:
            raise NotFound("there is no such export: /exports/payments.csv or /exports/refunds.csv")
        fields = _read_query(scope["query_string"])
        return await self._runtime.exports.open(
            caller,
            place[1],
            _only(fields, "from"),
            _only(fields, "to"),
            fields.get("status", ()),
            correlation_id=correlation_id,
            address=client_address(scope),
        )

    async def _stream(self, book: Book, receive: Receive, send: Send) -> None:
        headers = [
            (b"content-type", b"text/csv; charset=utf-8"),
            (b"content-disposition", f'attachment; filename="{book.file_name}"'.encode("ascii")),
            *_PRIVATE,
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        gone = asyncio.create_task(_wait_until_gone(receive))
        try:
            async with aclosing(self._runtime.exports.pages(book)) as pages:
                async for page in pages:
                    # Sending waits for a slow reader, and for one that is gone it says nothing.
                    if gone.done():
                        return
                    await send({"type": "http.response.body", "body": page, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            gone.cancel()
            with suppress(asyncio.CancelledError):
                await gone


async def _wait_until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _read_query(query: bytes) -> Mapping[str, Sequence[str]]:
    """The fields of a query. Raises InvalidInput naming one that means nothing here."""
    try:
        fields = parse_qs(query.decode("ascii"), keep_blank_values=True, max_num_fields=10, errors="strict")
    except ValueError as exc:
        raise InvalidInput("the address is malformed", message_zh="链接不正确") from exc
    if len(query) > _QUERY_LIMIT:
        raise InvalidInput("the address is too long", message_zh="链接过长")
    for name in fields:
        if name not in _FIELDS:
            raise InvalidInput(f"{name[:40]}: is not one of {', '.join(_FIELDS)}", field=name[:40])
    return fields


def _only(fields: Mapping[str, Sequence[str]], name: str) -> str | None:
    given = fields.get(name, ())
    if len(given) > 1:
        raise InvalidInput(f"{name}: is given {len(given)} times", field=name)
    return given[0] if given else None


async def _explain(send: Send, error: ShouyinError) -> None:
    status = next((status for kind, status in _STATUSES if isinstance(error, kind)), 400)
    headers = [(b"www-authenticate", b"Bearer"), *_PRIVATE] if status == 401 else _PRIVATE
    await respond_json(
        send, status, {"errors": [{"message": error.message, "extensions": error.extensions()}]}, headers
    )
