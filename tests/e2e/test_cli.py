"""The command line as a person types it: real clips, a real model, a real index; stdout is data, errors are words."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from service.app import create_app
from service.cli.main import commands, main
from service.settings import load_settings
from tests.support.clips import write_clip
from tests.support.server import ROOT, command, environment, until
from tests.support.tiny import untrained_tiny

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220)}


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """stdout as JSON: nothing else may be there."""
        return json.loads(self.out)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(untrained_tiny(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips (one in a folder below), a copy of one, a text named .mp4, and files that are none of ours."""
    folder = tmp_path_factory.mktemp("clips")
    (folder / "below").mkdir()
    for number, (name, colour) in enumerate(COLOURS.items()):
        place = folder / "below" if name == "blue" else folder
        frames = [np.full((64, 96, 3), colour, np.uint8) for _ in range(10 + number)]
        write_clip(place / f"{name}.mp4", frames, fps=10)
    (folder / "copy.MP4").write_bytes((folder / "red.mp4").read_bytes())
    (folder / "text.mp4").write_text("no video at all\n" * 50)
    (folder / "notes.txt").write_text("not looked at")
    (folder / ".hidden.mp4").write_text("not looked at")
    return folder


@pytest.fixture
def vidgrain(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """`vidgrain(*arguments)` in this process, on a data folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VIDGRAIN_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("VIDGRAIN_MODEL", model)
    monkeypatch.setenv("VIDGRAIN_DEVICE", "cpu")

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        try:
            main([str(a) for a in arguments])
            status = 0
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        said = capsys.readouterr()
        return Outcome(status, said.out, said.err)

    yield run


def test_help_is_quick_because_nothing_heavy_is_imported() -> None:
    script = (
        "import sys, service.cli.main; "
        "print(sorted({'torch', 'fastapi', 'faiss', 'av', 'open_clip'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_command_of_the_issue_is_there(vidgrain: Any) -> None:
    wanted = {
        "serve",
        "worker",
        "index",
        "search",
        "videos",
        "jobs",
        "models",
        "evaluate",
        "convert",
        "train-tiny",
        "doctor",
        "demo",
        "version",
    }
    assert wanted <= set(commands())
    said = vidgrain("--help")
    assert said.status == 0 and all(name in said.out for name in wanted)


def test_index_search_list_remove(vidgrain: Any, clips: Path) -> None:
    indexed = vidgrain("index", clips, "--json")
    assert indexed.status == 1, indexed
    report = indexed.json
    assert (report["indexed"], report["already_there"]) == (3, 1)
    assert [Path(f["path"]).name for f in report["failed"]] == ["text.mp4"]
    assert report["failed"][0]["error"]["code"] == "unsupported_media" and "text.mp4" in indexed.err
    assert indexed.err.startswith("5 of 5") and "\x1b" not in indexed.err, "plain lines where stderr is no terminal"

    again = vidgrain("index", clips)
    assert again.status == 1 and again.out.startswith("0 indexed, 4 already there, 1 failed")

    found = vidgrain("search", "a red circle", "--top-k", 2, "--json")
    assert found.status == 0
    results = found.json["results"]
    assert len(results) == 2 and found.json["total_indexed"] >= 3
    assert results[0]["score"] >= results[1]["score"]
    best = results[0]["moments"][0]
    assert 0 <= best["start_s"] <= best["best_s"] <= best["end_s"] <= 1.3
    assert set(results[0]["explain"]["grains"]) == {"video_sentence", "video_word", "frame_sentence", "frame_word"}

    for options in ([], ["--exact"]):
        by_clip = vidgrain("search", "--video", clips / "green.mp4", "--json", *options)
        titles = [r["title"] for r in by_clip.json["results"]]
        assert sorted(titles) == ["blue", "green", "red"] or "copy" in titles

    table = vidgrain("search", "--video", clips / "green.mp4")
    assert table.status == 0 and "best second" in table.out and "green" in table.out

    videos = vidgrain("videos", "--json").json["videos"]
    assert sorted(v["status"] for v in videos) == ["failed", "ready", "ready", "ready"]
    jobs = vidgrain("jobs", "--json").json["jobs"]
    assert sorted(j["status"] for j in jobs) == ["failed", "succeeded", "succeeded", "succeeded"]
    assert "unsupported_media" in vidgrain("jobs").out

    one = next(v["video_id"] for v in videos if v["title"] == "blue")
    assert vidgrain("remove", one).out.strip() == one
    assert one not in [v["video_id"] for v in vidgrain("videos", "--json").json["videos"]]
    assert (clips / "below" / "blue.mp4").exists(), "a file that is not the index's own stays"
    assert vidgrain("remove", one).status == 2


def test_the_command_line_prints_what_http_answers_and_the_paths(vidgrain: Any, clips: Path, model: str) -> None:
    """One dialect: the same keys and values; only a file's path and a model's folder are added on this machine."""
    vidgrain("index", clips / "red.mp4", clips / "text.mp4")
    videos, jobs = vidgrain("videos", "--json").json, vidgrain("jobs", "--limit", 1, "--json").json
    found = vidgrain("search", "a red circle", "--json").json
    models = vidgrain("models", "--json").json
    with TestClient(create_app(load_settings())) as client:
        answers = {path: client.get(path) for path in ("/videos", "/jobs?limit=1", "/models", "/index", "/version")}
        answers["search"] = client.post("/search/text", json={"query": "a red circle"})
        for answer in answers.values():
            assert str(clips) not in answer.text and str(Path(model).parent) not in answer.text
    assert {Path(video.pop("path")).name for video in videos["videos"]} == {"red.mp4", "text.mp4"}
    assert videos == answers["/videos"].json()
    assert jobs == answers["/jobs?limit=1"].json() and jobs["next_cursor"] is not None
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", jobs["jobs"][0]["created_at"])

    assert [Path(result.pop("path")).name for result in found["results"]] == ["red.mp4"]
    assert found["effective"].pop("model") == model
    answer = answers["search"].json()
    assert answer["effective"].pop("model") == Path(model).name
    for one in (found, answer):
        del one["query_id"], one["timings_ms"]
    assert found == answer

    served, http_served = models["models"][0], answers["/models"].json()["models"][0]
    assert served["name"] == model and http_served["name"] == Path(model).name
    unread = {"name": "", "fingerprint": "", "precision": ""}  # what only the loaded model shows
    assert served | unread == http_served | unread


def test_a_filter_narrows_a_search(vidgrain: Any, clips: Path) -> None:
    vidgrain("index", clips / "red.mp4", clips / "green.mp4")
    kept = vidgrain("search", "anything", "--filter", '{"title": "green"}', "--json")
    assert [r["title"] for r in kept.json["results"]] == ["green"]
    for wrong in ("{", "[1]", '{"title": {"almost": "green"}}'):
        assert vidgrain("search", "anything", "--filter", wrong).status == 2


def test_a_search_is_scored_as_asked(vidgrain: Any, clips: Path) -> None:
    vidgrain("index", clips / "red.mp4", clips / "green.mp4")
    assert vidgrain("search", "a red circle", "--json").json["effective"]["scorer"] == "aosm"
    for query in (("a red circle",), ("--video", clips / "red.mp4")):
        found = vidgrain("search", *query, "--scorer", "max_frame", "--json").json
        assert found["effective"]["scorer"] == "max_frame"
        assert [list(hit["explain"]["grains"]) for hit in found["results"]] == [["frame_sentence"]] * 2
    refused = vidgrain("search", "a red circle", "--scorer", "tight")
    assert refused.status == 2 and "'tight'" in refused.err and "aosm, multi_grained" in refused.err


def test_the_setting_of_candidates_counts_for_a_search(
    vidgrain: Any, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vidgrain("index", clips / "red.mp4")
    monkeypatch.setenv("VIDGRAIN_CANDIDATES", "7")
    assert vidgrain("search", "a red circle", "--json").json["effective"]["candidates"] == 7


def test_models_at_hand_are_listed(vidgrain: Any, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "models" / "broken"
    broken.mkdir(parents=True)
    (broken / "config.json").write_text("{}")
    monkeypatch.setenv("VIDGRAIN_MODELS", os.pathsep.join([str(broken.parent), model]))
    listed = vidgrain("models", "--json").json["models"]
    assert [one["name"] for one in listed if one["is_served"]] == [model] == [listed[0]["name"]]
    assert listed[0]["scorers"][0] == "aosm" and listed[0]["error"] is None
    by_name = {one["name"]: one for one in listed}
    assert len(by_name) == len(listed), "each is listed once"
    assert by_name[str(broken)]["error"]["code"] == "checkpoint_mismatch" and by_name["tiny"]["kind"] == "xclip"
    table = vidgrain("models")
    assert table.status == 0 and "checkpoint_mismatch" in table.out and "TDB" in table.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("search",), "--video"),
        (("search", "a", "--video", __file__), "--video"),
        (("search", "a", "--model", "no-such-model"), "no-such-model"),
        (("search", "   "), "empty"),
        (("search", "x" * 2001), "2001 characters"),
        (("videos", "--data", __file__), "can't be made"),
        (("train-tiny", "--out", __file__), "can't be made"),
        (("demo", "--no-serve", "--folder", __file__), "can't be made"),
        (("index", "nowhere"), "nowhere"),
        (("index", "."), "no video files"),
        (("nonsense",), "nonsense"),
    ],
)
def test_mistakes_are_answered_in_words(vidgrain: Any, arguments: tuple[str, ...], words: str) -> None:
    said = vidgrain(*arguments)
    assert said.status == 2
    assert words in said.err and "Traceback" not in said.err and said.out == ""


def test_a_wrong_setting_is_named(vidgrain: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDGRAIN_LEASE_S", "soon")
    said = vidgrain("videos")
    assert said.status == 2 and "VIDGRAIN_LEASE_S" in said.err and "Traceback" not in said.err


def test_data_of_another_model_are_refused_with_the_way_out(vidgrain: Any, clips: Path, tmp_path: Path) -> None:
    vidgrain("index", clips / "red.mp4")
    other = untrained_tiny(tmp_path / "other")
    weights = bytearray((other / "model.safetensors").read_bytes())
    weights[-2] ^= 1  # one bit of one weight: another model
    (other / "model.safetensors").write_bytes(weights)
    said = vidgrain("search", "a", "--model", other)
    assert said.status == 2 and said.err.startswith("error: ")
    assert len(said.err.strip().splitlines()) >= 2, "the second line says what to do"


def test_doctor_finds_all_well_and_says_what_is_not(vidgrain: Any) -> None:
    well = vidgrain("doctor", "--json")
    checks = {c["name"]: c for c in well.json["checks"]}
    assert well.status == 0, [c for c in checks.values() if c["status"] == "fail"]
    expected = "python packages faiss device kernel resize decoder data_folder model index redis"
    assert {name.replace(" ", "_") for name in checks} == set(expected.split())
    assert "read the right frames" in checks["decoder"]["found"]

    ill = vidgrain("doctor", "--model", "no-such-model")
    assert ill.status == 1 and "FAIL" in ill.out and "unknown_model" in ill.out


def test_ctrl_c_leaves_the_rest_queued_and_the_next_run_finishes(tmp_path: Path, model: str) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    rng = np.random.default_rng(3)
    for number in range(40):
        colour = rng.integers(0, 255, 3)
        write_clip(folder / f"{number:02d}.mp4", [np.full((64, 96, 3), colour, np.uint8)] * 200, fps=10)
    settings = environment(data=tmp_path / "data", model=model, device="cpu", max_segment_s=0.25, worker_decoders=1)
    log = tmp_path / "log"
    with log.open("wb") as output:
        running = subprocess.Popen(
            command("index", str(folder)), cwd=ROOT, env=settings, stderr=output, stdout=subprocess.PIPE
        )
    until(lambda: _num_succeeded(tmp_path / "data" / "catalogue.sqlite") >= 1, 60, lambda: log.read_text())
    running.send_signal(signal.SIGINT)
    out, _ = running.communicate(timeout=60)
    assert running.returncode == 130, (out, log.read_text())
    assert "same command again" in " ".join(log.read_text().split()) and b"Traceback" not in log.read_bytes()

    done = subprocess.run(
        command("index", str(folder), "--json"), cwd=ROOT, env=settings, capture_output=True, text=True, timeout=120
    )
    report = json.loads(done.stdout)
    assert done.returncode == 0 and report["failed"] == [], done.stderr[-2000:]
    assert report["indexed"] + report["already_there"] == 40


def _num_succeeded(catalogue: Path) -> int:
    """Jobs done so far, read from outside while another process writes."""
    if not catalogue.exists():
        return 0
    with closing(sqlite3.connect(f"file:{catalogue}?mode=ro", uri=True)) as db:
        try:
            return int(db.execute("SELECT COUNT(*) FROM jobs WHERE status = 'succeeded'").fetchone()[0])
        except sqlite3.OperationalError:  # not made yet
            return 0
