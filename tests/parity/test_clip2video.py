"""CLIP2Video against the official implementation, misread masks included, and what the corrected form has of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model.errors import ShapeError
from model.heads.clip2video import CORRECTED, OFFICIAL, BranchScores, Clip2VideoConfig, Clip2VideoHead, MaskForm
from model.losses import clip2video_loss
from tests.parity.golden import GoldenCase, case_names, load_case
from tests.parity.tiny_towers import (
    check_gradient_norms,
    check_gradients,
    check_origins,
    load_official,
    tiny_backbone,
    tower_features,
)

FIXED_HEADS = replace(OFFICIAL, is_head_order_swapped=False)
"""The official code with the order of head masks put right and nothing else."""

UNUSED = ("clip.", "trans_layernorm.")
"""Official parameters that are no part of a head; trans_layernorm is always there, and used behind a sigmoid only."""

CASES = case_names("clip2video/feat_*")


def config_of(case: GoldenCase, masks: MaskForm) -> Clip2VideoConfig:
    about = case.config
    plain = {"meanP": "mean"}.get(about["sim_type"], about["sim_type"])
    return Clip2VideoConfig(
        embed_dim=about.get("D") or about["embed_dim"],
        global_branch=about["temporal_type"] or plain,
        difference=about["temporal_proj"] or "plain",
        alignment=(about["center_proj"] or "frames") if about["center_type"] else "none",
        num_centres=about["centerK"],
        global_weight=about["center_weight"],
        layers=about["temporal_layers"],
        heads=about["temporal_heads"],
        num_positions=about.get("context_length", 77),
        masks=masks,
    )


def head_of(case: GoldenCase, masks: MaskForm) -> Clip2VideoHead:
    head = Clip2VideoHead(config_of(case, masks))
    load_official(head, case.params(), UNUSED)
    return head.eval()


def inputs_of(case: GoldenCase) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """In the order that the head takes them; copies, so that a test may write into them."""
    sentence, words, frames = (case.input(k).clone() for k in ("sequence_output", "word_features", "visual_output"))
    return sentence[:, 0], words, case.input("text_mask").bool(), frames, case.input("video_mask").bool()


def scale_of(case: GoldenCase) -> Tensor:
    return case.params()["clip.logit_scale"].exp()


def check_within(case: GoldenCase, key: str, mine: Tensor, like: str) -> None:
    """As case.check, with the tolerance of tensor `like`: not each way to one result has its rounding on record."""
    gap = float((mine - case[key]).abs().max())
    assert gap <= case.tolerance(like), f"{case.name} {key}: off by {gap:.3g}, allowed {case.tolerance(like):.3g}"


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_official_form(name: str) -> None:
    case = load_case(name)
    head, scale = head_of(case, OFFICIAL), scale_of(case)
    sentence, words, word_mask, frames, frame_mask = inputs_of(case)
    texts, videos = head.text(sentence, words, word_mask), head.video(frames, frame_mask)
    found = head.score(texts, videos)
    case.check("mid.video_output", videos.whole_ND)
    case.check("mid.global_sim", scale * found.global_TV)
    case.check("out.sim_matrix", scale * found.mixed_TV)
    assert (found.aligned_TV is None) == ("mid.tab_sim" not in case.tensors)
    if found.aligned_TV is not None and texts.aligned_ND is not None and videos.aligned_ND is not None:
        tokens, mask = head.visual_tokens(frames, frame_mask)
        case.check("mid.tab_visual_tokens", tokens)
        case.check("mid.tab_visual_token_mask", mask[..., None, None].float())
        case.check("mid.tab_text", texts.aligned_ND)
        case.check("mid.tab_video", videos.aligned_ND)
        case.check("mid.tab_sim", scale * found.aligned_TV)


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_official_form_with_other_padding(name: str) -> None:
    case = load_case(name)
    sentence, words, word_mask, frames, frame_mask = inputs_of(case)
    frames[~frame_mask], words[~word_mask] = 0.5, 0.5
    for masks, key in ((OFFICIAL, "other_padding"), (FIXED_HEADS, "fixed_head_mask_other_padding")):
        found = head_of(case, masks)(sentence, words, word_mask, frames, frame_mask)
        case.check(f"out.sim_matrix_{key}", scale_of(case) * found.mixed_TV)


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_official_form_with_the_order_of_head_masks_put_right(name: str) -> None:
    case = load_case(name)
    given = inputs_of(case)
    found = scale_of(case) * head_of(case, FIXED_HEADS)(*given).mixed_TV
    case.check("out.sim_matrix_fixed_head_mask", found)
    alone = scale_of(case) * one_by_one(head_of(case, OFFICIAL), *given)
    check_within(case, "out.sim_matrix_one_video_at_a_time", alone, like="out.sim_matrix_fixed_head_mask")


def one_by_one(
    head: Clip2VideoHead, sentence: Tensor, words: Tensor, word_mask: Tensor, frames: Tensor, frame_mask: Tensor
) -> Tensor:
    columns = [head(sentence, words, word_mask, frames[[v]], frame_mask[[v]]).mixed_TV for v in range(len(frame_mask))]
    return torch.cat(columns, dim=1)


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_corrected_form_is_the_official_one_on_the_real_frames_alone(name: str) -> None:
    """With no padding to misread, the official arithmetic is right: each segment is cut to its real frames."""
    case = load_case(name)
    sentence, words, word_mask, frames, frame_mask = inputs_of(case)
    scale = scale_of(case)
    corrected = scale * head_of(case, CORRECTED)(sentence, words, word_mask, frames, frame_mask).mixed_TV
    official = head_of(case, OFFICIAL)
    num_compared = 0
    for v, count in enumerate(frame_mask.sum(1).tolist()):
        assert frame_mask[v, :count].all()
        cut = frames[[v], :count], frame_mask[[v], :count]
        try:
            alone = official(sentence, words, word_mask, *cut)
        except ShapeError:
            assert count < 3  # the official code has no answer there
            continue
        gap = float((corrected[:, v] - scale * alone.mixed_TV[:, 0]).abs().max())
        assert gap <= 1e-4, f"segment {v} is off by {gap:.3g}"
        num_compared += 1
    assert num_compared > 0
    if bool(frame_mask.all()):
        case.check("out.sim_matrix", corrected)


@torch.no_grad()
def test_corrected_form_is_well_conditioned_where_the_official_is_not() -> None:
    case = load_case("clip2video/feat_d16_full_f5_degenerate")
    given = inputs_of(case)
    gaps = []
    for masks in (OFFICIAL, CORRECTED):
        single = head_of(case, masks)(*given).mixed_TV
        sentence, words, word_mask, frames, frame_mask = given
        exact = head_of(case, masks).double()(sentence.double(), words.double(), word_mask, frames.double(), frame_mask)
        gaps.append(float((scale_of(case) * (single - exact.mixed_TV)).abs().max()))
    assert gaps[0] > 1e-3
    assert gaps[1] < 1e-4


@pytest.mark.parametrize("masks", [OFFICIAL, CORRECTED], ids=["official", "corrected"])
@pytest.mark.parametrize("name", case_names("loss/clip2video_*"))
def test_loss_and_gradients(name: str, masks: MaskForm) -> None:
    """All frames are real in these cases, so both forms must give the official gradients."""
    case = load_case(name)
    params = case.params()
    head = head_of(case, masks).train()
    raw = {
        key: case.input(key).clone().requires_grad_() for key in ("sequence_output", "word_features", "visual_output")
    }
    logit_scale = params["clip.logit_scale"].clone().requires_grad_()
    found: BranchScores = head(
        raw["sequence_output"][:, 0],
        raw["word_features"],
        case.input("text_mask").bool(),
        raw["visual_output"],
        case.input("video_mask").bool(),
    )
    loss = clip2video_loss(found, logit_scale.exp(), head.config.global_weight)
    case.check("out.loss", loss)
    case.check("out.loss_global", clip2video_loss(found, logit_scale.exp(), 1.0))
    assert (found.aligned_TV is None) == ("out.loss_tab" not in case.tensors)
    if found.aligned_TV is not None:
        case.check("out.loss_tab", clip2video_loss(found, logit_scale.exp(), 0.0))
    loss.backward()
    gradients = {key: p.grad for key, p in head.named_parameters()}
    gradients |= {f"in.{key}": value.grad for key, value in raw.items()}
    check_gradients(case, gradients | {"clip.logit_scale": logit_scale.grad})


def test_end_to_end(tmp_path: Path) -> None:
    case = load_case("e2e/clip2video_full")
    backbone = tiny_backbone(case, tmp_path)
    head = Clip2VideoHead(config_of(case, OFFICIAL))
    load_official(head, case.state(), UNUSED)
    sentence, words, frames, mask = tower_features(case, backbone)
    word_mask, scale = case["in.text_mask"].bool(), backbone.logit_scale.exp()
    case.check("out.sequence_output", sentence[:, None])
    case.check("out.word_features", words)
    case.check("out.visual_output", frames)
    texts, videos = head.text(sentence, words, word_mask), head.video(frames, mask)
    found = head.score(texts, videos)
    assert found.aligned_TV is not None and texts.aligned_ND is not None and videos.aligned_ND is not None
    case.check("mid.tab_text", texts.aligned_ND)
    case.check("mid.tab_video", videos.aligned_ND)
    case.check("mid.tab_sim", scale * found.aligned_TV)
    case.check("out.sim_matrix", scale * found.mixed_TV)
    fixed = Clip2VideoHead(config_of(case, FIXED_HEADS))
    fixed.load_state_dict(head.state_dict())
    case.check("out.sim_matrix_fixed_head_mask", scale * fixed(sentence, words, word_mask, frames, mask).mixed_TV)

    pairs = slice(0, len(mask))
    trained = head(sentence[pairs], words[pairs], word_mask[pairs], frames, mask)
    loss = clip2video_loss(trained, scale, head.config.global_weight)
    case.check("out.train_loss", loss)
    case.check("out.train_tab_loss", clip2video_loss(trained, scale, 0.0))
    loss.backward()
    check_gradient_norms(case, backbone, head)


@torch.no_grad()
def test_initialised_from_clip(tmp_path: Path) -> None:
    case = load_case("e2e/clip2video_TDB_clipinit")
    backbone = tiny_backbone(case, tmp_path)
    head = Clip2VideoHead(config_of(case, OFFICIAL))
    clip = backbone.clip
    head.start_from_clip(clip.positional_embedding, clip.transformer.resblocks)
    check_origins(case, head)
    sentence, words, frames, mask = tower_features(case, backbone)
    found = head(sentence, words, case["in.text_mask"].bool(), frames, mask)
    case.check("out.sim_matrix", backbone.logit_scale.exp() * found.mixed_TV)


def test_the_parts_without_a_case_start_from_clip_too(tmp_path: Path) -> None:
    """TAB's transformer and the projection of differences, as the specification names their origins."""
    case = load_case("e2e/clip2video_TDB_clipinit")
    clip = tiny_backbone(case, tmp_path).clip
    config = replace(config_of(case, CORRECTED), alignment="TAB", difference="sigmoid_mlp")
    head = Clip2VideoHead(config)
    centres = head.weight_center.clone()
    wide = torch.randn(200, 128, generator=torch.Generator().manual_seed(0))
    head.start_from_clip(clip.positional_embedding, clip.transformer.resblocks, wide)
    assert torch.equal(head.frame2t_projection, wide[:128])
    assert torch.equal(head.weight_center, centres)
    for key, value in clip.transformer.resblocks[0].state_dict().items():
        assert torch.equal(head.actionClip.resblocks[0].state_dict()[key], value)
    with pytest.raises(ShapeError, match="128 rows are needed"):
        head.start_from_clip(clip.positional_embedding, clip.transformer.resblocks, wide[:64])


@pytest.mark.parametrize(
    ("config", "fewest"),
    [
        (Clip2VideoConfig(16, alignment="none", layers=1, heads=2, masks=OFFICIAL), 2),
        (Clip2VideoConfig(16, layers=1, heads=2, masks=OFFICIAL), 3),
        (Clip2VideoConfig(16, layers=1, heads=2), 1),
    ],
)
def test_too_few_frame_slots_are_an_error(config: Clip2VideoConfig, fewest: int) -> None:
    head = Clip2VideoHead(config)
    assert bool(head.video(torch.randn(2, fewest, 16), torch.ones(2, fewest, dtype=torch.bool)).whole_ND.any())
    with pytest.raises(ShapeError, match="frame slots"):
        head.video(torch.randn(2, fewest - 1, 16), torch.ones(2, fewest - 1, dtype=torch.bool))


def test_frames_that_do_not_fit_their_mask_are_an_error() -> None:
    head = Clip2VideoHead(Clip2VideoConfig(16, layers=1, heads=2))
    with pytest.raises(ShapeError, match="are needed"):
        head.video(torch.randn(2, 5, 16), torch.ones(2, 4, dtype=torch.bool))
