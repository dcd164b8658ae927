"""kill -9 and SIGTERM to a real training: it goes on to the same losses, weights and figures, and nothing is torn."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from model.registry import load_model
from model.training.log import read_log
from tests.support.server import until
from tests.support.training import losses, num_lines, start_training, write_config, write_start

STEPS = 40
LIMIT_S = 120.0


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The configuration, and the folder of a run of it that nothing disturbed."""
    folder = tmp_path_factory.mktemp("run")
    config = write_config(folder / "run.toml", write_start(folder), steps=STEPS)
    out = folder / "undisturbed"
    assert start_training(config, out).wait(LIMIT_S) == 0, out.with_suffix(".said").read_text()
    return config, out


def told(out: Path) -> list[dict[str, Any]]:
    """What the log says of the training itself, without speeds."""
    kept = ("event", "step", "loss", "learning_rates", "grad_norm", "text_to_video", "is_best", "best_step")
    events = ("step_done", "validated", "finished")
    return [
        {key: line[key] for key in kept if key in line}
        for line in read_log(out / "log.jsonl")
        if line["event"] in events
    ]


def assert_same_run(out: Path, undisturbed: Path) -> None:
    assert losses(out) == losses(undisturbed)
    assert [step for step, _ in losses(out)] == list(range(1, STEPS + 1))
    assert told(out) == told(undisturbed)
    for name in ("last", "best"):
        theirs = load_file(undisturbed / name / "model.safetensors")
        for key, value in load_file(out / name / "model.safetensors").items():
            assert torch.equal(value, theirs[key]), f"{name} {key}"
    assert json.loads((out / "last" / "progress.json").read_text())["step"] == STEPS
    assert sorted(path.name for path in out.iterdir()) == ["best", "last", "log.jsonl", "plot.svg", "run.json"]


def test_a_killed_run_goes_on_to_the_same_losses(undisturbed: tuple[Path, Path], tmp_path: Path) -> None:
    config, whole = undisturbed
    out = tmp_path / "out"
    process = start_training(config, out)
    until(lambda: num_lines(out) >= 20, LIMIT_S, out.with_suffix(".said").read_text)
    process.kill()
    process.wait()
    assert 0 < len(losses(out)) < STEPS
    assert start_training(config, out).wait(LIMIT_S) == 0, out.with_suffix(".said").read_text()
    assert any(line["event"] == "resumed" for line in read_log(out / "log.jsonl"))
    assert_same_run(out, whole)


def test_a_run_that_is_told_to_stop_saves_and_says_how_to_go_on(undisturbed: tuple[Path, Path], tmp_path: Path) -> None:
    config, whole = undisturbed
    out = tmp_path / "out"
    process = start_training(config, out)
    until(lambda: num_lines(out) >= 8, LIMIT_S, out.with_suffix(".said").read_text)
    process.send_signal(signal.SIGTERM)
    assert process.wait(LIMIT_S) == 130
    said = out.with_suffix(".said").read_text()
    stopped = read_log(out / "log.jsonl")[-1]
    assert stopped["event"] == "stopped" and f"stopped at step {stopped['step']} of {STEPS}" in said
    assert "Traceback" not in said
    assert json.loads((out / "last" / "progress.json").read_text())["step"] == stopped["step"]
    assert start_training(config, out).wait(LIMIT_S) == 0
    assert_same_run(out, whole)


def test_what_it_leaves_is_served(undisturbed: tuple[Path, Path]) -> None:
    _, out = undisturbed
    for name in ("best", "last"):
        model = load_model(str(out / name), device="cpu")
        assert (model.spec.kind, model.spec.num_words, model.spec.num_frames) == ("xclip", 8, 4)
        assert bool(model.encode_text(["a red cat"]).sentence.isfinite().all())
    best = json.loads((out / "best" / "validation.json").read_text())
    figures = [line["text_to_video"]["r1"] for line in read_log(out / "log.jsonl") if line["event"] == "validated"]
    assert best["text_to_video"]["r1"] == max(figures)
