"""The whole service on a free loopback port in this process: the real app, a worker in a thread, the fake model or one
that is given."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from indexer.index import VideoIndex
from model.types import VideoTextModel
from service.app import create_app
from service.settings import Settings
from tests.support.fakes import FakeModel


@contextmanager
def running_site(
    folder: Path, videos: Sequence[Path] = (), *, has_worker: bool = True, model: VideoTextModel | None = None
) -> Iterator[str]:
    """Yield the address of a service over `folder` in which `videos` are indexed, titled by their names' stems.

    Without a worker what is added later stays queued.
    """
    index = VideoIndex.open(folder, model or FakeModel())
    settings = Settings(data=folder, model="fake", device="cpu", worker=False)
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
        with _served(uvicorn.Config(create_app(settings, index), log_level="warning", lifespan="on")) as address:
            yield address
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
