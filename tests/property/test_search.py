"""Search held to its definition: recall of everything + rerank is brute force; following is rebuilding."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.records import SearchAnswer, SearchOptions
from indexer.vectors import VectorIndex
from model.types import Query, VideoFeatures
from tests.support.fakes import COLOURS, FakeModel
from tests.support.searching import search
from tests.support.shelf import MemoryShelf, random_features
from tests.support.views import check, held

EVERYTHING = 1_000_000
MODEL = FakeModel()
DIM, SLOTS = MODEL.spec.embed_dim, MODEL.spec.num_frames


def shelf_of(seed: int, num_videos: int) -> tuple[MemoryShelf, VectorIndex]:
    rng = np.random.default_rng(seed)
    shelf, vectors = MemoryShelf(), VectorIndex(DIM, SLOTS)
    for number in range(num_videos):
        shelf.publish(f"v{number:02}", random_features(rng, int(rng.integers(1, 4))))
    return shelf, vectors


def a_query(seed: int, num_rows: int) -> Query:
    """A text of colours, or a clip of num_rows random segments."""
    rng = np.random.default_rng(seed + 1)
    if num_rows == 0:
        return MODEL.encode_text([" ".join(rng.choice(list(COLOURS), 3))])
    rows = random_features(rng, num_rows)
    frames, mask = torch.zeros(num_rows, SLOTS, DIM), torch.zeros(num_rows, SLOTS, dtype=torch.bool)
    for row, part in enumerate(rows):
        frames[row, : len(part.frames)] = torch.from_numpy(part.frames.astype(np.float32))
        mask[row, : len(part.frames)] = True
    pooled = torch.from_numpy(np.stack([part.pooled for part in rows]).astype(np.float32))
    return VideoFeatures(pooled, frames, mask)


def brute_force(query: Query, shelf: MemoryShelf, video_ids: list[str]) -> dict[str, float]:
    """Each video's score by one call of the model on that video alone."""
    scores = {}
    for video_id in video_ids:
        parts = [segment.features for segment in shelf.segments(video_id)]
        frames = torch.zeros(len(parts), SLOTS, DIM)
        mask = torch.zeros(len(parts), SLOTS, dtype=torch.bool)
        for row, part in enumerate(parts):
            frames[row, : len(part.frames)] = torch.from_numpy(part.frames.astype(np.float32))
            mask[row, : len(part.frames)] = True
        pooled = torch.from_numpy(np.stack([part.pooled for part in parts]).astype(np.float32))
        total = MODEL.score(query, VideoFeatures(pooled, frames, mask)).total
        scores[video_id] = float(total.max(1).values.mean())
    return scores


def scores_of(answer: SearchAnswer) -> dict[str, float]:
    return {hit.video.id: hit.score for hit in answer.hits}


def assert_same(found: dict[str, float], expected: dict[str, float]) -> None:
    assert found.keys() == expected.keys()
    for video_id, score in expected.items():
        assert abs(found[video_id] - score) < 1e-5


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), num_videos=st.integers(0, 30), num_rows=st.integers(0, 3))
def test_recall_of_everything_and_rerank_is_brute_force(seed: int, num_videos: int, num_rows: int) -> None:
    shelf, vectors = shelf_of(seed, num_videos)
    query = a_query(seed, num_rows)
    expected = brute_force(query, shelf, [f"v{n:02}" for n in range(num_videos)])
    vectors.follow(shelf)
    for mode in ("ann", "exact"):
        answer = search(
            query, MODEL, vectors, shelf, SearchOptions(top_k=EVERYTHING, recall=mode, candidates=EVERYTHING)
        )
        assert_same(scores_of(answer), expected)
        ranked = [(-hit.score, hit.video.id) for hit in answer.hits]
        assert ranked == sorted(ranked)
        assert [hit.rank for hit in answer.hits] == list(range(1, num_videos + 1))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), chosen=st.sets(st.integers(0, 13), min_size=1), top_k=st.integers(1, 6))
def test_filters_are_applied_before_the_top_k(seed: int, chosen: set[int], top_k: int) -> None:
    shelf, vectors = shelf_of(seed, 14)
    query = a_query(seed, 0)
    video_ids = tuple(f"v{n:02}" for n in sorted(chosen))
    expected = brute_force(query, shelf, list(video_ids))
    vectors.follow(shelf)
    for mode in ("ann", "exact"):
        options = SearchOptions(top_k=top_k, recall=mode, candidates=3 * top_k + 40, video_ids=video_ids)
        found = scores_of(search(query, MODEL, vectors, shelf, options))
        best = sorted(expected, key=lambda video_id: -expected[video_id])[:top_k]
        assert_same(found, {video_id: expected[video_id] for video_id in best})


@settings(max_examples=40, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["publish", "touch", "remove", "follow"]), st.integers(0, 6), st.integers(1, 3)),
        max_size=25,
    )
)
def test_following_equals_rebuilding(steps: list[tuple[str, int, int]]) -> None:
    shelf, followed = MemoryShelf(), VectorIndex(DIM, SLOTS)
    rng = np.random.default_rng(1)
    for what, number, num_segments in steps:
        video_id = f"v{number}"
        if what == "publish":
            shelf.publish(video_id, random_features(rng, num_segments))
        elif what in ("touch", "remove") and shelf.segments(video_id):
            getattr(shelf, what)(video_id)
        else:
            followed.follow(shelf)
    rebuilt = VectorIndex(DIM, SLOTS)
    assert followed.follow(shelf) == rebuilt.follow(shelf)
    check(followed.view())
    mine, fresh = held(followed.view()), held(rebuilt.view())
    assert mine.keys() == fresh.keys()
    for video_id, segments in mine.items():
        for one, other in zip(segments, fresh[video_id], strict=True):
            assert (one.id, one.times_s) == (other.id, other.times_s)
            assert (one.pooled == other.pooled).all() and (one.frames == other.frames).all()
