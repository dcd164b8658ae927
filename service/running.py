"""What one running service holds, and what its handlers ask of it. Built by app.py, found at `app.state.running`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Protocol, cast

from fastapi import Depends, Request

from indexer.index import VideoIndex
from service.errors import NotReady
from service.readiness import Readiness
from service.settings import Settings
from service.wake import Wake


class WatchedWorker(Protocol):
    """A worker process that we started: its process id, None while it is down."""

    @property
    def pid(self) -> int | None: ...


@dataclass(frozen=True)
class Running:
    """Read by every handler."""

    settings: Settings
    index: VideoIndex
    wake: Wake
    readiness: Readiness
    worker: WatchedWorker | None


def running(request: Request) -> Running:
    """The service that this request came to. Raises: NotReady before the index is open."""
    found = getattr(request.app.state, "running", None)
    if found is None:
        raise NotReady("the index is not open yet", "Ask again in a moment.")
    return cast(Running, found)


def prefix(request: Request) -> str:
    """What goes before the paths of an answer's links: the proxy's root path, and "/v1" for a request that came so."""
    root: str = request.scope.get("root_path", "")
    path = request.scope["path"].removeprefix(root)
    return f"{root}/v1" if path.startswith("/v1/") else root


TheRunning = Annotated[Running, Depends(running)]
Prefix = Annotated[str, Depends(prefix)]
