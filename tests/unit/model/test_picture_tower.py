"""Frames are encoded in bfloat16 where the device has it and the direction stays; a fingerprint says which it is."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from model import picture_tower
from model.backbone import Backbone, build_backbone
from model.families import family_of
from model.made_pictures import made_pictures
from model.network import MaskReading, Network, NetworkConfig
from model.packed_blocks import UnknownParts, is_native, is_supported
from model.packed_pictures import PackedPictures
from model.picture_tower import CPU_FRAMES, CastTower, FramePrecision, PictureTower, has_bfloat16, preferred_frames
from model.precision import differ_in_precision, in_precision
from model.registry import load_model
from model.served_model import ServedModel
from model.spec import build_spec
from model.threads import threads_of_this_thread
from tests.unit.model.small import small_config, small_network_of, write_merges
from tests.unit.model.test_backbone import FAMILIES

CPU = torch.device("cpu")

needs_packing = pytest.mark.skipif(not is_supported(), reason="this torch packs no bfloat16 weights")

TOWERS: dict[str, dict[str, Any]] = {
    "no norm before": {"no_ln_pre": True},
    "average of all tokens": {"pool_type": "avg"},
    "a ResNet": {"layers": [1, 1, 1, 1], "width": 32, "patch_size": None, "image_size": 64},
    "scaled blocks": {"ls_init_value": 0.5},
    "a timm model": {"timm_model_name": "resnet18", "timm_pool": "avg", "timm_proj": "linear", "image_size": 64},
}


@pytest.fixture(autouse=True)
def on_any_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """These rules hold everywhere: a processor without bfloat16 converts, slowly."""
    if is_supported():
        monkeypatch.setattr("model.picture_tower.has_bfloat16", lambda device: True)


def with_tower(folder: Path, **changes: Any) -> Backbone:
    """A backbone whose image tower has these changes."""
    torch.manual_seed(5)
    config = small_config()
    config["vision_cfg"] |= changes
    return build_backbone(config, merges=write_merges(folder))


def network_with(backbone: Backbone, masks: MaskReading = "masked") -> Network:
    return family_of("clip4clip")(backbone, NetworkConfig("clip4clip", 8, 4, masks=masks)).eval()


def frames(backbone: Backbone) -> Tensor:
    return torch.from_numpy(made_pictures(backbone.image_size)).repeat(3, 1, 1, 1)


def cosine(ours: Tensor, theirs: Tensor) -> float:
    return float(cosine_similarity(ours, theirs, dim=-1).min())


@needs_packing
@pytest.mark.parametrize("quick_gelu", [True, False])
@pytest.mark.parametrize("tower", ["plain", "no norm before"])
def test_packed_weights_keep_the_direction(tower: str, quick_gelu: bool, tmp_path: Path) -> None:
    backbone = with_tower(tmp_path, **TOWERS.get(tower, {}))
    if not quick_gelu:
        for block in backbone.image_tower.transformer.resblocks:
            block.mlp.gelu = nn.GELU()
    with torch.inference_mode():
        exact = network_with(backbone).encode_frames(frames(backbone))
    found = PackedPictures(backbone.image_tower, backbone.preprocess)(frames(backbone))
    assert found.dtype == torch.float32 and found.shape == exact.shape
    assert cosine(found, exact) > 0.9995
    assert not torch.equal(found, exact), "it isn't float32 after all"


@needs_packing
def test_frames_of_many_chunks_are_those_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = with_tower(tmp_path)
    one = PackedPictures(backbone.image_tower, backbone.preprocess)(frames(backbone))
    monkeypatch.setattr("model.packed_pictures.ROWS", 12)
    many = PackedPictures(backbone.image_tower, backbone.preprocess)(frames(backbone))
    torch.testing.assert_close(one, many, atol=2e-2, rtol=2e-2)


@needs_packing
@pytest.mark.parametrize("tower", ["average of all tokens", "a ResNet", "scaled blocks", "a timm model"])
def test_another_tower_is_cast_as_a_whole(tower: str, tmp_path: Path) -> None:
    backbone = with_tower(tmp_path, **TOWERS[tower])
    with pytest.raises(UnknownParts):
        PackedPictures(backbone.image_tower, backbone.preprocess)
    network = network_with(backbone)
    with torch.inference_mode():
        exact = network.encode_frames(frames(backbone))
    assert cosine(CastTower(backbone.image_tower, backbone.preprocess)(frames(backbone)), exact) > 0.995
    found = PictureTower(network, CPU, "bf16")
    assert cosine(found(frames(backbone)), exact) > 0.995


@needs_packing
@pytest.mark.parametrize("family", ["CLIP", "SigLIP", "CoCa"])
def test_every_family_is_served(family: str, tmp_path: Path) -> None:
    config = FAMILIES[family]
    merges = write_merges(tmp_path) if config["text_cfg"]["vocab_size"] < 1000 else None
    torch.manual_seed(2)
    network = network_with(build_backbone(config, merges=merges))
    pictures = torch.from_numpy(made_pictures(network.backbone.image_size))
    with torch.inference_mode():
        exact = network.encode_frames(pictures)
    tower = PictureTower(network, CPU, "bf16")
    assert cosine(tower(pictures), exact) > 0.999, tower.computed_in


@needs_packing
def test_the_float32_tower_is_dropped_and_the_rest_is_as_before(tmp_path: Path) -> None:
    network = small_network_of("xclip", tmp_path)
    text = {name for name in network.state_dict() if ".visual." not in name}
    tower = PictureTower(network, CPU, "bf16")
    assert tower.precision == "bf16" and len(network.state_dict()) > len(text), "nothing is done before it is needed"
    assert tower.computed_in == "bf16"
    assert set(network.state_dict()) == text


def test_float32_is_the_network_itself(tmp_path: Path) -> None:
    network = small_network_of("xclip", tmp_path)
    pictures = frames(network.backbone)
    tower = PictureTower(network, CPU)
    with torch.inference_mode():
        assert torch.equal(tower(pictures), network.encode_frames(pictures))
    assert (tower.precision, tower.computed_in) == ("fp32", "fp32")


@needs_packing
def test_a_tower_whose_direction_bfloat16_would_turn_stays_in_float32(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.picture_tower.MIN_WEIGHTS", 0)

    def spoilt() -> Network:
        network = small_network_of("xclip", tmp_path)
        tower = network.backbone.image_tower
        with torch.no_grad():  # a large constant that the projection takes away: bfloat16 keeps little beside it
            tower.ln_post.bias.fill_(1e4)
            tower.proj.sub_(tower.proj.mean(0, keepdim=True))
        return network

    assert PictureTower(small_network_of("xclip", tmp_path), CPU, "auto").precision == "bf16"
    assert PictureTower(spoilt(), CPU, "auto").precision == "fp32"
    network = spoilt()
    asked = PictureTower(network, CPU, "bf16")
    with caplog.at_level(logging.WARNING):
        found = asked(frames(network.backbone))
    assert (asked.precision, asked.computed_in) == ("bf16", "fp32"), "it counts as bf16, and is as near to float32"
    assert [record.getMessage() for record in caplog.records] == ["frames_in_fp32"]
    with torch.inference_mode():
        assert torch.equal(found, network.encode_frames(frames(network.backbone)))


def test_a_device_without_bfloat16_computes_the_same_features_in_float32(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.picture_tower.has_bfloat16", lambda device: False)
    monkeypatch.setattr("model.picture_tower.MIN_WEIGHTS", 0)
    network = small_network_of("xclip", tmp_path)
    assert PictureTower(network, CPU, "auto").precision == "fp32"
    tower = PictureTower(network, CPU, "bf16")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            tower(frames(network.backbone))
    assert (tower.precision, tower.computed_in) == ("bf16", "fp32")
    assert len(caplog.records) == 1, "it is logged once"
    assert "the processor has no bfloat16" in caplog.records[0].__dict__["why"]


def test_a_network_that_reads_its_padding_stays_in_float32(tmp_path: Path) -> None:
    network = small_network_of("xclip", tmp_path, masks="reference")
    assert PictureTower(network, CPU, "bf16").computed_in == "fp32"


def test_a_small_tower_stays_in_float32_unless_asked(tmp_path: Path) -> None:
    """The bundled model's is of this kind."""
    assert PictureTower(small_network_of("xclip", tmp_path), CPU, "auto").precision == "fp32"
    exact, auto = load_model("tiny", device="cpu"), load_model("tiny", device="cpu", precision="auto")
    assert exact.spec == auto.spec


