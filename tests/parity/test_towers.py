"""The towers against the official ones, on the tiny CLIP of the golden cases."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from model.backbone import Backbone, build_backbone
from tests.parity.golden import GoldenCase, golden_folder, load_case, tiny_clip_config, write_tiny_merges


@pytest.fixture(scope="module")
def case() -> GoldenCase:
    return load_case("e2e/clip_towers")


@pytest.fixture(scope="module")
def backbone(case: GoldenCase, tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    merges = write_tiny_merges(tmp_path_factory.mktemp("vocabulary"))
    built = build_backbone(tiny_clip_config(case.config), weights=None, merges=merges)
    built.clip.load_state_dict(case.state())
    return built


def test_frames_match_the_official_tower(case: GoldenCase, backbone: Backbone) -> None:
    with torch.inference_mode():
        case.check("out.frame_embedding", backbone.encode_frames(case["in.pixels"].float().flatten(0, 1)))


def test_words_and_sentences_match_the_official_tower(case: GoldenCase, backbone: Backbone) -> None:
    with torch.inference_mode():
        sentence, words = backbone.encode_words(case["in.input_ids"])
    case.check("out.sentence_embedding", sentence)
    case.check("out.word_features", words)


def test_the_state_file_loads_as_weights(case: GoldenCase, tmp_path: Path) -> None:
    file = Path(golden_folder()) / "e2e" / "clip_tiny_state.safetensors"
    loaded = build_backbone(tiny_clip_config(case.config), weights=file, merges=write_tiny_merges(tmp_path))
    state = loaded.clip.state_dict()
    assert all(torch.equal(state[key], value) for key, value in case.state().items())
