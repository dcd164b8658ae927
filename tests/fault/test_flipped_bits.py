"""Single bits flipped in the catalogue's ids: no video may vanish without a word."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path

import pytest

from indexer.catalogue.database import Database
from indexer.catalogue.reader import CatalogueReader
from indexer.errors import IndexerError
from indexer.records import SearchOptions
from indexer.vectors import VectorIndex
from tests.support.catalogues import SPEC, Catalogue, add_ready
from tests.support.fakes import FakeModel
from tests.support.searching import search

NUM_VIDEOS = 6
NUM_SEGMENTS = 3
MODEL = FakeModel()
QUERY = MODEL.encode_text(["red"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, list[str]]:
    """A catalogue in one file, and the ids of its videos."""
    path = tmp_path_factory.mktemp("whole") / "catalogue.sqlite"
    with Catalogue(path) as catalogue:
        catalogue.bind_model(SPEC)
        ids = [add_ready(catalogue, f"video {n}", NUM_SEGMENTS, seed=n) for n in range(NUM_VIDEOS)]
    db = sqlite3.connect(path)
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    return path.read_bytes(), ids


def places(content: bytes, ids: list[str]) -> list[int]:
    """Where the ids stand in the file: in the tables and in their indexes."""
    found: list[int] = []
    for one in ids:
        at = content.find(one.encode())
        while at >= 0:
            found += range(at, at + len(one))
            at = content.find(one.encode(), at + 1)
    return found


def test_every_flip_in_an_id_is_harmless_or_reported(whole: tuple[bytes, list[str]], tmp_path: Path) -> None:
    content, ids = whole
    path = tmp_path / "catalogue.sqlite"
    chance = random.Random(7)
    where = places(content, ids)
    assert len(where) > NUM_VIDEOS * 16 * 4, "in the videos, their segments, their jobs, and the indexes of all"
    silent = []
    for at in chance.sample(where, 120):
        bit = chance.randrange(8)
        damaged = bytearray(content)
        damaged[at] ^= 1 << bit
        path.write_bytes(damaged)
        try:
            with Database(path) as database:
                reader, vectors = CatalogueReader(database), VectorIndex(SPEC.embed_dim, SPEC.num_frames)
                vectors.follow(reader)
                answer = search(QUERY, MODEL, vectors, reader, SearchOptions(top_k=NUM_VIDEOS, recall="exact"))
        except IndexerError:
            continue  # reported as an error
        if len(answer.hits) < NUM_VIDEOS and not answer.warnings:
            silent.append((at, bit))
    assert silent == []
