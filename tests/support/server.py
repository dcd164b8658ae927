"""The real `vidgrain` in processes of its own: start a server on a free port, wait for it, read what it says."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import httpx

ROOT = Path(__file__).resolve().parents[2]
T = TypeVar("T")


def command(*arguments: str) -> list[str]:
    """argv of `vidgrain ...`, run by this Python."""
    return [sys.executable, "-m", "service.cli", *arguments]


def environment(**settings: object) -> dict[str, str]:
    """This process's variables without its VIDGRAIN_*, one thread per process, and the settings given by name."""
    own = {k: v for k, v in os.environ.items() if not k.startswith("VIDGRAIN_")}
    return own | {"OMP_NUM_THREADS": "1"} | {f"VIDGRAIN_{k.upper()}": str(v) for k, v in settings.items()}


def free_port() -> int:
    """A TCP port nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A running `vidgrain serve` and a client of it."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.log = log
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)

    def wait_ready(self, limit_s: float = 60.0) -> None:
        """Until /readyz answers 200. Raises: AssertionError with the log if the server ends or the limit passes."""
        until(self._is_ready, limit_s, lambda: self.log.read_text(errors="replace")[-4000:])

    def worker_pid(self) -> int | None:
        """The process id of its worker, None if it has none just now."""
        for pid in children(self.process.pid):
            try:
                line = Path(f"/proc/{pid}/cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if b"\0worker\0" in line:
                return pid
        return None

    def kill(self) -> None:
        """SIGKILL, no farewell."""
        self.process.kill()
        self.process.wait()
        self.http.close()

    def stop(self) -> int:
        """SIGTERM, and its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.http.close()
        return self.process.wait(60)

    def _is_ready(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"the server ended: {self.log.read_text(errors='replace')[-4000:]}")
        try:
            return self.http.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False


@contextmanager
def serving(log: Path, *options: str, **settings: object) -> Iterator[Server]:
    """A server on a free port until the end of the block; settings as in service/settings.py."""
    port = free_port()
    with log.open("ab") as output:
        process = subprocess.Popen(
            command("serve", "--port", str(port), *options),
            cwd=ROOT,
            env=environment(**settings),
            stdout=output,
            stderr=output,
        )
    server = Server(process, port, log)
    try:
        yield server
    finally:
        if process.poll() is None:
            server.stop()


def children(pid: int) -> list[int]:
    """Process ids of the direct children (Linux)."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(word) for word in task.read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def until(ask: Callable[[], T | None], limit_s: float = 60.0, why: Callable[[], object] = lambda: "") -> T:
    """The first true answer. Raises: AssertionError after limit_s, with what `why` says."""
    ends = time.monotonic() + limit_s
    while time.monotonic() < ends:
        if answer := ask():
            return answer
        time.sleep(0.05)
    raise AssertionError(f"it did not happen within {limit_s} s: {why()}")
