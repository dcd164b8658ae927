"""Serve: one socket, one uvicorn, and the worker child beside it. Used by `vidgrain serve` and `vidgrain demo`.

The socket is bound before anything heavy is loaded, so that a port in use is reported at once.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from contextlib import closing
from typing import TYPE_CHECKING

from model.errors import VidgrainError
from service.worker_process import WorkerProcess, worker_command

if TYPE_CHECKING:
    from service.settings import Settings


GRACEFUL_SHUTDOWN_S = 5
"""Seconds that requests in flight get to finish on shutdown: a paused player would otherwise hold the server open."""


class PortUnavailable(VidgrainError):
    """The address can't be listened on: in use, not this machine's, or not permitted."""

    code = "port_unavailable"


def bind(host: str, port: int) -> socket.socket:
    """A listening socket on host:port. Raises: PortUnavailable."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sets TCP_NODELAY only on a socket that names its protocol; without it every answer waits some 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    if sys.platform != "win32":
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except (OSError, OverflowError) as error:
        listener.close()
        raise PortUnavailable(
            f"cannot listen on {host}:{port} ({error.args[-1]})",
            f"Something else may be using that port; choose another with --port, e.g. --port {min(port, 65534) + 1}.",
        ) from error
    return listener


def serve(settings: Settings, listener: socket.socket, *, with_worker: bool) -> None:
    """Run the HTTP service on the bound socket until SIGINT or SIGTERM, with a worker process if asked for.

    Raises: VidgrainError if the index can't be opened; nothing has been served then.
    """
    import uvicorn

    from service.app import PROBES, create_app
    from service.opening import open_index

    # uvicorn re-raises a caught signal once it has shut down; the `finally` block below must still run.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with closing(listener), closing(open_index(settings)) as index:
        index.warm_up()
        index.model.encode_text(PROBES)  # the first sentence settles the precision, which takes a second
        worker = WorkerProcess(worker_command(os.getpid()), settings.environment()) if with_worker else None
        app = create_app(settings, index, worker=worker)
        config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=GRACEFUL_SHUTDOWN_S)
        server = uvicorn.Server(config)
        try:
            if worker is not None:
                worker.start()
            server.run(sockets=[listener])
        except KeyboardInterrupt:
            return  # Ctrl-C is the normal way to stop
        finally:
            if worker is not None:
                worker.stop()
    if not server.started:
        sys.exit(1)
