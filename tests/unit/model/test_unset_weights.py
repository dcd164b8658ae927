"""Networks built without random weights: nothing is drawn, everything else is set as ever."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from model.backbone import build_backbone
from model.registry import load_network
from model.unset_weights import unset_weights
from tests.unit.model.small import small_config, write_merges


def test_nothing_is_drawn_and_the_rest_is_set() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    with unset_weights():
        layers = nn.ModuleList([nn.Linear(4, 4), nn.MultiheadAttention(4, 2), nn.Embedding(4, 4), nn.BatchNorm2d(4)])
        tensor = torch.empty(3)
        assert nn.init.normal_(tensor=tensor) is tensor
    assert torch.equal(torch.get_rng_state(), before)
    norm = layers[3]
    assert isinstance(norm, nn.BatchNorm2d) and norm.running_var is not None
    assert torch.equal(norm.weight, torch.ones(4)) and torch.equal(norm.running_var, torch.ones(4))
    torch.nn.init.uniform_(tensor)
    assert not torch.equal(torch.get_rng_state(), before)


def test_towers_have_the_same_parameters_and_buffers(tmp_path: Path) -> None:
    merges = write_merges(tmp_path)
    drawn = build_backbone(small_config(), merges=merges)
    with unset_weights():
        unset = build_backbone(small_config(), merges=merges)
    assert {k: v.shape for k, v in drawn.state_dict().items()} == {k: v.shape for k, v in unset.state_dict().items()}
    kept = dict(unset.named_buffers())
    assert kept and all(torch.equal(value, kept[name]) for name, value in drawn.named_buffers())


def test_a_loaded_model_is_the_same_whatever_lay_in_memory() -> None:
    first, second = (load_network("tiny").state_dict() for _ in range(2))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
