"""Ranks by blocks are those of the whole matrix, are those of a plain sort, and don't depend on anybody's order."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.evaluation.metrics import RetrievalRanks, Ties


class Shelf(NamedTuple):
    """Scores (T, V), the video of each text, and a generator for what else a test draws."""

    scores: NDArray[np.float32]
    owners: NDArray[np.int64]
    rng: np.random.Generator


@st.composite
def shelves(draw: st.DrawFn) -> Shelf:
    """One to four texts per video, in any order, with many ties among the scores or few."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    num_videos = draw(st.integers(1, 12))
    owners = rng.permutation(np.repeat(np.arange(num_videos), rng.integers(1, 5, num_videos)))
    scores = rng.integers(0, draw(st.sampled_from([1, 3, 1_000])), (len(owners), num_videos))
    return Shelf(scores.astype(np.float32), owners, rng)


def ranks(shelf: Shelf, ties: Ties, cuts: list[int] | None = None) -> tuple[list[int], list[int]]:
    found = RetrievalRanks(shelf.scores.shape[1], shelf.owners, ties=ties)
    for block in np.split(shelf.scores, sorted(cut % len(shelf.scores) for cut in cuts or [])):
        found.add(block)
    return found.text_to_video().tolist(), found.video_to_text().tolist()


@settings(deadline=None)
@given(shelf=shelves(), ties=st.sampled_from(["against", "official"]), cuts=st.lists(st.integers(0, 99), max_size=5))
def test_blocks_equal_the_whole(shelf: Shelf, ties: Ties, cuts: list[int]) -> None:
    assert ranks(shelf, ties, cuts) == ranks(shelf, ties)


@settings(deadline=None)
@given(shelf=shelves())
def test_ranks_follow_their_query_into_another_order(shelf: Shelf) -> None:
    by_text, by_video = ranks(shelf, "against")
    texts = shelf.rng.permutation(len(shelf.owners))
    videos = shelf.rng.permutation(shelf.scores.shape[1])
    moved = Shelf(shelf.scores[texts][:, videos], np.argsort(videos)[shelf.owners[texts]], shelf.rng)
    moved_by_text, moved_by_video = ranks(moved, "against")
    assert moved_by_text == [by_text[text] for text in texts]
    assert moved_by_video == [by_video[video] for video in videos]


@settings(deadline=None)
@given(shelf=shelves())
def test_ranks_are_those_of_a_plain_count(shelf: Shelf) -> None:
    scores, owners = shelf.scores.tolist(), shelf.owners.tolist()
    by_text, by_video = ranks(shelf, "against")
    for row, owner, rank in zip(scores, owners, by_text, strict=True):
        assert rank == 1 + sum(score >= row[owner] for video, score in enumerate(row) if video != owner)
    groups = [
        [max(r[v] for r, o in zip(scores, owners, strict=True) if o == g) for g in set(owners)] for v in set(owners)
    ]
    for video, rank in enumerate(by_video):
        own = groups[video][video]
        assert rank == 1 + sum(score >= own for group, score in enumerate(groups[video]) if group != video)


@settings(deadline=None)
@given(shelf=shelves())
def test_official_ties_never_rank_worse_than_ours(shelf: Shelf) -> None:
    ours, official = ranks(shelf, "against"), ranks(shelf, "official")
    assert all(kind <= strict for kind, strict in zip(official[0], ours[0], strict=True))
    assert max(official[1]) <= max(ours[1])
