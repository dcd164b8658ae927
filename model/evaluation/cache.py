"""Features of clips on disk, so that a second evaluation decodes nothing and a killed one goes on where it was.

One small .npz for each clip, named by a digest of all that its numbers depend on; it is written whole or not at all.
What can't be read, or isn't what it should be, counts as absent and is made again. Old entries are never looked for:
the folder may be deleted at any time. It knows no model and no video.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.files import write_atomic

log = logging.getLogger(__name__)

Key = Mapping[str, Any]
"""Plain JSON values; two equal keys mean equal features."""

_UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError)


class FeatureCache:
    """Arrays by key. num_read, num_written and num_damaged count this run's entries, size_bytes is what they occupy."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.num_read = 0
        self.num_written = 0
        self.num_damaged = 0
        self.size_bytes = 0
        self._is_full = False

    def get(self, key: Key, dtype: np.dtype[Any], width: int) -> NDArray[Any] | None:
        """The (n, width) array of that type that was put under the key; None if it is absent or damaged."""
        path = self.path(key)
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                about, frames = str(stored["about"]), stored["frames"]
        except FileNotFoundError:
            return None
        except _UNREADABLE as error:
            self._damaged(path, f"{type(error).__name__}: {error}")
            return None
        is_right = frames.ndim == 2 and frames.shape[1] == width and frames.dtype == dtype and len(frames) > 0
        if about != _text(key) or not is_right or not np.isfinite(frames).all():
            self._damaged(path, "it holds something else")
            return None
        self.num_read += 1
        self.size_bytes += path.stat().st_size
        return np.asarray(frames)

    def put(self, key: Key, frames: NDArray[Any]) -> None:
        """Keep an array. If the disk can't be written to, that is logged once and nothing more is kept."""
        if self._is_full:
            return
        path = self.path(key)
        content = io.BytesIO()
        np.savez(content, about=np.array(_text(key)), frames=frames)
        try:
            write_atomic(path, content.getvalue())
            self.size_bytes += path.stat().st_size
        except OSError as error:
            self._is_full = True
            log.warning("features can no longer be kept in %s: %s", self.folder, error)
            return
        self.num_written += 1

    def path(self, key: Key) -> Path:
        """Where the array of a key is, or would be."""
        digest = hashlib.sha256(_text(key).encode()).hexdigest()[:32]
        return self.folder / digest[:2] / f"{digest}.npz"

    def _damaged(self, path: Path, reason: str) -> None:
        self.num_damaged += 1
        log.warning("features in %s are damaged and made again: %s", path, reason)


def _text(key: Key) -> str:
    return json.dumps(key, sort_keys=True, separators=(",", ":"))
