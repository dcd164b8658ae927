"""What a process may use: the least that any of its cgroups allows."""

from __future__ import annotations

from pathlib import Path

import pytest

from indexer.machine import memory_bytes, num_cores

UNLIMITED = "max 100000"


def made_cgroups(folder: Path, limits: dict[str, tuple[str, str]], own: str) -> tuple[Path, Path]:
    """cgroups with their limits of CPU and memory, and the file that names a process's own."""
    root = folder / "cgroup"
    for name, (cpu, memory) in limits.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name / "cpu.max").write_text(f"{cpu}\n")
        (root / name / "memory.max").write_text(f"{memory}\n")
    (folder / "own").write_text(f"4:memory:/old\n0::{own}\n")
    return root, folder / "own"


@pytest.mark.parametrize("own", ["/a.slice/b.service", "/a.slice"])
def test_the_limits_of_a_service_hold_for_what_is_below_it(tmp_path: Path, own: str) -> None:
    """A service manager sets them on a cgroup between the root, which has none, and the process."""
    limits = {"a.slice": ("100000 100000", str(2**20)), "a.slice/b.service": (UNLIMITED, "max")}
    cgroups = made_cgroups(tmp_path, limits, own)
    assert num_cores(*cgroups) == 1
    assert memory_bytes(*cgroups) == 2**20


def test_the_limits_of_another_service_do_not_hold(tmp_path: Path) -> None:
    cgroups = made_cgroups(tmp_path, {"a.slice": ("100000 100000", str(2**20))}, "/b.slice")
    assert memory_bytes(*cgroups) > 2**20


def test_a_container_finds_its_limits_at_the_root(tmp_path: Path) -> None:
    cgroups = made_cgroups(tmp_path, {"": ("50000 100000", str(2**21))}, "/docker/of/the/host")
    assert num_cores(*cgroups) == 1
    assert memory_bytes(*cgroups) == 2**21


def test_without_cgroups_the_machine_is_the_limit(tmp_path: Path) -> None:
    assert num_cores(tmp_path / "none", tmp_path / "none") >= 1
    assert memory_bytes(tmp_path / "none", tmp_path / "none") > 2**21
