"""The whole service on a free loopback port in this process: the real app, a worker in a thread, the fake model or one
that is given."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from indexer.index import VideoIndex
from model.types import VideoTextModel
from service.app import create_app
from service.settings import Settings
from tests.support.fakes import FakeModel


@dataclass
class Proxy:
    """A reverse proxy that offers the service under a prefix, and only there."""

    prefix: str
    strips: bool
    """Whether the service gets paths without the prefix."""

    elsewhere: list[str] = field(default_factory=list)
    """Paths that were asked for outside of the prefix, where another service would answer."""

    def before(self, app: ASGIApp) -> ASGIApp:
        """The application that a browser sees."""

        async def proxied(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                path = scope["path"]
                if not path.startswith(f"{self.prefix}/"):
                    self.elsewhere.append(path)
                    await Response("another service", 404)(scope, receive, send)
                    return
                scope = dict(scope) | {"path": path.removeprefix(self.prefix) if self.strips else path}
            await app(scope, receive, send)

        return proxied


@contextmanager
def running_site(
    folder: Path,
    videos: Sequence[Path] = (),
    *,
    has_worker: bool = True,
    model: VideoTextModel | None = None,
    proxy: Proxy | None = None,
    root_path: str = "",
) -> Iterator[str]:
    """Yield the address of a service over `folder` in which `videos` are indexed, titled by their names' stems.

    Without a worker what is added later stays queued. proxy: comes before the service; the address has its prefix.
    """
    index = VideoIndex.open(folder, model or FakeModel())
    settings = Settings(data=folder, model="fake", device="cpu", worker=False, root_path=root_path)
    for path in videos:
        index.add(path, title=path.stem)
    worker = index.worker()
    while worker.run_once() is not None:
        pass
    stop = threading.Event()
    indexing = threading.Thread(target=worker.run, args=(stop,))
    if has_worker:
        indexing.start()
    try:
        app: ASGIApp = create_app(settings, index)
        app = app if proxy is None else proxy.before(app)
        with _served(uvicorn.Config(app, log_level="warning", lifespan="on")) as address:
            yield address + (proxy.prefix if proxy else "")
    finally:
        stop.set()
        if has_worker:
            indexing.join()
        index.close()


@contextmanager
def _served(config: uvicorn.Config) -> Iterator[str]:
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield address
        finally:
            server.should_exit = True
            thread.join()
