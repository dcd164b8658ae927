"""A request body that its handler may leave unread: whether it was read, and draining it before the connection closes.

If a server closes the connection while a client is still sending, the client loses the answer; if it reads on for
ever, an endless upload keeps it busy. So the answer is sent at once, whatever arrives in the next moment is discarded,
and then the connection is closed. Plain ASGI; this file knows no route.
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
        """Discard what still arrives, for a moment at most."""
        with anyio.move_on_after(_LINGER_S):
            while self.is_unread:
                await self.receive()
