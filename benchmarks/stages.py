"""In which stage the threads of a program are: their stacks, looked at fifty times a second while a block runs.

Nothing has to be built into what is measured; functions are known by their names. It sees Python's threads of one
process only.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

EVERY_S = 0.02

Function = tuple[str, str]
"""The name of a file, "" for any, and of a function in it."""


@dataclass
class Stages:
    """How often a look found at least one thread in a stage."""

    functions: Mapping[str, Function]
    """What each stage is known by."""
    otherwise: str
    """What it is called when no thread is in any stage."""
    num_looks: int = 0
    found: Counter[str] = field(default_factory=Counter)

    def look(self, running: Collection[Function]) -> None:
        """Count one look. running: all functions on the stacks of all threads."""
        self.num_looks += 1
        anywhere = {("", name) for _, name in running}
        inside = [stage for stage, function in self.functions.items() if function in running or function in anywhere]
        self.found.update(inside or [self.otherwise])

    def shares(self) -> dict[str, float]:
        """Of the looks, for each stage; they may overlap, so that their sum can exceed 1."""
        return {stage: self.found[stage] / max(1, self.num_looks) for stage in (*self.functions, self.otherwise)}


@contextmanager
def sampled(functions: Mapping[str, Function], otherwise: str) -> Iterator[Stages]:
    """Look at the stacks of all threads while the block runs."""
    stages, is_over = Stages(functions, otherwise), threading.Event()

    def watch() -> None:
        while not is_over.wait(EVERY_S):
            stages.look({function for top in sys._current_frames().values() for function in _stack(top)})

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield stages
    finally:
        is_over.set()
        thread.join()


def _stack(top: FrameType) -> Iterator[Function]:
    frame: FrameType | None = top
    while frame is not None:
        yield Path(frame.f_code.co_filename).name, frame.f_code.co_name
        frame = frame.f_back
