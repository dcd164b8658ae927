"""The log of a run: one JSON object per line, each with the event's name and the step it belongs to.

    started, resumed     the configuration's facts: what it starts from, what is frozen, how many steps
    step_done            loss, learning_rates, grad_norm, logit_scale, epoch, samples_per_s
    clip_unreadable      a clip that another stands in for
    validated            figures both ways, is_best
    saved, stopped, finished

`step` counts the steps taken. It knows no training; the lines are plain values.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Lock
from typing import Any

from model.errors import TrainingError
from model.files import write_atomic

Listener = Callable[[Mapping[str, Any]], None]


class RunLog:
    """Appends to out/log.jsonl and passes each line to a listener. path: None on ranks other than the first."""

    def __init__(self, path: Path | None, listener: Listener) -> None:
        self._path, self._listener = path, listener
        self._lock = Lock()

    def write(self, event: str, step: int, **values: Any) -> None:
        """One line, on the disk when this returns. From any thread. Raises: TrainingError if it can't be written."""
        line = {"event": event, "step": step, **values}
        with self._lock:
            if self._path is not None:
                try:
                    with self._path.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(line) + "\n")
                except OSError as error:
                    raise TrainingError(f"{self._path} can't be written: {error.strerror or error}.") from error
            self._listener(line)

    def cut(self, step: int) -> None:
        """Drop the lines of later steps, and a torn last one: a run that goes on from `step` writes them again."""
        if self._path is None or not self._path.is_file():
            return
        kept = [line for line in read_log(self._path) if line["step"] <= step and line["event"] != "stopped"]
        write_atomic(self._path, "".join(json.dumps(line) + "\n" for line in kept).encode())


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; a last one that was cut short is left out. Raises: TrainingError for any other damage."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"{path} can't be read: {error}.", "Move it away, and the run goes on.") from error
    found: list[dict[str, Any]] = []
    for number, text in enumerate(lines, 1):
        try:
            line = json.loads(text)
            found.append({**line, "step": int(line["step"]), "event": str(line["event"])})
        except (ValueError, TypeError, KeyError) as error:
            if number == len(lines):
                break
            raise TrainingError(f"{path}, line {number} isn't a line of a log: {error}.") from error
    return found
