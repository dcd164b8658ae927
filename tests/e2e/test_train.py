"""`vidgrain train` as a person types it: presets, real decoding, torchrun, and mistakes said in words."""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from model.datasets.load import load_split
from model.registry import load_model
from model.training.log import read_log
from service.cli.main import main
from tests.e2e.test_cli import Outcome
from tests.support.annotations import write_annotations, write_videos
from tests.support.training import losses, start_training, write_config, write_start

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_start(tmp_path_factory.mktemp("start"))


@pytest.fixture
def vidgrain(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """`vidgrain(*arguments)` in this process and in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
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


def test_presets_are_listed_and_shown(vidgrain: Any) -> None:
    names = vidgrain("train", "--list-presets").out.split()
    assert {"xclip-msrvtt-1ka", "clip4clip-didemo", "clip2video-vatex", "shapes"} <= set(names)
    shown = vidgrain("train", "--show-preset", "xclip-didemo")
    assert tomllib.loads(shown.out)["run"]["batch_size"] == 64


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "--config FILE or a --preset"),
        (("--preset", "nothing"), "There is no preset 'nothing'"),
        (("--show-preset", "nothing"), "There is no preset 'nothing'"),
        (("--preset", "shapes"), "[run] out is needed"),
        (("--preset", "xclip-msvd", "--out", "out"), "videos is needed for msvd"),
        (("--config", "none.toml", "--out", "out"), "none.toml can't be read"),
    ],
)
def test_mistakes_are_answered_in_words(vidgrain: Any, arguments: tuple[str, ...], words: str) -> None:
    said = vidgrain("train", *arguments)
    assert said.status == 2 and words in said.err and "Traceback" not in said.err and said.out == ""


def test_from_real_videos_to_a_model_that_is_measured(vidgrain: Any, start: Path, tmp_path: Path) -> None:
    annotations, videos = tmp_path / "annotations", tmp_path / "videos"
    write_annotations("msrvtt-1ka", annotations, num_videos=4)
    for split in ("train", "val"):
        write_videos(load_split("msrvtt-1ka", split, annotations), videos)
    broken = next(videos.glob("video0.*"))
    broken.write_bytes(b"no video at all")
    config = tmp_path / "run.toml"
    config.write_text(
        f'preset = "xclip-msrvtt-1ka"\n[model]\nstart = "{start}"\nmasks = "masked"\ntemporal_layers = 1\n'
        "[data]\nnum_words = 8\nnum_frames = 4\n[run]\nepochs = 2\nbatch_size = 3\nlog_every = 1\nworkers = 2\n"
    )
    where = ("--videos", videos, "--annotations", annotations)
    done = vidgrain("train", "--config", config, *where, "--out", "out", "--json")
    assert done.status == 0, done.err
    assert done.json["status"] == "finished" and done.json["step"] == 8  # 12 pairs, 4 steps an epoch
    assert "video0" in done.err and "was replaced by another" in done.err
    assert "train: 4 clips, 12 captions" in done.err
    lines = read_log(tmp_path / "out" / "log.jsonl")
    assert [line["step"] for line in lines if line["event"] == "validated"] == [4, 8]
    assert all(line["num_videos"] == 4 for line in lines if line["event"] == "validated")

    measured = vidgrain("evaluate", "--model", "out/best", "--dataset", "msrvtt-1ka", *where, "--no-cache", "--json")
    assert measured.status == 0, measured.err
    best = json.loads((tmp_path / "out" / "best" / "validation.json").read_text())
    assert measured.json["text_to_video"]["mnr"] == pytest.approx(best["text_to_video"]["mnr"])
    assert load_model("out/best", device="cpu").spec.num_frames == 4

    again = vidgrain("train", "--config", config, *where, "--out", "out")
    assert again.status == 0 and "out/best" in again.out
    refused = vidgrain("train", "--config", config, *where, "--out", "out", "--steps", "3")
    assert refused.status == 2 and "run.steps None is now 3" in refused.err and "--fresh" in refused.err


def test_torchrun_gives_the_losses_of_one_process(start: Path, tmp_path: Path) -> None:
    """The rows of a batch, the loss over all of them and the gradients don't depend on how many share the work."""
    config = write_config(tmp_path / "run.toml", start, steps=6, validate_every=3)
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    processes = [start_training(config, alone), start_training(config, shared, launcher=TORCHRUN)]
    for process, out in zip(processes, (alone, shared), strict=True):
        assert process.wait(240) == 0, out.with_suffix(".said").read_text()
    steps, found = zip(*losses(shared), strict=True)
    assert steps == (1, 2, 3, 4, 5, 6)
    assert found == pytest.approx([loss for _, loss in losses(alone)], rel=1e-4)
    lines = read_log(shared / "log.jsonl")
    assert lines[0]["processes"] == 2
    assert [line["event"] for line in lines].count("validated") == 2
    assert shared.with_suffix(".said").read_text().count("measure it with") == 1
