"""Decoding in a child process that can be killed: the verbs of reading.py under a time limit and a memory limit.

A hostile or broken file may make its decoder hang, crash or swell; here that costs a child, and the caller gets one
clear error. A crash is tried once more in a fresh child, because the file before may be at fault; a child that was
killed from outside says nothing about the file. Children are started when they are needed, with an environment of their
own (no secrets). They are plain programs (decode_child.py) over pipes, which works from threads and under any start
method.

This file knows no decoder.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from indexer import defaults
from indexer.errors import (
    BackendMissing,
    DecodeCrashed,
    DecodeInterrupted,
    DecodeTimeout,
    IndexerError,
    SandboxClosed,
    UnsupportedMedia,
    VideoTooLong,
    VideoUndecodable,
)
from indexer.media.decode_child import EXIT_MEMORY
from indexer.records import Frames, MediaInfo, Sampling
from model.resize import FrameResize

if TYPE_CHECKING:
    from indexer.media.reading import Decoder

RELEASE_TIMEOUT_S = 5.0
ALARM_SLACK_S = 10.0
MAX_HEADER_BYTES = 2**20
STDERR_TAIL_BYTES = 4096

KILLED_FROM_OUTSIDE = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
"""Signals that no decoder raises by itself: the system ran out of memory, or the process was stopped from outside."""

_ERRORS = {e.code: e for e in (UnsupportedMedia, VideoUndecodable, VideoTooLong, BackendMissing)}


@dataclass(frozen=True, slots=True)
class SandboxLimits:
    """What one child may take."""

    timeout_s: float = defaults.DECODE_TIMEOUT_S
    """Seconds of one request, without the child's start."""
    memory_bytes: int = defaults.DECODE_MEMORY_BYTES
    """The child's whole address space."""
    start_s: float = 60.0
    """Seconds that the child may take to start, which depend on the machine and not on the file."""


