"""Everything once with the bundled model: drawn clips are indexed, found by their sentences and by their files.

    python -m benchmarks.first_light [--clips 40] [--searches 50] [--json]

Small pictures and a small model show what the code around a model costs, and that a sentence finds its own clip. It
draws its clips (4 s each), so it needs no data; a temporary folder holds everything. What indexing costs with real
sizes is measured by indexing.py, what searching costs by search.py.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.indexing_whole import run_to_the_end
from benchmarks.process_tree import measured
from benchmarks.report import Row, Spread, at_least, print_rows
from indexer.index import VideoIndex
from indexer.records import SearchOptions
from model.registry import load_model
from service.cli.demo import CLIP_S, draw_missing, plan_clips


def measure(num_clips: int, num_searches: int) -> list[Row]:
    """Index num_clips drawn clips, then search by their sentences and by their files."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clips = plan_clips(folder / "clips", num_clips)
        draw_missing(clips)
        with VideoIndex.open(folder / "data", load_model("tiny")) as index:
            for clip in clips:
                index.add(clip.path, title=clip.sentence)
            with measured() as used:
                run_to_the_end(index, index.worker().run)
            options = SearchOptions(top_k=10)
            asked = [clips[number % num_clips] for number in range(num_searches)]
            text_ms = [_took_ms(lambda clip=clip: index.search_text(clip.sentence, options)) for clip in asked]
            clip_ms = [_took_ms(lambda clip=clip: index.search_video(clip.path, options)) for clip in asked]
            exact = SearchOptions(top_k=1, recall="exact")
            firsts = [index.search_text(clip.sentence, exact).hits[0].video.title == clip.sentence for clip in clips]
    return [
        Row(f"index {num_clips} clips of {CLIP_S:g} s", CLIP_S * num_clips / used.wall_s, "x real time"),
        Row("search by a sentence", Spread.of(text_ms), "ms"),
        Row("search by a clip", Spread.of(clip_ms), "ms"),
        Row("own sentence first", sum(firsts) / num_clips, "of the clips", target=at_least(0.9)),
    ]


def _took_ms(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) * 1e3


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--searches", type=int, default=50)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    print_rows(measure(chosen.clips, chosen.searches), as_json=chosen.json)


if __name__ == "__main__":
    main()
