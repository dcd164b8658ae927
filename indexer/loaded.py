"""The heavy parts of an index, each loaded when it is first needed: the model, and the vectors with their follower.

It knows how they depend on one another; it knows no file of the data folder and no query.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from indexer.catalogue import bound_model
from indexer.catalogue.database import Database
from indexer.catalogue.reader import CatalogueReader
from indexer.config import IndexConfig
from indexer.defaults import CPU_BUDGET_MS, GPU_BUDGET_MS
from indexer.follower import Follower
from indexer.vectors import VectorIndex
from model.types import VideoTextModel

if TYPE_CHECKING:
    from indexer.search import Searcher


class LoadedParts:
    """Thread-safe; each part is made once."""

    def __init__(self, database: Database, load_model: Callable[[], VideoTextModel], config: IndexConfig) -> None:
        self.reader = CatalogueReader(database)
        self._database = database
        self._config = config
        self._load_model = load_model
        self._lock = threading.RLock()
        self._model: VideoTextModel | None = None
        self._follower: Follower | None = None
        self._searcher: Searcher | None = None

    @property
    def model(self) -> VideoTextModel:
        """The model, bound to the data. Raises: ModelError if it can't be loaded, ModelMismatch."""
        with self._lock:
            if self._model is None:
                model = self._load_model()
                with self._database.write() as tx:
                    bound_model.bind(tx, model.spec)
                self._model = model
            return self._model

    @property
    def follower(self) -> Follower:
        """The vectors, with the thread that keeps them up to date. Raises: as `model`, BackendMissing."""
        with self._lock:
            if self._follower is None:
                spec = self.model.spec
                vectors = VectorIndex(spec.embed_dim, spec.num_frames, pooled_dim=spec.pooled_width)
                self._follower = Follower(vectors, self.reader)
            return self._follower

    @property
    def searcher(self) -> Searcher:
        """What answers queries, with the kernel that scores. Raises: as `model`."""
        with self._lock:
            if self._searcher is None:
                from indexer.search import Searcher
                from model.kernels.choose import best_kernel

                device = self.model.device
                budget_ms = self._config.exact_budget_ms
                if budget_ms is None:
                    budget_ms = CPU_BUDGET_MS if device.type == "cpu" else GPU_BUDGET_MS
                self._searcher = Searcher(self.model, best_kernel(device), budget_ms=budget_ms)
            return self._searcher

    @property
    def loaded_follower(self) -> Follower | None:
        """The follower if it is loaded, else None."""
        return self._follower

    def close(self) -> None:
        """End the follower's thread. Harmless when repeated."""
        if self._follower is not None:
            self._follower.stop()
        if self._searcher is not None:
            self._searcher.close()
