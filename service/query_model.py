"""The model that a server or a command searches with: loaded, its sentences joined into batches and kept.

It knows the settings and how the wrappers go around one another; it knows no index.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from model.threads import limit_threads

if TYPE_CHECKING:
    from model.types import VideoTextModel
    from service.settings import Settings


def load_query_model(settings: Settings, num_threads: int | None) -> VideoTextModel:
    """A sentence is looked up in memory, then in Redis; what is new joins those that wait, and is encoded.

    num_threads: CPU threads of one call, None leaves the choice to torch. Raises: ModelError.
    """
    from model.batching import JoinedText
    from model.query_cache import CachedText
    from model.registry import load_model
    from service.query_store import RedisQueries

    limit_threads(num_threads)
    served = load_model(
        settings.model,
        device=settings.device,
        num_frames=settings.num_frames,
        query_precision=settings.query_precision,
    )
    return CachedText(
        JoinedText(served),
        settings.query_cache_bytes,
        precision=lambda: served.query_precision,
        device=served.device,
        store=RedisQueries(settings.redis_url) if settings.redis_url is not None else None,
    )
