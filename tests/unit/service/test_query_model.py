"""What a server searches with: the model of the settings, in its wrappers."""

from __future__ import annotations

from pathlib import Path

import torch

from model.registry import load_model
from service.query_model import chosen_precision, load_query_model
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


def test_auto_keeps_what_the_folder_is_bound_to_and_a_setting_wins() -> None:
    assert chosen_precision("auto", None) == "auto"
    assert chosen_precision("auto", "fp32") == "fp32"
    assert chosen_precision("auto", "bf16") == "bf16"
    assert chosen_precision("fp32", "bf16") == "fp32"
    assert chosen_precision("bf16", None) == "bf16"


def test_what_a_newer_version_bound_is_left_to_the_fingerprint() -> None:
    assert chosen_precision("auto", "fp4") == "auto"  # type: ignore[arg-type]


def test_the_folder_decides_before_the_machine(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path, device="cpu")
    found = [load_query_model(settings, 1, bound).spec for bound in (None, "fp32", "bf16")]
    assert [spec.precision for spec in found] == ["fp32", "fp32", "bf16"], "the bundled model is small"
    explicit = Settings(data=tmp_path, device="cpu", precision="bf16")
    assert load_query_model(explicit, 1, "fp32").spec == found[2]
