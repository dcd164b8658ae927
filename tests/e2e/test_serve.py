"""`vidgrain serve` as it is started: a socket, a server, a worker beside it; signals, a taken port, a dead worker."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.support.clips import write_clip
from tests.support.server import ROOT, Server, command, environment, is_alive, serving, until
from tests.support.tiny import untrained_tiny


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(untrained_tiny(tmp_path_factory.mktemp("model")))


def test_serve_indexes_uploads_survives_its_worker_and_ends_cleanly(tmp_path: Path, model: str) -> None:
    with serving(tmp_path / "log", data=tmp_path / "data", model=model, device="cpu") as server:
        server.wait_ready()
        assert server.http.get("/version").json()["version"]
        first = until(server.worker_pid)
        assert _upload_and_wait(server, tmp_path, "before", (200, 30, 30)) == "succeeded"

        os.kill(first, signal.SIGKILL)
        second = until(lambda: pid if (pid := server.worker_pid()) not in (None, first) else None)
        assert second and _upload_and_wait(server, tmp_path, "after", (30, 30, 200)) == "succeeded"

        found = server.http.post("/search/text", json={"query": "a red circle"}).json()
        assert sorted(r["title"] for r in found["results"]) == ["after", "before"]

        assert server.stop() == 0
        until(lambda: not is_alive(second))
    said = (tmp_path / "log").read_text()
    assert "Traceback" not in said, said


def test_without_a_worker_nothing_is_indexed(tmp_path: Path, model: str) -> None:
    with serving(tmp_path / "log", "--no-worker", data=tmp_path / "data", model=model, device="cpu") as server:
        server.wait_ready()
        assert server.worker_pid() is None
        job = _upload(server, tmp_path, "waits", (1, 2, 3))
        assert server.http.get(f"/jobs/{job}").json()["status"] == "queued"

        settings = environment(data=tmp_path / "data", model=model, device="cpu")
        with (tmp_path / "worker.log").open("wb") as output:
            worker = subprocess.Popen(command("worker"), cwd=ROOT, env=settings, stderr=output, stdout=output)
        try:
            until(lambda: server.http.get(f"/jobs/{job}").json()["status"] == "succeeded")
        finally:
            worker.send_signal(signal.SIGINT)
        assert worker.wait(30) == 0
        assert "Traceback" not in (tmp_path / "worker.log").read_text()


def test_a_taken_port_is_said_in_words_at_once(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for arguments in (["serve"], ["demo"]):
            done = subprocess.run(
                [*command(*arguments), "--port", str(port)],
                cwd=ROOT,
                env=environment(data=tmp_path / "data", model="tiny"),
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert done.returncode == 2 and done.stdout == ""
            assert f"127.0.0.1:{port}" in done.stderr and "--port" in done.stderr
            assert "Traceback" not in done.stderr
    assert not (tmp_path / "data").exists()


def test_a_model_that_cannot_be_had_ends_the_server_with_the_reason(tmp_path: Path) -> None:
    done = subprocess.run(
        command("serve", "--port", "0"),
        cwd=ROOT,
        env=environment(data=tmp_path / "data", model="no-such-model"),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "no-such-model" in done.stderr and "Traceback" not in done.stderr


def _upload(server: Server, folder: Path, name: str, colour: tuple[int, int, int]) -> str:
    path = write_clip(folder / f"{name}.mp4", [np.full((64, 96, 3), colour, np.uint8)] * 12, fps=10)
    with path.open("rb") as file:
        answer = server.http.post("/index/video", files={"file": (path.name, file, "video/mp4")})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["job_id"])


def _upload_and_wait(server: Server, folder: Path, name: str, colour: tuple[int, int, int]) -> str:
    job = _upload(server, folder, name, colour)
    ended = {"succeeded", "failed", "cancelled"}
    return until(lambda: s if (s := str(server.http.get(f"/jobs/{job}").json()["status"])) in ended else None)


def test_a_player_that_stands_still_does_not_keep_the_server(tmp_path: Path, model: str) -> None:
    settings = {"data": tmp_path / "data", "model": model, "device": "cpu"}
    with serving(tmp_path / "log", "--no-worker", **settings) as server:
        server.wait_ready()
        content = os.urandom(16 * 2**20)  # more than the buffers between us hold
        video = server.http.post("/index/video", files={"file": ("a.mp4", content)}).json()["video_id"]
        with socket.create_connection(("127.0.0.1", server.port)) as player:
            player.sendall(f"GET /videos/{video}/stream HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            assert player.recv(12) == b"HTTP/1.1 200"
            assert server.stop() == 0
