"""X-CLIP against the official implementation: head, temporal encoders, and the whole network end to end."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from model.backbone import build_backbone
from model.checkpoints.official import file_key
from model.checkpoints.official import load_state as load_official
from model.families.xclip import XClipNetwork
from model.heads.multi_grained import MultiGrainedHead
from model.kernels.aosm_reference import attend
from model.losses import symmetric_cross_entropy
from model.network import NetworkConfig
from model.temporal import TemporalConfig, build_temporal
from model.transformer import pool
from model.types import VideoFeatures
from tests.parity.golden import GoldenCase, case_names, load_case, load_state, tiny_clip_config, write_tiny_merges

PREFIXES = {"transformerClip.": "transformer.", "lstm_visual.": "lstm.", "frame_position": "frame_position"}
TERMS = ("video_sentence_logits", "video_word_logits", "sentence_frame_logits", "frame_word_logits")


def unit(x: Tensor) -> Tensor:
    return nn.functional.normalize(x, dim=-1)


def temporal_of(case: GoldenCase, params: dict[str, Tensor]) -> nn.Module:
    config = case.config
    temporal = build_temporal(
        {"meanP": "mean"}.get(config["sim_header"], config["sim_header"]),
        config["D"],
        layers=config.get("temporal_layers", 1),
        heads=config.get("temporal_heads"),
    )
    own = {
        ours + name.removeprefix(theirs): value
        for theirs, ours in PREFIXES.items()
        for name, value in params.items()
        if name.startswith(theirs)
    }
    wanted = temporal.state_dict().keys()
    temporal.load_state_dict({name: value for name, value in own.items() if name in wanted}, strict=True)
    return temporal.eval()


@pytest.mark.parametrize("name", case_names("xclip/feat_*"))
def test_head_and_temporal_encoder(name: str) -> None:
    case = load_case(name)
    params = case.params()
    config = case.config
    head = MultiGrainedHead(config["D"], config["max_words"], config["max_frames"])
    head.load_state_dict({key: params[key] for key in head.state_dict()})
    temporal = temporal_of(case, params)
    raw, mask = case.input("visual_output"), case.input("video_mask").bool()
    sentence, words = unit(case.input("sequence_output")[:, 0]), unit(case.input("word_features"))
    scale = params["clip.logit_scale"].exp()
    with torch.no_grad():
        moved = temporal(raw, mask)
        found = head(sentence, words, pool(moved, mask), unit(raw))
    case.check("mid.temporal_output", moved)
    case.check("mid.video_output", pool(moved, mask))
    for grain, term in enumerate(TERMS):
        case.check(f"mid.{term}", scale * found.grains_TV4[..., grain])
    case.check("out.sim_matrix", scale * found.grains_TV4.mean(-1))
    if "mid.fine.word_level_logit" in case.tensors:
        fine = torch.einsum("twd,vfd->tvwf", words @ head.local_mat_weight, unit(raw)).detach()
        case.check("mid.fine.word_level_logit", attend(fine.transpose(-1, -2), head.word_mat_weight, None))


@pytest.mark.parametrize("name", [name for name in case_names("xclip/feat_d16_*") if "ragged" in name])
def test_other_padding_moves_the_unmasked_score_and_not_the_served_one(name: str) -> None:
    case = load_case(name)
    params, config = case.params(), case.config
    head = MultiGrainedHead(config["D"], config["max_words"], config["max_frames"])
    head.load_state_dict({key: params[key] for key in head.state_dict()})
    temporal = temporal_of(case, params)
    text_mask, video_mask = case.input("text_mask").bool(), case.input("video_mask").bool()
    scale = params["clip.logit_scale"].exp()
    scores = []
    for is_other in (False, True):
        raw, words = case.input("visual_output").clone(), case.input("word_features").clone()
        if is_other:
            raw[~video_mask] = 0.5
            words[~text_mask] = 0.5
        pooled = pool(temporal(raw, video_mask), video_mask)
        sentence = unit(case.input("sequence_output")[:, 0])
        reference = head(sentence, unit(words), pooled, unit(raw))
        served = head(sentence, unit(words), pooled, unit(raw), text_mask, video_mask)
        scores.append((scale * reference.grains_TV4.mean(-1), scale * served.grains_TV4.mean(-1)))
    case.check("out.sim_matrix", scores[0][0])
    case.check("out.sim_matrix_other_padding", scores[1][0])
    torch.testing.assert_close(scores[0][1], scores[1][1], atol=1e-5, rtol=0)


def network_of(case: GoldenCase, tmp_path: Path) -> XClipNetwork:
    """The tiny end-to-end network with the case's weights."""
    about = case.about
    config = about.get("config") or load_case("e2e/xclip_seqTransf").config
    merges = write_tiny_merges(tmp_path, config["vocab_size"])
    backbone = build_backbone(tiny_clip_config(config), merges=merges)
    kind = "mean" if "meanP" in case.name else "seqTransf"
    temporal = TemporalConfig(kind, config.get("temporal_layers", 2), config.get("temporal_heads", 2))
    built_from = NetworkConfig("xclip", config["max_words"], config["max_frames"], temporal, masks="reference")
    network = XClipNetwork(backbone, built_from, num_positions=config["context_length"])
    state = load_state(about["state"]["file"])
    if not any(key.startswith("clip.") for key in state):
        state = {f"clip.{key}": value for key, value in state.items()}
    own = {key.removeprefix("param."): value for key, value in case.tensors.items() if key.startswith("param.")}
    is_head_there = "global_mat_weight" in state or "global_mat_weight" in own
    if "clipinit" in case.name:
        clip = {key.removeprefix("clip."): value for key, value in state.items()}
        backbone.clip.load_state_dict(clip)
        network.temporal.start_from_clip(backbone.clip.positional_embedding, backbone.clip.transformer.resblocks)
        return network
    load_official(network, state | own, case.name, is_head_optional=not is_head_there)
    return network


