"""The real videos, the bundled model: every file indexes or says why not, and a clip cut out of one finds it first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from indexer.index import VideoIndex
from indexer.media.reading import probe, read_frames
from indexer.media.write import write_video
from indexer.records import SearchOptions
from model.registry import load_model
from tests.support.shared_videos import NAMES, shared_video

DAMAGED = "corrupted.mp4"
SAME_PICTURES = {"h264_10bits.mp4", "h265_10bits.mp4"}
"""One clip in two codecs: either is the right answer for the other."""
CUT_FPS = 8.0


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VideoIndex]:
    """All real videos, indexed by the bundled model."""
    if not NAMES:
        pytest.skip("no real videos here; name their folder in VIDGRAIN_TEST_VIDEOS")
    folder = tmp_path_factory.mktemp("real")
    with VideoIndex.open(folder, load_model("tiny", device="cpu")) as opened:
        for name in NAMES:
            opened.add(shared_video(name), title=name)
        worker = opened.worker()
        while worker.run_once() is not None:
            pass
        yield opened


def test_every_file_indexes_or_fails_with_one_clear_reason(index: VideoIndex) -> None:
    videos = {video.title: video for video in index.list(limit=100)[0]}
    assert set(videos) == set(NAMES)
    failed = {title: video for title, video in videos.items() if video.status != "ready"}
    assert set(failed) == {DAMAGED}
    assert failed[DAMAGED].error_code == "video_undecodable"
    assert failed[DAMAGED].error_message


@pytest.mark.parametrize("name", [name for name in NAMES if name != DAMAGED])
def test_a_clip_cut_out_finds_its_own_video_first(index: VideoIndex, name: str, tmp_path: Path) -> None:
    path = shared_video(name)
    duration_s = probe(path).duration_s
    start_s, end_s = 0.3 * duration_s, min(0.3 * duration_s + 10.0, 0.75 * duration_s)
    instants = np.arange(start_s, end_s, 1.0 / CUT_FPS)
    cut = tmp_path / "cut.mp4"
    write_video(cut, read_frames(path, instants.tolist()).pixels, CUT_FPS)
    hits = index.search_video(cut, SearchOptions(top_k=3)).hits
    right = SAME_PICTURES if name in SAME_PICTURES else {name}
    assert hits[0].video.title in right, [(hit.video.title, round(hit.score, 4)) for hit in hits]
