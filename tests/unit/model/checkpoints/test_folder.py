"""Checkpoints come back as they went, and what doesn't fit is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.checkpoints.folder import read_config, save_checkpoint
from model.checkpoints.official import config_of_state, load_state
from model.checkpoints.state_file import read_state
from model.errors import CheckpointMismatch
from model.families.xclip import MIXING_KEYS
from model.network import NetworkConfig
from model.registry import load_network
from model.temporal import TemporalConfig, TemporalKind
from tests.unit.model.small import small_network

KINDS: tuple[TemporalKind, ...] = ("mean", "seqTransf", "seqLSTM")


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_survives_its_folder(kind: TemporalKind, tmp_path: Path) -> None:
    network = small_network(tmp_path, kind)
    save_checkpoint(tmp_path / "saved", network)
    again = load_network(str(tmp_path / "saved"))
    assert again.config == network.config
    assert again.state_dict().keys() == network.state_dict().keys()
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in again.state_dict().items())
    assert again.backbone.tokenize(["red dog"], 8)[2] == (("red", "dog"),)


def test_the_files_keys_are_the_official_ones(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "t", small_network(tmp_path, "seqTransf"), dtype=torch.float16)
    keys = load_file(tmp_path / "t" / "model.safetensors")
    assert {
        *MIXING_KEYS,
        "frame_position_embeddings.weight",
        "transformerClip.resblocks.0.attn.in_proj_weight",
        "transformerClip.resblocks.0.mlp.c_fc.weight",
        "clip.visual.conv1.weight",
        "clip.token_embedding.weight",
        "clip.logit_scale",
    } <= keys.keys()
    assert not any(key.startswith(("backbone", "temporal", "head")) for key in keys)
    assert {value.dtype for value in keys.values()} == {torch.float16}
    save_checkpoint(tmp_path / "l", small_network(tmp_path, "seqLSTM"))
    assert "lstm_visual.weight_ih_l0" in load_file(tmp_path / "l" / "model.safetensors")


def test_halves_are_read_as_singles(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "h", small_network(tmp_path), dtype=torch.float16)
    assert {value.dtype for value in read_state(tmp_path / "h" / "model.safetensors").values()} == {torch.float32}


def test_keys_and_shapes_that_do_not_fit_are_named(tmp_path: Path) -> None:
    network = small_network(tmp_path)
    save_checkpoint(tmp_path, network)
    state = read_state(tmp_path / "model.safetensors")
    missing = {key: value for key, value in state.items() if key != "word_mat_weight2"}
    with pytest.raises(CheckpointMismatch, match=r"1 missing \(word_mat_weight2\)"):
        load_state(network, missing, Path("it"), is_head_optional=True)
    with pytest.raises(CheckpointMismatch, match=r"1 unknown \(extra\)"):
        load_state(network, state | {"extra": torch.ones(1, 2)}, Path("it"), is_head_optional=False)
    with pytest.raises(CheckpointMismatch, match=r"frame_mat_weight is \(5, 5\) and should be \(4, 4\)"):
        load_state(network, state | {"frame_mat_weight": torch.eye(5)}, Path("it"), is_head_optional=False)
    headless = {key: value for key, value in state.items() if key not in MIXING_KEYS}
    with pytest.raises(CheckpointMismatch, match="8 missing"):
        load_state(network, headless, Path("it"), is_head_optional=False)
    load_state(network, headless, Path("it"), is_head_optional=True)


def test_leftovers_of_official_files_are_passed_over(tmp_path: Path) -> None:
    network = small_network(tmp_path, "seqLSTM")
    save_checkpoint(tmp_path, network)
    state = read_state(tmp_path / "model.safetensors")
    extra = {"frame_position_embeddings.weight": torch.ones(16, 32), "clip.context_length": torch.tensor(16)}
    load_state(network, state | extra, Path("it"), is_head_optional=False)


def test_an_official_state_dict_tells_its_own_shape(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "t", small_network(tmp_path, "seqTransf", num_words=9, num_frames=5))
    state = read_state(tmp_path / "t" / "model.safetensors")
    expected = NetworkConfig("xclip", 9, 5, TemporalConfig("seqTransf", layers=1), masks="reference")
    assert config_of_state(state, {}, num_words=32, num_frames=12) == expected
    towers = {key: value for key, value in state.items() if key.startswith("clip.")}
    mean_pooled = NetworkConfig("clip4clip", 32, 12, masks="reference")
    assert config_of_state(towers, {}, num_words=32, num_frames=12) == mean_pooled


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"format": "other-2"}, "other-2"),
        ({"temporal": {"kind": "tight"}}, "tight"),
        ({"temporal": {"kind": "mean", "depth": 3}}, "depth"),
        ({"num_words": None}, "int"),
    ],
)
def test_a_config_that_misstates_is_refused(change: dict[str, object], named: str, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, small_network(tmp_path))
    values = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(values | change))
    with pytest.raises(CheckpointMismatch, match=named):
        read_config(tmp_path)


@pytest.mark.parametrize(("former", "present"), [("served", "masked"), ("official", "reference")])
def test_former_names_in_a_config_are_still_read(former: str, present: str, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, small_network(tmp_path))
    values = json.loads((tmp_path / "config.json").read_text())
    assert values["masks"] == "masked" and values["head"].pop("fine_grains_use_temporal") is False
    values["head"]["is_fine_temporal"] = True
    (tmp_path / "config.json").write_text(json.dumps(values | {"masks": former}))
    config = read_config(tmp_path)
    assert config.masks == present and config.head.fine_grains_use_temporal is True
    (tmp_path / "config.json").write_text(json.dumps(values | {"masks": "both"}))
    with pytest.raises(CheckpointMismatch, match="masks are 'both'; masked or reference is needed"):
        read_config(tmp_path)


def test_a_torn_config_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointMismatch, match="can't be read"):
        read_config(tmp_path)


def test_one_number_for_many_is_named(tmp_path: Path) -> None:
    network = small_network(tmp_path)
    save_checkpoint(tmp_path, network)
    state = read_state(tmp_path / "model.safetensors")
    save_file(state | {"clip.ln_final.bias": torch.ones(1)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointMismatch, match=r"clip\.ln_final\.bias is \(1,\) and should be \(32,\)"):
        load_network(str(tmp_path))


def test_a_scalar_temperature_fits_one_entry(tmp_path: Path) -> None:
    network = small_network(tmp_path)
    save_checkpoint(tmp_path, network)
    state = read_state(tmp_path / "model.safetensors")
    save_file(state | {"clip.logit_scale": torch.tensor([2.5])}, tmp_path / "model.safetensors")
    assert load_network(str(tmp_path)).backbone.logit_scale.item() == 2.5
