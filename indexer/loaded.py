"""The heavy parts of an index, each loaded when it is first needed: the model, and the vectors with their threads.

It knows how they depend on one another; it knows no query.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from indexer.catalogue import bound_model
from indexer.catalogue.database import Database
from indexer.catalogue.reader import CatalogueReader
from indexer.config import IndexConfig
from indexer.defaults import CPU_BUDGET_MS, GPU_BUDGET_MS
from indexer.follower import Follower
from indexer.shards.coarse import Coarse
from indexer.shards.shard import SealedShard
from indexer.shards.sizes import Layout
from indexer.shards.snapshot import CoarseMaker, Snapshots
from indexer.shards.upkeep import Upkeep
from indexer.vectors import VectorIndex
from model.types import ModelSpec, VideoTextModel

if TYPE_CHECKING:
    from indexer.search.searcher import Searcher


ModelLoader = Callable[[ModelSpec | None], VideoTextModel]
"""Loads the model of an index, given what its data are bound to: None for a new folder."""


class LoadedParts:
    """Thread-safe; each part is made once."""

    def __init__(self, database: Database, load_model: ModelLoader, config: IndexConfig, shards: Path) -> None:
        """shards: the folder for files of shards, made when there is one."""
        self.reader = CatalogueReader(database)
        self._database = database
        self._config = config
        self._load_model = load_model
        self._lock = threading.RLock()
        self._model: VideoTextModel | None = None
        self._shards = shards
        self._follower: Follower | None = None
        self._upkeep: Upkeep | None = None
        self._searcher: Searcher | None = None

    @property
    def model(self) -> VideoTextModel:
        """The model, bound to the data. Raises: ModelError if it can't be loaded, ModelMismatch."""
        with self._lock:
            if self._model is None:
                with self._database.read() as tx:
                    known = bound_model.bound(tx)
                model = self._load_model(known)
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
                layout = Layout(spec.embed_dim, spec.pooled_width, spec.num_frames, self._config.store)
                coarse = _coarse(spec)
                snapshots = Snapshots(self._shards, layout, spec.fingerprint, coarse)
                vectors = VectorIndex(
                    layout.dim,
                    layout.num_slots,
                    pooled_dim=layout.pooled_dim,
                    store=layout.store,
                    snapshots=snapshots,
                )
                follower = Follower(vectors, self.reader)

                def read_again(shard: SealedShard) -> None:
                    vectors.forget(shard)
                    follower.wake()

                self._upkeep = Upkeep(
                    vectors.shards,
                    coarse=coarse,
                    snapshots=snapshots,
                    renew_token=self.reader.renew_shard_token,
                    forget=read_again,
                )
                self._follower = follower
            return self._follower

    def start(self) -> None:
        """Start the threads that keep the vectors up to date and in order. Harmless when repeated."""
        self.follower.start()
        if self._upkeep is not None:
            self._upkeep.start()

    @property
    def searcher(self) -> Searcher:
        """What answers queries, with the kernel that scores. Raises: as `model`."""
        with self._lock:
            if self._searcher is None:
                from indexer.search.searcher import Searcher
                from model.kernels.choose import best_kernel

                device = self.model.device
                budget_ms = self._config.exact_budget_ms
                if budget_ms is None:
                    budget_ms = CPU_BUDGET_MS if device.type == "cpu" else GPU_BUDGET_MS
                self._searcher = Searcher(self.model, best_kernel(device), budget_ms=budget_ms)
            return self._searcher

    @property
    def loaded_searcher(self) -> Searcher | None:
        """The searcher if it is loaded, else None."""
        return self._searcher

    @property
    def loaded_follower(self) -> Follower | None:
        """The follower if it is loaded, else None."""
        return self._follower

    def close(self) -> None:
        """End the threads. Harmless when repeated."""
        if self._upkeep is not None:
            self._upkeep.stop()
        if self._follower is not None:
            self._follower.stop()
        if self._searcher is not None:
            self._searcher.close()


def _coarse(spec: ModelSpec) -> CoarseMaker:
    def build(shard: SealedShard) -> Coarse:
        return Coarse.build(shard.parts.block, has_frame_recall=spec.has_frame_recall)

    return CoarseMaker(build, Coarse.from_parts)
