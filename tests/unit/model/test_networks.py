"""The four networks have one shape: what each gives, what padding may do to it, and that a folder brings it back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from model.checkpoints.folder import save_checkpoint
from model.errors import UnknownScorer
from model.network import Network
from model.registry import load_model, load_network
from model.scorers import SCORERS
from model.served_model import ServedModel
from model.shared_scorers import SHARED_SCORERS
from model.spec import build_spec
from model.temporal import TemporalKind
from model.types import HeadKind, TextFeatures, VideoFeatures
from tests.unit.model.small import small_network_of

MEMBERS: list[tuple[HeadKind, TemporalKind]] = [
    ("xclip", "TDB"),
    ("xclip", "seqTransf"),
    ("clip4clip", "mean"),
    ("clip4clip", "seqLSTM"),
    ("clip4clip", "seqTransf"),
    ("tight", "mean"),
    ("clip2video", "mean"),
]
each_network = pytest.mark.parametrize(("head", "temporal"), MEMBERS)


def some_video(network: Network, num: int = 3, real: int = 3, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Raw frames (V, F, D) and a mask of `real` slots, with noise in the padded ones."""
    generator = torch.Generator().manual_seed(seed)
    raw = torch.randn(num, network.num_frames, network.backbone.embed_dim, generator=generator)
    return raw, (torch.arange(network.num_frames) < real).expand(num, -1)


def some_text(network: Network) -> TextFeatures:
    ids, mask, *_ = network.backbone.tokenize(["red dog", "cat", "dog red cat"], network.num_words)
    return network.text(ids, mask)


@each_network
@torch.no_grad()
def test_recall_vectors_and_scores_agree(head: HeadKind, temporal: TemporalKind, tmp_path: Path) -> None:
    network = small_network_of(head, tmp_path, temporal)
    texts, videos = some_text(network), network.video_from_frames(*some_video(network))
    assert videos.pooled.shape[-1] == network.pooled_dim == network.recall_vectors(texts).shape[-1]
    recalled = network.recall_vectors(texts) @ videos.pooled.T
    if head == "clip2video":
        torch.testing.assert_close(recalled, network.score(texts, videos).total)
        torch.testing.assert_close(recalled, network.similarity(texts, videos))
    else:
        torch.testing.assert_close(recalled, network.score(texts, videos, "mean").grains[..., 0])
    torch.testing.assert_close(network.score(texts, videos).total, network.similarity(texts, videos))


@each_network
@torch.no_grad()
def test_every_scorer_tells_its_parts_and_leaves_padding_out(
    head: HeadKind, temporal: TemporalKind, tmp_path: Path
) -> None:
    network = small_network_of(head, tmp_path, temporal)
    raw, mask = some_video(network)
    texts, noise = some_text(network), torch.where(mask[..., None], raw, 7.0)
    videos, others = network.video_from_frames(raw, mask), network.video_from_frames(noise, mask)
    for query in (texts, videos):
        relevance = network.frame_relevance(query, videos)
        assert torch.isneginf(relevance[..., 3]).all() and relevance[..., :3].isfinite().all()
    for scorer in network.scorers:
        found, again = network.score(texts, videos, scorer), network.score(texts, others, scorer)
        assert found.names == SCORERS[scorer].parts
        assert found.grains.shape == (3, 3, len(found.names))
        torch.testing.assert_close(found.total, again.total)
        clip = network.score(videos, videos, scorer)
        assert clip.total.shape == (3, 3) and clip.total.isfinite().all()


@each_network
@torch.no_grad()
def test_a_folder_brings_the_network_back(head: HeadKind, temporal: TemporalKind, tmp_path: Path) -> None:
    network = small_network_of(head, tmp_path, temporal, masks="reference")
    save_checkpoint(tmp_path / "saved", network)
    again = load_network(str(tmp_path / "saved"), masks=None)
    assert type(again) is type(network) and again.masks == "reference"
    assert again.config == network.config
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in again.state_dict().items())
    assert load_network(str(tmp_path / "saved")).masks == "masked"
    assert build_spec("a", again).fingerprint == build_spec("a", network).fingerprint


@each_network
def test_its_loss_reaches_every_parameter_of_its_own(head: HeadKind, temporal: TemporalKind, tmp_path: Path) -> None:
    network = small_network_of(head, tmp_path, temporal).train()
    network.loss(some_text(network), network.video_from_frames(*some_video(network, real=4))).backward()
    own = {name: p for name, p in network.named_parameters() if not name.startswith("backbone.")}
    still = [name for name, p in own.items() if p.grad is None or not p.grad.abs().sum() > 0]
    # a constant on every score has no say in a softmax
    assert [name for name in still if name != "head.similarity_dense.bias"] == []


@each_network
@torch.no_grad()
def test_starting_from_clip_changes_only_the_head(head: HeadKind, temporal: TemporalKind, tmp_path: Path) -> None:
    network = small_network_of(head, tmp_path, temporal)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.start_from_clip()
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert all(not name.startswith("backbone.") for name in changed)
    takes_something = head in ("tight", "clip2video") or temporal in ("seqTransf", "TDB")
    assert bool(changed) == takes_something


def test_the_scorers_of_a_spec_are_the_networks(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c", small_network_of("clip2video", tmp_path))
    model = load_model(str(tmp_path / "c"), device="cpu")
    assert isinstance(model, ServedModel)
    spec = model.spec
    assert (spec.kind, spec.scorers, spec.pooled_width, spec.has_frame_recall) == (
        "clip2video",
        ("clip2video",),
        2 * spec.embed_dim,
        False,
    )
    with pytest.raises(UnknownScorer, match="aosm"):
        model.score(model.encode_text(["dog"]), _one_video(model), "aosm")


def test_official_padding_is_encoded_grey_pictures(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "x", small_network_of("xclip", tmp_path, masks="reference"))
    official = load_model(str(tmp_path / "x"), device="cpu", masks="reference")
    served = load_model(str(tmp_path / "x"), device="cpu")
    network = official.network
    pixels = torch.zeros(1, 1, 3, 32, 32)
    with torch.no_grad():
        grey = network.raw_frames(pixels, torch.ones(1, 1, dtype=torch.bool))[0, 0]
    here, there = _one_video(official), _one_video(served)
    torch.testing.assert_close(here.frames[0, -1], torch.nn.functional.normalize(grey, dim=-1))
    assert not there.frames[0, -1].any()
    torch.testing.assert_close(here.pooled, there.pooled)


def test_the_shared_scorers_have_a_sentence_each() -> None:
    assert set(SHARED_SCORERS) < set(SCORERS)
    assert all(info.about.endswith(".") and info.parts for info in SCORERS.values())


def _one_video(model: ServedModel) -> VideoFeatures:
    pictures = torch.arange(2 * 32 * 32 * 3).reshape(2, 32, 32, 3) % 251
    return model.encode_video([pictures.to(torch.uint8).numpy()])
