"""kill -9 of the worker and of the server while 20 videos are indexed: after a restart all are there once, none twice.

Real processes, real files, HTTP. The moments of the kills are spread over the work by counting what is done, not by the
clock, so that they fall into the middle of it on a slow machine and on a fast one.
"""

from __future__ import annotations

import os
import signal
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from tests.support.clips import write_clip
from tests.support.server import Server, children, is_alive, serving, until
from tests.support.tiny import untrained_tiny

NUM_VIDEOS = 20
LIMIT_S = 90.0

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks processes up in /proc")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(untrained_tiny(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """20 videos of different content, 3 segments each at one second per segment."""
    folder = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(9)
    return [
        write_clip(folder / f"{n:02d}.mp4", [np.full((64, 96, 3), rng.integers(0, 255, 3), np.uint8)] * 30, fps=10)
        for n in range(NUM_VIDEOS)
    ]


def test_killed_again_and_again_all_are_indexed_once(tmp_path: Path, model: str, clips: list[Path]) -> None:
    settings = {"data": tmp_path / "data", "model": model, "device": "cpu", "lease_s": 1, "max_segment_s": 1}
    log = tmp_path / "log"
    jobs: dict[str, str] = {}

    # The server is killed while uploads come in and the first are worked on.
    with serving(log, **settings) as server:
        server.wait_ready(LIMIT_S)
        for path in clips:
            jobs[_upload(server, path)] = path.name
            if len(jobs) == 14 and _num_ready(server) >= 1:
                break
        family = _descendants(server.process.pid)
        server.kill()
    until(lambda: not any(is_alive(pid) for pid in family), 30, lambda: f"left over: {family}")

    # The worker is killed at several moments; the server starts another each time.
    with serving(log, **settings) as server:
        server.wait_ready(LIMIT_S)
        for path in clips:
            job = _upload(server, path)
            if job in jobs:
                assert jobs[job] == path.name, "an upload that was acknowledged kept its job"
            jobs[job] = path.name
        assert len(jobs) == NUM_VIDEOS
        for _ in range(2):
            victim = until(server.worker_pid, LIMIT_S)
            before = _num_ready(server)
            until(lambda before=before: _num_ready(server) > before or _num_ready(server) == NUM_VIDEOS, LIMIT_S)  # type: ignore[misc]
            os.kill(victim, signal.SIGKILL)
            until(lambda victim=victim: not is_alive(victim))  # type: ignore[misc]
        server.kill()

    # Left alone, the rest is done.
    with serving(log, **settings) as server:
        server.wait_ready(LIMIT_S)
        until(lambda: _num_ready(server) == NUM_VIDEOS, LIMIT_S, lambda: _states(server))
        assert _states(server) == {"succeeded": NUM_VIDEOS}
        videos = server.http.get("/videos", params={"limit": 100}).json()
        items = videos["videos"]
        assert sorted(v["title"] for v in items) == sorted(p.stem for p in clips)
        found = server.http.post("/search/text", json={"query": "a circle", "top_k": 100}).json()
        assert found["total_indexed"] in (NUM_VIDEOS, NUM_VIDEOS * 3)
        assert len({r["video_id"] for r in found["results"]}) == len(found["results"]) == NUM_VIDEOS
        assert server.stop() == 0
    _assert_features_are_whole(tmp_path / "data" / "catalogue.sqlite")


def _upload(server: Server, path: Path) -> str:
    with path.open("rb") as file:
        answer = server.http.post("/index/video", files={"file": (path.name, file, "video/mp4")})
    assert answer.status_code in (200, 202), answer.text
    return str(answer.json()["job_id"])


def _num_ready(server: Server) -> int:
    return int(server.http.get("/index").json()["videos"])


def _states(server: Server) -> dict[str, int]:
    counts = server.http.get("/index").json()["jobs"]
    return {status: count for status, count in counts.items() if count}


def _descendants(pid: int) -> list[int]:
    found = []
    waiting = [pid]
    while waiting:
        for child in children(waiting.pop()):
            found.append(child)
            waiting.append(child)
    return found


def _assert_features_are_whole(path: Path) -> None:
    """Behind the front door for once: each video has its segments once, and SQLite finds the file sound."""
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        rows = db.execute(
            "SELECT video_id, COUNT(*), COUNT(DISTINCT position) FROM segments GROUP BY video_id"
        ).fetchall()
    db.close()
    assert len(rows) == NUM_VIDEOS
    assert all(num == num_distinct == 3 for _, num, num_distinct in rows), rows
