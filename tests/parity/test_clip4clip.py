"""CLIP4Clip against the official implementation: four heads, their losses and gradients, and the whole network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from model.checkpoints.official import file_key
from model.errors import ShapeError
from model.heads.pooled import PooledHead
from model.heads.tight import TightHead
from model.losses import pooled_loss, tight_loss
from model.temporal import build_temporal
from tests.parity.golden import GoldenCase, case_names, load_case
from tests.parity.tiny_towers import (
    check_gradient_norms,
    check_gradients,
    check_origins,
    load_official,
    tiny_backbone,
    tower_features,
)

UNUSED = ("clip.", "frame_position_embeddings.")
"""Official parameters that are no part of a head; the positions are there, and unused, beside an LSTM."""


def pooled_head(case: GoldenCase) -> PooledHead:
    config = case.config
    kind = {"meanP": "mean"}.get(config["sim_header"], config["sim_header"])
    width = config.get("D") or config["embed_dim"]
    return PooledHead(
        build_temporal(
            kind,
            width,
            layers=config["temporal_layers"],
            heads=config["temporal_heads"],
            num_positions=config.get("context_length", 77),
        )
    )


def tight_head(case: GoldenCase) -> TightHead:
    config = case.config
    head = TightHead(config["D"], layers=config["temporal_layers"], heads=config["temporal_heads"])
    load_official(head, case.params(), UNUSED)
    return head.eval()


def inputs_of(case: GoldenCase) -> tuple[Tensor, Tensor, Tensor]:
    """Sentences, frames, mask; copies, so that a test may write into them."""
    sentence, frames = (case.input(key).clone() for key in ("sequence_output", "visual_output"))
    return sentence[:, 0], frames, case.input("video_mask").bool()


POOLED_CASES = [name for name in case_names("clip4clip/feat_*") if "tightTransf" not in name]
TIGHT_CASES = case_names("clip4clip/feat_*tightTransf*")


@pytest.mark.parametrize("name", POOLED_CASES)
def test_pooled_head(name: str) -> None:
    case = load_case(name)
    params = case.params()
    head = pooled_head(case).eval()
    load_official(head, params, UNUSED)
    sentence, frames, mask = inputs_of(case)
    with torch.no_grad():
        case.check("mid.video_output", head.video(frames, mask))
        case.check("mid.text_output", normalize(sentence, dim=-1))
        case.check("out.sim_matrix", params["clip.logit_scale"].exp() * head(sentence, frames, mask))
        frames[~mask] = 0.5
        case.check("out.sim_matrix", params["clip.logit_scale"].exp() * head(sentence, frames, mask))


@pytest.mark.parametrize("name", TIGHT_CASES)
def test_tight_head(name: str) -> None:
    case = load_case(name)
    head = tight_head(case)
    sentence, frames, mask = inputs_of(case)
    with torch.no_grad():
        case.check("out.sim_matrix", head(sentence, frames, mask))
        case.check("out.sim_matrix", head(sentence, frames, mask, pairs_per_batch=1))
        frames[~mask] = 0.5
        case.check("out.sim_matrix", head(sentence, frames, mask))


def test_tight_head_needs_a_position_for_the_sentence() -> None:
    head = TightHead(16, layers=1, heads=2, num_positions=4)
    with pytest.raises(ShapeError, match="4 frames and a sentence"):
        head(torch.ones(2, 16), torch.ones(3, 4, 16), torch.ones(3, 4, dtype=torch.bool))


@pytest.mark.parametrize("name", case_names("loss/clip4clip_*"))
def test_loss_and_gradients(name: str) -> None:
    case = load_case(name)
    params = case.params()
    head = pooled_head(case).train()
    load_official(head, params, UNUSED)
    sentence, frames = (case.input(key).clone().requires_grad_() for key in ("sequence_output", "visual_output"))
    logit_scale = params["clip.logit_scale"].clone().requires_grad_()
    found = head(sentence[:, 0], frames, case.input("video_mask").bool())
    case.check("out.sim_matrix", logit_scale.exp() * found)
    loss = pooled_loss(found, logit_scale.exp())
    case.check("out.loss", loss)
    loss.backward()
    gradients = {file_key(key): p.grad for key, p in head.named_parameters()}
    gradients |= {
        "clip.logit_scale": logit_scale.grad,
        "in.sequence_output": sentence.grad,
        "in.visual_output": frames.grad,
    }
    check_gradients(case, gradients)


@pytest.mark.parametrize("name", TIGHT_CASES[-1:])
def test_every_part_of_the_tight_head_learns(name: str) -> None:
    """There is no official loss of this head, so its gradient is held to differences of the loss itself."""
    case = load_case(name)
    head = tight_head(case).double()
    sentence, frames, mask = inputs_of(case)
    sentence, frames = sentence[: len(frames)].double(), frames.double()
    tight_loss(head(sentence, frames, mask)).backward()
    step = 1e-5
    for key, parameter in head.named_parameters():
        assert parameter.grad is not None, key
        direction = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        with torch.no_grad():
            parameter += step * direction
            above = tight_loss(head(sentence, frames, mask))
            parameter -= 2 * step * direction
            below = tight_loss(head(sentence, frames, mask))
            parameter += step * direction
        measured = float((above - below) / (2 * step))
        assert float((parameter.grad * direction).sum()) == pytest.approx(measured, rel=1e-4, abs=1e-7), key


@pytest.mark.parametrize("name", case_names("e2e/clip4clip_*"))
def test_end_to_end(name: str, tmp_path: Path) -> None:
    case = load_case(name)
    backbone = tiny_backbone(case, tmp_path)
    head = pooled_head(case).eval()
    if name.endswith("_clipinit"):
        clip = backbone.clip
        head.temporal.start_from_clip(clip.positional_embedding, clip.transformer.resblocks)
        check_origins(case, head)
    else:
        load_official(head, {k.removeprefix("param."): v for k, v in case.tensors.items() if "param." in k}, UNUSED)
    sentence, _, frames, mask = tower_features(case, backbone)
    scale = backbone.logit_scale.exp()
    case.check("out.sim_matrix", scale * head(sentence, frames, mask))
    if "out.train_loss" in case.tensors:
        case.check("out.sequence_output", sentence[:, None])
        case.check("out.visual_output", frames)
        loss = pooled_loss(head(sentence[: len(frames)], frames, mask), scale)
        case.check("out.train_loss", loss)
        loss.backward()
        check_gradient_norms(case, backbone, head)


def test_tight_head_starts_from_the_text_tower(tmp_path: Path) -> None:
    case = load_case("e2e/clip4clip_seqTransf_clipinit")
    clip = tiny_backbone(case, tmp_path).clip
    head = TightHead(128, layers=3, heads=2, num_positions=32)
    before = {key: value.clone() for key, value in head.state_dict().items()}
    head.start_from_text_tower(clip.positional_embedding, clip.transformer.resblocks)
    state = head.state_dict()
    assert torch.equal(state["cross.embeddings.position_embeddings.weight"], clip.positional_embedding)
    for number, block in enumerate(clip.transformer.resblocks):
        for key, value in block.state_dict().items():
            assert torch.equal(state[f"cross.transformer.resblocks.{number}.{key}"], value)
    for key in (key for key in state if ".2." in key or "pooler" in key or "dense" in key):
        assert torch.equal(state[key], before[key]), key


def test_dropout_is_for_training_only() -> None:
    torch.manual_seed(0)
    head: nn.Module = TightHead(16, layers=1, heads=2)
    given = torch.randn(2, 16), torch.randn(2, 3, 16), torch.ones(2, 3, dtype=torch.bool)
    assert torch.equal(head.eval()(*given), head(*given))
    assert not torch.equal(head.train()(*given), head(*given))
