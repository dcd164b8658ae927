"""A user's walk: add videos, follow the job, search by text, by clip and by a stored video, look, change, remove."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import pytest

from tests.e2e.conftest import Clip, Service
from tests.support.fakes import COLOURS


def test_add_follow_search_change_remove(service: Service, clip: Clip) -> None:
    client = service.client
    added = service.upload(clip("red"), title="Rosso", metadata=json.dumps({"tags": ["warm", "ü"]}))
    assert added["status"] == "queued" and added["is_duplicate"] is False
    job = client.get(added["links"]["job"]).json()
    assert (job["status"], job["progress"]["percent"]) == ("queued", 0.0)
    assert job["progress"]["video_s_total"] is None and job["progress"]["x_real_time"] is None
    queue = client.get("/jobs/summary").json()
    assert (queue["queued"], queue["video_s_left"], queue["eta_s"]) == (1, None, None), "nothing was indexed before"
    assert client.get(added["links"]["video"]).json()["status"] == "pending"
    assert client.post("/search/text", json={"query": "red"}).json()["results"] == []

    service.work()
    job = client.get(added["links"]["job"]).json()
    assert job["status"] == "succeeded"
    progress = job["progress"]
    assert (progress["done"], progress["total"], progress["unit"], progress["percent"]) == (1, 1, "segments", 100.0)
    assert progress["fraction"] == 1.0 and progress["frames_done"] > 1 and progress["eta_s"] is None
    assert progress["video_s_done"] == progress["video_s_total"] == pytest.approx(2.0, abs=0.2)
    assert progress["x_real_time"] > 0
    queue = client.get("/jobs/summary").json()
    assert (queue["queued"], queue["running"], queue["succeeded"], queue["eta_s"]) == (0, 0, 1, 0.0)
    index = client.get("/index").json()
    assert index["queue"] == queue and index["jobs"]["succeeded"] == 1
    video = client.get(added["links"]["video"]).json()
    assert (video["status"], video["title"], video["metadata"]) == ("ready", "Rosso", {"tags": ["warm", "ü"]})
    assert video["sampling"] == "exact"
    assert video["duration_s"] == pytest.approx(2.0, abs=0.2) and (video["width"], video["height"]) == (64, 48)
    service.add(clip("blue"))

    found = client.post("/search/text", json={"query": "red"}).json()
    assert [hit["title"] for hit in found["results"]] == ["Rosso", "blue-2.0"]
    assert found["results"][0]["video_id"] == added["video_id"]

    changed = client.patch(added["links"]["video"], json={"title": "Rot"})
    assert changed.status_code == 200 and changed.json()["metadata"] == {"tags": ["warm", "ü"]}
    changed = client.patch(added["links"]["video"], json={"metadata": {"n": 1}})
    assert (changed.json()["title"], changed.json()["metadata"]) == ("Rot", {"n": 1})
    assert client.post("/search/text", json={"query": "red", "filter": {"n": 1}}).json()["results"][0]["title"] == "Rot"

    kept = list((service.settings.data / "media").iterdir())
    gone = client.delete(added["links"]["video"])
    assert gone.status_code == 204 and gone.content == b""
    assert client.get(added["links"]["video"]).status_code == 404
    assert client.delete(added["links"]["video"]).status_code == 404
    assert [hit["title"] for hit in client.post("/search/text", json={"query": "red"}).json()["results"]] == [
        "blue-2.0"
    ]
    assert len(list((service.settings.data / "media").iterdir())) == len(kept) - 1
    assert service.incoming() == []


def test_an_answer_has_everything_a_page_needs(filled: Service) -> None:
    answer = filled.client.post("/search/text", json={"query": "green", "top_k": 2})
    assert answer.status_code == 200
    body = answer.json()
    assert set(body) == {
        "query_id", "results", "warnings", "total_indexed", "candidates", "effective", "timings_ms",
    }  # fmt: skip
    assert body["total_indexed"] == 3 and len(body["results"]) == 2
    first = body["results"][0]
    assert (first["rank"], first["title"], first["recall_rank"]) == (1, "all green", None)
    assert first["metadata"] == {"year": 2002, "tags": ["green"]}
    assert set(first["explain"]["grains"]) == {"video_sentence", "video_word", "frame_sentence", "frame_word"}
    assert first["score"] == pytest.approx(sum(first["explain"]["grains"].values()) / 4, abs=1e-3)
    assert first["score"] > body["results"][1]["score"]
    assert {"encode", "recall", "rerank", "hydrate", "total"} <= set(body["timings_ms"])
    assert body["effective"]["scorer"] == "aosm"
    assert body["effective"]["recall"] == "exact" and body["effective"]["model"] == "fake"
    moment = first["moments"][0]
    assert 0 <= moment["start_s"] <= moment["best_s"] <= moment["end_s"] <= first["duration_s"] + 1e-6
    picture = filled.client.get(moment["thumbnail_url"])
    assert picture.headers["content-type"] == "image/jpeg" and picture.content[:2] == b"\xff\xd8"


def test_both_roots_answer_alike_and_link_to_themselves(filled: Service) -> None:
    client = filled.client
    for prefix in ("", "/v1"):
        found = client.post(f"{prefix}/search/text", json={"query": "red"}).json()
        assert found["results"][0]["title"] == "all red"
        assert found["results"][0]["moments"][0]["thumbnail_url"].startswith(f"{prefix}/videos/")
        video = client.get(f"{prefix}/videos").json()["videos"][0]
        assert video["links"]["self"] == f"{prefix}/videos/{video['video_id']}"
        assert client.get(f"{prefix}/jobs").json()["jobs"][0]["links"]["self"].startswith(f"{prefix}/jobs/")
        for path in ("/index", "/scorers", "/models", "/healthz", "/readyz", "/version"):
            assert client.get(f"{prefix}{path}").status_code == 200


def test_a_clip_finds_its_own_video(filled: Service, clip: Clip) -> None:
    for colour in ("red", "green", "blue"):
        with clip(colour, 1.5).open("rb") as file:
            answer = filled.client.post(
                "/search/video", files={"file": ("q.mp4", file)}, data={"options": '{"top_k": 1, "end_s": 1.0}'}
            )
        assert answer.status_code == 200, answer.text
        assert [hit["title"] for hit in answer.json()["results"]] == [f"all {colour}"]
    assert filled.incoming() == []


def test_a_stored_video_leaves_itself_out_unless_asked(filled: Service) -> None:
    red = filled.client.post("/search/text", json={"query": "red", "top_k": 1}).json()["results"][0]["video_id"]
    others = filled.client.post("/search/video", json={"video_id": red, "start_s": 0.5, "end_s": 1.5}).json()["results"]
    assert len(others) == 2 and red not in [hit["video_id"] for hit in others]
    with_self = filled.client.post("/search/video", json={"video_id": red, "include_self": True}).json()["results"]
    assert with_self[0]["video_id"] == red and with_self[0]["score"] == pytest.approx(1.0, abs=0.01)


def test_filters_ids_and_exact(filled: Service) -> None:
    def titles(**options: object) -> list[str]:
        answer = filled.client.post("/search/text", json={"query": "red", **options})
        assert answer.status_code == 200, answer.text
        return [hit["title"] for hit in answer.json()["results"]]

    assert set(titles(filter={"year": {"gte": 2002}})) == {"all green", "all blue"}
    assert titles(filter={"tags": {"in": ["blue"]}}) == ["all blue"]
    assert titles(filter={"not": {"tags": "red"}, "year": {"lt": 2003}}) == ["all green"]
    ids = {video["title"]: video["video_id"] for video in filled.client.get("/videos").json()["videos"]}
    assert titles(video_ids=[ids["all blue"]]) == ["all blue"]
    assert titles(video_ids=[]) == []
    assert titles(recall={"mode": "exact"}) == titles()
    assert titles(top_k=1) == ["all red"]


def test_lists_come_in_pages(filled: Service) -> None:
    for path, key in (("/videos", "videos"), ("/jobs", "jobs")):
        seen, cursor = [], None
        for _ in range(5):
            params = {"limit": 1} | ({"cursor": cursor} if cursor else {})
            page = filled.client.get(path, params=params).json()
            seen += [item[f"{key[:-1]}_id"] for item in page[key]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert len(seen) == len(set(seen)) == 3
    listed = filled.client.get("/videos", params={"filter": '{"year": 2003}', "status": "ready"}).json()["videos"]
    assert [video["title"] for video in listed] == ["all blue"]
    assert filled.client.get("/videos", params={"status": "failed"}).json()["videos"] == []
    some = filled.client.get("/jobs", params={"status": "succeeded", "video_id": listed[0]["video_id"]}).json()["jobs"]
    assert [job["video_id"] for job in some] == [listed[0]["video_id"]]


def test_a_duplicate_is_known_by_its_content(service: Service, clip: Clip) -> None:
    first = service.add(clip("red"))
    copy = clip("red").with_name("copy.mkv")
    shutil.copy(clip("red"), copy)
    again = service.upload(copy, expect=200)
    assert again["video_id"] == first and again["is_duplicate"] is True and again["status"] == "succeeded"
    refused = service.upload(copy, expect=409, on_duplicate="error")
    assert refused["code"] == "duplicate_video"
    assert [path.suffix for path in (service.settings.data / "media").iterdir()] == [".mp4"]
    anew = service.upload(clip("red"), expect=200, on_duplicate="replace")
    assert anew["video_id"] == first and anew["status"] == "queued"
    assert service.client.post("/search/text", json={"query": "red"}).json()["results"] != []
    service.work()
    assert service.client.get(f"/videos/{first}/stream").status_code == 200
    assert service.client.get("/index").json()["videos"] == 1


def test_a_path_inside_of_the_roots(service: Service, clip: Clip) -> None:
    shutil.copy(clip("green"), service.media / "g.mp4")
    answer = service.client.post("/v1/index/video", json={"path": "g.mp4", "metadata": {"a": 1}})
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/v1/jobs/{answer.json()['job_id']}"
    service.work()
    video = service.client.get(answer.json()["links"]["video"])
    assert video.json()["status"] == "ready" and video.json()["file_name"] == "g.mp4"
    assert str(service.media) not in video.text
    links = video.json()["links"]
    assert service.client.get(links["stream"]).content == (service.media / "g.mp4").read_bytes()
    service.client.delete(links["self"])
    assert (service.media / "g.mp4").exists()


def test_wait_holds_the_answer_until_the_job_has_ended(service: Service, clip: Clip) -> None:
    stop = threading.Event()
    thread = threading.Thread(target=service.worker.run, args=(stop,))
    thread.start()
    try:
        with clip("purple").open("rb") as file:
            answer = service.client.post("/index/video?wait=60", files={"file": ("p.mp4", file)})
    finally:
        stop.set()
        thread.join()
    assert (answer.status_code, answer.json()["status"]) == (200, "succeeded")
    with clip("yellow").open("rb") as file:  # nobody works now
        answer = service.client.post("/index/video?wait=0.2", files={"file": ("y.mp4", file)})
    assert (answer.status_code, answer.json()["status"]) == (202, "queued")


def test_cancel_and_retry(service: Service, clip: Clip) -> None:
    added = service.upload(clip("blue"))
    cancelled = service.client.post(f"/jobs/{added['job_id']}/cancel")
    assert cancelled.json()["status"] == "cancelled"
    again = service.client.post(f"/jobs/{added['job_id']}/cancel")
    assert (again.status_code, again.json()["code"]) == (409, "job_conflict")
    service.work()
    assert service.client.get("/index").json()["videos"] == 0
    assert service.client.post(f"/jobs/{added['job_id']}/retry").json()["status"] == "queued"
    service.work()
    assert service.client.get("/index").json()["videos"] == 1
    assert service.client.post(f"/jobs/{added['job_id']}/retry").status_code == 409


def test_junk_fails_with_a_reason_and_the_rest_goes_on(service: Service, clip: Clip, tmp_path: object) -> None:
    junk = clip("red").with_name("junk.mp4")
    junk.write_bytes(b"this is no film at all" * 50)
    added = service.upload(junk)
    service.add(clip("red"))
    job = service.client.get(f"/jobs/{added['job_id']}")
    assert job.json()["status"] == "failed"
    assert job.json()["error"]["code"] in {"unsupported_media", "video_undecodable"}
    assert ".mp4" not in job.json()["error"]["message"], "an uploaded file is called by its digest, which says nothing"
    assert job.json()["error"]["message"] and str(service.settings.data) not in job.text
    video = service.client.get(f"/videos/{added['video_id']}").json()
    assert (video["status"], video["error"]["code"]) == ("failed", job.json()["error"]["code"])
    assert service.client.get("/jobs", params={"status": "failed"}).json()["jobs"][0]["job_id"] == added["job_id"]
    stats = service.client.get("/index").json()
    assert (stats["videos"], stats["jobs"]["failed"]) == (1, 1)


def test_pictures_are_of_the_instant_and_of_the_video(filled: Service) -> None:
    import io

    from PIL import Image

    for video in filled.client.get("/videos").json()["videos"]:
        colour = COLOURS[video["title"].removeprefix("all ")]
        for t in ("0", "1.5", "1e6"):
            answer = filled.client.get(f"/videos/{video['video_id']}/thumbnail", params={"t": t})
            assert answer.status_code == 200, answer.text
            pixel = Image.open(io.BytesIO(answer.content)).convert("RGB").resize((1, 1)).getpixel((0, 0))
            assert all(abs(a - b) < 30 for a, b in zip(pixel, colour, strict=True))


def test_the_service_says_how_it_is(filled: Service) -> None:
    client = filled.client
    assert client.get("/healthz").json() == {"status": "ok"}
    ready = client.get("/readyz").json()
    assert (ready["status"], ready["worker"], ready["warnings"]) == ("ready", "external", [])
    version = client.get("/version").json()
    assert (version["model"], version["fingerprint"]) == ("fake", "fake-1")
    counts = client.get("/index").json()
    assert (counts["videos"], counts["segments"], counts["jobs"]["succeeded"]) == (3, 3, 3)


def test_a_file_that_was_replaced_leaves_nothing_behind(service: Service, clip: Clip) -> None:
    content, media = clip("red").read_bytes(), service.settings.data / "media"
    for name in ("a.mp4", "a.mov"):
        data = {"on_duplicate": "replace"}
        added = service.client.post("/index/video", files={"file": (name, content)}, data=data).json()
        service.work()
        assert [path.suffix for path in media.iterdir()] == [Path(name).suffix]
    assert service.client.delete(f"/videos/{added['video_id']}").status_code == 204
    assert list(media.iterdir()) == []
