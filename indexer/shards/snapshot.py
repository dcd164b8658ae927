"""The folder DATA/shards: files of sealed shards, and a manifest that says which of them belong together.

    <32 hex digits>.shard   see shard_file.py; written once
    manifest.json           written last, whole or not at all: what the files are bound to, their names and checksums

The manifest carries a token of the catalogue (catalogue/shard_tokens.py), and each shard the number of each of its
videos with the change that brought its features. So what a file has of a video that the catalogue still shows with the
same change is right, and everything else is read from the catalogue: nothing here has to be up to date, and the folder
may be deleted at any time. One process at a time writes; all may read. It knows no SQL.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import shutil
import uuid
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from indexer.shards.rows import same_features
from indexer.shards.shard import SealedShard, sealed
from indexer.shards.shard_file import DamagedShard, ShardFile, map_shard, write_shard
from indexer.shards.sizes import Layout
from indexer.shards.view import CoarseIndex
from model.errors import VidgrainError
from model.files import writing_atomic

log = logging.getLogger("vidgrain.shards")

FORMAT = 1
"""Of the folder; raised whenever older files can't be read any more."""
MANIFEST = "manifest.json"
LARGEST_MANIFEST = 2**24
SPARE_BYTES = 256 * 2**20
"""Room that is left on the disk: the catalogue comes first."""

_NAME = re.compile(r"[0-9a-f]{32}\.shard")
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class StoredCoarse(CoarseIndex, Protocol):
    """A coarse index that can be kept in a file."""

    def parts(self) -> Mapping[str, NDArray[np.uint8]]:
        """Its bytes, by name."""
        ...


@dataclass(frozen=True, slots=True)
class CoarseMaker:
    """How coarse indexes come about; shards/coarse.py is behind it."""

    build: Callable[[SealedShard], StoredCoarse]
    """From a shard."""
    open: Callable[[Mapping[str, NDArray[np.uint8]]], StoredCoarse]
    """From the parts of a file, which may be read in place."""