class DecodeSandbox:
    """probe, read_frames and thumbnail in a child; one request at a time, from any thread.

    The child keeps its last file open, and goes on from where it stands when more frames of the same file are
    requested; release() closes it.
    threads: of a codec in the child; None chooses by the size of the picture.
    hardware: decode on a CUDA device where there is one that knows the codec, otherwise as usual. Pixels may differ by
    rounding from those of the CPU. The child then has no memory limit, because CUDA reserves more address space than
    any limit that would be of use. environment: variables that the child gets beside its own.
    timeout_s of a verb: less time than the limits allow. Every verb raises what reading.py raises, DecodeTimeout,
    DecodeCrashed, DecodeInterrupted, and SandboxClosed after close().
    """

    def __init__(
        self,
        decoder: Decoder = "pyav",
        limits: SandboxLimits | None = None,
        threads: int | None = None,
        hardware: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._decoder = decoder
        self._limits = limits or SandboxLimits()
        self._threads = threads
        self._hardware = hardware
        self._environment = environment or {}
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self._may_hold_file = False
        self._is_closed = False

    def probe(self, path: Path, *, timeout_s: float | None = None) -> MediaInfo:
        """As reading.Reader.probe."""
        header, _ = self._ask({"verb": "probe"}, path, timeout_s)
        return MediaInfo(**header["media"])

    def read_frames(
        self,
        path: Path,
        instants_s: Sequence[float],
        resize: FrameResize | None = None,
        *,
        sampling: Sampling = "exact",
        timeout_s: float | None = None,
    ) -> Frames:
        """As reading.Reader.read_frames. Resized in the child, 12 frames of 1080p come as 1.8 MB in place of 75."""
        instants = [float(t) for t in instants_s]
        request = {
            "verb": "read_frames",
            "instants_s": instants,
            "resize": resize and resize.as_dict(),
            "sampling": sampling,
        }
        header, payload = self._ask(request, path, timeout_s)
        pixels = np.frombuffer(payload, dtype=np.uint8).reshape(header["shape"])
        return Frames(pixels, np.array(header["times_s"], dtype=np.float64))

    def thumbnail(self, path: Path, at_s: float, max_side: int = 320, *, timeout_s: float | None = None) -> bytes:
        """As reading.Reader.thumbnail."""
        request = {"verb": "thumbnail", "at_s": float(at_s), "max_side": max_side}
        _, payload = self._ask(request, path, timeout_s)
        return bytes(payload)

    def release(self) -> None:
        """Close the file that the child has open. Never raises: a child that is gone has nothing open."""
        request = {"verb": "release", "path": "", "decoder": self._decoder}
        with self._lock:
            child = self._child
            if child is None or not self._may_hold_file:
                return
            self._may_hold_file = False
            try:
                child.send(json.dumps(request).encode() + b"\n")
                child.receive(time.monotonic() + RELEASE_TIMEOUT_S)
            except (_ChildGone, TimeoutError, OSError):
                self._drop()

    def rest(self) -> None:
        """End the child; the next request starts another. Harmless when repeated."""
        with self._lock:
            self._drop()

    @property
    def child_pid(self) -> int | None:
        """The process id of the child, None before the first request and after one that ended it."""
        child = self._child
        return child.pid if child else None

    def close(self) -> None:
        """End the child, also in the middle of a request (which then raises SandboxClosed). Harmless when repeated."""
        self._is_closed = True
        if child := self._child:
            child.kill()
        with self._lock:
            self._drop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, request: dict[str, Any], path: Path, timeout_s: float | None) -> tuple[dict[str, Any], bytearray]:
        line = json.dumps({**request, "path": str(path.absolute()), "decoder": self._decoder}).encode() + b"\n"
        limit_s = self._limits.timeout_s if timeout_s is None else min(timeout_s, self._limits.timeout_s)
        with self._lock:
            self._may_hold_file = True
            try:
                header, payload = self._try(line, path, limit_s)
            except DecodeCrashed:
                header, payload = self._try(line, path, limit_s)
        if "error" in header:
            raise _rebuilt(header, path)
        return header, payload

    def _try(self, line: bytes, path: Path, limit_s: float) -> tuple[dict[str, Any], bytearray]:
        """One request to one child, which is gone if this raises."""
        try:
            child = self._send(line)
            return child.receive(time.monotonic() + limit_s)
        except BaseException as error:
            status = self._drop()
            if self._is_closed:
                raise SandboxClosed("Decoding was stopped: the sandbox is closed.") from error
            if isinstance(error, TimeoutError):
                text = f"Decoding took longer than {limit_s:g} s and was stopped."
                raise DecodeTimeout(text, path=path) from error
            if isinstance(error, _ChildGone):
                raise self._ended(path, status, error.tail) from error
            raise

    def _send(self, line: bytes) -> _Child:
        """Hand a request to a living child; one that ended while idle is replaced."""
        for is_last_try in (False, True):
            if self._is_closed:
                raise _ChildGone("")
            child = self._child or self._start()
            try:
                child.send(line)
                return child
            except BrokenPipeError as error:
                if is_last_try:
                    raise _ChildGone("") from error
                self._drop()
        raise AssertionError("unreachable")

    def _start(self) -> _Child:
        self._child = child = _Child(self._limits, self._threads, self._hardware, self._environment)
        if self._is_closed:  # close() may have looked for a child just before there was one
            raise _ChildGone("")
        try:
            child.wait_ready(time.monotonic() + self._limits.start_s)
        except TimeoutError as error:
            raise DecodeInterrupted(
                f"The decoder didn't start within {self._limits.start_s:g} s.",
                "Try again; if it happens often, the machine has too much to do.",
            ) from error
        return child

    def _drop(self) -> int | None:
        child, self._child = self._child, None
        return child.end() if child else None

    def _ended(self, path: Path, status: int | None, tail: str) -> DecodeCrashed | DecodeInterrupted:
        """Why a child that was not stopped here is gone."""
        if status == EXIT_MEMORY:
            mebibytes = self._limits.memory_bytes // 2**20
            return DecodeCrashed(f"Decoding needs more than its memory limit of {mebibytes} MiB.", path=path)
        if status is None or status >= 0:
            return DecodeCrashed(f"The decoder died ({_reason(f'status {status}', tail)}).", path=path)
        number = signal.Signals(-status)
        if number in KILLED_FROM_OUTSIDE:
            return DecodeInterrupted(
                f"The decoder was killed from outside (signal {number.name}).",
                "Try again; if it happens often, the machine may be short of memory.",
                path=path,
            )
        return DecodeCrashed(f"The decoder died ({_reason(f'signal {number.name}', tail)}).", path=path)


class _ChildGone(Exception):
    """The child ended without an answer. tail: the last line that it wrote to stderr, without paths."""

    def __init__(self, tail: str) -> None:
        super().__init__(tail)
        self.tail = tail


