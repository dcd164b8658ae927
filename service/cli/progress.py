"""How far `vidgrain index` is: bars on a terminal, a plain line every ten seconds anywhere else. Knows no index."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column

from indexer.progress import fraction, x_real_time
from service.cli.printing import span, speed

if TYPE_CHECKING:
    from indexer.records import Job, JobStage, QueueProgress

BARS_EVERY_S = 0.25
LINES_EVERY_S = 10.0
MOST_NAMED = 8
"""Files in work that are named; the rest are counted."""
NAME_CHARS = 32

_STAGES: dict[JobStage, str] = {"probe": "starting", "encode": "indexing", "publish": "nearly done"}
"""What a stage is called on the screen. A worker holds jobs that wait for a free decode child: they are starting."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a command that indexes files is."""

    total: int
    """Files in all."""
    settled: int
    """Files whose outcome is known."""
    failed: int
    """Those of them that failed."""
    in_work: Sequence[tuple[str, Job]]
    """The names of files and their running jobs."""
    queue: QueueProgress
    """All jobs of the index, other people's too."""
    bytes_to_add: int = 0
    """Of the files that are not in the queue yet."""

    @property
    def fraction(self) -> float:
        """The part of the files that is done, 0 to 1; a file in work counts in part."""
        in_work = sum(fraction(job) for _, job in self.in_work)
        return min(1.0, (self.settled + in_work) / self.total) if self.total else 1.0

    @property
    def eta_s(self) -> float | None:
        """Seconds until the queue and what is still to be added to it are done; None where that is unknown."""
        queue = self.queue
        if not self.bytes_to_add:
            return queue.eta_s
        if queue.seconds_left is None or queue.seconds_per_byte is None or queue.x_real_time is None:
            return None
        return (queue.seconds_left + self.bytes_to_add * queue.seconds_per_byte) / queue.x_real_time

    def describe(self) -> str:
        """The whole as one line: files done, speed, time left, failures."""
        parts = [f"{self.settled} of {self.total}"]
        if self.queue.x_real_time is not None:
            parts.append(f"{speed(self.queue.x_real_time)} x real time")
        if self.settled < self.total and self.eta_s is not None:
            parts.append(f"about {span(self.eta_s)} left")
        if self.failed:
            parts.append(f"{self.failed} failed")
        return ", ".join(parts)


class Display(Protocol):
    """Shows a Standing now and then; used in a `with`."""

    every_s: float
    """How often it wants a new one."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, standing: Standing) -> None:
        """Show it now."""
        ...


def display_on(console: Console) -> Display:
    """Bars if the console is a terminal that can move its cursor, else lines without control characters."""
    return Bars(console) if console.file.isatty() and not console.is_dumb_terminal else Lines(console)


class Bars:
    """One bar for the whole and one line for each file in work."""

    every_s = BARS_EVERY_S

    def __init__(self, console: Console) -> None:
        self._whole = Progress(*_columns(Column(no_wrap=True)), console=console)
        self._files = Progress(*_columns(Column(width=NAME_CHARS, no_wrap=True)), console=console)
        self._rest = Progress(TextColumn("  {task.description}"), console=console)
        self._whole_task = self._whole.add_task("indexing", total=1.0, note="")
        self._rest_task = self._rest.add_task("", visible=False)
        self._tasks: dict[str, TaskID] = {}
        self._live = Live(Group(self._whole, self._files, self._rest), console=console, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        for job_id in list(self._tasks):
            self._files.remove_task(self._tasks.pop(job_id))
        self._rest.update(self._rest_task, visible=False)
        self._live.refresh()
        self._live.stop()

    def show(self, standing: Standing) -> None:
        """Draw the bars again."""
        self._whole.update(self._whole_task, completed=standing.fraction, note=standing.describe())
        named = standing.in_work[:MOST_NAMED]
        for job_id in self._tasks.keys() - {job.id for _, job in named}:
            self._files.remove_task(self._tasks.pop(job_id))
        for name, job in named:
            if job.id not in self._tasks:
                self._tasks[job.id] = self._files.add_task(f"  {shortened(name, NAME_CHARS - 2)}", total=1.0, note="")
            self._files.update(self._tasks[job.id], completed=fraction(job), note=", ".join(_about(job)))
        num_more = len(standing.in_work) - len(named)
        self._rest.update(self._rest_task, description=f"and {num_more} more", visible=num_more > 0)
        self._live.refresh()


class Lines:
    """A line of plain text each time."""

    every_s = LINES_EVERY_S

    def __init__(self, console: Console) -> None:
        self._console = console

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, standing: Standing) -> None:
        """Print the line."""
        named = [f"{shortened(name)} {100 * fraction(job):.0f} %" for name, job in standing.in_work[:MOST_NAMED]]
        num_more = len(standing.in_work) - len(named)
        in_work = "; in work: " + ", ".join(named + ([f"{num_more} more"] if num_more else [])) if named else ""
        self._console.print(f"{standing.describe()}{in_work}", markup=False, highlight=False, soft_wrap=True)


class Pace:
    """Whether it is time to show something again."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._last_s = time.monotonic()

    def is_due(self) -> bool:
        """True once per interval, the first time after one."""
        now_s = time.monotonic()
        if now_s - self._last_s < self._every_s:
            return False
        self._last_s = now_s
        return True


def shortened(name: str, width: int = NAME_CHARS) -> str:
    """A file's name in at most `width` characters, cut in the middle, without what would move a terminal's cursor."""
    shown = "".join(char if char.isprintable() else "\ufffd" for char in name)
    return shown if len(shown) <= width else f"{shown[: width - 9]}…{shown[-8:]}"


def _columns(name: Column) -> tuple[TextColumn, BarColumn, TextColumn, TextColumn]:
    return (
        TextColumn("{task.description}", markup=False, table_column=name),
        BarColumn(bar_width=12),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[note]}", markup=False, table_column=Column(no_wrap=True)),
    )


def _about(job: Job) -> list[str]:
    """The job's stage and speed."""
    pace = x_real_time(job)
    return [_STAGES.get(job.stage, job.stage)] + ([f"{speed(pace)} x real time"] if pace is not None else [])
