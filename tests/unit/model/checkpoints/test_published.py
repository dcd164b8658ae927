"""Folders as others publish them: which file counts, and what lies beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from model.backbone import Backbone, build_backbone
from model.checkpoints.hugging_face import hf_config
from model.checkpoints.layouts import from_official
from model.checkpoints.published import open_clip_weights, read_open_clip, read_published
from model.errors import CheckpointMismatch, TokenizerUnavailable, UnknownModel, VidgrainError
from model.network import MaskReading
from model.preprocess import Preprocess
from model.registry import load_model, load_network
from tests.unit.model.small import small_config, write_merges

PIXELS = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "interpolation": "bilinear", "resize_mode": "squash"}
EXPECTED = Preprocess(32, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), "bilinear", "squash")
READINGS: tuple[MaskReading, ...] = ("masked", "reference")
OPEN_CLIP_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


def hub_folder(folder: Path, file: str = OPEN_CLIP_FILES[0], **changes: Any) -> Backbone:
    """A folder as open_clip's own upload leaves it; `changes` go into open_clip_config.json."""
    torch.manual_seed(4)
    folder.mkdir(exist_ok=True)
    backbone = build_backbone(small_config() | {"quick_gelu": False}, merges=write_merges(folder))
    values = {"model_cfg": backbone.model_cfg, "preprocess_cfg": PIXELS} | changes
    (folder / "open_clip_config.json").write_text(json.dumps(values))
    state = backbone.clip.state_dict()
    if file.endswith((".bin", ".pt")):
        torch.save(state, folder / file)
    else:
        save_file(state, folder / file)
    return backbone


def assert_same_towers(one: Backbone, other: Backbone) -> None:
    mine, theirs = one.state_dict(), other.state_dict()
    assert mine.keys() == theirs.keys() and all(torch.equal(value, theirs[name]) for name, value in mine.items())


