"""How fast clips are indexed and searched, end to end through VideoIndex, with the bundled model.

    python -m benchmarks.first_light [--clips 40] [--searches 50] [--json]

It draws its clips (4 s each), so it needs no data; a temporary folder holds everything. Medians, one process, one run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.machine import describe_machine
from indexer.index import VideoIndex
from indexer.records import SearchOptions
from model.registry import load_model
from service.cli.demo import CLIP_S, draw_missing, plan_clips


def measure(num_clips: int, num_searches: int) -> dict[str, object]:
    """Index num_clips drawn clips, then search by their sentences and by their files."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clips = plan_clips(folder / "clips", num_clips)
        draw_missing(clips)
        with VideoIndex.open(folder / "data", load_model("tiny")) as index:
            for clip in clips:
                index.add(clip.path, title=clip.sentence)
            worker = index.worker()
            worker.run_once()  # the first one starts the decoding process
            started = time.perf_counter()
            while worker.run_once() is not None:
                pass
            took_s = time.perf_counter() - started
            options = SearchOptions(top_k=10)
            sentences = [clip.sentence for clip in clips]
            paths = [clip.path for clip in clips]
            text_ms = [
                _took_ms(lambda i=i: index.search_text(sentences[i % num_clips], options)) for i in range(num_searches)
            ]
            clip_ms = [
                _took_ms(lambda i=i: index.search_video(paths[i % num_clips], options)) for i in range(num_searches)
            ]
            exact = SearchOptions(top_k=1, recall="exact")
            firsts = [index.search_text(sentence, exact).hits[0].video.title == sentence for sentence in sentences]
    return {
        "num_clips": num_clips,
        "clip_seconds": CLIP_S,
        "index_s_per_clip": took_s / (num_clips - 1),
        "index_x_realtime": CLIP_S * (num_clips - 1) / took_s,
        "text_search_p50_ms": statistics.median(text_ms),
        "clip_search_p50_ms": statistics.median(clip_ms),
        "own_sentence_first": sum(firsts) / num_clips,
        "machine": describe_machine(),
    }


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
    found = measure(chosen.clips, chosen.searches)
    if chosen.json:
        json.dump(found, sys.stdout, indent=2)
        print()
    else:
        for name, value in found.items():
            print(f"{name:24} {value:.4g}" if isinstance(value, float) else f"{name:24} {value}")


if __name__ == "__main__":
    main()
