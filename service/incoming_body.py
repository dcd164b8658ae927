"""A request body that its handler may leave unread: told from one that was read, and let run out before we hang up.

A server that closes while a client still sends makes the client lose the answer, too; one that reads on for ever can be
kept busy by an endless upload. So: the answer goes out at once, what comes for a moment more is thrown away, then the
connection is closed. Plain ASGI; this file knows no route.
"""

from __future__ import annotations

import anyio
from starlette.datastructures import Headers
from starlette.types import Message, Receive

_SMALL_BYTES = 64 * 1024
_LINGER_S = 2.0


class IncomingBody:
    """Wraps `receive` of one request."""

    def __init__(self, receive: Receive, headers: Headers) -> None:
        declared = headers.get("content-length", "")
        is_chunked = "transfer-encoding" in headers
        self._receive = receive
        self._is_small = not is_chunked and len(declared) < 6 and declared.isascii() and declared.isdigit()
        self._is_small = self._is_small and int(declared) <= _SMALL_BYTES
        self.is_unread = is_chunked or declared not in ("", "0")

    async def receive(self) -> Message:
        """The next message of the request."""
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self.is_unread = False
        return message

    async def finish_if_small(self) -> None:
        """Read the rest of a small body, so that the connection can serve the next request."""
        if self._is_small:
            await self.run_out()

    async def run_out(self) -> None:
        """Throw away what still comes, for a moment at most."""
        with anyio.move_on_after(_LINGER_S):
            while self.is_unread:
                await self.receive()
