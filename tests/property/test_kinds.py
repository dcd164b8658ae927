"""Search with real small networks of every paper's kind: recall finds what ranks, whatever was stored."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from indexer.indexing.encoders import encode
from indexer.records import Frames, SearchOptions, SegmentPlan
from indexer.search.recall import RecallQuery, recall
from indexer.vectors import VectorIndex
from model.served_model import ServedModel
from model.spec import build_spec
from model.types import HeadKind, Query, ScorerName
from tests.support.searching import CORES, KERNEL, search
from tests.support.shelf import MemoryShelf
from tests.unit.model.small import small_network_of

KINDS: tuple[HeadKind, ...] = ("xclip", "clip4clip", "tight", "clip2video")
RECALLED_WHOLE: dict[HeadKind, ScorerName] = {"clip4clip": "mean", "clip2video": "clip2video", "xclip": "mean"}
"""Scores that recall computes in full: r . pooled is the very number that ranks."""

Video = list[NDArray[np.uint8]]


@cache
def model_of(kind: HeadKind) -> ServedModel:
    torch.manual_seed(11)
    with tempfile.TemporaryDirectory() as folder:
        network = small_network_of(kind, Path(folder), "seqTransf")
        return ServedModel(network, build_spec(kind, network), torch.device("cpu"))


def drawn(seed: int, num_videos: int) -> dict[str, Video]:
    """Videos of 1 to 2 segments, each of 1 to F frames of coloured noise."""
    rng = np.random.default_rng(seed)
    return {
        f"v{number:02}": [
            rng.integers(0, 256, (int(rng.integers(1, 5)), 8, 8, 3), dtype=np.uint8)
            for _ in range(int(rng.integers(1, 3)))
        ]
        for number in range(num_videos)
    }


def indexed(model: ServedModel, videos: dict[str, Video]) -> tuple[MemoryShelf, VectorIndex]:
    spec = model.spec
    shelf, vectors = MemoryShelf(), VectorIndex(spec.embed_dim, spec.num_frames, pooled_dim=spec.pooled_width)
    for name, video in videos.items():
        plans = [SegmentPlan(4.0 * n, 4.0 * n + 4, ()) for n in range(len(video))]
        read = [Frames(pixels, 4.0 * n + 0.5 + np.arange(len(pixels))) for n, pixels in enumerate(video)]
        shelf.publish(name, encode(plans, read, model))
    return shelf, vectors


def ranked(model: ServedModel, made: tuple[MemoryShelf, VectorIndex], query: Query, **options: object) -> list[str]:
    shelf, vectors = made
    vectors.follow(shelf)
    answer = search(query, model, vectors, shelf, SearchOptions(top_k=50, **options))  # type: ignore[arg-type]
    return [hit.video.id for hit in answer.hits]


def queries(model: ServedModel, videos: dict[str, Video], seed: int) -> Sequence[Query]:
    words = np.random.default_rng(seed).choice(["red", "dog", "cat", "re", "d", "do"], 3)
    return model.encode_text([" ".join(words)]), model.encode_video(videos["v00"])


@pytest.mark.parametrize("kind", sorted(RECALLED_WHOLE))
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_what_recall_computes_is_the_score(kind: HeadKind, seed: int) -> None:
    model, videos = model_of(kind), drawn(seed, 6)
    shelf, vectors = indexed(model, videos)
    vectors.follow(shelf)
    for query in queries(model, videos, seed):
        rows = model.recall_vectors(query)
        (shard,) = vectors.view().shards
        (found,) = recall(RecallQuery(rows[:1].numpy(), None), 50, [shard], [None], KERNEL, CORES)
        ranked_rows = torch.from_numpy(found.rows[np.argsort(found.ranks)])
        scores = torch.from_numpy(shard.block.pooled.astype(np.float32)) @ rows[0]
        torch.testing.assert_close(scores[ranked_rows], scores.sort(descending=True).values, atol=1e-4, rtol=1e-4)
        stored = shelf.segments("v03")[0].features
        part = model.encode_video(videos["v03"][:1])
        total = model.score(query, part, RECALLED_WHOLE[kind]).total[:, 0]
        torch.testing.assert_close(rows @ part.pooled[0], total, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(
            rows @ torch.from_numpy(stored.pooled.astype(np.float32)), total, atol=2e-2, rtol=1e-2
        )


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_recall_of_all_equals_exact_search_by_every_scorer(kind: HeadKind, seed: int) -> None:
    model, videos = model_of(kind), drawn(seed, 7)
    made = indexed(model, videos)
    text, clip = queries(model, videos, seed)
    for scorer in model.spec.scorers:
        for query in (text,) if scorer == "tight" else (text, clip):
            found = ranked(model, made, query, scorer=scorer, recall="ann", candidates=100)
            assert len(found) == len(videos)
            assert found == ranked(model, made, query, scorer=scorer, recall="exact")


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10_000), number=st.integers(0, 29))
def test_a_planted_video_is_found_by_itself_and_by_few_candidates(kind: HeadKind, seed: int, number: int) -> None:
    model, videos = model_of(kind), drawn(seed, 30)
    made = indexed(model, videos)
    clip = model.encode_video(videos[f"v{number:02}"])
    scorer: ScorerName = "clip2video" if kind == "clip2video" else "mean"
    assert ranked(model, made, clip, scorer=scorer, recall="ann", candidates=3)[0] == f"v{number:02}"


@pytest.mark.parametrize("kind", sorted(RECALLED_WHOLE))
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_where_recall_is_the_score_few_candidates_give_the_best(kind: HeadKind, seed: int) -> None:
    model, videos = model_of(kind), drawn(seed, 30)
    made = indexed(model, videos)
    text, _ = queries(model, videos, seed)
    scorer = RECALLED_WHOLE[kind]
    best = ranked(model, made, text, scorer=scorer, recall="exact")[0]
    assert ranked(model, made, text, scorer=scorer, recall="ann", candidates=3)[0] == best
