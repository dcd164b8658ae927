"""What the rest of the index needs of a decoder: probe a file, read its frames, let go of it. It decodes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from indexer.records import Frames, MediaInfo, Sampling
from model.resize import FrameResize


class FrameSource(Protocol):
    """The verbs of DecodeSandbox and of a turn in a DecodePool."""

    def probe(self, path: Path) -> MediaInfo:
        """What the file holds. Raises: MediaError."""
        ...

    def read_frames(self, path: Path, instants_s: Sequence[float], resize: FrameResize | None = None) -> Frames:
        """The frames shown at these instants, resized where they are decoded. Raises: MediaError."""
        ...


class ReleasableSource(FrameSource, Protocol):
    """The verbs of DecodeSandbox: its child keeps a file open from one reading to the next."""

    def read_frames(
        self,
        path: Path,
        instants_s: Sequence[float],
        resize: FrameResize | None = None,
        *,
        sampling: Sampling = "exact",
    ) -> Frames:
        """As FrameSource's; sampling: which frames stand for the instants. Raises: MediaError."""
        ...

    def release(self) -> None:
        """Let go of the file that was read last; the next verb opens its file again."""
        ...

    def rest(self) -> None:
        """Give back all memory: end the child; the next verb starts another."""
        ...
