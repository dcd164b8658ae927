"""The loss, the schedule, and a short run of the tiny recipe that ends as a loadable model."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model.losses import symmetric_cross_entropy
from model.registry import load_model
from model.tiny.recipe import StepReport, TinyTraining, train
from model.training.optim import warmup_cosine


def test_loss_is_zero_for_certain_right_answers_and_log_b_for_none() -> None:
    assert symmetric_cross_entropy(100.0 * torch.eye(4)).item() == pytest.approx(0.0, abs=1e-6)
    assert symmetric_cross_entropy(torch.zeros(4, 4)).item() == pytest.approx(math.log(4))


def test_schedule_rises_and_falls() -> None:
    factors = [warmup_cosine(step, 100, 10) for step in range(101)]
    assert factors[0] == pytest.approx(0.1)
    assert max(factors) == factors[9] == pytest.approx(1.0)
    assert factors[100] == pytest.approx(0.0)
    assert factors[9:] == sorted(factors[9:], reverse=True)


def test_a_few_steps_learn_and_make_a_model_that_loads(tmp_path: Path) -> None:
    reports: list[StepReport] = []
    train(tmp_path / "m", TinyTraining(steps=8, batch_size=8, warmup_steps=2, device="cpu", seed=3), reports.append)
    assert reports[-1].step == 8
    assert math.isfinite(reports[-1].loss)
    assert json.loads((tmp_path / "m" / "training.json").read_text())["settings"]["seed"] == 3
    model = load_model(str(tmp_path / "m"), device="cpu")
    assert model.spec.num_frames == 8
    features = model.encode_text(["a red circle moves up"])
    assert features.pieces == (("a", "red", "circle", "moves", "up"),)
    assert int(features.mask.sum()) == 6  # five words and the end token; the start token is left out


def test_a_training_that_ends_early_leaves_the_model_that_was_there(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    settings = TinyTraining(steps=25, batch_size=4, device="cpu")
    train(folder, replace(settings, steps=1))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "merges.txt").write_text("a b\n")
    before["merges.txt"] = b"a b\n"

    def give_up(_: StepReport) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(folder, settings, give_up)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
