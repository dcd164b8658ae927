"""A whole search without the text encoder: plan, recall, score, group, explain; at several sizes of the library.

    python -m benchmarks.whole_search --json [--segments 10000 100000] [--store int8] [--chart FILE.svg]

Text queries of 11 words over segments of 12 frames, 512 wide. Interleaved: `auto`, `exact`, `ann`, and the official
arithmetic over every segment beside them. Latency of one search at a time, all cores.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from benchmarks.chart import log_chart
from benchmarks.report import Row, Spread, at_least, at_most, interleaved, print_rows
from benchmarks.synthetic import Library, library, sentences
from indexer.records import RecallMode, SearchOptions
from indexer.search.cores import Cores
from indexer.search.searcher import Searcher
from indexer.shards.coarse import Coarse
from model.kernels.aosm_reference import TEMPERATURE, Mixing, four_grains
from model.kernels.block import FeatureBlock, Store, gather
from model.kernels.choose import best_kernel
from model.kernels.panel import Panel
from model.panels import panel_of
from model.resize import FrameResize
from model.shared_scorers import SHARED_SCORERS
from model.types import ModelSpec, Pixels, Query, ScorerName, Scores, TextFeatures, VideoFeatures

TARGETS_MS = {10_000: 8.0, 100_000: 15.0, 1_000_000: 50.0}
OFFICIAL_MOST = 10_000
"""Segments that the official arithmetic scores in one measurement; more take in proportion."""
NUM_WORDS = 11


class FeaturesOnly:
    """A zero-shot VideoTextModel that is only asked for panels: the queries are features already."""

    spec = ModelSpec("features", "none", 512, 12, 32, 224, "mean", scorers=SHARED_SCORERS)
    device = torch.device("cpu")
    resize = FrameResize(224)

    def encode_video(self, segments: Sequence[Pixels]) -> VideoFeatures:
        """Not asked."""
        raise NotImplementedError

    def encode_text(self, texts: Sequence[str]) -> TextFeatures:
        """Not asked."""
        raise NotImplementedError

    def score(self, query: Query, videos: VideoFeatures, scorer: ScorerName | None = None) -> Scores:
        """Not asked."""
        raise NotImplementedError

    def frame_relevance(self, query: Query, videos: VideoFeatures) -> torch.Tensor:
        """Not asked."""
        raise NotImplementedError

    def recall_vectors(self, query: Query) -> torch.Tensor:
        """The sentence."""
        return query.pooled if isinstance(query, VideoFeatures) else query.sentence

    def panel(self, query: Query, scorer: ScorerName | None = None) -> Panel | None:
        """Without mixing."""
        return panel_of(query, scorer or "aosm", Mixing(), TEMPERATURE)


def with_coarse(block: FeatureBlock) -> Coarse:
    """What a server's upkeep builds for a sealed shard."""
    return Coarse.build(block, has_frame_recall=True)


def rows(sizes: Sequence[int], store: Store, rounds: int) -> list[Row]:
    """p50 of each mode at each size, and how much of exact's best ten `ann` finds."""
    found = []
    for size in sizes:
        given = library(size, with_coarse, store=store)
        found += _rows_of(given, size, store, rounds)
        del given
    return found


def _rows_of(given: Library, size: int, store: Store, rounds: int) -> list[Row]:
    queries = sentences(given, rounds, NUM_WORDS)
    searcher = Searcher(FeaturesOnly(), best_kernel(torch.device("cpu")), budget_ms=25.0, cores=Cores())

    def timed(mode: RecallMode) -> Callable[[], float]:
        waiting = iter([*queries, *queries])

        def once() -> float:
            query = next(waiting)
            started = time.perf_counter()
            searcher.search(query, given.view, given, SearchOptions(recall=mode))
            return (time.perf_counter() - started) * 1e3

        once()  # the first search measures costs
        return once

    measured = interleaved({mode: timed(mode) for mode in ("auto", "exact", "ann")}, rounds)
    measured["official"] = Spread.of([_official_ms(given, query, size) for query in queries[:3]])
    overlap = [_overlap(searcher, given, query) for query in queries]
    chosen = searcher.search(queries[0], given.view, given, SearchOptions()).effective["recall"]
    searcher.close()
    name = f"{size:,} segments, {store}"
    target = at_most(TARGETS_MS[size]) if size in TARGETS_MS else None
    return [
        Row(
            f"whole search, auto ({chosen}), {name}",
            measured["auto"],
            "ms",
            {key: measured[key] for key in ("exact", "ann", "official")},
            measured["official"].median / measured["auto"].median,
            target,
        ),
        Row(f"ann's share of exact's first ten, {name}", Spread.of(overlap), "of 1", {}, None, at_least(0.99)),
    ]


def _overlap(searcher: Searcher, given: Library, query: TextFeatures) -> float:
    firsts = []
    for mode in ("exact", "ann"):
        answer = searcher.search(query, given.view, given, SearchOptions(recall=mode))  # type: ignore[arg-type]
        firsts.append({hit.video.id for hit in answer.hits})
    return len(firsts[0] & firsts[1]) / len(firsts[0])


def _official_ms(given: Library, query: TextFeatures, size: int) -> float:
    """The official arithmetic, unmasked as in the papers' code, over all segments, float32 features at hand."""
    block = given.view.shards[0].block
    count = min(size, OFFICIAL_MOST, len(block))
    dense = gather(block, slice(0, count), given.num_frames)
    pooled, frames = torch.from_numpy(dense.pooled), torch.from_numpy(dense.frames)
    words, frame_slots = query.words.shape[1], given.num_frames
    mixing = Mixing(*([torch.eye(given.dim)] * 2), *([torch.eye(words)] * 3), *([torch.eye(frame_slots)] * 3))
    with torch.inference_mode():
        started = time.perf_counter()
        for at in range(0, count, 1000):
            some = slice(at, at + 1000)
            four_grains(query.sentence, query.words, pooled[some], frames[some], mixing)
        return (time.perf_counter() - started) * 1e3 * size / count


def chart(found: Sequence[Row]) -> str:
    """Time against size of the library, from the rows of one store."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for row in found:
        if not row.name.startswith("whole search"):
            continue
        size = float(row.name.rpartition(" segments")[0].split()[-1].replace(",", ""))
        for name, value in {"auto": row.value, **row.against}.items():
            lines.setdefault(name, []).append((size, value.median if isinstance(value, Spread) else value))
    return log_chart("One search, without encoding the text", "segments of 12 frames", "milliseconds (median)", lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--segments", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--store", choices=("fp16", "int8"), default="fp16")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--chart", type=Path, help="write the picture to this file")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found = rows(asked.segments, asked.store, asked.rounds)
    print_rows(found, as_json=asked.json)
    if asked.chart:
        asked.chart.write_text(chart(found), encoding="utf-8")
    sys.exit(0)


if __name__ == "__main__":
    main()
