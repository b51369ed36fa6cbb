"""A WebSocket client for tests that open thousands: it reads when told to and vanishes when told to."""

import asyncio
import json
import os
import struct
from typing import Any, Self

_HANDSHAKE = (
    b"GET /graphql HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n"
    b"sec-websocket-protocol: graphql-transport-ws\r\n\r\n"
)


class RawClient:
    """One connection; small text messages only."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, origin: str, token: str) -> Self:
        """Connected and acknowledged."""
        host, port = origin.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 17)
        writer.write(_HANDSHAKE)
        assert b"101" in await reader.readuntil(b"\r\n\r\n")
        client = cls(reader, writer)
        client.send({"type": "connection_init", "payload": {"token": token}})
        assert (await client.read())["type"] == "connection_ack"
        return client

    def send(self, message: object) -> None:
        text = json.dumps(message).encode()
        mask, length = os.urandom(4), len(text)
        head = bytes([0x81, 0x80 | length]) if length < 126 else struct.pack("!BBH", 0x81, 0x80 | 126, length)
        self.writer.write(head + mask + bytes(byte ^ mask[place % 4] for place, byte in enumerate(text)))

    def subscribe(self, query: str, **variables: str) -> None:
        self.send({"id": "1", "type": "subscribe", "payload": {"query": query, "variables": variables}})

    async def read(self) -> dict[str, Any]:
        """The next text message; pings of the server are left unanswered."""
        while True:
            head = await self.reader.readexactly(2)
            length = head[1] & 127
            if length >= 126:
                wide = await self.reader.readexactly(2 if length == 126 else 8)
                length = int.from_bytes(wide)
            body = await self.reader.readexactly(length)
            if head[0] & 15 == 1:
                message: dict[str, Any] = json.loads(body)
                return message

    def vanish(self) -> None:
        """Drops the connection without a word."""
        self.writer.transport.abort()
