"""The evaluation's own way, stored frames -> batches -> tiles of scores, gives the official matrices end to end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model.datasets.frames import FrameRule
from model.evaluation.blocks import score_block
from model.evaluation.encode import EncodedClips, stored_type, video_features
from model.evaluation.sets import EvaluationSet, MeasuredClip
from model.families.clip2video import Clip2VideoNetwork
from model.families.clip4clip import PooledNetwork
from model.heads.clip2video import OFFICIAL
from model.network import Network, NetworkConfig
from model.temporal import TemporalConfig
from tests.parity.golden import GoldenCase, case_names, load_case
from tests.parity.test_clip2video import UNUSED as UNUSED_BY_CLIP2VIDEO
from tests.parity.test_clip2video import config_of
from tests.parity.test_clip4clip import UNUSED as UNUSED_BY_CLIP4CLIP
from tests.parity.test_xclip import network_of as xclip_of
from tests.parity.tiny_towers import load_official, tiny_backbone

CASES = [
    *(name for name in case_names("e2e/xclip_*") if not name.endswith("_state")),
    *case_names("e2e/clip4clip_*"),
    *(name for name in case_names("e2e/clip2video_*") if not name.endswith("_state")),
]


def network_of(case: GoldenCase, folder: Path) -> Network:
    """The case's network with official masks."""
    if "xclip" in case.name:
        return xclip_of(case, folder)
    backbone = tiny_backbone(case, folder)
    num_words, num_frames = case["in.input_ids"].shape[1], case["in.video_mask"].shape[1]
    if "clip4clip" in case.name:
        kind = {"meanP": "mean"}.get(case.config["sim_header"], case.config["sim_header"])
        temporal = TemporalConfig(kind, case.config["temporal_layers"], case.config["temporal_heads"])
        config = NetworkConfig("clip4clip", num_words, num_frames, temporal, masks="reference")
        network: Network = PooledNetwork(backbone, config, case.config.get("context_length", 77))
        params = {key.removeprefix("param."): value for key, value in case.tensors.items() if "param." in key}
        unused = UNUSED_BY_CLIP4CLIP
    else:
        config = NetworkConfig("clip2video", num_words, num_frames, head=config_of(case, OFFICIAL), masks="reference")
        network = Clip2VideoNetwork(backbone, config)
        params, unused = case.state(), UNUSED_BY_CLIP2VIDEO
    if case.name.endswith("_clipinit"):
        network.start_from_clip()
    else:
        load_official(network.head, params, unused)
    return network


def encoded_of(case: GoldenCase, network: Network) -> EncodedClips:
    """Real frames alone, as they lie in the cache; padding is the evaluation's to add."""
    pixels = load_case("e2e/clip_towers")["in.pixels"].float()
    mask = case["in.video_mask"].bool()
    frames = network.backbone.encode_frames(pixels.reshape(-1, *pixels.shape[-3:])).reshape(*mask.shape, -1)
    raw = (frames * mask[..., None]).numpy().astype(stored_type(network.masks))
    clips = tuple(MeasuredClip(str(v), ("a text",), lambda num_frames: np.zeros(0, np.uint8)) for v in range(len(mask)))
    return EncodedClips(EvaluationSet("golden", "test", clips, FrameRule()), raw, mask.sum(1).numpy(), {})


@pytest.mark.parametrize("tile_floats", [None, 1])
@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_official_matrices(name: str, tile_floats: int | None, tmp_path: Path) -> None:
    case = load_case(name)
    network = network_of(case, tmp_path).eval()
    text_mask = case.tensors.get("in.text_mask", torch.ones_like(case["in.input_ids"])).bool()
    texts = network.text(case["in.input_ids"], text_mask)
    videos = video_features(network, encoded_of(case, network))
    scores = torch.from_numpy(score_block(network, texts, videos, tile_floats=tile_floats))
    case.check("out.sim_matrix", network.scale * scores)


@torch.no_grad()
def test_of_clip2video_neighbours_matter_and_batches_are_the_official_ones(tmp_path: Path) -> None:
    """With 64 captions a clip each clip is alone in its batch, as the papers' loader has it: other numbers."""
    case = load_case("e2e/clip2video_full")
    network = network_of(case, tmp_path).eval()
    together = encoded_of(case, network)
    clips = tuple(replace(clip, texts=("a text",) * 64) for clip in together.clips.clips)
    alone = replace(together, clips=replace(together.clips, clips=clips, is_multi_caption=True))
    texts = network.text(case["in.input_ids"], case["in.text_mask"].bool())
    found = score_block(network, texts, video_features(network, alone))
    fixed = case["out.sim_matrix_fixed_head_mask"].numpy()
    np.testing.assert_allclose(float(network.scale) * found, fixed, atol=1e-3)
    assert np.abs(fixed - case["out.sim_matrix"].numpy()).max() > 0.1
