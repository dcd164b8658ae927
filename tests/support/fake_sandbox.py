"""A DecodeSandbox without a decoder: its "videos" are text files that say how long they are and of which colour."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from indexer.errors import UnsupportedMedia, VideoUndecodable
from indexer.records import Frames, MediaInfo, Sampling
from model.resize import FrameResize
from tests.support.fakes import COLOURS

HEADER = "fake-video"
FPS = 25.0


def write_fake_video(path: Path, duration_s: float, colour: str, *, bad_from_s: float | None = None) -> Path:
    """A file that FakeSandbox reads: plain colour, 8 x 8 pixels, 25 fps; undecodable from bad_from_s on."""
    path.write_text(f"{HEADER} {duration_s} {colour} {bad_from_s}\n{path.name}\n")
    return path


class FakeSandbox:
    """probe, read_frames, thumbnail and close as DecodeSandbox has them. delay_s: how long each reading takes."""

    def __init__(self, delay_s: float = 0.0) -> None:
        self.delay_s = delay_s
        self.calls: list[str] = []

    def probe(self, path: Path) -> MediaInfo:
        duration_s, _, _ = self._read(path)
        self.calls.append("probe")
        return MediaInfo(duration_s, FPS, 8, 8, 0, "fake", "text", False)

    def read_frames(
        self,
        path: Path,
        instants_s: Sequence[float],
        resize: FrameResize | None = None,
        *,
        sampling: Sampling = "exact",
    ) -> Frames:
        duration_s, colour, bad_from_s = self._read(path)
        self.calls.append("read_frames")
        time.sleep(self.delay_s)
        shown = np.unique(np.floor(np.clip(instants_s, 0, max(0.0, duration_s - 1 / FPS)) * FPS)) / FPS
        if bad_from_s is not None and shown[-1] >= bad_from_s:
            raise VideoUndecodable(f"{path.name} can't be decoded from {bad_from_s} s on.")
        picture = np.full((8, 8, 3), COLOURS[colour], dtype=np.uint8)
        pixels = np.repeat(picture[None], len(shown), axis=0)
        return Frames(pixels if resize is None else resize(pixels), shown)

    def thumbnail(self, path: Path, at_s: float, max_side: int = 320) -> bytes:
        self._read(path)
        return b"\xff\xd8fake\xff\xd9"

    def release(self) -> None:
        self.calls.append("release")

    def rest(self) -> None:
        self.calls.append("rest")

    def close(self) -> None:
        self.calls.append("close")

    def __enter__(self) -> FakeSandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, path: Path) -> tuple[float, str, float | None]:
        words = path.read_text(errors="replace").split()
        if not words or words[0] != HEADER:
            raise UnsupportedMedia(f"{path.name} is no video.")
        return float(words[1]), words[2], None if words[3] == "None" else float(words[3])
