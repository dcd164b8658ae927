"""Sentences that were searched for before: their features, kept in memory, and in a store that replicas share.

An entry is bytes: a header of plain values with a checksum, then raw float32 arrays; nothing in it is run, and what
isn't exactly an entry of this sentence by this model in this precision is ignored. Only real words are kept.

Letters: n word slots up to the last real one, W word slots, P and D widths. It knows no Redis; service/ has that store.
"""

from __future__ import annotations

import hashlib
import json
import struct
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from model.types import ModelSpec, Precision, TextFeatures, VideoTextModel
from model.wrapped import WrappedModel

_MAGIC = b"VGQ1"
_HEAD = struct.Struct("<4sII")  # magic, bytes of the JSON header, CRC-32 of all that follows
_MAX_HEADER = 64 * 1024
OVERHEAD_BYTES = 300
"""What an entry costs in memory beside its own bytes, roughly."""


class QueryStore(Protocol):
    """Bytes by key, shared with other processes. Neither verb raises or takes long, whatever the store does."""

    def get(self, key: str) -> bytes | None: ...

    def put(self, key: str, value: bytes) -> None: ...


class CachedText(WrappedModel):
    """A model that encodes a sentence once. Thread-safe.

    max_bytes: of the entries in memory; 0 keeps none there. store: shared with other processes, if there is one.
    precision: returns what the inner model computes in; entries of another precision are other entries.
    """

    def __init__(
        self,
        inner: VideoTextModel,
        max_bytes: int,
        *,
        precision: Callable[[], Precision] = lambda: "fp32",
        device: torch.device = torch.device("cpu"),  # noqa: B008
        store: QueryStore | None = None,
    ) -> None:
        super().__init__(inner)
        self._memory = _Memory(max_bytes)
        self._precision = precision
        self._device = device
        self._store = store

    def encode_text(self, texts: Sequence[str]) -> TextFeatures:
        """As the model's own; calls with several sentences aren't kept."""
        if len(texts) != 1:
            return self.inner.encode_text(texts)
        key = entry_key(self.spec, self._precision(), texts[0])
        known = self._memory.get(key)
        if known is None and self._store is not None and (known := self._store.get(key)) is not None:
            if (found := self._read(known, key)) is not None:
                self._memory.put(key, known)
                return found
            known = None
        if known is not None and (found := self._read(known, key)) is not None:
            return found
        features = self.inner.encode_text(texts)
        entry = to_bytes(features, key)
        self._memory.put(key, entry)
        if self._store is not None:
            self._store.put(key, entry)
        return features

    def _read(self, entry: bytes, key: str) -> TextFeatures | None:
        return from_bytes(entry, key, self.spec, self._device)


class _Memory:
    """Bytes by key, the least recently used dropped first. Thread-safe."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[str, bytes] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def get(self, key: str) -> bytes | None:
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
            return self._entries.get(key)

    def put(self, key: str, entry: bytes) -> None:
        with self._lock:
            self._size += _cost(entry) - _cost(self._entries.pop(key, None))
            self._entries[key] = entry
            while self._size > self._max_bytes:
                _, dropped = self._entries.popitem(last=False)
                self._size -= _cost(dropped)


def _cost(entry: bytes | None) -> int:
    return 0 if entry is None else len(entry) + OVERHEAD_BYTES


def entry_key(spec: ModelSpec, precision: Precision, text: str) -> str:
    """Names the features of a text by a model; the text itself can't be read from it."""
    digest = hashlib.sha256()
    for part in (spec.fingerprint, precision, str(spec.num_words), text):
        digest.update(part.encode("utf-8", "surrogatepass") + b"\0")
    return f"{spec.fingerprint}:{precision}:{digest.hexdigest()}"


def to_bytes(features: TextFeatures, key: str) -> bytes:
    """One sentence's features as an entry."""
    mask = features.mask[0].cpu().numpy()
    words = features.words[0].float().cpu().numpy()
    is_kept = mask | words.any(-1)
    num_kept = int(np.flatnonzero(is_kept).max(initial=-1)) + 1
    header = {
        "key": key,
        "widths": [features.sentence.shape[1], words.shape[1]],
        "slots": [num_kept, len(mask)],
        "mask": mask[:num_kept].astype(int).tolist(),
        "pieces": features.pieces,
        "is_cut": features.is_cut,
        "precision": features.precision,
    }
    head = json.dumps(header, separators=(",", ":")).encode()
    arrays = (features.sentence[0].float().cpu().numpy(), words[:num_kept])
    body = head + b"".join(np.ascontiguousarray(array, "<f4").tobytes() for array in arrays)
    return _HEAD.pack(_MAGIC, len(head), zlib.crc32(body)) + body


def from_bytes(entry: bytes, key: str, spec: ModelSpec, device: torch.device) -> TextFeatures | None:
    """The features of an entry; None if it isn't one of this key, or doesn't fit the model."""
    if len(entry) < _HEAD.size:
        return None
    magic, head_size, crc = _HEAD.unpack_from(entry)
    body = memoryview(entry)[_HEAD.size :]
    if magic != _MAGIC or head_size > min(_MAX_HEADER, len(body)) or zlib.crc32(body) != crc:
        return None
    try:
        header = json.loads(bytes(body[:head_size]))
        return _parsed(header, np.frombuffer(body[head_size:], "<f4"), key, spec, device)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _parsed(header: Any, values: Any, key: str, spec: ModelSpec, device: torch.device) -> TextFeatures | None:
    widths, (num_kept, num_slots) = [spec.pooled_width, spec.embed_dim], header["slots"]
    if header["key"] != key or header["widths"] != widths or num_slots != spec.num_words:
        return None
    is_right_size = 0 <= num_kept <= num_slots and len(values) == widths[0] + num_kept * widths[1]
    if not is_right_size or len(header["mask"]) != num_kept or not np.isfinite(values).all():
        return None
    words = torch.zeros(1, num_slots, widths[1])
    words[0, :num_kept] = torch.from_numpy(values[widths[0] :].reshape(num_kept, widths[1]).copy())
    mask = torch.zeros(1, num_slots, dtype=torch.bool)
    mask[0, :num_kept] = torch.tensor(header["mask"], dtype=torch.bool)
    return TextFeatures(
        torch.from_numpy(values[: widths[0]].copy())[None].to(device),
        words.to(device),
        mask.to(device),
        tuple(tuple(str(piece) for piece in pieces) for pieces in header["pieces"]),
        tuple(bool(is_cut) for is_cut in header["is_cut"]),
        "bf16" if header["precision"] == "bf16" else "fp32",
    )
