"""The whole service in one process: a real index, the fake model, a worker run by hand, and HTTP in front."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from indexer.config import IndexConfig
from indexer.index import VideoIndex
from indexer.indexing.worker import Worker
from model.types import VideoTextModel
from service.app import create_app
from service.settings import Settings
from tests.support.clips import solid_clip
from tests.support.fakes import COLOURS, FakeModel

Clip = Callable[..., Path]


@dataclass
class Service:
    """A running service. media: a folder inside of its media roots; worker: does one job when it is asked to."""

    client: TestClient
    index: VideoIndex
    settings: Settings
    media: Path
    worker: Worker

    def upload(self, path: Path, *, expect: int = 202, **fields: str) -> dict[str, Any]:
        """POST the file."""
        with path.open("rb") as file:
            answer = self.client.post("/index/video", files={"file": (path.name, file)}, data=fields)
        assert answer.status_code == expect, answer.text
        body: dict[str, Any] = answer.json()
        return body

    def work(self) -> None:
        """Do the jobs that are queued."""
        while self.worker.run_once() is not None:
            pass

    def add(self, path: Path, **fields: str) -> str:
        """Upload and index a file; its id."""
        added = self.upload(path, **fields)
        self.work()
        job = self.client.get(f"/jobs/{added['job_id']}").json()
        assert job["status"] == "succeeded", job
        return str(added["video_id"])

    def incoming(self) -> list[Path]:
        """Files in flight, or forgotten."""
        folder = self.settings.data / "incoming"
        return list(folder.iterdir()) if folder.exists() else []


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    """clip("red") or clip("blue", 3.0): a file of one colour, made once."""
    folder = tmp_path_factory.mktemp("clips")

    def make(colour: str, duration_s: float = 2.0) -> Path:
        path = folder / f"{colour}-{duration_s}.mp4"
        return path if path.exists() else solid_clip(path, COLOURS[colour], duration_s)

    return make


def make_service(folder: Path, model: VideoTextModel | None = None, **settings: Any) -> Iterator[Service]:
    """A service on a fresh folder, with the fake model unless another is given."""
    media = folder / "films"
    media.mkdir()
    given: dict[str, Any] = {"data": folder / "data", "media_roots": (media,), "max_upload_bytes": 2_000_000}
    chosen = Settings(**(given | settings))
    config = IndexConfig(decode_timeout_s=30.0, decode_children=chosen.decode_children)
    with VideoIndex.open(chosen.data, model or FakeModel(), config) as index:
        app = create_app(chosen, index)
        with TestClient(app) as client:
            yield Service(client, index, chosen, media, index.worker())


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """An empty service."""
    yield from make_service(tmp_path)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, clip: Clip) -> Iterator[Service]:
    """A service with three videos, shared by the tests of a file: they may only read."""
    for made in make_service(tmp_path_factory.mktemp("filled")):
        for colour, year in (("red", 2001), ("green", 2002), ("blue", 2003)):
            made.add(clip(colour, 3.0), title=f"all {colour}", metadata=f'{{"year": {year}, "tags": ["{colour}"]}}')
        yield made