def test_a_precision_has_a_fingerprint_of_its_own() -> None:
    spec = load_model("tiny", device="cpu", precision="bf16").spec
    assert (spec.fingerprint, spec.precision) == ("0fba9ae7420a06f2", "bf16"), "folders are bound to it"
    exact = load_model("tiny", device="cpu").spec
    assert (exact.fingerprint, exact.precision) == ("582eb4ac4656bcef", "fp32")
    assert in_precision(exact, "bf16") == spec and in_precision(exact, "fp32") == exact
    assert differ_in_precision(spec, exact) and differ_in_precision(exact, spec)
    assert not differ_in_precision(exact, exact)
    assert not differ_in_precision(replace(exact, fingerprint="of other weights"), spec)


@needs_packing
def test_segments_are_encoded_in_both_precisions_alike(tmp_path: Path) -> None:
    segments = [made_pictures(32)[:count] for count in (1, 4, 3)]
    found = []
    for precision in ("fp32", "bf16"):
        network = small_network_of("xclip", tmp_path, "seqTransf")
        spec, tower = in_precision(build_spec("small", network), precision), PictureTower(network, CPU, precision)
        found.append(ServedModel(network, spec, CPU, pictures=tower).encode_video(segments))
        assert tower.computed_in == precision
    exact, fast = found
    assert torch.equal(exact.mask, fast.mask)
    assert fast.pooled.dtype == fast.frames.dtype == torch.float32
    assert cosine(fast.pooled, exact.pooled) > 0.999
    assert cosine(fast.frames[fast.mask], exact.frames[exact.mask]) > 0.999


