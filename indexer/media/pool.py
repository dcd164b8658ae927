"""Several decode sandboxes behind the verbs of one, so that several threads read at the same time.

It knows no file and no decoder; sandbox.py does the work.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import LifoQueue
from types import TracebackType
from typing import TYPE_CHECKING, Self

from indexer.media.sandbox import DecodeSandbox, SandboxLimits
from indexer.records import Frames, MediaInfo
from model.resize import FrameResize

if TYPE_CHECKING:
    from indexer.media.reading import Decoder


class SandboxPool:
    """probe and read_frames in one of `size` children, each started when it is first needed; see DecodeSandbox.

    More threads than children wait for their turn.
    """

    def __init__(self, size: int, decoder: Decoder = "pyav", limits: SandboxLimits | None = None) -> None:
        self._all = [DecodeSandbox(decoder, limits) for _ in range(size)]
        self._free: LifoQueue[DecodeSandbox] = LifoQueue()
        for sandbox in self._all:
            self._free.put(sandbox)

    def probe(self, path: Path) -> MediaInfo:
        """As reading.probe."""
        with self._one() as sandbox:
            return sandbox.probe(path)

    def read_frames(self, path: Path, instants_s: Sequence[float], resize: FrameResize | None = None) -> Frames:
        """As reading.read_frames."""
        with self._one() as sandbox:
            return sandbox.read_frames(path, instants_s, resize)

    def close(self) -> None:
        """End all children, also in the middle of requests. Harmless when repeated."""
        for sandbox in self._all:
            sandbox.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _one(self) -> Iterator[DecodeSandbox]:
        sandbox = self._free.get()
        try:
            yield sandbox
        finally:
            self._free.put(sandbox)
