"""What indexing costs, in one run: all of it beside its parts, many clips beside one file, decoding, memory, a GPU.

    python -m benchmarks.indexing --json --clips DIR [--only whole clips decode long keyframes memory gpu]
    python -m benchmarks.indexing --sizing --clips DIR
    python -m benchmarks.indexing --quick

whole: 40 mixed videos of 20 to 60 s at 720p with ViT-B/32, in each precision, beside decoding alone and encoding alone.
clips: 300 clips of 4 s beside one file that holds the same. decode: twelve frames of a video beside decord and
torchcodec. long: all that indexing takes of 10 minutes beside decoding them plainly. keyframes: key frames in place of
the exact ones. memory: a worker over 2,000 clips. gpu: whole, with the GPU; left out where there is none.

The videos are made once, in some minutes, and kept in --clips; real footage is taken from the folder that
VIDGRAIN_TEST_VIDEOS names, drawn scenes without it. Then two cores take some ten minutes. --sizing measures what the
table in docs/operations.md is made of and prints that table. --quick only shows that everything runs: its figures are
dominated by starting. --large adds ViT-B/32 to clips.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.indexing_clips import FULL, QUICK, Library, Sizes, made_library
from benchmarks.report import Row, print_rows

PARTS = ("whole", "clips", "decode", "long", "keyframes", "memory", "gpu")
LARGE = "ViT-B/32"


def measure(parts: Sequence[str], files: Library, model: str, rounds: int, *, is_large: bool = False) -> list[Row]:
    """The rows of these parts, one after another. model: a folder that holds ViT-B/32."""
    # Imported here: each measurement has a process of its own, which imports this module and should start fast.
    from benchmarks.indexing_decode import decode_rows, keyframes_rows, long_rows
    from benchmarks.indexing_memory import memory_rows
    from benchmarks.indexing_whole import clips_rows, gpu_rows, whole_rows

    run: Mapping[str, Callable[[], list[Row]]] = {
        "whole": lambda: whole_rows(files, model, LARGE, rounds),
        "clips": lambda: (
            clips_rows(files, "tiny", "tiny", rounds) + (clips_rows(files, model, LARGE, rounds) if is_large else [])
        ),
        "decode": lambda: decode_rows(files, files.sizes.decode_rounds * rounds),
        "long": lambda: long_rows(files, rounds),
        "keyframes": lambda: keyframes_rows(files, files.sizes.decode_rounds * rounds),
        "memory": lambda: memory_rows(files),
        "gpu": lambda: gpu_rows(files, model, LARGE, rounds),
    }
    rows: list[Row] = []
    for part in parts:
        began_s = time.perf_counter()
        found = run[part]()
        print(f"{part}: {len(found)} rows in {time.perf_counter() - began_s:.0f} s", file=sys.stderr, flush=True)
        rows += found
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the videos that are missing, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, help="where the videos are kept (default: a temporary folder)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="few and short videos and a cut-down model")
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--sizing", action="store_true", help="print the table of docs/operations.md")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    from benchmarks.indexing_encode import make_model
    from benchmarks.indexing_sizing import sizing

    sizes: Sizes = QUICK if given.quick else FULL
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        parts = ["whole"] if given.sizing else list(given.only)
        files = made_library(given.clips or scratch / "clips", sizes, parts)
        needs_model = {"whole", "gpu"} & set(parts) or given.large
        model = make_model(scratch / "model", is_small=given.quick) if needs_model else ""
        if given.sizing:
            print(sizing(files, {"tiny": "tiny", LARGE: model}))
        else:
            print_rows(measure(parts, files, model, given.rounds, is_large=given.large), as_json=given.json)


if __name__ == "__main__":
    main()
