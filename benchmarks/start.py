"""How long commands take from a cold process: wall and CPU time beside the roof of what Python and torch cost alone.

    python -m benchmarks.start [--rounds 5] [--segments 10000] [--json]

Each round starts every command once, in turn; a round before them warms the page cache and writes the bytecode that an
installation has. CPU time is that of the process and its children, all threads. The library holds random features of
the bundled model's size, in a temporary folder.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.random_library import write_library
from benchmarks.report import Row, Spread, Target, at_most, print_rows
from model.registry import load_model

VIDGRAIN = "from service.cli.main import main; main()"
BESIDE = {
    "python": ["-c", "pass"],
    "import torch": ["-c", "import torch"],
    "import open_clip": ["-c", "import open_clip"],
}
ROOF_OF = {"vidgrain --help": "python", "vidgrain videos": "python"}
"""What a command can't do without; import torch for the others. The ratio is its share of the command's time."""

TARGETS: Mapping[str, Target] = {"vidgrain --help": at_most(0.3), "vidgrain search": at_most(3.0)}
"""Of the wall time, in seconds."""


@dataclass(frozen=True, slots=True)
class Took:
    """One run of one command."""

    wall_s: float
    cpu_s: float


def measure(num_segments: int, rounds: int) -> list[Row]:
    """Time every command `rounds` times, interleaved."""
    with tempfile.TemporaryDirectory() as name:
        data = Path(name)
        write_library(data, load_model("tiny", device="cpu").spec, num_segments)
        options = ["--data", str(data)]
        ours = {
            "vidgrain --help": ["-c", VIDGRAIN, "--help"],
            "vidgrain videos": ["-c", VIDGRAIN, "videos", *options, "--limit", "10"],
            "import model.backbone": ["-c", "import model.backbone"],
            "vidgrain search": ["-c", VIDGRAIN, "search", "a red circle", *options, "--model", "tiny"],
        }
        commands = BESIDE | ours
        took: dict[str, list[Took]] = {name: [] for name in commands}
        for number in range(rounds + 1):
            for name, arguments in commands.items():
                one = run(arguments)
                if number > 0:
                    took[name].append(one)
    rows = []
    for what in ("wall", "CPU"):
        spreads = {
            name: Spread.of([one.wall_s if what == "wall" else one.cpu_s for one in runs])
            for name, runs in took.items()
        }
        beside = {name: spreads[name] for name in BESIDE}
        for name in ours:
            target = TARGETS.get(name) if what == "wall" else None
            share = beside[ROOF_OF.get(name, "import torch")].median / spreads[name].median
            of_what = f", {num_segments:,} segments" if name == "vidgrain search" else ""
            rows.append(Row(f"{name}{of_what}, {what}", spreads[name], "s", beside, share, target))
    return rows


def run(arguments: list[str]) -> Took:
    """Run Python in a process of its own and wait for it. Raises: RuntimeError if it fails."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    started_s = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    words = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - started_s
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stderr.close()
    if process.returncode != 0:
        raise RuntimeError(f"{arguments} ended with status {process.returncode}: {words.decode(errors='replace')}")
    return Took(wall_s, usage.ru_utime + usage.ru_stime)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--segments", type=int, default=10_000)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    print_rows(measure(chosen.segments, chosen.rounds), as_json=chosen.json)


if __name__ == "__main__":
    main()