@needs_packing
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_several_threads_encode_at_once_each_with_its_own_number_of_threads(
    precision: FramePrecision, tmp_path: Path
) -> None:
    network = small_network_of("xclip", tmp_path)
    model = ServedModel(network, build_spec("small", network), CPU, pictures=PictureTower(network, CPU, precision))
    segments = [made_pictures(32)] * 3
    before, found, counts = torch.get_num_threads(), list[np.ndarray[Any, Any]](), dict[int, int]()

    def run(count: int) -> None:
        threads_of_this_thread(count)
        for _ in range(5):
            found.append(model.encode_video(segments).frames.numpy())
        counts[count] = torch.get_num_threads()

    threads = [threading.Thread(target=run, args=(count,)) for count in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == {1: 1, 2: 2, 3: 3}
    assert torch.get_num_threads() == before
    torch.set_num_threads(before)  # what threads that begin later begin with
    assert len(found) == 15
    for one in found:
        np.testing.assert_allclose(one, found[0], atol=1e-2)


def test_pictures_are_made_the_same_everywhere() -> None:
    pictures = made_pictures(32)
    assert pictures.shape == (4, 32, 32, 3) and pictures.dtype == np.uint8
    assert np.array_equal(pictures, made_pictures(32))
    assert len({int(picture.astype(int).std()) for picture in pictures}) == 4


def test_a_call_has_as_many_frames_as_the_device_likes() -> None:
    assert preferred_frames(CPU) == CPU_FRAMES
    assert preferred_frames(torch.device("cuda")) > CPU_FRAMES


def test_this_processor_has_bfloat16_if_its_products_do() -> None:
    assert has_bfloat16(CPU) is is_native()
    assert not has_bfloat16(torch.device("meta"))
    assert picture_tower.LEAST_COSINE == 0.999
