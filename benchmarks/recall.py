"""How much of the exact answer survives coarse recall: recall@10 of candidates, then AOSM, against AOSM over all.

    python -m benchmarks.recall [--segments 10000,100000,1000000] [--variants] [--json]

Letters: T sentences, K candidates of each channel, C centres of a segment's frames.
The library is made up (benchmarks/recall_data.py) and generated shard by shard, so that a million segments need the
memory of one shard; the truth is exact (benchmarks/recall_truth.py). Each of the two channels, pooled vectors and
centres of frames, gives its best K over all shards; a segment of the true ten that is among them is found, because the
reranker scores every candidate exactly. --variants adds other numbers of centres and other quantisers.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.recall_data import KINDS, NUM_FRAMES, Array, Library, Sentences
from benchmarks.recall_truth import BEST, ExactTop
from benchmarks.report import Row, Spread, at_least, print_rows
from indexer.shards.centres import frame_centres
from indexer.shards.coarse import Coarse, Recipe
from indexer.shards.probes import recall_of
from indexer.shards.view import FoundRows
from model.kernels.block import FeatureBlock

CANDIDATES = (200, 500, 1000, 2000, 3000, 4000)
MOST = max(CANDIDATES)
SHARD_SEGMENTS = 65_536
TIMED_K = 1000
GAPS_OF_SCORES = (0.02, 0.03, 0.04, 0.05, 0.06, 0.08)
"""Adaptive K: candidates no further than this below the tenth best coarse score of their channel."""
GAPS_OF_TOTALS = (0.0, 0.02, 0.04, 0.06, 0.08, 0.1)
"""The same below the tenth best total."""

SHARDS_FOR_ERRORS = 3
"""The errors of scores are measured on so many shards."""
TIMED = 30
"""Queries that are timed, one at a time."""

Search = Callable[[Array, int], FoundRows]


@dataclass(frozen=True, slots=True)
class Channels:
    """What a variant searches one shard by."""

    pooled: Search
    frames: Search
    size_bytes: int


def candidates_for(num_segments: int) -> int:
    """The K of each channel that reaches the target, at the sizes that are measured: about three times the root."""
    return next((k for k in CANDIDATES if k >= 3 * num_segments**0.5), MOST)


class Merged:
    """The best MOST of one channel over all shards."""

    def __init__(self, num_sentences: int) -> None:
        self.rows = np.full((num_sentences, MOST), -1, np.int64)
        self.scores = np.full((num_sentences, MOST), -np.inf, np.float32)

    def add(self, found: FoundRows, offset: int) -> None:
        """Take what a shard gave whose first segment has the number `offset`."""
        rows = np.concatenate([self.rows, np.where(found.rows < 0, -1, found.rows + offset)], axis=1)
        scores = np.concatenate([self.scores, found.scores], axis=1)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :MOST]
        self.rows = np.take_along_axis(rows, best, axis=1)
        self.scores = np.take_along_axis(scores, best, axis=1)

    def ranks(self, wanted: NDArray[np.int64]) -> NDArray[np.int64]:
        """(T, 10): where each of the wanted rows stands, MOST if it isn't there."""
        return np.stack(
            [
                [int(at[0]) if len(at := np.flatnonzero(rows == row)) else MOST for row in those]
                for rows, those in zip(self.rows, wanted, strict=True)
            ]
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--segments", default="10000,100000", help="sizes of libraries, separated by commas")
    parser.add_argument("--sentences", type=int, default=180)
    parser.add_argument("--variants", action="store_true", help="also other centres and quantisers")
    parser.add_argument("--threads", type=int, default=1, help="of the exact truth")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    rows: list[Row] = []
    for size in options.segments.split(","):
        rows += measure(int(size), options.sentences, with_variants=options.variants)
    print_rows(rows, as_json=options.json)


def measure(num_segments: int, num_sentences: int, *, with_variants: bool) -> list[Row]:
    """All rows of one size of library."""
    num_shards = -(-num_segments // SHARD_SEGMENTS)
    library = Library(num_segments, num_sentences, num_shards=num_shards)
    sentences = library.sentences
    truth = ExactTop(sentences, NUM_FRAMES)
    merged: dict[str, tuple[Merged, Merged]] = {}
    sizes: dict[str, list[float]] = {}
    took: dict[str, Spread] = {}
    build_s: list[float] = []
    indexes: list[Coarse] = []
    errors: dict[str, list[Array]] = {"pooled": [], "frames": []}
    for number in range(num_shards):
        offset = number * library.shard_segments
        block = library.shard(number)
        truth.add(block, offset)
        began = time.thread_time()
        indexes.append(Coarse.build(block, has_frame_recall=True))
        build_s.append(time.thread_time() - began)
        for name, channels in _variants(block, indexes[-1], with_variants):
            pooled, frames = merged.setdefault(name, (Merged(num_sentences), Merged(num_sentences)))
            pooled.add(channels.pooled(sentences.whole, MOST), offset)
            frames.add(channels.frames(sentences.whole, MOST), offset)
            sizes.setdefault(name, []).append(channels.size_bytes / block.size_bytes)
            if name not in took:
                took[name] = _timed(lambda query, these=channels: _both(these, query), sentences)
        for channel, those in errors.items() if number < SHARDS_FOR_ERRORS else ():
            those.append(_errors(block, indexes[-1], sentences, channel))
        del block
        gc.collect()
    what = f"{num_segments:,} segments"
    rows = _about(what, library, sentences, truth, build_s, indexes)
    for name, both in merged.items():
        rows += _recall_rows(num_segments, f"{what}, {name}", sentences, truth, both, float(np.mean(sizes[name])))
        rows.append(Row(f"{what}, {name}: search of one shard by both, K = {TIMED_K}", took[name], "ms, one thread"))
    rows += _adaptive_rows(what, truth, merged["as built"])
    return rows + _error_rows(what, errors) + _times(what, indexes, sentences)


# ---- variants


def _variants(block: FeatureBlock, built: Coarse, with_variants: bool) -> list[tuple[str, Channels]]:
    found = [("as built", _of(built)), ("all lists", _of(_with_all_lists(built)))]
    if with_variants:
        found += [(f"{number} centres, float32", _exact(block, number)) for number in (1, 2, 3, 4)]
        found.append(("every frame, float32", _exact(block, NUM_FRAMES)))
        found += [
            ("2 centres", _of(Coarse.build(block, has_frame_recall=True, recipe=Recipe(num_centres=2)))),
            ("4 numbers a code", _of(Coarse.build(block, has_frame_recall=True, recipe=Recipe(numbers_per_code=4)))),
            ("3 centres, SQ4 flat", _scalar(block, "QT_4bit")),
            ("3 centres, SQ8 flat", _scalar(block, "QT_8bit")),
        ]
    return found


def _of(coarse: Coarse) -> Channels:
    return Channels(
        lambda queries, k: coarse.by_pooled(queries, k, None),
        lambda queries, k: coarse.by_frames(queries, k, None),
        coarse.size_bytes,
    )


def _with_all_lists(coarse: Coarse) -> Coarse:
    parts = coarse.parts()
    head = json.loads(parts["head"].tobytes())
    for facts in head["channels"].values():
        facts["nprobe"] = facts["lists"]
    return Coarse.from_parts(parts | {"head": np.frombuffer(json.dumps(head).encode(), np.uint8)})


def _exact(block: FeatureBlock, num_centres: int) -> Channels:
    """Without quantisation and lists: what the choice of vectors costs by itself."""
    every = np.arange(len(block))
    centres, owners = frame_centres(block, every, num_centres)
    pooled = block.pooled.astype(np.float32)
    size = 4 * (centres.size + pooled.size)
    return Channels(
        lambda queries, k: _best(queries @ pooled.T, every, k),
        lambda queries, k: _best(queries @ centres.T, owners, k),
        size,
    )


def _scalar(block: FeatureBlock, quantiser: str) -> Channels:
    every = np.arange(len(block))
    centres, owners = frame_centres(block, every, Recipe().num_centres)
    searches, size = [], 0
    for vectors, rows in ((block.pooled.astype(np.float32), every), (centres, owners)):
        kind = getattr(faiss.ScalarQuantizer, quantiser)
        index = faiss.IndexScalarQuantizer(vectors.shape[1], kind, faiss.METRIC_INNER_PRODUCT)
        index.train(vectors[:8192])
        index.add(vectors)
        size += index.ntotal * index.code_size

        def search(queries: Array, k: int, index=index, rows=rows) -> FoundRows:  # type: ignore[no-untyped-def]
            scores, entries = index.search(queries, min(3 * k, index.ntotal))
            found = np.full((len(queries), len(every)), -np.inf, np.float32)
            np.maximum.at(found, (np.arange(len(queries))[:, None], rows[entries]), scores)
            return _best(found, every, k)

        searches.append(search)
    return Channels(searches[0], searches[1], size)


def _best(scores: Array, owners: NDArray[np.int64], k: int) -> FoundRows:
    """The best k rows by their best entry."""
    num_rows = int(owners[-1]) + 1
    first = np.searchsorted(owners, np.arange(num_rows))
    by_row = np.maximum.reduceat(scores, first, axis=1)
    k = min(k, num_rows)
    rows = np.argpartition(-by_row, k - 1, axis=1)[:, :k]
    return FoundRows(rows, np.take_along_axis(by_row, rows, axis=1))


# ---- rows


def _recall_rows(
    num_segments: int, what: str, sentences: Sentences, truth: ExactTop, both: tuple[Merged, Merged], share: float
) -> list[Row]:
    pooled, frames = (channel.ranks(truth.rows) for channel in both)
    ranks = np.minimum(pooled, frames)
    rows = []
    for k in CANDIDATES:
        recall = (ranks < k).mean(axis=1)
        worst = float(np.percentile(recall, 5))
        against = {"5th percentile": worst}
        against |= {kind: float(recall[sentences.kinds == kind].mean()) for kind in KINDS}
        against |= {"pooled alone": float((pooled < k).mean()), "frames alone": float((frames < k).mean())}
        is_default = k == candidates_for(num_segments) and what.endswith("as built")
        target = at_least(0.99) if is_default else None
        rows.append(Row(f"{what}: recall@10, K = {k}", float(recall.mean()), "of 1", against, target=target))
        if is_default:
            name = f"{what}: recall@10 of the query at the 5th percentile, K = {k}"
            rows.append(Row(name, worst, "of 1", target=at_least(0.9)))
    return [*rows, Row(f"{what}: size", share, "of the fp16 features")]


def _adaptive_rows(what: str, truth: ExactTop, both: tuple[Merged, Merged]) -> list[Row]:
    """K by the query: as deep as the coarse scores of a channel stay within a gap of its tenth best, or of the tenth
    best total, beside the same K for all queries."""
    rows = []
    ranks = [channel.ranks(truth.rows) for channel in both]
    tenth_total = truth.totals[:, -1:]
    for rule, gaps in (("its tenth best", GAPS_OF_SCORES), ("the tenth best total", GAPS_OF_TOTALS)):
        for gap in gaps:
            tops = [channel.scores[:, BEST - 1 : BEST] if rule == "its tenth best" else tenth_total for channel in both]
            depths = [(channel.scores >= top - gap).sum(axis=1) for channel, top in zip(both, tops, strict=True)]
            is_found = (ranks[0] < depths[0][:, None]) | (ranks[1] < depths[1][:, None])
            mean_depth = float(np.mean(depths))
            fixed = (np.minimum(*ranks) < mean_depth).mean(axis=1)
            against = {
                "mean K": mean_depth,
                "5th percentile": float(np.percentile(is_found.mean(axis=1), 5)),
                "the same K for all": float(fixed.mean()),
                "its 5th percentile": float(np.percentile(fixed, 5)),
            }
            rows.append(Row(f"{what}, K by {rule} - {gap}: recall@10", float(is_found.mean()), "of 1", against))
    return rows


def _errors(block: FeatureBlock, coarse: Coarse, sentences: Sentences, channel: str) -> Array:
    """(T, 200): how much the scores of the best candidates exceed those of the vectors that aren't quantised."""
    search = coarse.by_pooled if channel == "pooled" else coarse.by_frames
    found = search(sentences.whole, min(200, len(block)), None)
    errors = np.empty_like(found.scores)
    for query, rows in enumerate(found.rows):
        vectors, owners = block.pooled[rows].astype(np.float32), np.arange(len(rows))
        if channel == "frames":
            vectors, owners = frame_centres(block, rows, Recipe().num_centres)
            owners = np.argsort(rows)[np.searchsorted(np.sort(rows), owners)]
        exact = np.full(len(rows), -np.inf, np.float32)
        np.maximum.at(exact, owners, vectors @ sentences.whole[query])
        errors[query] = found.scores[query] - exact
    return errors


def _error_rows(what: str, errors: Mapping[str, Sequence[Array]]) -> list[Row]:
    rows = []
    for channel, by_shard in errors.items():
        means = [float(those.mean()) for those in by_shard]
        spread = float(np.mean([those.std() for those in by_shard]))
        against = {"least mean of a shard": min(means), "greatest": max(means)}
        rows.append(Row(f"{what}: standard deviation of a score's error, {channel}", spread, "of a cosine", against))
    return rows


def _about(
    what: str,
    library: Library,
    sentences: Sentences,
    truth: ExactTop,
    build_s: Sequence[float],
    indexes: Sequence[Coarse],
) -> list[Row]:
    planted = truth.rows == sentences.targets[:, None]
    in_top = {kind: float(planted[sentences.kinds == kind].any(axis=1).mean()) for kind in KINDS}
    about = indexes[0].describe()
    rows = [
        Row(f"{what}: planted segment within the exact ten", float(planted.any(axis=1).mean()), "of 1", in_top),
        Row(f"{what}: pairs that the exact truth scored", truth.num_scored / len(sentences.whole), "a sentence"),
        Row(f"{what}: building a shard of {library.shard_segments:,}", Spread.of(build_s), "s of CPU"),
    ]
    for channel, facts in about.items():
        against = {name: float(facts[name]) for name in ("lists", "nprobe", "recall")}
        searches = [getattr(coarse, f"by_{channel}") for coarse in (indexes[0], _with_all_lists(indexes[0]))]
        found, wanted = (search(sentences.whole, 100, None).rows for search in searches)
        against["recall of the sentences"] = float(recall_of(found, wanted).mean())
        rows.append(
            Row(f"{what}: share of the lists scanned, {channel}", facts["nprobe"] / facts["lists"], "of 1", against)
        )
    return rows


def _both(channels: Channels, query: Array) -> None:
    channels.pooled(query, TIMED_K)
    channels.frames(query, TIMED_K)


def _timed(search: Callable[[Array], None], sentences: Sentences) -> Spread:
    """Milliseconds of CPU time of this thread, a query at a time."""
    took = []
    for query in sentences.whole[:TIMED]:
        began = time.thread_time()
        search(query[None])
        took.append(1000 * (time.thread_time() - began))
    return Spread.of(took)


def _times(what: str, indexes: Sequence[Coarse], sentences: Sentences) -> list[Row]:
    def by_pooled(which: Sequence[Coarse], query: Array) -> None:
        for coarse in which:
            coarse.by_pooled(query, TIMED_K, None)

    def by_frames(which: Sequence[Coarse], query: Array) -> None:
        for coarse in which:
            coarse.by_frames(query, TIMED_K, None)

    rows = []
    for channel, search in (("pooled", by_pooled), ("frames", by_frames)):
        for which, name in ((indexes[:1], "one shard"), (indexes, f"all {len(indexes)} shards")):
            took = _timed(lambda query, which=which, search=search: search(which, query), sentences)
            rows.append(Row(f"{what}: search of {name} by {channel}, K = {TIMED_K}", took, "ms, one thread"))
    parts = [coarse.parts() for coarse in indexes]
    opened = []
    for those in parts:
        began = time.thread_time()
        Coarse.from_parts(those)
        opened.append(1000 * (time.thread_time() - began))
    return [*rows, Row(f"{what}: opening a shard's index from its parts", Spread.of(opened), "ms, one thread")]


if __name__ == "__main__":
    main()
