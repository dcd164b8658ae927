"""The worker as a child process of the server: started, restarted when it dies, ended with it.

The parent's side is `WorkerProcess`; the child's side is `end_with_parent`, called by `vidgrain worker --parent-pid`.
A child whose parent was killed with SIGKILL gets SIGTERM from the kernel (Linux) or notices within a second
(elsewhere); the lease of its job expires, and the next worker takes the job over.

This file knows no index and no HTTP: it starts a command and watches it.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence

log = logging.getLogger("vidgrain.worker_process")

_PR_SET_PDEATHSIG = 1

NICENESS = 10
"""Added to a worker's: beside a busy server it gets about a tenth of a core, alone it gets everything."""


class WorkerProcess:
    """Keeps one worker process running between `start` and `stop`. Thread-safe.

    command: argv of the child; environment: all of its variables. A child that dies is started again after
    min_wait_s, doubled with every death in a row up to max_wait_s; one that lived stable_s is a fresh start.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        min_wait_s: float = 0.5,
        max_wait_s: float = 30.0,
        stable_s: float = 60.0,
        stop_timeout_s: float = 10.0,
    ) -> None:
        self._command = list(command)
        self._environment = dict(environment)
        self._min_wait_s = min_wait_s
        self._max_wait_s = max_wait_s
        self._stable_s = stable_s
        self._stop_timeout_s = stop_timeout_s
        self._stopping = threading.Event()
        self._child: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self.num_starts = 0

    @property
    def pid(self) -> int | None:
        """The running child's process id; None while no child runs."""
        child = self._child
        return child.pid if child is not None and child.poll() is None else None

    def start(self) -> None:
        """Start a child and keep one running. Raises: RuntimeError if called twice."""
        if self._thread is not None:
            raise RuntimeError("this worker process has been started already")
        self._thread = threading.Thread(target=self._keep_running, name="worker-process", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """SIGTERM, and SIGKILL after stop_timeout_s. Returns when the child is gone; harmless when none runs."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _keep_running(self) -> None:
        # The child is spawned and ended by this one thread: Linux ties the parent-death signal to it.
        wait_s = self._min_wait_s
        while not self._stopping.is_set():
            began_s = time.monotonic()
            try:
                self._child = child = subprocess.Popen(self._command, env=self._environment, stdin=subprocess.DEVNULL)
            except OSError as error:  # out of memory or processes for now; retried later
                log.warning("worker_not_started", extra={"reason": str(error), "tried_again_in_s": wait_s})
                self._stopping.wait(wait_s)
                wait_s = min(wait_s * 2, self._max_wait_s)
                continue
            self.num_starts += 1
            log.info("worker_started", extra={"pid": child.pid})
            while child.poll() is None and not self._stopping.wait(0.1):
                pass
            if self._stopping.is_set():
                break
            lived_s = time.monotonic() - began_s
            wait_s = self._min_wait_s if lived_s >= self._stable_s else wait_s
            log.warning(
                "worker_died", extra={"pid": child.pid, "exit_status": child.returncode, "restarts_in_s": wait_s}
            )
            self._stopping.wait(wait_s)
            wait_s = min(wait_s * 2, self._max_wait_s)
        if self._child is not None:
            _end(self._child, self._stop_timeout_s)


def worker_command(parent_pid: int) -> list[str]:
    """argv of a worker that ends with the process parent_pid, run by this same Python.

    -P: a folder named `service` in the working directory must not be imported instead of ours.
    """
    return [sys.executable, "-P", "-m", "service.cli", "worker", "--parent-pid", str(parent_pid)]


def yield_to_searches() -> None:
    """In the child: let searches have the processor first. Lasts, and holds for its decoding processes too."""
    if hasattr(os, "nice"):
        os.nice(NICENESS)


def end_with_parent(
    parent_pid: int, on_orphaned: Callable[[], None], *, poll_s: float = 1.0, grace_s: float = 15.0
) -> None:
    """In the child: call on_orphaned once parent_pid is no longer our parent; exit grace_s later at the latest.

    On Linux the kernel sends SIGTERM as well, at once; the polling thread is what other systems have.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)

    def watch() -> None:
        while os.getppid() == parent_pid:
            time.sleep(poll_s)
        on_orphaned()
        time.sleep(grace_s)
        os._exit(1)  # stuck in a long call; its job's lease expires and nothing half-done is visible

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def _end(child: subprocess.Popen[bytes], timeout_s: float) -> None:
    if child.poll() is not None:
        return
    child.terminate()
    try:
        child.wait(timeout_s)
    except subprocess.TimeoutExpired:
        log.warning("worker_killed", extra={"pid": child.pid, "waited_s": timeout_s})
        child.kill()
        child.wait()
