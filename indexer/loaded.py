"""The heavy parts of an index, each loaded when it is first needed: the model, and the vectors with their follower.

It knows how they depend on one another; it knows no file of the data folder and no query.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from indexer.catalogue import bound_model
from indexer.catalogue.database import Database
from indexer.catalogue.reader import CatalogueReader
from indexer.follower import Follower
from indexer.vectors import VectorIndex
from model.types import VideoTextModel


class LoadedParts:
    """Thread-safe; each part is made once."""

    def __init__(self, database: Database, load_model: Callable[[], VideoTextModel]) -> None:
        self.reader = CatalogueReader(database)
        self._database = database
        self._load_model = load_model
        self._lock = threading.RLock()
        self._model: VideoTextModel | None = None
        self._follower: Follower | None = None

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
    def loaded_follower(self) -> Follower | None:
        """The follower if it is loaded, else None."""
        return self._follower

    def close(self) -> None:
        """End the follower's thread. Harmless when repeated."""
        if self._follower is not None:
            self._follower.stop()
