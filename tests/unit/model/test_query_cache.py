"""A sentence is encoded once, whatever is cached gives the same answer, and what isn't an entry is ignored."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model.families import KINDS
from model.query_cache import CachedText, entry_key, from_bytes, to_bytes
from model.served_model import ServedModel
from model.spec import build_spec
from model.types import TextFeatures
from tests.support.fakes import FakeModel
from tests.unit.model.small import small_network_of

CPU = torch.device("cpu")


class Counting(FakeModel):
    """Notes what it encodes."""

    def __init__(self, fingerprint: str = "fake-1") -> None:
        super().__init__(fingerprint=fingerprint)
        self.asked: list[str] = []

    def encode_text(self, texts: Sequence[str]) -> TextFeatures:
        self.asked += texts
        return super().encode_text(texts)


class Shelf(dict[str, bytes]):
    """A store that other processes share."""

    def put(self, key: str, value: bytes) -> None:
        self[key] = value


def same(ours: TextFeatures, theirs: TextFeatures) -> bool:
    tensors = zip((ours.sentence, ours.words, ours.mask), (theirs.sentence, theirs.words, theirs.mask), strict=True)
    rest = (ours.pieces, ours.is_cut, ours.precision) == (theirs.pieces, theirs.is_cut, theirs.precision)
    return rest and all(torch.equal(x, y) and x.dtype == y.dtype for x, y in tensors)


def test_a_sentence_is_encoded_once_and_is_the_same_afterwards() -> None:
    inner = Counting()
    model = CachedText(inner, 1_000_000)
    first, second = model.encode_text(["red blue"]), model.encode_text(["red blue"])
    assert inner.asked == ["red blue"]
    assert same(first, second) and same(second, FakeModel().encode_text(["red blue"]))
    model.encode_text(["blue red"])
    assert inner.asked == ["red blue", "blue red"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_features_of_every_kind_come_back_bit_for_bit(kind: str, tmp_path: Path) -> None:
    network = small_network_of(kind, tmp_path)
    model = ServedModel(network, build_spec("small", network), CPU)
    for text in ("red dog", "a sentence of more tokens than the model reads"):
        features = model.encode_text([text])
        found = from_bytes(to_bytes(features, "k"), "k", model.spec, CPU)
        assert found is not None and same(found, features)


def test_the_least_recently_used_go_first() -> None:
    inner = Counting()
    size = len(to_bytes(inner.encode_text(["red"]), entry_key(inner.spec, "fp32", "red"))) + 400
    inner.asked.clear()
    model = CachedText(inner, 2 * size)
    for text in ("red", "blue", "red", "green", "red", "blue"):
        model.encode_text([text])
    assert inner.asked == ["red", "blue", "green", "blue"]


def test_without_memory_and_store_everything_is_encoded() -> None:
    inner = Counting()
    model = CachedText(inner, 0)
    model.encode_text(["red"]), model.encode_text(["red"])
    assert inner.asked == ["red", "red"]


def test_replicas_share_a_store() -> None:
    shelf, one, other = Shelf(), Counting(), Counting()
    theirs = CachedText(one, 1_000_000, store=shelf).encode_text(["red blue"])
    replica = CachedText(other, 1_000_000, store=shelf)
    assert same(replica.encode_text(["red blue"]), theirs) and other.asked == []
    shelf.clear()
    assert same(replica.encode_text(["red blue"]), theirs) and other.asked == [], "it is in memory as well"


def test_another_model_or_precision_has_entries_of_its_own() -> None:
    shelf = Shelf()
    CachedText(Counting(), 0, store=shelf).encode_text(["red"])
    for model, precision in ((Counting("fake-2"), "fp32"), (Counting(), "bf16")):
        CachedText(model, 0, store=shelf, precision=lambda p=precision: p).encode_text(["red"])  # type: ignore[misc]
        assert model.asked == ["red"]
    assert len(shelf) == 3


def entries() -> dict[str, bytes]:
    """Values that a store may hold under the key and that aren't its entry."""
    model, key = FakeModel(), entry_key(FakeModel().spec, "fp32", "red")
    good = to_bytes(model.encode_text(["red"]), key)
    head_size = struct.unpack_from("<4sII", good)[1]
    header, arrays = json.loads(good[12 : 12 + head_size]), good[12 + head_size :]

    def with_header(**changes: object) -> bytes:
        head = json.dumps(header | changes).encode()
        return struct.pack("<4sII", b"VGQ1", len(head), zlib.crc32(head + arrays)) + head + arrays

    assert from_bytes(with_header(), key, model.spec, CPU) is not None
    nan = good[: 12 + head_size] + struct.pack("<f", float("nan")) + arrays[4:]
    return {
        "empty": b"",
        "text": b"hello",
        "cut": good[:-1],
        "longer": good + b"\0\0\0\0",
        "flipped": good[:-3] + bytes([good[-3] ^ 1]) + good[-2:],
        "a pickle": b"cos\nsystem\n(S'false'\ntR.",
        "of another key": to_bytes(model.encode_text(["blue"]), entry_key(model.spec, "fp32", "blue")),
        "of other widths": with_header(widths=[8, 16]),
        "of more slots": with_header(slots=[1, 4096]),
        "of negative slots": with_header(slots=[-1, 8]),
        "slots of text": with_header(slots="ab"),
        "a short mask": with_header(mask=[]),
        "a mask of objects": with_header(mask=[{}]),
        "no pieces": with_header(pieces=None),
        "not finite": struct.pack("<4sII", b"VGQ1", head_size, zlib.crc32(nan[12:])) + nan[12:],
        "a huge header": struct.pack("<4sII", b"VGQ1", 2**31, 0) + bytes(100),
    }


@pytest.mark.parametrize("name", entries())
def test_what_is_not_an_entry_is_encoded_again_and_replaced(name: str) -> None:
    inner = Counting()
    key = entry_key(inner.spec, "fp32", "red")
    shelf = Shelf({key: entries()[name]})
    found = CachedText(inner, 1_000_000, store=shelf).encode_text(["red"])
    assert inner.asked == ["red"] and same(found, FakeModel().encode_text(["red"]))
    assert from_bytes(shelf[key], key, inner.spec, CPU) is not None


def test_the_key_does_not_show_the_sentence() -> None:
    spec = FakeModel().spec
    assert "secret" not in entry_key(spec, "fp32", "secret")
    keys = {entry_key(spec, "fp32", "a"), entry_key(spec, "bf16", "a"), entry_key(spec, "fp32", "b")}
    assert len(keys | {entry_key(replace(spec, fingerprint="2"), "fp32", "a")}) == 4
