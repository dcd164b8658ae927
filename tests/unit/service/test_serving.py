"""The listening socket, as uvicorn takes it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from service.serving import PortUnavailable, bind


@contextlib.asynccontextmanager
async def served(listener: socket.socket, accepted: asyncio.Queue[socket.socket]) -> AsyncIterator[None]:
    """uvicorn on the listener; each connection's socket, as its transport holds it, is put into `accepted`."""

    class Recording(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            accepted.put_nowait(transport.get_extra_info("socket"))

    async def app(scope: object, receive: object, send: object) -> None:
        return None

    config = uvicorn.Config(app, http=Recording, ws="none", lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve([listener]))
    try:
        yield
    finally:
        server.should_exit = True
        await running


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_an_accepted_connection_sends_small_answers_at_once(host: str) -> None:
    """asyncio sets TCP_NODELAY only on sockets that say they are TCP's; without it an answer waits for an ACK."""

    async def nodelay() -> int:
        accepted: asyncio.Queue[socket.socket] = asyncio.Queue()
        try:
            listener = bind(host, 0)
        except PortUnavailable:
            pytest.skip(f"no {host} here")
        with contextlib.closing(listener):
            port = listener.getsockname()[1]
            async with served(listener, accepted):
                _, writer = await asyncio.open_connection(host, port)
                try:
                    return (await accepted.get()).getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                finally:
                    writer.close()
                    await writer.wait_closed()

    assert asyncio.run(nodelay()) != 0
