"""The trainer's own step on the end-to-end cases: the official losses, and the official gradient norms, all of them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from model.backbone import build_backbone
from model.checkpoints.official import file_key, load_state
from model.families import family_of
from model.heads.clip2video import Clip2VideoConfig
from model.network import Network, NetworkConfig
from model.temporal import TemporalConfig
from model.training.config import OptimiserPart
from model.training.distributed import Ranks
from model.training.optim import rise_then_cosine
from model.training.optimiser import build_optimisation
from model.training.step import Inputs, batch_loss, take_step
from tests.parity.golden import GoldenCase, load_case, tiny_clip_config, write_tiny_merges

CASES = [
    "e2e/xclip_meanP",
    "e2e/xclip_seqTransf",
    "e2e/clip4clip_meanP",
    "e2e/clip4clip_seqLSTM",
    "e2e/clip2video_full",
]
UNUSED = ("frame_position_embeddings.", "trans_layernorm.")
"""Official parameters that some heads have no use for."""


def network_of(case: GoldenCase, folder: Path) -> Network:
    config = case.config
    backbone = build_backbone(tiny_clip_config(config), merges=write_tiny_merges(folder, config["vocab_size"]))
    words, frames, width = config["max_words"], config["max_frames"], config["embed_dim"]
    head: Any = None
    temporal = TemporalConfig()
    if "clip2video" in case.name:
        kind, head = (
            "clip2video",
            Clip2VideoConfig(
                width,
                global_branch=config["temporal_type"],
                difference=config["temporal_proj"],
                alignment=config["center_proj"],
                num_centres=config["centerK"],
                global_weight=config["center_weight"],
                layers=config["temporal_layers"],
                heads=config["temporal_heads"],
                num_positions=config["context_length"],
            ),
        )
    else:
        encoder = {"meanP": "mean"}.get(config["sim_header"], config["sim_header"])
        temporal = TemporalConfig(encoder, config["temporal_layers"], config["temporal_heads"])
        kind = "xclip" if "xclip" in case.name else "clip4clip"
    built_from = NetworkConfig(kind, words, frames, temporal, head, masks="reference")
    network = family_of(kind)(backbone, built_from, num_positions=config["context_length"])
    state = case.state()
    if not any(key.startswith("clip.") for key in state):  # towers alone
        state = {f"clip.{key}": value for key, value in state.items()}
    own = {key.removeprefix("param."): value for key, value in case.tensors.items() if key.startswith("param.")}
    given = {key: value.float() for key, value in (state | own).items()}
    wanted = {file_key(key) for key in network.state_dict()}
    left = [key for key in given if key not in wanted and not key.startswith(UNUSED)]
    assert not left, left
    load_state(network, {key: given[key] for key in given if key in wanted}, Path(case.name), is_head_optional=False)
    return network.train()


def inputs_of(case: GoldenCase) -> Inputs:
    """The case's pairs: as many texts as videos."""
    mask = case["in.video_mask"].bool()
    pairs = slice(0, len(mask))
    pixels = load_case("e2e/clip_towers")["in.pixels"].float()
    return Inputs(pixels, mask, case["in.input_ids"][pairs], case["in.text_mask"][pairs].bool())


@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradients_of_a_step(name: str, tmp_path: Path) -> None:
    case = load_case(name)
    network = network_of(case, tmp_path)
    loss = batch_loss(network, inputs_of(case), Ranks(), "fp32")
    case.check("out.train_loss", loss.reshape(case["out.train_loss"].shape))
    loss.backward()
    norms = {file_key(key): float(p.grad.norm()) for key, p in network.named_parameters() if p.grad is not None}
    wanted = {key: norm for key, norm in case.about["grad_l2_norms"].items() if norm is not None}
    assert {key for key, norm in norms.items() if norm > 0} <= set(wanted)
    for key, norm in wanted.items():
        assert norms.get(key, 0.0) == pytest.approx(norm, rel=2e-3, abs=1e-5), key


@pytest.mark.parametrize("name", CASES)
def test_the_whole_step(name: str, tmp_path: Path) -> None:
    """`take_step` tells the official loss and the norm of all official gradients; with rate 0 it moves nothing, as the
    official first step does, and the second one does move."""
    case = load_case(name)
    network = network_of(case, tmp_path)
    optimisation, frozen = build_optimisation(network, OptimiserPart(), total_steps=10, freeze_layer_num=-1)
    assert not frozen
    before = {key: value.clone() for key, value in network.state_dict().items()}
    result = take_step(network, optimisation, inputs_of(case), 0)
    assert abs(result.loss - float(case["out.train_loss"])) <= case.tolerance("out.train_loss")
    norms = [norm for norm in case.about["grad_l2_norms"].values() if norm is not None]
    assert result.grad_norm == pytest.approx(math.sqrt(sum(norm * norm for norm in norms)), rel=2e-3)
    assert set(result.learning_rates.values()) == {0.0}
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    again = take_step(network, optimisation, inputs_of(case), 1)
    assert again.loss == pytest.approx(result.loss)
    highest = rise_then_cosine(0.1, 0.1)
    rates = {"clip": 1e-7, "clip_bias": 1e-7, "head": 1e-4, "head_bias": 1e-4}
    assert again.learning_rates == pytest.approx({key: highest * rates[key] for key in again.learning_rates})
    assert not all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_checkpointed_gradients_are_the_same(tmp_path: Path) -> None:
    case = load_case("e2e/xclip_seqTransf")
    found = []
    for is_checkpointed in (False, True):
        network = network_of(case, tmp_path)
        if is_checkpointed:
            network.backbone.checkpoint_gradients()
        optimisation, _ = build_optimisation(network, replace(OptimiserPart(), warmup=0.0), 10, -1)
        result = take_step(network, optimisation, inputs_of(case), 0)
        found.append((result.loss, result.grad_norm, {k: v.clone() for k, v in network.state_dict().items()}))
    assert found[0][:2] == pytest.approx(found[1][:2], rel=1e-6)
    for key, value in found[0][2].items():
        torch.testing.assert_close(found[1][2][key], value, atol=1e-7, rtol=1e-5, msg=key)