class Snapshots:
    """The shards' files of one data folder. `load` may be called by any process; the rest by the one that `take`s it.

    One thread at a time.
    """

    def __init__(self, folder: Path, layout: Layout, fingerprint: str, coarse: CoarseMaker | None = None) -> None:
        """folder: DATA/shards, made when the first shard is written. fingerprint: the model's."""
        self._folder = folder
        self._layout = layout
        self._coarse = coarse
        self._bound_to = {
            "format": FORMAT,
            "fingerprint": fingerprint,
            "dim": layout.dim,
            "pooled_dim": layout.pooled_dim,
            "num_slots": layout.num_slots,
            "store": layout.store,
        }
        self._lock: int | None = None
        self._named: list[str] | None = None
        """The files in the manifest, as far as this process knows; None where it is to be written."""

    def load(self, tokens: Sequence[str], published: NDArray[np.int64]) -> list[SealedShard]:
        """The shards that are there, with what is still published (V, 2+: number, features_seq, by number) live.

        What is missing, damaged or foreign is left out and logged. tokens: those that the catalogue knows.
        """
        try:
            folder = os.open(self._folder, _OPEN_FOLDER)
        except FileNotFoundError:
            return []
        except OSError as error:
            log.warning("snapshot_ignored", extra={"reason": f"its folder can't be opened: {error.strerror}"})
            return []
        try:
            entries = self._entries(folder, tokens)
            self._named = [name for name, _ in entries]
            shards = [shard for name, crc32 in entries if (shard := self._shard(folder, name, crc32)) is not None]
        except FileNotFoundError:
            return []
        except _Unusable as error:
            log.warning("snapshot_ignored", extra={"reason": str(error)})
            return []
        finally:
            os.close(folder)
        return _live_in(shards, published)

    @property
    def is_there(self) -> bool:
        """Whether anything is in the place of the folder."""
        return os.path.lexists(self._folder)

    # ---- for the process that writes

    def take(self) -> bool:
        """Whether this process writes here: it is the first to ask among those that live. Makes the folder.

        Raises: OSError.
        """
        if self._lock is not None and self._is_still_there(self._lock):
            return True
        self.close()
        self._folder.mkdir(exist_ok=True)
        folder = os.open(self._folder, _OPEN_FOLDER)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(folder)
            return False
        self._lock = folder
        if self._named is not None and self._named == _names(folder):
            self._sweep({MANIFEST, *self._named})
        else:
            self._named = None  # what was loaded isn't what is there now
        return True

    def close(self) -> None:
        """Let another process write. Harmless when repeated."""
        if self._lock is not None:
            os.close(self._lock)
        self._lock = None

    def has(self, shard: SealedShard) -> bool:
        """Whether the file that a shard is mapped from is still in the folder."""
        if shard.backing is None or self._lock is None:
            return False
        try:
            os.stat(shard.backing.name, dir_fd=self._lock, follow_symlinks=False)
        except OSError:
            return False
        return True

    def write(self, shard: SealedShard, go_on: Callable[[], bool]) -> SealedShard:
        """Write a shard's file; returns the shard in the file's memory, with nothing dead.

        Raises: OSError, also where the disk would be full; Stopped.
        """
        assert self._lock is not None, "only the process that took the folder writes"
        size_bytes = shard.parts.block.size_bytes
        if shutil.disk_usage(self._folder).free < size_bytes + SPARE_BYTES:
            raise OSError(f"there is no room for {size_bytes:,} bytes and {SPARE_BYTES:,} to spare")
        name = f"{uuid.uuid4().hex}.shard"
        coarse = {} if shard.coarse is None else _parts_of(shard.coarse)
        write_shard(self._folder / name, shard, coarse, go_on)
        file = map_shard(self._lock, name, self._layout, is_checked=True)
        return self._mapped(file)

    def commit(self, shards: Sequence[SealedShard], renew_token: Callable[[], str]) -> bool:
        """Name the files of these shards in the manifest, if it doesn't, and delete all others; returns whether it did.

        renew_token: writes a token into the catalogue; everything in the shards was read from it before.
        Raises: OSError, and what renew_token raises.
        """
        files = [shard.backing for shard in shards if shard.backing is not None and self.has(shard)]
        named = [file.name for file in files]
        if named == self._named:
            return False
        entries = [[file.name, file.head_crc32] for file in files]
        body = json.dumps({"bound_to": self._bound_to, "token": renew_token(), "shards": entries})
        with writing_atomic(self._folder / MANIFEST) as out:
            out.write(f"{body}\n{zlib.crc32(body.encode()):08x}\n".encode())
        self._named = named
        self._sweep({MANIFEST, *named})
        return True

    # ---- helpers

    def _entries(self, folder: int, tokens: Sequence[str]) -> list[tuple[str, int]]:
        """Names and checksums of the shards. Raises: FileNotFoundError, _Unusable."""
        manifest = _manifest(folder)
        if manifest["bound_to"] != self._bound_to:
            raise _Unusable("it was made by another model, another setting or another version")
        if manifest["token"] not in tokens:
            raise _Unusable("it was made of another catalogue, or of a later state of this one")
        entries = [(str(name), int(crc32)) for name, crc32 in manifest["shards"]]
        if not all(_NAME.fullmatch(name) for name, _ in entries):
            raise _Unusable("its manifest names other files than shards")
        return entries

    def _shard(self, folder: int, name: str, crc32: int) -> SealedShard | None:
        try:
            file = map_shard(folder, name, self._layout)
            if file.head_crc32 != crc32:
                raise DamagedShard("it isn't the one that the manifest names")
            return self._mapped(file)
        except (DamagedShard, OSError, ValueError) as error:
            log.warning("shard_ignored", extra={"shard": name, "reason": str(error)})
            return None

    def _mapped(self, file: ShardFile) -> SealedShard:
        shard = sealed(*file.tables(), None, file)
        parts = file.coarse()
        if self._coarse is None or not parts:
            return shard
        try:
            shard = replace(shard, coarse=self._coarse.open(parts))
        except VidgrainError as error:
            log.warning("coarse_ignored", extra={"shard": file.name, "reason": str(error)})
        file.release_coarse()
        return shard

    def _is_still_there(self, descriptor: int) -> bool:
        """Whether the folder is the one that was taken, and not another in its place."""
        try:
            return os.path.samestat(os.fstat(descriptor), self._folder.lstat())
        except OSError:
            return False

    def _sweep(self, kept: set[str]) -> None:
        """Delete the other files of the folder; folders in it are left alone."""
        assert self._lock is not None
        for entry in os.scandir(self._lock):
            if entry.name not in kept and not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.name, dir_fd=self._lock)


class _Unusable(Exception):
    """Why a manifest can't be used."""


def _manifest(folder: int) -> Mapping[str, Any]:
    """The manifest. Raises: FileNotFoundError, _Unusable."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        with open(MANIFEST, "rb", opener=lambda name, _: os.open(name, flags, dir_fd=folder)) as file:
            text = file.read(LARGEST_MANIFEST)
        body, crc32, *_ = text.split(b"\n")
        if zlib.crc32(body) != int(crc32, 16):
            raise ValueError
        manifest = json.loads(body)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise _Unusable("its manifest is damaged") from error
    found: Mapping[str, Any] = manifest
    return found


def _names(folder: int) -> list[str] | None:
    """The files that the manifest names; None if there is none."""
    try:
        return [name for name, _ in _manifest(folder)["shards"]]
    except (OSError, _Unusable):
        return None


def _parts_of(coarse: CoarseIndex) -> Mapping[str, NDArray[np.uint8]]:
    parts: Mapping[str, NDArray[np.uint8]] = coarse.parts()  # type: ignore[attr-defined]
    return parts


def _live_in(shards: Sequence[SealedShard], published: NDArray[np.int64]) -> list[SealedShard]:
    """The shards with those videos live that are published with the same features, each in one shard."""
    left = []
    is_new = np.ones(len(published), dtype=np.bool_)
    for shard in shards:
        videos = shard.parts.videos
        at, is_same = same_features(videos.numbers, videos.features_seq, published)
        is_live = is_same & is_new[at] if len(published) else is_same
        is_new[at[is_live]] = False
        rows = np.repeat(is_live, videos.num_rows)
        live = sealed(shard.parts.segments, videos, shard.parts.block, rows, shard.backing)
        if live.num_live:
            left.append(replace(live, coarse=shard.coarse))
    return left
