"""A name becomes a model, or an error that says what to do."""

from __future__ import annotations

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from model.backbone import build_backbone
from model.checkpoints.folder import save_checkpoint
from model.checkpoints.state_file import read_state
from model.errors import CheckpointMismatch, DeviceUnavailable, UnknownModel, WeightsUnavailable
from model.registry import find_device, load_model, load_network
from model.served_model import ServedModel
from model.spec import build_spec
from tests.unit.model.small import small_network


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "model", small_network(tmp_path, "seqTransf"))
    return tmp_path / "model"


def test_a_folder_becomes_a_model_that_encodes(folder: Path) -> None:
    model = load_model(str(folder), device="cpu")
    spec = model.spec
    assert (spec.embed_dim, spec.num_frames, spec.num_words, spec.image_size) == (32, 4, 8, 32)
    assert spec.temporal == "seqTransf" and len(spec.fingerprint) == 16
    videos = model.encode_video([np.zeros((2, 20, 30, 3), dtype=np.uint8), np.ones((4, 50, 40, 3), dtype=np.uint8)])
    query = model.encode_text(["red dog"])
    scores = model.score(query, videos)
    assert scores.total.shape == (1, 2) and bool(torch.isfinite(scores.total).all())
    assert videos.mask.sum(-1).tolist() == [2, 4]


def test_sentences_of_several_threads_are_encoded_as_one_after_another(folder: Path) -> None:
    model = load_model(str(folder), device="cpu")
    texts = ["red dog", "dog", "cat red", "red dog cat dog red cat dog red cat"] * 4
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda text: model.encode_text([text]), texts))
    for text, features in zip(texts, together, strict=True):
        alone = model.encode_text([text])
        torch.testing.assert_close(features.sentence, alone.sentence)
        torch.testing.assert_close(features.words, alone.words)
        assert (features.pieces, features.is_cut) == (alone.pieces, alone.is_cut)
    assert [model.encode_text([text]).is_cut for text in texts[:4]] == [(False,)] * 3 + [(True,)]


def test_fingerprints_follow_the_numbers(folder: Path, tmp_path: Path) -> None:
    first = load_model(str(folder), device="cpu").spec.fingerprint
    assert load_model(str(folder), device="cpu").spec.fingerprint == first
    network = load_network(str(folder))
    with torch.no_grad():
        network.head.frame_mat_weight[0, 0] += 1.0
    assert build_spec("changed", network).fingerprint != first
    merges = folder / "merges.txt"
    merges.write_text(merges.read_text().replace("c a\nca t</w>", "b a\nba t</w>"))
    assert load_model(str(folder), device="cpu").spec.fingerprint != first


def test_frame_slots_that_weights_settle_cannot_be_chosen(folder: Path) -> None:
    assert load_model(str(folder), device="cpu", num_frames=4).spec.num_frames == 4
    with pytest.raises(CheckpointMismatch, match="4 frame slots and 12"):
        load_model(str(folder), device="cpu", num_frames=12)


@pytest.mark.parametrize("name", ["", "nonsense", "no/such/folder", "ViT-B-33/openai", "ViT-B-32"])
def test_an_unknown_name_says_what_names_look_like(name: str) -> None:
    with pytest.raises(UnknownModel) as caught:
        load_model(name)
    assert "ARCH" in caught.value.hint


def test_a_folder_without_config_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(UnknownModel, match=r"no config\.json"):
        load_model(str(tmp_path))


def test_an_unknown_tag_and_an_absent_file_differ() -> None:
    with pytest.raises(UnknownModel, match="no published weights"):
        load_model("ViT-B-32/opennai")
    with pytest.raises(WeightsUnavailable, match=r"absent\.safetensors: There is no such file"):
        load_model("ViT-B-32/here/absent.safetensors")


def test_devices() -> None:
    assert find_device("cpu").type == "cpu"
    assert find_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("cuda:99", "gpu", "meta"):
        with pytest.raises(DeviceUnavailable, match=name):
            find_device(name)


@pytest.mark.slow
def test_clip_weights_serve_zero_shot_and_official_xclip_weights_as_they_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The smallest architecture of open_clip's list that needs no download: random weights, written and read."""
    torch.manual_seed(0)
    architecture = "PE-Core-T-16-384"
    clip = build_backbone(architecture)
    save_file(clip.clip.state_dict(), tmp_path / "clip.safetensors")
    model = load_model(f"{architecture}/{tmp_path}/clip.safetensors", device="cpu", num_frames=6)
    assert isinstance(model, ServedModel)
    network, spec = model.network, model.spec
    assert (spec.num_frames, spec.num_words, spec.temporal, spec.image_size) == (6, 32, "mean", 384)
    assert network.backbone.preprocess.mean == (0.5, 0.5, 0.5)
    assert torch.equal(network.head.word_mat_weight, torch.eye(32))
    assert torch.equal(network.backbone.clip.state_dict()["text.ln_final.weight"], clip.clip.text.ln_final.weight)  # type: ignore[union-attr,arg-type]
    with torch.no_grad():
        network.head.word_mat_weight.fill_(0.5)
    save_checkpoint(tmp_path / "whole", network, dtype=torch.float16)
    with caplog.at_level(logging.WARNING):
        whole = load_network(f"{architecture}/{tmp_path}/whole/model.safetensors")
    assert "QuickGELU" in caplog.text
    assert torch.equal(whole.head.word_mat_weight, torch.full((32, 32), 0.5))
    assert len(read_state(tmp_path / "whole" / "model.safetensors")) == len(whole.state_dict())


def test_the_bundled_model_loads() -> None:
    model = load_model("tiny", device="cpu")
    assert model.spec.name == "tiny"
    assert model.encode_text(["a red circle"]).mask.any()


@pytest.mark.parametrize(
    "change",
    [
        {"num_frames": -2},
        {"temporal": {"kind": "seqTransf", "layers": 2, "heads": 3}},
        {"model_cfg": {"embed_dim": 128}},
        {"preprocess": {"bogus": 1}},
        {"masks": "offical"},
        {"head": {"kind": "xclip", "aggregation": "mean-max"}},
        {"head": {"kind": "clip2video", "alignment": "TDB"}},
    ],
)
def test_a_config_that_describes_no_network_is_said_in_words(folder: Path, change: dict[str, object]) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(CheckpointMismatch, match=r"config\.json"):
        load_model(str(folder), device="cpu")
