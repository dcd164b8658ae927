"""What every request passes: its id, safe headers, one log line, and errors that become problems."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.responses import StreamingResponse
from starlette.testclient import TestClient

from indexer.errors import DuplicateVideo, StorageFull
from service import edge


@pytest.fixture
def client() -> Iterator[TestClient]:
    app = FastAPI()
    edge.install(app)

    @app.get("/fine")
    def fine(number: int = 1) -> dict[str, int]:
        return {"number": number}

    @app.post("/fine")
    def post_fine() -> None:
        return None

    @app.get("/known")
    def known() -> None:
        raise DuplicateVideo("It is there.", "Use the one that is there.", path=Path("/srv/my films/x.mp4"))

    @app.get("/odd-name")
    def odd_name() -> None:
        raise DuplicateVideo("It is there.", path=Path("/srv/\udcff.mp4"))

    @app.get("/full")
    def full() -> None:
        raise StorageFull("full")

    @app.get("/unforeseen")
    def unforeseen() -> None:
        raise RuntimeError("a secret of the program")

    @app.get("/breaks-off")
    def breaks_off() -> StreamingResponse:
        def body() -> Iterator[bytes]:
            yield b"a"
            raise RuntimeError("in the middle")

        return StreamingResponse(body())

    with TestClient(app) as client:
        yield client


def test_an_error_of_ours_is_its_row_of_the_table_without_folders(client: TestClient) -> None:
    answer = client.get("/known")
    assert answer.status_code == 409
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert (body["code"], body["detail"]) == ("duplicate_video", "x.mp4: It is there.")
    assert body["hint"] == "Use the one that is there."
    assert body["request_id"] == answer.headers["x-request-id"]
    assert client.get("/full").json()["retryable"] is True
    assert client.get("/odd-name").json()["detail"].endswith(".mp4: It is there.")


def test_what_we_did_not_foresee_is_internal_and_tells_nothing(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    answer = client.get("/unforeseen")
    assert answer.status_code == 500 and answer.json()["code"] == "internal"
    assert "secret" not in answer.text
    assert any(record.exc_info and "a secret" in str(record.exc_info[1]) for record in caplog.records)


def test_the_frameworks_errors_have_the_same_body(client: TestClient) -> None:
    missing = client.get("/nowhere")
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
    wrong_method = client.delete("/fine")
    assert (wrong_method.status_code, wrong_method.json()["code"]) == (405, "method_not_allowed")
    assert "GET" in wrong_method.headers["allow"]
    invalid = client.get("/fine", params={"number": "x"})
    assert (invalid.status_code, invalid.json()["code"]) == (422, "invalid_request")
    assert invalid.json()["errors"][0]["field"] == "number"
    for answer in (missing, wrong_method, invalid):
        assert answer.headers["content-type"] == "application/problem+json"


def test_the_request_id_comes_in_and_goes_out(client: TestClient) -> None:
    assert client.get("/fine", headers={"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"
    assert client.get("/fine", headers={"x-request-id": "a b"}).headers["x-request-id"] != "a b"
    assert len(client.get("/fine").headers["x-request-id"]) == 32


def test_every_answer_has_safe_headers_and_no_cors(client: TestClient) -> None:
    for path in ("/fine", "/known", "/nowhere", "/unforeseen"):
        headers = client.get(path, headers={"origin": "http://elsewhere.example"}).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'self'" in headers["content-security-policy"]
        assert not [name for name in headers if name.startswith("access-control")]


def test_one_line_per_request_with_the_id(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="vidgrain.edge"):
        client.get("/fine?number=5", headers={"x-request-id": "r-1"})
    (record,) = [record for record in caplog.records if record.getMessage() == "request_served"]
    assert record.__dict__["status"] == 200 and record.__dict__["path"] == "/fine"


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_page_of_another_site_may_read_and_not_write(client: TestClient, site: str) -> None:
    assert client.get("/fine", headers={"sec-fetch-site": site}).status_code == 200
    refused = client.post("/fine", headers={"sec-fetch-site": site})
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden_origin")
    assert client.post("/fine", headers={"sec-fetch-site": "same-origin"}).status_code == 200
    assert client.post("/fine").status_code == 200


def test_a_body_that_breaks_off_is_not_passed_off_as_whole(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(RuntimeError, match="in the middle"):
        client.get("/breaks-off")
    assert "answer_broke_off" in [record.getMessage() for record in caplog.records]
