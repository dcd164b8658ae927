"""Clips that decode slowly hold up other clips only: the rest of the service answers, and the surplus is refused."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Clip, Service, make_service
from tests.support.server import children

NUM_SEARCHES = 50
"""More than the threads that plain handlers share."""
NUM_PLACES = 5
"""One search runs and four wait, with two decode children."""


@pytest.fixture
def two_children(tmp_path: Path) -> Iterator[Service]:
    yield from make_service(tmp_path, decode_children=2)


def test_slow_clips_hold_up_nothing_else(two_children: Service, clip: Clip) -> None:
    service = two_children
    video = service.add(clip("red", 3.0))
    content = clip("red").read_bytes()
    others = _decode_children()

    def search_by_clip() -> Any:
        return service.client.post("/search/video", files={"file": ("slow.mp4", content)})

    assert search_by_clip().status_code == 200  # it starts the child that the next ones will use
    (slow,) = _decode_children() - others
    os.kill(slow, signal.SIGSTOP)
    with ThreadPoolExecutor(NUM_SEARCHES) as threads:
        try:
            searches = [threads.submit(search_by_clip) for _ in range(NUM_SEARCHES)]
            done = as_completed(searches, timeout=60)
            refused = [next(done).result() for _ in range(NUM_SEARCHES - NUM_PLACES)]
            assert {answer.status_code for answer in refused} == {503}
            problem = refused[0].json()
            assert (problem["code"], problem["retryable"]) == ("decode_busy", True)
            assert int(refused[0].headers["retry-after"]) > 0

            get = service.client.get
            assert service.client.post("/search/text", json={"query": "red"}).json()["results"]
            assert service.client.post("/search/video", json={"video_id": video}).status_code == 200
            for page in ("/videos", "/readyz", "/", "/web/app.js", "/jobs", f"/videos/{video}/stream"):
                assert get(page).status_code == 200, page
            times = [n / 10 for n in range(30)]
            pictures = threads.map(lambda t: get(f"/videos/{video}/thumbnail", params={"t": t}), times)
            assert {picture.status_code for picture in pictures} == {200}
            assert sum(search.done() for search in searches) == len(refused), "the slow ones are still unanswered"
        finally:
            os.kill(slow, signal.SIGCONT)
        answers = [search.result(60) for search in searches]
    assert sum(answer.status_code == 200 for answer in answers) == NUM_PLACES
    assert service.incoming() == []


def _decode_children() -> set[int]:
    if not Path("/proc").is_dir():
        pytest.skip("no /proc here")
    return {
        pid
        for pid in children(os.getpid())
        if b"indexer.media.decode_child" in Path(f"/proc/{pid}/cmdline").read_bytes()
    }
