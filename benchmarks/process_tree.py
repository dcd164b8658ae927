"""What a process and all below it take: CPU time and memory, read from /proc (Linux).

It knows nothing of what the processes do.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

PROC = Path("/proc")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of a process and of all below it."""

    rss: int
    """Resident; pages that several processes share count in each."""
    pss: int | None
    """Proportional: shared pages are divided among those that share them. None where the kernel doesn't report it."""

    @property
    def best(self) -> int:
        """The proportional size where it is known."""
        return self.rss if self.pss is None else self.pss


@dataclass
class Used:
    """What a block of code took; filled when it ends."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    """Of this process and of all below it, also of those that have ended."""
    peak: Memory = field(default_factory=lambda: Memory(0, None))
    """The largest of the samples."""

    @property
    def cores(self) -> float:
        """How many cores were busy on average."""
        return self.cpu_s / self.wall_s


def pids_of_tree() -> list[int]:
    """This process and all that descend from it and haven't ended."""
    children: dict[int, list[int]] = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))) is not None:
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [os.getpid()]
    for pid in found:
        found += children.get(pid, [])
    return found


def cpu_s_of_tree() -> float:
    """CPU seconds of this process and of all below it, with those that were waited for."""
    ticks = 0
    for pid in pids_of_tree():
        if (fields := _stat(pid)) is not None:
            ticks += sum(int(number) for number in fields[11:15])  # utime, stime, and the same of ended children
    return ticks / TICKS_PER_S


def memory_of_tree() -> Memory:
    """Memory now. It takes a few milliseconds, more where a process has mapped much."""
    rss, pss = 0, 0
    is_pss_known = True
    for pid in pids_of_tree():
        with suppress(OSError):
            rss += int((PROC / f"{pid}/statm").read_text().split()[1]) * PAGE_BYTES
            own = _pss(pid)
            is_pss_known &= own is not None
            pss += own or 0
    return Memory(rss, pss if is_pss_known else None)


@contextmanager
def measured(memory_every_s: float | None = None) -> Iterator[Used]:
    """Measure a block. memory_every_s: how often a thread looks at the memory; None for never."""
    used, is_over = Used(), threading.Event()

    def watch() -> None:
        while memory_every_s is not None and not is_over.wait(memory_every_s):
            used.peak = max(used.peak, memory_of_tree(), key=lambda memory: memory.best)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    cpu_s, started = cpu_s_of_tree(), time.perf_counter()
    try:
        yield used
    finally:
        used.wall_s, used.cpu_s = time.perf_counter() - started, cpu_s_of_tree() - cpu_s
        is_over.set()
        thread.join()


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat after the name: state, parent and so on; None for a process that is gone."""
    try:
        return (PROC / f"{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _pss(pid: int) -> int | None:
    try:
        lines = (PROC / f"{pid}/smaps_rollup").read_text().splitlines()
    except PermissionError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), None)
