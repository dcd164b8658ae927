"""A real server on a real socket: a client that leaves in the middle leaves nothing, and the rest is served on."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn

from tests.e2e.conftest import Clip, Service, make_service

HEAD = b"POST /index/video HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
PART = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\n'


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Service, int]]:
    for service in make_service(tmp_path):
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        server = uvicorn.Server(uvicorn.Config(service.client.app, log_config=None, lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield service, listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()
            listener.close()


def until(is_so: Callable[[], object], what: str) -> None:
    for _ in range(400):
        if is_so():
            return
        time.sleep(0.05)
    pytest.fail(what)


@pytest.mark.parametrize("declared", [b"Content-Length: 1500000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n"])
def test_a_client_that_leaves_in_the_middle(served: tuple[Service, int], clip: Clip, declared: bytes) -> None:
    service, port = served
    with socket.create_connection(("127.0.0.1", port)) as client:
        body = PART + b"x" * 1_200_000
        client.sendall(HEAD + declared + (b"%x\r\n" % len(body) if b"chunked" in declared else b"") + body)
        until(lambda: service.incoming(), "the upload never began")
    until(lambda: not service.incoming(), "the file in flight was left behind")
    with clip("red").open("rb") as file:
        answer = httpx.post(f"http://127.0.0.1:{port}/index/video", files={"file": ("r.mp4", file)})
    assert answer.status_code == 202
    assert len(httpx.get(f"http://127.0.0.1:{port}/jobs").json()["jobs"]) == 1


def test_an_endless_upload_is_answered_at_the_limit_and_hung_up_on(served: tuple[Service, int]) -> None:
    service, port = served
    with socket.create_connection(("127.0.0.1", port)) as client:

        def send_for_ever() -> None:
            piece = b"%x\r\n" % 65536 + b"x" * 65536 + b"\r\n"
            with contextlib.suppress(OSError):  # the server hangs up: that is the point
                while True:
                    client.sendall(piece)

        client.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(PART) + PART + b"\r\n")
        sender = threading.Thread(target=send_for_ever)
        sender.start()
        client.settimeout(60)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while chunk := client.recv(65536):
                answer += chunk
        client.close()
        sender.join()
    assert answer.startswith(b"HTTP/1.1 413") and b"payload_too_large" in answer
    assert b"connection: close" in answer
    until(lambda: not service.incoming(), "the file in flight was left behind")


def test_a_body_that_nobody_asked_for_does_not_end_the_connection(served: tuple[Service, int]) -> None:
    _, port = served
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        for _ in range(3):
            answer = client.post("/jobs/nope/cancel", json={"a": "b" * 1000})
            assert answer.status_code == 404 and "connection" not in answer.headers
        large = client.post("/search/text", content=b"x" * 3_000_000, headers={"content-type": "text/plain"})
        assert large.status_code == 415 and large.headers["connection"] == "close"
