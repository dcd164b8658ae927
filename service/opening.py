"""Opens the index that the settings name: settings -> model -> index. The server and the commands begin here.

It knows no HTTP, and loads neither torch nor a model until something needs them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from indexer.config import IndexConfig
from indexer.index import VideoIndex
from model.importing import collector_paused
from model.threads import SERVING_THREADS
from service.settings import device_environment

if TYPE_CHECKING:
    from model.types import ModelSpec, VideoTextModel
    from service.settings import Settings


def open_index(settings: Settings, *, default_threads: int | None = SERVING_THREADS) -> VideoIndex:
    """The index that the settings name. Its model is loaded when something first needs it, or by `warm_up`.

    default_threads: CPU threads of one model call where the settings don't say; None leaves the choice to torch.
    Raises: IndexerError.
    """

    def load(bound: ModelSpec | None) -> VideoTextModel:
        with collector_paused():
            from service.query_model import load_query_model

        num_threads = settings.torch_threads or default_threads
        return load_query_model(settings, num_threads, None if bound is None else bound.precision)

    return VideoIndex.open(settings.data, load, index_config(settings))


def index_config(settings: Settings) -> IndexConfig:
    """The part of the settings that the index takes."""
    return IndexConfig(
        decoder=settings.decoder,
        sampling=settings.sampling,
        decode_device=settings.decode_device,
        device_environment=device_environment(),
        decode_timeout_s=settings.decode_timeout_s,
        decode_memory_bytes=settings.decode_memory_bytes,
        decode_children=settings.decode_children,
        query_decode_s=settings.query_decode_s,
        max_segment_s=settings.max_segment_s,
        store=settings.store,
        exact_budget_ms=settings.exact_budget_ms,
        max_video_s=settings.max_video_s,
        max_query_s=settings.max_query_s,
        worker_decoders=settings.worker_decoders,
        worker_cores=settings.torch_threads,
        lease_s=settings.lease_s,
    )
