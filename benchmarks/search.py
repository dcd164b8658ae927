"""Everything that a search costs, in one run: each program of this folder that measures a part of it, one by one.

    python -m benchmarks.search --json [--only kernels whole_search] [--large] [--chart FILE.svg]

kernels: reranking and exact scoring beside the official arithmetic, plain MaxSim and the machine's roofs.
whole_search: a search without the text encoder, by size of the library. serving: 32 clients, and encoding a sentence.
start: cold processes. --large adds a library of a million segments, which takes 16 GB of memory and some minutes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PROGRAMS = ("kernels", "whole_search", "serving", "start")


def rows_of(program: str, options: Sequence[str]) -> dict[str, Any]:
    """What `python -m benchmarks.PROGRAM --json` prints. Raises: CalledProcessError."""
    command = [sys.executable, "-m", f"benchmarks.{program}", "--json", *options]
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a table."""
    lines = ["| what | value | beside it | ratio | target | holds |", "|---|---|---|---|---|---|"]
    for row in rows:
        beside = ", ".join(f"{name} {value:.4g}" for name, value in row["against"].items())
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.3g}"
        holds = {None: "", True: "yes", False: "**no**"}[row["holds"]]
        value = f"{row['value']:.4g} {row['unit']}"
        lines.append(f"| {row['name']} | {value} | {beside} | {ratio} | {row['target'] or ''} | {holds} |")
    return "\n".join(lines)


def main() -> None:
    """Run the programs and print their rows together."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PROGRAMS, default=PROGRAMS)
    parser.add_argument("--large", action="store_true", help="also a library of 1,000,000 segments")
    parser.add_argument("--chart", type=Path, help="write the picture of time against size to this file")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    sizes = ["1000", "10000", "100000", *(["1000000"] if asked.large else [])]
    options = {"whole_search": ["--segments", *sizes, *(["--chart", str(asked.chart)] if asked.chart else [])]}
    found: dict[str, Any] = {"rows": []}
    for program in asked.only:
        print(f"benchmarks.{program} ...", file=sys.stderr)
        part = rows_of(program, options.get(program, []))
        found = part | {"rows": [*found["rows"], *part["rows"]]}
    print(json.dumps(found, indent=2) if asked.json else markdown(found["rows"]))


if __name__ == "__main__":
    main()
