"""The worker's keeper: starts again what dies, ends what it started, and the child ends with its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from service.worker_process import NICENESS, WorkerProcess, worker_command

ROOT = Path(__file__).resolve().parents[3]
T = TypeVar("T")
SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]
STUBBORN = [sys.executable, "-c", "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"]


def test_a_killed_child_is_started_again_and_stop_ends_it() -> None:
    worker = WorkerProcess(SLEEPER, os.environ, min_wait_s=0.01)
    worker.start()
    try:
        first = _until(lambda: worker.pid)
        os.kill(first, signal.SIGKILL)
        second = _until(lambda: worker.pid if worker.num_starts == 2 else None)
        assert second != first
    finally:
        worker.stop()
    assert worker.pid is None and not _is_alive(second)


@pytest.mark.skipif(not hasattr(os, "nice"), reason="no priorities of this kind here")
def test_a_worker_lets_searches_have_the_processor_first() -> None:
    program = "import os; from service.worker_process import yield_to_searches; yield_to_searches(); print(os.nice(0))"
    answer = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(answer.stdout) == min(19, os.nice(0) + NICENESS)


def test_a_child_that_ignores_sigterm_is_killed() -> None:
    worker = WorkerProcess(STUBBORN, os.environ, stop_timeout_s=0.2)
    worker.start()
    pid = _until(lambda: worker.pid)
    worker.stop()
    assert not _is_alive(pid)


def test_stopping_what_never_started_is_harmless_and_starting_twice_is_not() -> None:
    worker = WorkerProcess(SLEEPER, os.environ)
    worker.stop()
    worker = WorkerProcess(SLEEPER, os.environ)
    worker.start()
    try:
        with pytest.raises(RuntimeError, match="already"):
            worker.start()
    finally:
        worker.stop()


def test_a_child_that_keeps_dying_waits_longer_each_time() -> None:
    worker = WorkerProcess([sys.executable, "-c", "raise SystemExit(3)"], os.environ, min_wait_s=0.01, max_wait_s=600)
    worker.start()
    try:
        _until(lambda: worker.num_starts >= 4)
    finally:
        worker.stop()
    assert worker.pid is None


def test_the_command_is_this_python_and_a_worker_of_ours() -> None:
    command = worker_command(42)
    assert command[0] == sys.executable
    assert command[1:] == ["-P", "-m", "service.cli", "worker", "--parent-pid", "42"]


def test_a_child_ends_when_its_parent_is_killed() -> None:
    """A parent starts a child that watches it; kill -9 of the parent ends the child."""
    child = textwrap.dedent(
        """
        import os, signal, sys, threading
        from service.worker_process import end_with_parent
        over = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: over.set())
        end_with_parent(int(sys.argv[1]), over.set, poll_s=0.05)
        print(os.getpid(), flush=True)
        over.wait()
        """
    )
    parent = f"import subprocess,sys,os; subprocess.Popen([sys.executable, '-c', {child!r}, str(os.getpid())]).wait()"
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, cwd=ROOT, text=True) as started:
        assert started.stdout is not None
        pid = int(started.stdout.readline())
        assert _is_alive(pid)
        started.kill()
        started.wait()
        _until(lambda: not _is_alive(pid))


def _until(ask: Callable[[], T | None], limit_s: float = 20.0) -> T:
    """The first true answer; a failure after limit_s."""
    ends = time.monotonic() + limit_s
    while time.monotonic() < ends:
        if answer := ask():
            return answer
        time.sleep(0.01)
    raise AssertionError("it did not happen in time")


def _is_alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_child_that_cannot_be_started_is_tried_again(tmp_path: Path) -> None:
    program = tmp_path / "later"
    worker = WorkerProcess([str(program)], os.environ, min_wait_s=0.01, max_wait_s=0.05)
    worker.start()
    try:
        time.sleep(0.1)
        assert worker.pid is None and worker.num_starts == 0
        script = tmp_path / "script"
        script.write_text("#!/bin/sh\nexec sleep 600\n")
        script.chmod(0o755)
        script.replace(program)
        pid = _until(lambda: worker.pid)
    finally:
        worker.stop()
    assert not _is_alive(pid)
