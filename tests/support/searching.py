"""A search over vectors and a catalogue in one call, for tests; every search shares two cores and the torch kernel."""

from __future__ import annotations

from indexer.records import SearchAnswer, SearchOptions
from indexer.search.cores import Cores
from indexer.search.searcher import SearchedCatalogue, Searcher
from indexer.vectors import VectorIndex
from model.kernels.torch_kernel import TorchKernel
from model.types import Query, VideoTextModel

CORES = Cores(2)
KERNEL = TorchKernel()


def search(
    query: Query,
    model: VideoTextModel,
    vectors: VectorIndex,
    catalogue: SearchedCatalogue,
    options: SearchOptions,
    *,
    without_video_id: str | None = None,
    budget_ms: float = 25.0,
) -> SearchAnswer:
    """As Searcher.search."""
    searcher = Searcher(model, KERNEL, budget_ms=budget_ms, cores=CORES)
    return searcher.search(query, vectors.view(), catalogue, options, without_video_id=without_video_id)
