"""The model that a server or a command searches with: loaded, its sentences joined into batches and kept.

It knows the settings and how the wrappers go around one another; it knows no index.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from model.threads import limit_threads
from model.types import Precision

if TYPE_CHECKING:
    from model.picture_tower import FramePrecision
    from model.types import VideoTextModel
    from service.settings import Settings


def load_query_model(settings: Settings, num_threads: int | None, bound: Precision | None = None) -> VideoTextModel:
    """A sentence is looked up in memory, then in Redis; what is new joins those that wait, and is encoded.

    num_threads: CPU threads of one call, None leaves the choice to torch. bound: what the frames of the data folder
    are encoded in, None for a new folder; it is kept unless the settings name another. Raises: ModelError.
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
        precision=chosen_precision(settings.precision, bound),
    )
    return CachedText(
        JoinedText(served),
        settings.query_cache_bytes,
        precision=lambda: served.query_precision,
        device=served.device,
        store=RedisQueries(settings.redis_url) if settings.redis_url is not None else None,
    )


def chosen_precision(asked: FramePrecision, bound: Precision | None) -> FramePrecision:
    """What frames are to be encoded in: as asked; `auto` keeps what the folder is bound to, on any machine.

    A newer version may have bound it to what this one doesn't know: the fingerprint refuses that folder then.
    """
    if asked != "auto" or bound is None or bound not in get_args(Precision):
        return asked
    return bound
