"""What nobody should send: each is answered by a problem with a code, never by a 500, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Clip, Service, make_service

JSON = {"content-type": "application/json"}


def problem(answer: Any, status: int, code: str) -> dict[str, Any]:
    assert (answer.status_code, answer.json().get("code")) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert {"type", "title", "status", "detail", "retryable", "request_id"} <= set(body)
    assert body["status"] == status and body["request_id"] == answer.headers["x-request-id"]
    return body


@pytest.mark.parametrize(
    "path",
    [
        "../secret.mp4",
        "/etc/passwd",
        "films/../../secret.mp4",
        "leak.mp4",
        "door/secret.mp4",
        "a\u0001\u202e/../../x",
        "~root/x",
    ],
)
def test_paths_that_lead_out(service: Service, path: str) -> None:
    outside = service.media.parent / "secret.mp4"
    outside.write_bytes(b"secret")
    (service.media / "leak.mp4").symlink_to(outside)
    (service.media / "door").symlink_to(service.media.parent)
    answer = service.client.post("/index/video", json={"path": path})
    assert answer.status_code in {403, 404}, answer.text
    assert answer.json()["code"] in {"path_not_allowed", "not_found"}
    assert service.client.get("/videos").json()["videos"] == []


def test_without_roots_no_path_is_read_and_the_way_out_is_told(tmp_path: Path) -> None:
    for service in make_service(tmp_path, media_roots=()):
        body = problem(service.client.post("/index/video", json={"path": "/etc/passwd"}), 403, "path_not_allowed")
        assert "VIDGRAIN_MEDIA_ROOTS" in body["hint"]


def test_paths_that_are_no_files(service: Service) -> None:
    (service.media / "folder").mkdir()
    (service.media / "empty.mp4").touch()
    problem(service.client.post("/index/video", json={"path": "folder"}), 422, "invalid_request")
    problem(service.client.post("/index/video", json={"path": "gone.mp4"}), 404, "not_found")
    problem(service.client.post("/index/video", json={"path": "a\x00b"}), 422, "invalid_request")
    problem(service.client.post("/index/video", json={"path": "x" * 4097}), 422, "invalid_request")
    problem(service.client.post("/index/video", json={"path": "empty.mp4"}), 415, "unsupported_media")


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"", 400), (b"{", 400), (b"[]", 422), (b"null", 422), (b'"x"', 422), (b"\xff\xfe", 400),
        (b'{"query": NaN}', 400),
        (b'{"query": "\\ud800"}', 400), (b'{"query": ["a"]}', 422), (b'{"query": "a", "top_k": 1e400}', 400),
        (b'{"query": "a", "top_k": 99999999999999999999}', 422), (b'{"query": "a", "top_k": -1}', 422),
        (b'{"query": "a", "moments_per_video": 100000}', 422), (b'{"query": "a", "audit": true}', 422),
        (b'{"query": "a", "video_ids": "abc"}', 422), (b"[" * 100_000, 400),
        (b'{"query": "' + b"a" * 2**20 + b'"}', 413),
    ],
)  # fmt: skip
def test_bodies_that_are_no_search(filled: Service, raw: bytes, status: int) -> None:
    code = "payload_too_large" if status == 413 else "invalid_request"
    problem(filled.client.post("/search/text", content=raw, headers=JSON), status, code)


@pytest.mark.parametrize(
    "filter",
    [
        {"year": {"near": 5}}, {"year": {"in": 5}}, {"not": 5}, {"or": {}}, {"x": {"gte": {"a": 1}}},
        {"year": {"eq": 10**30}}, {"a'; drop table videos; --": {"gt": []}},
        {"or": [{"or": [{"or": [{"or": [{}]}]}]}] * 40},
        {"year": {"in": list(range(50_000))}}, {"\u0000": 1}, {"": 1}, {"x" * 5000: 1}, {"tags": {"exists": "yes"}},
    ],
)  # fmt: skip
def test_filters_that_are_none_or_huge(filled: Service, filter: dict[str, Any]) -> None:
    answer = filled.client.post("/search/text", json={"query": "red", "filter": filter})
    assert answer.status_code in {200, 422}, answer.text
    if answer.status_code == 422:
        problem(answer, 422, "invalid_filter")
    assert len(filled.client.get("/videos").json()["videos"]) == 3


def test_a_deep_filter(filled: Service) -> None:
    deep: dict[str, Any] = {"year": 1}
    for _ in range(60):
        deep = {"not": deep}
    problem(filled.client.post("/search/text", json={"query": "red", "filter": deep}), 422, "invalid_filter")


def test_queries_with_codes_of_their_own(filled: Service) -> None:
    for empty in ("", "   ", "\n\t"):
        problem(filled.client.post("/search/text", json={"query": empty}), 422, "empty_query")
    problem(filled.client.post("/search/text", json={"query": "x" * 2001}), 422, "query_too_long")
    for odd in ("x" * 2000, "🎬" * 500, "\u202ered", "r\u0301ed", "\u0000", "'; --", "%s %n", "\ufffe"):
        answer = filled.client.post("/search/text", json={"query": odd})
        assert answer.status_code in {200, 422}, answer.text


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "application/xml", "", "multipart/form-data; boundary=x"],
)
def test_types_that_are_not_read(filled: Service, content_type: str) -> None:
    headers = {"content-type": content_type}
    answer = filled.client.post("/search/text", content=b'{"query": "red"}', headers=headers)
    problem(answer, 415, "unsupported_content_type")
    if not content_type.startswith("multipart"):
        for path in ("/index/video", "/search/video"):
            problem(filled.client.post(path, content=b"{}", headers=headers), 415, "unsupported_content_type")


@pytest.mark.parametrize(
    "id", ["nope", "0" * 16, "..", "%2e%2e%2fsecret", "%00", "%ff", "a" * 3000, "é", "1 or 1=1", "%2F"]
)
def test_ids_that_are_none(filled: Service, id: str) -> None:
    for method, path in [
        ("GET", f"/videos/{id}"), ("DELETE", f"/videos/{id}"), ("GET", f"/videos/{id}/stream"),
        ("GET", f"/videos/{id}/thumbnail"), ("GET", f"/jobs/{id}"),
        ("POST", f"/jobs/{id}/cancel"), ("POST", f"/jobs/{id}/retry"),
    ]:  # fmt: skip
        answer = filled.client.request(method, path)
        assert answer.status_code in {404, 405, 200} and (answer.status_code != 200 or id == ".."), (path, answer.text)
    answer = filled.client.post("/search/video", json={"video_id": "nope"})
    problem(answer, 404, "not_found")
    assert len(filled.client.get("/videos").json()["videos"]) == 3


@pytest.mark.parametrize("path", ["/videos", "/jobs"])
@pytest.mark.parametrize(
    "query",
    ["cursor=garbage", "cursor=%00", "cursor=" + "A" * 500, "cursor=" + "A" * 600,
     "limit=0", "limit=100000", "limit=x", "status=x", "x=1",
     "limit=1e3", "cursor=eyJhIjoxfQ", "cursor=-1", "limit=" + "9" * 400],
)  # fmt: skip
def test_lists_that_are_none(filled: Service, path: str, query: str) -> None:
    answer = filled.client.get(f"{path}?{query}")
    assert answer.status_code == 422, answer.text
    assert answer.json()["code"] in {"invalid_request", "invalid_query"}


@pytest.mark.parametrize("filter", ["x", "[]", "1", '{"a": NaN}', '{"a": {"b": 1}}', "{" * 500, ""])
def test_a_list_filter_that_is_none(filled: Service, filter: str) -> None:
    answer = filled.client.get("/videos", params={"filter": filter})
    assert answer.status_code in {400, 422}, answer.text


@pytest.mark.parametrize("t", ["x", "-1", "nan", "inf", "1e400", ""])
def test_instants_that_are_none(filled: Service, t: str) -> None:
    video_id = filled.client.get("/videos").json()["videos"][0]["video_id"]
    problem(filled.client.get(f"/videos/{video_id}/thumbnail?t={t}"), 422, "invalid_request")


@pytest.mark.parametrize(
    "range", [{"start_s": -1}, {"start_s": 2, "end_s": 1}, {"start_s": 1e9}, {"start_s": "0"}, {"end_s": 0}]
)
def test_ranges_that_hold_nothing(filled: Service, range: dict[str, Any]) -> None:
    video_id = filled.client.get("/videos").json()["videos"][0]["video_id"]
    answer = filled.client.post("/search/video", json={"video_id": video_id, **range})
    assert answer.status_code == 422, answer.text


def test_an_oversize_upload_leaves_nothing(service: Service) -> None:
    too_much = b"x" * 2_000_001
    answer = service.client.post("/index/video", files={"file": ("a.mp4", too_much)})
    body = problem(answer, 413, "payload_too_large")
    assert "VIDGRAIN_MAX_UPLOAD_BYTES" in body["hint"]
    problem(service.client.post("/search/video", files={"file": ("a.mp4", too_much)}), 413, "payload_too_large")
    assert service.incoming() == [] and not (service.settings.data / "media").exists()
    assert service.client.get("/jobs").json()["jobs"] == []


def test_forms_that_are_none(service: Service) -> None:
    client = service.client
    form = {"content-type": "multipart/form-data; boundary=b"}
    start = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\n'
    for path in ("/index/video", "/search/video"):
        problem(client.post(path, content=start + b"cut", headers=form), 400, "invalid_request")
        problem(client.post(path, content=b"junk", headers=form), 400, "invalid_request")
        problem(client.post(path, content=b"", headers={"content-type": "multipart/form-data"}), 400, "invalid_request")
        problem(client.post(path, files={"other": ("a.mp4", b"x")}), 422, "invalid_request")
        problem(client.post(path, content=b"--b--\r\n", headers=form), 422, "invalid_request")
    for path, name in (("/index/video", "metadata"), ("/search/video", "options")):
        file = {"file": ("a.mp4", b"x")}
        problem(client.post(path, files=file, data={name: "{"}), 400, "invalid_request")
        problem(client.post(path, files=file, data={name: "[1]"}), 422, "invalid_request")
        problem(client.post(path, files=file, data={name: '{"a": "\\ud800"}'}), 400, "invalid_request")
        problem(client.post(path, files=file, data={"surprise": "1"}), 422, "invalid_request")
    problem(client.post("/index/video", files={"file": ("a.mp4", b"")}), 422, "invalid_request")
    problem(
        client.post("/index/video", files={"file": ("a.mp4", b"x")}, data={"title": "x" * 501}), 422, "invalid_request"
    )
    problem(
        client.post("/index/video", files={"file": ("a", b"x")}, data={"on_duplicate": "x"}), 422, "invalid_request"
    )
    problem(client.post("/index/video?wait=61", files={"file": ("a.mp4", b"x")}), 422, "invalid_request")
    assert service.incoming() == [] and client.get("/jobs").json()["jobs"] == []


def test_metadata_that_is_large_deep_or_odd(service: Service, clip: Clip) -> None:
    content = clip("red").read_bytes()
    deep = '{"a":' * 150 + "1" + "}" * 150
    for metadata, statuses in [
        ('{"a": "' + "x" * 70_000 + '"}', {422}),
        (deep, {202, 422}),
        ('{"": {"\\u0000": 1}}', {202, 200, 422}),
        ('{"big": ' + "9" * 400 + "}", {202, 200, 422}),
        ('{"é\\u202e🎬": "\\uffff"}', {202, 200}),
    ]:
        answer = service.client.post("/index/video", files={"file": ("a.mp4", content)}, data={"metadata": metadata})
        assert answer.status_code in statuses, answer.text
    service.work()
    for path in ("/videos", "/jobs"):
        assert service.client.get(path).status_code == 200
    assert service.client.post("/search/text", json={"query": "red"}).status_code == 200


def test_a_query_clip_that_is_no_film(filled: Service) -> None:
    for junk in (b"junk" * 100, b"", b"\x00" * 5000):
        answer = filled.client.post("/search/video", files={"file": ("a.mp4", junk)})
        assert answer.status_code in {415, 422}, answer.text
        assert str(filled.settings.data) not in answer.text and "a.mp4" in answer.json()["detail"]
    assert filled.incoming() == []


def test_changes_that_are_none(filled: Service) -> None:
    url = filled.client.get("/videos").json()["videos"][0]["links"]["self"]
    for body in (
        {},
        {"title": None},
        {"title": ""},
        {"metadata": [1]},
        {"id": "x"},
        {"path": "/etc/passwd"},
        {"title": 5},
    ):
        problem(filled.client.patch(url, json=body), 422, "invalid_request")
    problem(filled.client.patch("/videos/nope", json={"title": "x"}), 404, "not_found")


def test_paths_and_methods_that_are_none(filled: Service) -> None:
    for path in (
        "/nope",
        "/v1",
        "/v1/nope",
        "/v2/videos",
        "/videos/",
        "/web/../service/app.py",
        "/web/%2e%2e/app.py",
    ):
        problem(filled.client.get(path), 404, "not_found")
    problem(filled.client.put("/videos"), 405, "method_not_allowed")
    problem(filled.client.get("/search/text"), 405, "method_not_allowed")
