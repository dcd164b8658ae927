"""On a GPU the bundled model gives the features and the ranking it gives on the CPU. Skips where there is none."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from model.datasets.shapes import held_out
from model.registry import load_model

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


def test_gpu_and_cpu_agree() -> None:
    items = held_out(24, 4)
    clips = [item.pixels(8) for item in items]
    found = []
    for device in ("cpu", "cuda"):
        model = load_model("tiny", device=device)
        videos, texts = model.encode_video(clips), model.encode_text([item.sentence for item in items])
        found.append(model.score(texts, videos).total.cpu().numpy())
    np.testing.assert_allclose(found[0], found[1], atol=2e-3)
    assert (found[0].argmax(1) == found[1].argmax(1)).all()


def test_training_runs_on_the_gpu(tmp_path_factory: pytest.TempPathFactory) -> None:
    from model.tiny.recipe import TinyTraining, train

    report = train(tmp_path_factory.mktemp("tiny"), TinyTraining(steps=4, batch_size=16, device="cuda"))
    assert np.isfinite(report.loss)
