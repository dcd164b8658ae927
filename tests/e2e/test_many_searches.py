"""Many searches at once: some run, some wait, the surplus is refused, and nothing else waits behind them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import pytest
import torch

from model.types import TextFeatures
from service.search_queue import SearchQueue
from service.state import ServiceState
from tests.e2e.conftest import Clip, Service, make_service
from tests.support.fakes import FakeModel

NUM_SEARCHES = 60
"""More than the threads that plain handlers share."""
NUM_WAITING = 5


class Held(FakeModel):
    """Encodes "held" only when it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.may_go = threading.Event()

    def encode_text(self, texts: Sequence[str]) -> TextFeatures:
        if "held" in texts:
            assert self.may_go.wait(60)
        return super().encode_text(texts)


@pytest.fixture
def held() -> Held:
    return Held()


@pytest.fixture
def busy(tmp_path: Path, held: Held) -> Iterator[Service]:
    yield from make_service(tmp_path, held, search_queue=NUM_WAITING)


def test_the_surplus_is_refused_and_nothing_else_waits(busy: Service, held: Held, clip: Clip) -> None:
    video = busy.add(clip("red", 3.0))
    state: ServiceState = busy.client.app.state.service  # type: ignore[attr-defined]
    places = state.searches.num_places

    def search() -> Any:
        return busy.client.post("/search/text", json={"query": "held"})

    with ThreadPoolExecutor(NUM_SEARCHES) as threads:
        try:
            searches = [threads.submit(search) for _ in range(NUM_SEARCHES)]
            done = as_completed(searches, timeout=60)
            refused = [next(done).result() for _ in range(NUM_SEARCHES - places)]
            assert {answer.status_code for answer in refused} == {429}
            problem = refused[0].json()
            assert (problem["code"], problem["retryable"]) == ("search_busy", True)
            assert int(refused[0].headers["retry-after"]) > 0
            assert busy.client.post("/search/video", json={"video_id": video}).status_code == 429
            for page in ("/healthz", "/readyz", "/videos", "/", "/jobs", f"/videos/{video}/thumbnail", "/index"):
                assert busy.client.get(page).status_code == 200, page
            assert sum(found.done() for found in searches) == len(refused), "the held ones are still unanswered"
        finally:
            held.may_go.set()
        answers = [found.result(60) for found in searches]
    assert sum(answer.status_code == 200 for answer in answers) == places
    assert busy.client.post("/search/text", json={"query": "red"}).status_code == 200


def test_an_answer_names_the_precision_of_its_query(filled: Service) -> None:
    text = filled.client.post("/search/text", json={"query": "red"}).json()
    assert text["effective"]["query_precision"] == "fp32"


class CountingThreads(FakeModel):
    """Notes how many threads torch would take where a sentence is encoded."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def encode_text(self, texts: Sequence[str]) -> TextFeatures:
        self.seen.append(torch.get_num_threads())
        return super().encode_text(texts)


@pytest.mark.parametrize(("asked", "taken"), [(None, 1), (3, 3)])
def test_a_server_takes_one_thread_for_a_search_or_as_many_as_asked_for(
    asked: int | None, taken: int, tmp_path: Path
) -> None:
    model = CountingThreads()
    for service in make_service(tmp_path, model, torch_threads=asked):
        model.seen.clear()
        assert service.client.post("/search/text", json={"query": "red"}).status_code == 200
        assert set(model.seen) == {taken}


def test_there_is_a_place_for_one_search_without_a_queue() -> None:
    assert SearchQueue(0, num_running=1).num_places == 1