@pytest.mark.parametrize("file", [*OPEN_CLIP_FILES, "model.safetensors", "epoch_3.pt"])
def test_a_folder_of_open_clip_loads_with_its_own_preprocessing(
    file: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """GELU and heads 16 wide, which no shape tells; the config does."""
    backbone = hub_folder(tmp_path / "openai-hub", file)
    network = load_network(str(tmp_path / "openai-hub"), num_frames=3)
    assert (network.kind, network.num_frames, network.masks) == ("xclip", 3, "masked")
    assert network.backbone.preprocess == EXPECTED and network.backbone.model_cfg == backbone.model_cfg
    assert_same_towers(network.backbone, backbone)
    assert network.backbone.tokenize(["red dog"], 8)[2] == (("red", "dog"),)
    if file.startswith("open_clip"):
        alone = load_network(str(tmp_path / "openai-hub" / file))
        assert_same_towers(alone.backbone, backbone)
        assert alone.backbone.preprocess == EXPECTED
    assert not caplog.records


def test_of_a_folder_with_both_libraries_files_open_clips_count(tmp_path: Path) -> None:
    """As hubs often hold them; a folder with only Hugging Face's half downloaded is read as that."""
    backbone = hub_folder(tmp_path)
    official = {f"clip.{name}": value for name, value in backbone.clip.state_dict().items()}
    save_file(from_official(official, "hugging_face"), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(hf_config(backbone.model_cfg)))
    assert open_clip_weights(tmp_path) == tmp_path / OPEN_CLIP_FILES[0]
    assert load_network(str(tmp_path)).kind == "xclip"
    assert open_clip_weights(tmp_path / "model.safetensors") is None
    (tmp_path / OPEN_CLIP_FILES[0]).unlink()
    assert open_clip_weights(tmp_path) is None
    network = load_network(str(tmp_path))
    assert network.kind == "clip4clip" and network.backbone.preprocess == Preprocess(32)
    assert_same_towers(network.backbone, backbone)


def test_our_own_folder_and_an_empty_one_are_none_of_open_clips(tmp_path: Path) -> None:
    hub_folder(tmp_path)
    (tmp_path / "config.json").write_text('{"format": "vidgrain-2"}')
    assert open_clip_weights(tmp_path) is None
    (tmp_path / "config.json").unlink()
    (tmp_path / OPEN_CLIP_FILES[0]).unlink()
    assert open_clip_weights(tmp_path) is None
    with pytest.raises(UnknownModel):
        load_network(str(tmp_path))
    for name in ("one.safetensors", "two.safetensors"):
        save_file({"a": torch.ones(1)}, tmp_path / name)
    with pytest.raises(CheckpointMismatch, match=r"2 files of weights.*open_clip_model\.safetensors"):
        load_network(str(tmp_path))


@pytest.mark.parametrize(
    ("changes", "error", "told"),
    [
        ({"model_cfg": None}, CheckpointMismatch, "no model_cfg"),
        ({"model_cfg": {"embed_dim": 32, "vision_cfg": {}}}, CheckpointMismatch, "needs vision_cfg and text_cfg"),
        ({"model_cfg": {"embed_dim": 32, "vision_cfg": {"image_size": [32, 48]}, "text_cfg": {}}}, None, "square"),
        ({"preprocess_cfg": [1]}, CheckpointMismatch, "preprocess_cfg"),
        ({"preprocess_cfg": {"mean": [1]}}, CheckpointMismatch, r"open_clip_config\.json: It asks for mean = \[1\]"),
        ({"model_cfg": small_config(tokenizer_kwargs=3)}, TokenizerUnavailable, "a table is needed"),
        ({"model_cfg": small_config() | {"bogus": 1}}, UnknownModel, "bogus"),
        ({"model_cfg": small_config(width=64)}, CheckpointMismatch, "doesn't fit"),
    ],
)
def test_an_open_clip_config_that_misstates_is_refused(
    changes: dict[str, Any], error: type[VidgrainError] | None, told: str, tmp_path: Path
) -> None:
    hub_folder(tmp_path, **changes)
    with pytest.raises(error or CheckpointMismatch, match=told):
        load_network(str(tmp_path))


def test_a_torn_open_clip_config_is_refused(tmp_path: Path) -> None:
    hub_folder(tmp_path)
    for text in ("{", "[]"):
        (tmp_path / "open_clip_config.json").write_text(text)
        with pytest.raises(CheckpointMismatch, match=r"open_clip_config\.json"):
            load_network(str(tmp_path))


def test_a_tokenizer_in_the_folder_is_the_one_that_is_asked_for(tmp_path: Path) -> None:
    hub_folder(tmp_path, model_cfg=small_config(hf_tokenizer_name="some/tokenizer"))
    weights = open_clip_weights(tmp_path)
    assert weights is not None
    found = read_open_clip(weights)
    assert (found.tokenizer, found.merges) == (None, None)
    (tmp_path / "tokenizer.json").write_text("{")
    assert read_open_clip(weights).tokenizer == tmp_path
    with pytest.raises(TokenizerUnavailable, match=str(tmp_path)):
        load_network(str(tmp_path))


@pytest.mark.parametrize("form", ["preprocessor_config.json", "processor_config.json"])
def test_preprocessing_of_hugging_face_lies_beside_its_weights(form: str, tmp_path: Path) -> None:
    backbone = hub_folder(tmp_path / "o")
    official = {f"clip.{name}": value for name, value in backbone.clip.state_dict().items()}
    folder = tmp_path / "hub"
    folder.mkdir()
    save_file(from_official(official, "hugging_face"), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(hf_config(backbone.model_cfg)))
    write_merges(folder)
    assert read_published(folder).preprocess is None
    values = {"size": 32, "crop_size": 32, "resample": 2, "image_mean": [0.5, 0.5, 0.5]}
    nested = values if form.startswith("pre") else {"image_processor": values, "processor_class": "CLIPProcessor"}
    (folder / form).write_text(json.dumps(nested))
    expected = Preprocess(32, (0.5, 0.5, 0.5), interpolation="bilinear")
    for name in (folder, folder / "model.safetensors"):
        assert load_network(str(name)).backbone.preprocess == expected
    bad = {"do_resize": False}
    (folder / form).write_text(json.dumps(bad if form.startswith("pre") else {"image_processor": bad}))
    with pytest.raises(CheckpointMismatch, match=f"{form}: It asks for do_resize = False"):
        load_network(str(folder))


def test_preprocessing_beside_one_of_two_towers_counts(tmp_path: Path) -> None:
    backbone = hub_folder(tmp_path / "o")
    official = {f"clip.{name}": value for name, value in backbone.clip.state_dict().items()}
    state = from_official(official, "hugging_face")
    both = tmp_path / "both"
    for part, prefix in (("text", "text_"), ("vision", "vis")):
        (both / part).mkdir(parents=True)
        half = {name: value for name, value in state.items() if name.startswith(prefix)}
        save_file(half, both / part / "model.safetensors")
        (both / part / "config.json").write_text(json.dumps(hf_config(backbone.model_cfg)[f"{part}_config"]))
    (both / "vision" / "preprocessor_config.json").write_text(json.dumps({"image_std": [0.5, 0.5, 0.5]}))
    write_merges(both)
    assert load_network(str(both)).backbone.preprocess.std == (0.5, 0.5, 0.5)


def test_masks_reach_towers_without_a_head(tmp_path: Path) -> None:
    """Read as the papers' code does, padded words count, so the same weights score otherwise."""
    hub_folder(tmp_path)
    assert load_network(str(tmp_path), masks=None).masks == "masked"
    scores = []
    for masks in READINGS:
        model = load_model(str(tmp_path), device="cpu", num_frames=3, masks=masks)
        assert model.network.masks == masks
        videos = model.encode_video([np.full((1, 40, 40, 3), shade, dtype=np.uint8) for shade in (20, 200)])
        scores.append(model.similarity(model.encode_text(["red dog"]), videos))
    assert not torch.allclose(scores[0], scores[1])


def test_masks_reach_a_bare_file_of_openais(tmp_path: Path) -> None:
    torch.manual_seed(2)
    config = small_config() | {"vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}}
    config["text_cfg"] |= {"width": 64, "heads": 1}
    state = build_backbone(config, merges=write_merges(tmp_path)).clip.state_dict()
    towers = {f"clip.{name}": value for name, value in state.items()}
    save_file(from_official(towers, "openai"), tmp_path / "openai.safetensors")
    for masks in READINGS:
        assert load_network(str(tmp_path / "openai.safetensors"), masks=masks).masks == masks
