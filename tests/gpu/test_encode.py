"""On a GPU the bundled model gives the features and the ranking it gives on the CPU. Skips where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from model.datasets.shapes import held_out
from model.made_pictures import made_pictures
from model.picture_tower import PictureTower, has_bfloat16
from model.registry import load_model
from tests.unit.model.small import small_network_of

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


def test_bfloat16_keeps_the_direction_and_batches_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = torch.device("cuda")
    if not has_bfloat16(device):
        pytest.skip("this GPU has no bfloat16")
    frames = torch.from_numpy(made_pictures(32)).repeat(5, 1, 1, 1)
    exact = PictureTower(small_network_of("xclip", tmp_path).to(device), device)(frames)
    tower = PictureTower(small_network_of("xclip", tmp_path).to(device), device, "bf16")
    whole = tower(frames)
    assert tower.computed_in == "bf16"
    assert float(torch.nn.functional.cosine_similarity(whole, exact, dim=-1).min()) > 0.999
    monkeypatch.setattr("model.picture_tower.GPU_FRAMES_PER_PASS", 3)
    torch.testing.assert_close(tower(frames), whole, atol=2e-2, rtol=2e-2)


def test_the_bundled_model_in_bfloat16_ranks_as_in_float32() -> None:
    items = held_out(24, 4)
    clips = [item.pixels(8) for item in items]
    exact, fast = (load_model("tiny", device="cuda", precision=precision) for precision in ("fp32", "bf16"))
    texts = exact.encode_text([item.sentence for item in items])
    ranked = [model.score(texts, model.encode_video(clips)).total.argmax(1).cpu() for model in (exact, fast)]
    assert float((ranked[0] == ranked[1]).float().mean()) > 0.9


def test_training_runs_on_the_gpu(tmp_path_factory: pytest.TempPathFactory) -> None:
    from model.tiny.recipe import TinyTraining, train

    report = train(tmp_path_factory.mktemp("tiny"), TinyTraining(steps=4, batch_size=16, device="cuda"))
    assert np.isfinite(report.loss)
