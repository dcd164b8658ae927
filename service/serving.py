"""Serve: one socket, one uvicorn, and the worker child beside it. Used by `vidgrain serve` and `vidgrain demo`.

The socket is bound before anything heavy is loaded, so that a taken port is said at once and in words.
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
"""How long requests under way may take to end once we are to stop: a player that is paused would keep us for ever."""


class PortUnavailable(VidgrainError):
    """The address can't be listened on: taken, not ours, or not allowed."""

    code = "port_unavailable"


def bind(host: str, port: int) -> socket.socket:
    """A listening socket on host:port. Raises: PortUnavailable with the way out."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
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
    """Run the HTTP service on the bound socket until SIGINT or SIGTERM; the worker lives and ends with it.

    Raises: whatever keeps the index from being opened (VidgrainError), before anything is served.
    """
    import uvicorn

    from service.app import create_app, open_index

    # uvicorn raises a caught signal again once it has shut down; what is below `finally` must still run.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with closing(listener), closing(open_index(settings)) as index:
        index.warm_up()
        worker = WorkerProcess(worker_command(os.getpid()), settings.environment()) if with_worker else None
        app = create_app(settings, index, worker=worker)
        config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=GRACEFUL_SHUTDOWN_S)
        server = uvicorn.Server(config)
        try:
            if worker is not None:
                worker.start()
            server.run(sockets=[listener])
        except KeyboardInterrupt:
            return  # Ctrl-C is how a person ends it
        finally:
            if worker is not None:
                worker.stop()
    if not server.started:
        sys.exit(1)
