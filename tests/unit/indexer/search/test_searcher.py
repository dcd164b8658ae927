"""One search over stored features: grouping, warnings, self-exclusion, and numbers that aren't numbers."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from indexer.errors import InvalidQuery
from indexer.records import SearchAnswer, SearchOptions, SegmentFeatures
from indexer.search.scoring import ModelScorer
from indexer.vectors import VectorIndex
from model.errors import ModelError, UnknownScorer
from model.types import GRAINS, ModelSpec, Query, ScorerName, Scores, TextFeatures, VideoFeatures
from tests.support.fakes import COLOURS, FakeModel
from tests.support.searching import search
from tests.support.shelf import MemoryShelf, random_features

MODEL = FakeModel()


def segment_of(colours: list[str], start_s: float = 0.0, frame_s: float = 1.0) -> SegmentFeatures:
    """A segment whose frames are plain colours, one second each."""
    pixels = np.stack([np.full((4, 4, 3), COLOURS[colour], dtype=np.uint8) for colour in colours])
    features = MODEL.encode_video([pixels])
    times_s = tuple(start_s + (f + 0.5) * frame_s for f in range(len(colours)))
    return SegmentFeatures(
        start_s,
        start_s + len(colours) * frame_s,
        times_s,
        features.pooled[0].numpy().astype(np.float16),
        features.frames[0, : len(colours)].numpy().astype(np.float16),
    )


def shelf_of(**videos: list[list[str]]) -> tuple[MemoryShelf, VectorIndex]:
    shelf = MemoryShelf()
    for video_id, segments in videos.items():
        starts = np.cumsum([0, *(len(colours) for colours in segments)])
        shelf.publish(video_id, [segment_of(c, float(at)) for c, at in zip(segments, starts[:-1], strict=True)])
    return shelf, VectorIndex(16, 4)


def find(
    made: tuple[MemoryShelf, VectorIndex], query: Query | str, *, model: FakeModel = MODEL, **options: object
) -> SearchAnswer:
    shelf, vectors = made
    features = model.encode_text([query]) if isinstance(query, str) else query
    without = options.pop("without", None)
    vectors.follow(shelf)
    return search(features, model, vectors, shelf, SearchOptions(**options), without_video_id=without)  # type: ignore[arg-type]


THREE = {
    "dawn": [["red", "red", "red", "red"], ["black", "black", "black", "blue"]],
    "lake": [["blue", "blue", "blue", "blue"]],
    "wood": [["green", "green", "green", "green"]],
}


@pytest.mark.parametrize("recall", ["ann", "exact"])
def test_each_colour_finds_its_video_and_its_second(recall: str) -> None:
    made = shelf_of(**THREE)
    for word, video_id in (("red", "dawn"), ("blue", "lake"), ("green", "wood")):
        answer = find(made, word, recall=recall)
        assert answer.hits[0].video.id == video_id
        assert [hit.rank for hit in answer.hits] == [1, 2, 3]
        assert set(answer.hits[0].grains) == set(GRAINS)
        assert answer.hits[0].score == pytest.approx(float(np.mean(list(answer.hits[0].grains.values()))), abs=1e-5)
    dawn = next(hit for hit in find(made, "blue", recall=recall).hits if hit.video.id == "dawn")
    assert (dawn.moments[0].start_s, dawn.moments[0].end_s, dawn.moments[0].best_s) == (7.0, 8.0, 7.5)


def test_the_answer_says_what_was_done() -> None:
    answer = find(shelf_of(**THREE), "red", recall="exact")
    assert (answer.total_indexed, answer.num_candidates, answer.warnings) == (3, 4, ())
    assert answer.effective == {
        "scorer": "aosm",
        "recall": "exact",
        "recall_reason": "As asked: 4 segments.",
        "exact_ms": None,
        "candidates": 300,
        "kernel": "model on cpu",
        "model": "fake",
        "fingerprint": "fake-1",
        "device": "cpu",
        "generation": 3,
    }
    assert set(answer.timings_ms) == {"encode", "plan", "recall", "rerank", "hydrate", "explain", "total"}
    assert answer.timings_ms["total"] == pytest.approx(sum(v for k, v in answer.timings_ms.items() if k != "total"))
    assert [hit.recall_rank for hit in answer.hits] == [None, None, None]
    assert find(shelf_of(**THREE), "red", recall="ann").hits[0].recall_rank == 1


@pytest.mark.parametrize("recall", ["ann", "exact"])
def test_the_scorer_asked_for_is_used_and_named(recall: str) -> None:
    made = shelf_of(**THREE)
    answer = find(made, "red", recall=recall, scorer="mean")
    assert answer.effective["scorer"] == "mean"
    for hit in answer.hits:
        assert dict(hit.grains) == {"video_sentence": pytest.approx(hit.score)}
        assert hit.moments
    other = find(made, "red", recall=recall)
    assert other.effective["scorer"] == "aosm" and set(other.hits[0].grains) == set(GRAINS)


def test_a_scorer_that_the_model_does_not_allow_is_refused_before_anything_is_read() -> None:
    class Unread(MemoryShelf):
        def changes(self, after_seq: int, limit: int = 1000) -> Any:
            raise AssertionError("the catalogue was read")

    with pytest.raises(UnknownScorer) as refused:
        find((Unread(), VectorIndex(16, 4)), "red", scorer="tight")
    assert refused.value.hint == "Use one of aosm, mean, or leave it out."


def test_frames_are_not_recalled_where_they_are_no_unit_vectors() -> None:
    class Raw(FakeModel):
        @property
        def spec(self) -> ModelSpec:
            return replace(super().spec, has_frame_recall=False)

    made = shelf_of(needle=[["blue", "blue", "blue", "red"]], **{f"near{n}": [["purple", "purple"]] for n in range(20)})
    assert find(made, "red", recall="ann", candidates=2).num_candidates > 2
    answer = find(made, "red", recall="ann", candidates=2, model=Raw())
    assert answer.num_candidates == 2


PAIRS = (("aosm", 2), ("tight", 12), ("tight", 96))


def test_pairs_for_a_transformer_come_in_smaller_blocks() -> None:
    text = MODEL.encode_text(["red green"])
    sizes = [ModelScorer(FakeModel(num_frames), text, name)._size for name, num_frames in PAIRS]
    assert sizes[0] > sizes[1] == 1024 and sizes[2] == 128


def test_equal_scores_come_in_the_order_of_ids() -> None:
    made = shelf_of(**{name: [["red", "red"]] for name in ("c", "a", "d", "b")})
    assert [hit.video.id for hit in find(made, "red").hits] == ["a", "b", "c", "d"]
    assert [hit.video.id for hit in find(made, "red", top_k=2).hits] == ["a", "b"]


def test_a_needle_that_pooling_hides_is_recalled_by_its_frame() -> None:
    made = shelf_of(needle=[["blue", "blue", "blue", "red"]], **{f"near{n}": [["purple", "purple"]] for n in range(20)})
    answer = find(made, "red", recall="ann", candidates=2)
    assert answer.num_candidates < 21
    assert answer.hits[0].video.id == "needle"


def test_a_clip_of_several_segments_wants_all_of_itself_found() -> None:
    made = shelf_of(both=[["red", "red"], ["green", "green"]], half=[["red", "red"], ["blue", "blue"]])
    red, green = (np.full((2, 4, 4, 3), COLOURS[c], dtype=np.uint8) for c in ("red", "green"))
    answer = find(made, MODEL.encode_video([red, green]))
    assert [hit.video.id for hit in answer.hits] == ["both", "half"]
    assert answer.hits[0].score == pytest.approx(1.0, abs=1e-2)
    assert find(made, MODEL.encode_video([red])).hits[1].score == pytest.approx(1.0, abs=1e-2)


def test_a_stored_query_leaves_itself_out_with_and_without_a_filter() -> None:
    made = shelf_of(**THREE)
    for options in ({}, {"video_ids": ("dawn", "lake")}, {"recall": "exact"}, {"recall": "ann"}):
        answer = find(made, "red", without="dawn", **options)
        assert "dawn" not in [hit.video.id for hit in answer.hits]
        assert answer.hits


def test_filters_reach_the_catalogue() -> None:
    made = shelf_of(**THREE)
    assert [hit.video.id for hit in find(made, "red", filter={"title": "title of wood"}).hits] == ["wood"]
    assert [hit.video.id for hit in find(made, "red", video_ids=("lake",)).hits] == ["lake"]


def test_removed_videos_are_gone_at_once_and_new_ones_found_at_once() -> None:
    shelf, vectors = shelf_of(**THREE)
    assert find((shelf, vectors), "red").hits[0].video.id == "dawn"
    shelf.remove("dawn")
    shelf.publish("fire", [segment_of(["red"])])
    answer = find((shelf, vectors), "red")
    assert answer.hits[0].video.id == "fire"
    assert "dawn" not in [hit.video.id for hit in answer.hits]
    assert answer.effective["generation"] == 5


class _RemovesWhileDescribing(MemoryShelf):
    """A shelf from which another process takes the best video between rerank and hydrate."""

    def live_videos(self, ids):  # type: ignore[no-untyped-def]
        found = super().live_videos(ids)
        found.pop("a", None)
        return found


def test_a_video_removed_during_the_search_gives_its_place_to_the_next() -> None:
    shelf = _RemovesWhileDescribing()
    for name in ("a", "b", "c"):
        shelf.publish(name, [segment_of(["red"])])
    answer = find((shelf, VectorIndex(16, 4)), "red", top_k=2)
    assert [(hit.rank, hit.video.id) for hit in answer.hits] == [(1, "b"), (2, "c")]


def test_warnings_are_said_where_they_are_true() -> None:
    codes = lambda answer: [code for code, _ in answer.warnings]  # noqa: E731
    assert codes(find((MemoryShelf(), VectorIndex(16, 4)), "red")) == ["index_empty"]
    assert codes(find(shelf_of(**THREE), "red", video_ids=("unknown",))) == ["nothing_allowed"]
    assert codes(find(shelf_of(**THREE), "red", recall="ann", candidates=1)) == ["candidates_few"]
    assert codes(find(shelf_of(**THREE), "red", recall="ann", candidates=1, top_k=1)) == []
    damaged = shelf_of(**THREE)
    damaged[0].damaged.add("lake")
    assert codes(find(damaged, "red")) == ["videos_unreadable"]


@pytest.mark.parametrize("options", [{"top_k": 0}, {"candidates": 0}, {"moments_per_video": -1}, {"recall": "guess"}])
def test_options_out_of_range_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InvalidQuery):
        find(shelf_of(**THREE), "red", **options)


def test_exact_search_in_blocks_is_the_same_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    shelf, rng = MemoryShelf(), np.random.default_rng(2)
    for number in range(60):
        shelf.publish(f"v{number:02}", random_features(rng, 2))
    made = (shelf, VectorIndex(16, 4))
    at_once = find(made, "red green", recall="exact", top_k=60)
    monkeypatch.setattr("indexer.search.scoring.CELLS_PER_BLOCK", 1)
    sizes: list[int] = []

    class Watched(FakeModel):
        def score(self, query: Query, videos: VideoFeatures, scorer: ScorerName | None = None) -> Scores:
            sizes.append(len(videos.pooled))
            return super().score(query, videos, scorer)

    in_blocks = find(made, "red green", model=Watched(), recall="exact", top_k=60)
    assert sizes[:4] == [32, 32, 32, 24], "the others are for what is shown"
    assert [hit.video.id for hit in in_blocks.hits] == [hit.video.id for hit in at_once.hits]
    assert [hit.moments for hit in in_blocks.hits] == [hit.moments for hit in at_once.hits]


class _BrokenModel(FakeModel):
    """Gives NaN: as the query's embedding, for every segment, or for the first segment of a block."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self._where = where

    def encode_text(self, texts):  # type: ignore[no-untyped-def]
        features = super().encode_text(texts)
        bad = torch.full_like(features.sentence, math.nan) if self._where == "query" else features.sentence
        return TextFeatures(bad, features.words, features.mask, features.pieces)

    def score(self, query: Query, videos: VideoFeatures, scorer: ScorerName | None = None) -> Scores:
        scores = super().score(query, videos, scorer)
        total = scores.total.clone()
        total[:, : {"all": None, "first": 1, "query": 0}[self._where]] = math.nan
        return replace(scores, total=total)


@pytest.mark.parametrize("where", ["query", "all"])
def test_numbers_that_are_not_finite_are_an_error(where: str) -> None:
    with pytest.raises(ModelError, match="finite"):
        find(shelf_of(**THREE), "red", model=_BrokenModel(where))


def test_a_segment_without_a_finite_score_is_left_out_and_said() -> None:
    answer = find(shelf_of(**THREE), "red", model=_BrokenModel("first"), recall="exact")
    assert [code for code, _ in answer.warnings] == ["segments_unscorable"]
    assert len(answer.hits) == 3
    assert all(math.isfinite(hit.score) for hit in answer.hits)