class _Child:
    """One child process and the three pipes to it."""

    def __init__(self, limits: SandboxLimits, threads: int | None, hardware: bool, more: Mapping[str, str]) -> None:
        root = str(Path(__file__).resolve().parents[2])
        environment = {
            "PYTHONPATH": os.pathsep.join([root, *(p for p in sys.path if p and p != root)]),
            "MALLOC_ARENA_MAX": "2",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "LC_ALL": "C.UTF-8",
            "PATH": os.defpath,  # decord asks for it
            **more,
        }
        memory_bytes = 0 if hardware else limits.memory_bytes
        choices = [str(memory_bytes), str(limits.timeout_s + ALARM_SLACK_S), str(threads or 0)]
        choices.append("cuda" if hardware else "none")
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-B", "-m", "indexer.media.decode_child", *choices],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        assert self._process.stdin and self._process.stdout and self._process.stderr
        self._stdin, self._stdout, self._stderr = self._process.stdin, self._process.stdout, self._process.stderr
        self._tail = b""
        self._poll = select.poll()  # select() fails from file number 1024 on
        for pipe in (self._stdout, self._stderr):
            self._poll.register(pipe, select.POLLIN)

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_ready(self, deadline: float) -> None:
        """Until the child has its limits and its libraries. Raises: _ChildGone, TimeoutError."""
        self.receive(deadline)

    def send(self, line: bytes) -> None:
        """Raises: BrokenPipeError if the child is gone."""
        if self._process.poll() is not None:
            raise BrokenPipeError
        rest = memoryview(line)
        while rest:
            rest = rest[self._stdin.write(rest) :]

    def receive(self, deadline: float) -> tuple[dict[str, Any], bytearray]:
        """One answer: its header, and its bytes. Raises: _ChildGone, TimeoutError."""
        line = bytearray()
        while (end := line.find(b"\n")) < 0:
            if len(line) > MAX_HEADER_BYTES:
                raise _ChildGone("an answer that can't be read")
            line += self._read(deadline, 65536)
        header = json.loads(line[:end])
        payload = bytearray(header["num_bytes"])
        got = len(line) - end - 1
        payload[:got] = line[end + 1 :]
        view = memoryview(payload)
        while got < len(payload):
            got += self._read_into(deadline, view[got:])
        return header, payload

    def kill(self) -> None:
        self._process.kill()

    def end(self) -> int:
        """Kill and reap the child if it hasn't ended by itself, close the pipes; its exit status."""
        self._process.kill()
        status = self._process.wait()
        for pipe in (self._stdin, self._stdout, self._stderr):
            pipe.close()
        return status

    def _read(self, deadline: float, num: int) -> bytes:
        buffer = bytearray(num)
        return bytes(buffer[: self._read_into(deadline, memoryview(buffer))])

    def _read_into(self, deadline: float, view: memoryview) -> int:
        while True:
            timeout_s = deadline - time.monotonic()
            ready = {number for number, _ in self._poll.poll(max(0.0, timeout_s) * 1e3)}
            if self._stderr.fileno() in ready:
                written = os.read(self._stderr.fileno(), STDERR_TAIL_BYTES)
                self._tail = (self._tail + written)[-STDERR_TAIL_BYTES:]
                if not written:
                    self._poll.unregister(self._stderr)
                if self._stdout.fileno() not in ready:
                    continue
            if self._stdout.fileno() in ready:
                got = os.readv(self._stdout.fileno(), [view])
                if got:
                    return got
                self._process.wait()
                raise _ChildGone(self._last_words())
            if timeout_s <= 0:
                raise TimeoutError

    def _last_words(self) -> str:
        """The last line on stderr without paths and control characters, at most 120 characters."""
        rest = os.read(self._stderr.fileno(), STDERR_TAIL_BYTES)
        lines = (self._tail + rest).decode("utf-8", "replace").split("\n")
        last = next((text for text in reversed(lines) if text.strip()), "")
        return re.sub(r"\S*/\S*", "...", re.sub(r"[^\x20-\x7e]", "", last)).strip()[:120]


def _reason(how: str, tail: str) -> str:
    return f"{how}: {tail}" if tail else how


def _rebuilt(header: dict[str, Any], path: Path) -> IndexerError | ValueError:
    """The error that the child answered with, about this file."""
    if header["error"] == "value":
        return ValueError(header["message"])
    kind = _ERRORS.get(header["error"], VideoUndecodable)
    return kind(header["message"], header["hint"], path=path)
