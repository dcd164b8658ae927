"""Several sandboxes behind the verbs of one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from indexer.errors import SandboxClosed, UnsupportedMedia
from indexer.media import reading as media
from indexer.media.pool import SandboxPool
from tests.support.clips import numbered_frames, read_number, write_clip


def test_threads_share_the_children_and_get_their_own_answers(tmp_path: Path) -> None:
    paths = [write_clip(tmp_path / f"{n}.mp4", numbered_frames(5, first=100 * n), 5) for n in range(3)]
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    with SandboxPool(2) as pool, ThreadPoolExecutor(4) as threads:
        assert pool.probe(paths[0]) == media.probe(paths[0])
        with pytest.raises(UnsupportedMedia):
            pool.probe(broken)
        found = list(threads.map(lambda n: pool.read_frames(paths[n % 3], [0.1, 0.9]), range(12)))
        for n, frames in enumerate(found):
            assert [read_number(picture) for picture in frames.pixels] == [100 * (n % 3), 100 * (n % 3) + 4]
        assert np.array_equal(found[0].pixels, found[3].pixels)
    with pytest.raises(SandboxClosed):
        pool.probe(paths[0])