def features_of(case: GoldenCase, network: XClipNetwork) -> tuple[Tensor, Tensor, VideoFeatures, Tensor]:
    pixels = load_case("e2e/clip_towers").tensors["in.pixels"].float()
    ids, mask = case["in.input_ids"], case["in.video_mask"].bool()
    videos = network.video(pixels.reshape(*mask.shape, *pixels.shape[-3:]), mask)
    sentence, words = (unit(x) for x in network.raw_text(ids))
    return sentence, words, videos, mask


@pytest.mark.parametrize("name", [name for name in case_names("e2e/xclip_*") if not name.endswith("_state")])
def test_end_to_end(name: str, tmp_path: Path) -> None:
    case = load_case(name)
    network = network_of(case, tmp_path).eval()
    scale = network.backbone.logit_scale.exp()
    with torch.no_grad():
        sentence, words, videos, _ = features_of(case, network)
        found = network.head(sentence, words, videos.pooled, videos.frames)
        case.check("out.sim_matrix", scale * found.grains_TV4.mean(-1))
        if "mid.video_output" in case.tensors:
            case.check("mid.video_output", videos.pooled)
            for grain, term in enumerate(TERMS):
                case.check(f"mid.{term}", scale * found.grains_TV4[..., grain])


@pytest.mark.parametrize("name", ["e2e/xclip_meanP", "e2e/xclip_seqTransf"])
def test_loss_and_gradients(name: str, tmp_path: Path) -> None:
    case = load_case(name)
    network = network_of(case, tmp_path).train()
    sentence, words, videos, _ = features_of(case, network)
    num_videos = len(videos.pooled)
    found = network.head(sentence[:num_videos], words[:num_videos], videos.pooled, videos.frames)
    loss = symmetric_cross_entropy(network.backbone.logit_scale.exp() * found.grains_TV4.mean(-1))
    case.check("out.train_loss", loss.reshape(case["out.train_loss"].shape))
    loss.backward()
    norms = {file_key(key): p.grad.norm().item() for key, p in network.named_parameters() if p.grad is not None}
    for key, norm in case.about["grad_l2_norms"].items():
        if norm > 0:
            assert norms[key] == pytest.approx(norm, rel=2e-3, abs=1e-5), key
