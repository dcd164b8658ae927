"""/videos/{id}/stream: the file, whole and in ranges, as browsers ask for it and as nobody should."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from indexer.catalogue.rows import storable
from tests.e2e.conftest import Clip, Service


@pytest.fixture(scope="module")
def url(filled: Service) -> str:
    video = filled.client.get("/videos", params={"filter": '{"year": 2001}'}).json()["videos"][0]
    return str(video["links"]["stream"])


def test_the_whole_file(filled: Service, clip: Clip, url: str) -> None:
    answer = filled.client.get(url)
    assert answer.status_code == 200
    assert answer.content == clip("red", 3.0).read_bytes()
    assert answer.headers["content-type"] == "video/mp4"
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["content-disposition"].startswith("inline")
    assert str(filled.settings.data) not in str(answer.headers)


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [("bytes=0-", 0, None), ("bytes=0-99", 0, 100), ("bytes=100-199", 100, 200), ("bytes=-50", -50, None),
     ("bytes=5-999999999", 5, None)],
)  # fmt: skip
def test_ranges(filled: Service, clip: Clip, url: str, asked: str, start: int, stop: int | None) -> None:
    whole = clip("red", 3.0).read_bytes()
    answer = filled.client.get(url, headers={"range": asked})
    assert answer.status_code == 206
    assert answer.content == whole[start:stop]
    first = start if start >= 0 else len(whole) + start
    assert answer.headers["content-range"] == f"bytes {first}-{first + len(answer.content) - 1}/{len(whole)}"


@pytest.mark.parametrize("asked", ["bytes=99999999-", "bytes=99999999-100000000", "bytes=-0"])
def test_a_range_outside_of_the_file(filled: Service, url: str, asked: str) -> None:
    answer = filled.client.get(url, headers={"range": asked})
    assert answer.status_code == 416 and answer.json()["code"] == "range_not_satisfiable"
    assert answer.headers["content-range"].startswith("bytes */")


@pytest.mark.parametrize(
    "asked",
    ["", "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=9-1", "lines=0-1",
     "bytes=0-1,5-6", "bytes=--5", "bytes=" + "9" * 300],
)  # fmt: skip
def test_a_range_that_is_none_is_as_if_it_were_not_there(filled: Service, url: str, asked: str) -> None:
    answer = filled.client.get(url, headers={"range": asked})
    assert answer.status_code == 200
    assert len(answer.content) == int(answer.headers["content-length"])


def test_a_player_may_ask_again_only_if_it_changed(filled: Service, url: str) -> None:
    etag = filled.client.get(url).headers["etag"]
    same = filled.client.get(url, headers={"range": "bytes=0-9", "if-range": etag})
    assert same.status_code == 206
    other = filled.client.get(url, headers={"range": "bytes=0-9", "if-range": '"other"'})
    assert other.status_code == 200


def test_a_file_that_is_gone(service: Service, clip: Clip) -> None:
    video_id = service.add(clip("green"))
    service.index.get(video_id).path.unlink()
    for what in ("stream", "thumbnail?t=1"):
        answer = service.client.get(f"/videos/{video_id}/{what}")
        assert answer.status_code == 404, answer.text
        assert str(service.settings.data) not in answer.text
    assert service.client.post("/search/text", json={"query": "green"}).json()["results"][0]["video_id"] == video_id


def test_a_file_that_went_before_its_turn_fails_without_telling_where_it_was(service: Service, clip: Clip) -> None:
    shutil.copy(clip("green"), service.media / "g.mp4")
    added = service.client.post("/index/video", json={"path": "g.mp4"}).json()
    (service.media / "g.mp4").unlink()
    service.work()
    job, video = service.client.get(added["links"]["job"]), service.client.get(added["links"]["video"])
    for answer in (job, video):
        assert answer.json()["error"]["code"] == "file_missing"
        assert str(service.media) not in answer.text
    assert video.json()["file_name"] == "g.mp4"
    missing = service.client.get(f"{added['links']['video']}/stream")
    assert missing.status_code == 404 and str(service.media) not in missing.text


def test_a_name_that_is_no_unicode_is_served_all_the_same(service: Service, clip: Clip) -> None:
    path = Path(os.fsdecode(os.fsencode(service.media) + b"/caf\xe9 noir.mp4"))
    shutil.copy(clip("red"), path)
    added = service.index.add(path)
    service.work()
    video = f"/videos/{added.video_id}"
    assert service.client.get("/videos").json()["videos"][0]["file_name"] == storable(path.name)
    assert service.client.get(f"{video}/stream").content == clip("red").read_bytes()
    path.unlink()
    problem = service.client.get(f"{video}/thumbnail?t=0.5")
    assert problem.status_code == 404 and problem.json()["code"] == "file_missing"
    assert str(service.media.name) not in problem.text
