"""What this process may use of the machine: cores and memory, within the limits of its cgroups (version 2)."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")

OWN_CGROUP = Path("/proc/self/cgroup")
"""Names the process's cgroup below CGROUP; in a container that is CGROUP itself."""


def num_cores(cgroup: Path = CGROUP, own: Path = OWN_CGROUP) -> int:
    """Cores that this process may run on at the same time, at least one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for folder in _own_and_above(cgroup, own):
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        if quota.isdigit() and period.isdigit() and int(period):
            cores = min(cores, max(1, math.ceil(int(quota) / int(period))))
    return cores


def memory_bytes(cgroup: Path = CGROUP, own: Path = OWN_CGROUP) -> int:
    """Memory that this process may have."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for folder in _own_and_above(cgroup, own):
        limit = _read(folder / "memory.max")
        memory = min(memory, int(limit)) if limit.isdigit() else memory
    return memory


def _own_and_above(cgroup: Path, own: Path) -> Iterator[Path]:
    """The root of all cgroups and, one by one, those that lead to the process's own: each limits what is below it."""
    name = next((line[3:] for line in _read(own).splitlines() if line.startswith("0::")), "")
    yield cgroup
    for part in name.split("/"):
        cgroup = cgroup / part
        yield cgroup


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
