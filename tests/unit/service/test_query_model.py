"""What a server searches with: the model of the settings, in its wrappers."""

from __future__ import annotations

from pathlib import Path

import torch

from model.registry import load_model
from service.query_model import load_query_model
from service.settings import Settings


def test_sentences_are_the_models_own_and_known_ones_are_kept(tmp_path: Path) -> None:
    model = load_query_model(Settings(data=tmp_path, device="cpu"), 1)
    bare = load_model("tiny", device="cpu")
    assert model.spec == bare.spec and model.resize == bare.resize
    alone = bare.encode_text(["a red circle"])
    first, again = (model.encode_text(["a red circle"]) for _ in range(2))
    for found in (first, again):
        assert torch.equal(found.sentence, alone.sentence) and torch.equal(found.words, alone.words)
        assert found.precision == "fp32", "the bundled model is small"
    assert again.sentence is not first.sentence, "the second one was read from memory"
