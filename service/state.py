"""What the handlers of a running service use: settings, index, worker. Built by app.py, kept at `app.state.service`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Protocol, cast

from anyio import CapacityLimiter
from fastapi import Depends, Request

from indexer.index import VideoIndex
from service.errors import NotReady
from service.readiness import Readiness
from service.search_queue import SearchQueue
from service.settings import Settings
from service.wake import Wake


class WatchedWorker(Protocol):
    """The worker process beside the server: its process id, None while it is down."""

    @property
    def pid(self) -> int | None: ...


@dataclass(frozen=True)
class ServiceState:
    """What the handlers share, and how many threads may wait for decoding or for the model.

    Plain handlers share forty threads; those that may wait long have a limit of their own, so that the others are
    answered whatever is decoded or searched. The limits of clips and thumbnails are two above what the index lets wait,
    so that it can refuse at once.
    """

    settings: Settings
    index: VideoIndex
    wake: Wake
    """Wakes idle workers, and hears of what they publish."""
    readiness: Readiness
    worker: WatchedWorker | None
    """None where workers run separately."""
    searches: SearchQueue = field(init=False)
    """Searches by a sentence or a stored video."""
    clip_threads: CapacityLimiter = field(init=False)
    """Searches with a clip."""
    thumbnail_threads: CapacityLimiter = field(init=False)
    """Thumbnails."""
    readiness_threads: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(4))
    """Answers of /readyz."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "searches", SearchQueue(self.settings.search_queue))
        object.__setattr__(self, "clip_threads", CapacityLimiter(self.index.config.num_clip_places + 2))
        object.__setattr__(self, "thumbnail_threads", CapacityLimiter(self.index.config.num_thumbnail_places + 2))


async def service_state(request: Request) -> ServiceState:  # async: takes no thread
    """The state of the service that received this request. Raises: NotReady before the index is open."""
    found = getattr(request.app.state, "service", None)
    if found is None:
        raise NotReady("the index is not open yet", "Ask again in a moment.")
    return cast(ServiceState, found)


async def prefix(request: Request) -> str:  # async: takes no thread
    """What the links of an answer begin with: the proxy's root path, then "/v1" if the request's path had it."""
    root: str = request.scope.get("root_path", "")
    path = request.scope["path"].removeprefix(root)
    return f"{root}/v1" if path.startswith("/v1/") else root


State = Annotated[ServiceState, Depends(service_state)]
Prefix = Annotated[str, Depends(prefix)]
