"""`vidgrain convert`: every layout brings the same model back, and what a layout can't hold is refused, not bent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip import factory
from safetensors.torch import load_file, safe_open, save_file

from model.backbone import build_backbone
from model.checkpoints.export import without_head
from model.checkpoints.folder import save_checkpoint
from model.checkpoints.hugging_face import hf_config
from model.errors import CheckpointMismatch, UnknownModel, VidgrainError, WeightsUnavailable
from model.families import family_of
from model.families.clip4clip import PooledNetwork
from model.families.xclip import XClipNetwork
from model.heads.clip2video import Clip2VideoConfig
from model.heads.multi_grained import GrainOptions
from model.heads.tight import TightConfig
from model.network import Network, NetworkConfig
from model.registry import load_network
from model.temporal import TemporalConfig, TemporalKind
from model.types import HeadKind
from service.cli.convert import TARGETS, Target, convert
from service.cli.main import main
from service.settings import InvalidSettings
from tests.unit.model.checkpoints.torchscript_files import save_archive, small_clip
from tests.unit.model.small import VOCAB_SIZE, small_network_of, write_merges

# heads 64 wide and QuickGELU, as the papers' code takes for granted
PLAIN: dict[str, Any] = {
    "embed_dim": 64,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": VOCAB_SIZE, "width": 128, "heads": 2, "layers": 2},
}
MEMBERS: list[tuple[HeadKind, TemporalKind]] = [
    ("xclip", "seqTransf"),
    ("xclip", "mean"),
    ("clip4clip", "mean"),
    ("clip4clip", "seqLSTM"),
    ("clip4clip", "seqTransf"),
    ("tight", "mean"),
    ("clip2video", "mean"),
]
TOWERS_ONLY: tuple[Target, ...] = ("openai", "hugging_face")


def plain_network(folder: Path, head: HeadKind = "xclip", kind: TemporalKind = "seqTransf", **options: Any) -> Network:
    """A network that the papers' own code could hold, W = 7 and F = 5; `folder` takes its vocabulary."""
    torch.manual_seed(5)
    backbone = build_backbone(PLAIN, merges=write_merges(folder))
    heads: dict[HeadKind, Any] = {
        "tight": TightConfig(layers=1, num_positions=16),
        "clip2video": Clip2VideoConfig(64, num_centres=3, layers=1, num_positions=16),
        "xclip": GrainOptions(),
    }
    switches = replace(heads[head], **options) if head in heads else None
    config = NetworkConfig(head, 7, 5, TemporalConfig(kind, layers=1), switches, masks="reference")
    network = family_of(head)(backbone, config, num_positions=16)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if not name.startswith("backbone."):
                parameter.normal_(std=0.3)
    return network.eval()


def saved(folder: Path, network: Network) -> str:
    save_checkpoint(folder / "model", network)
    return str(folder / "model")


def assert_same_weights(one: Network, other: Network, dtype: torch.dtype = torch.float32) -> None:
    mine, theirs = one.state_dict(), other.state_dict()
    assert mine.keys() == theirs.keys()
    wrong = [name for name, value in mine.items() if not torch.equal(value.to(dtype), theirs[name].to(dtype))]
    assert not wrong


@pytest.mark.parametrize("ending", [".safetensors", ".pt", ".bin"])
@pytest.mark.parametrize(("head", "kind"), MEMBERS)
def test_official_files_bring_every_network_back(
    head: HeadKind, kind: TemporalKind, ending: str, tmp_path: Path
) -> None:
    """From the bare file: it tells its architecture; the vocabulary lies beside."""
    network = plain_network(tmp_path, head, kind)
    done = convert(saved(tmp_path, network), tmp_path / f"official{ending}")
    assert (done.layout, done.kind, done.num_tensors) == ("official", head, len(network.state_dict()))
    again = load_network(str(tmp_path / f"official{ending}"), masks=None)
    assert again.kind == head and again.masks == "reference" and again.config.head == network.config.head
    assert_same_weights(again, network)
    convert(str(tmp_path / f"official{ending}"), tmp_path / "ours")
    assert_same_weights(load_network(str(tmp_path / "ours")), network)


@pytest.mark.parametrize("ending", [".safetensors", ".pt"])
def test_a_disk_that_fails_leaves_nothing(ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = saved(tmp_path, plain_network(tmp_path))

    def torn(state: object, path: Path) -> None:
        path.write_bytes(b"torn")
        raise RuntimeError("[enforce fail at inline_container.cc:1] unexpected pos\nframe 0")

    def full(path: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", torn)
    if ending == ".safetensors":
        monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InvalidSettings, match="can't be written"):
        convert(source, tmp_path / f"official{ending}")
    assert not list(tmp_path.glob("official*"))


@pytest.mark.parametrize("to", TOWERS_ONLY)
def test_towers_go_through_other_layouts_and_a_head_has_to_be_left_on_purpose(to: Target, tmp_path: Path) -> None:
    network = plain_network(tmp_path)
    source, file = saved(tmp_path, network), tmp_path / "towers.safetensors"
    with pytest.raises(CheckpointMismatch, match=r"towers only.*--towers-only"):
        convert(source, file, to=to)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["merges.txt", "model"]
    convert(source, file, to=to, is_towers_only=True)
    again = load_network(str(file))
    for name, value in network.backbone.state_dict().items():
        assert torch.equal(again.backbone.state_dict()[name], value), name
    assert again.backbone.model_cfg == PLAIN


def test_a_file_of_open_clip_needs_its_architecture(tmp_path: Path) -> None:
    network = plain_network(tmp_path)
    done = convert(saved(tmp_path, network), tmp_path / "t.safetensors", to="open_clip", is_towers_only=True)
    assert any("ARCH" in note for note in done.notes)
    assert load_file(tmp_path / "t.safetensors").keys() == network.backbone.clip.state_dict().keys()
    with pytest.raises(CheckpointMismatch, match=r"t\.safetensors: .*GELU or QuickGELU"):
        load_network(str(tmp_path / "t.safetensors"))
    with pytest.raises(CheckpointMismatch, match="doesn't fit the architecture"):
        convert(str(tmp_path / "t.safetensors"), tmp_path / "x", architecture="RN50-quickgelu")


@pytest.fixture
def architecture(tmp_path: Path) -> Iterator[str]:
    """A small architecture on open_clip's list for as long as a test lasts."""
    name, folder = "Vidgrain-Test-S", tmp_path / "architectures"
    folder.mkdir()
    config = PLAIN | {"text_cfg": PLAIN["text_cfg"] | {"vocab_size": 49408}}
    (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    yield name
    factory._MODEL_CONFIG_PATHS.remove(folder)
    factory._rescan_model_configs()
    factory._MODEL_CONFIGS.pop(name, None)


def test_with_its_architecture_named_every_layout_loads(
    architecture: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network = PooledNetwork(build_backbone(architecture), NetworkConfig("clip4clip", 16, 12))
    source = saved(tmp_path, network)
    kinds = {"official": "clip4clip", "openai": "xclip", "open_clip": "xclip", "hugging_face": "clip4clip"}
    for to, kind in kinds.items():
        file = tmp_path / f"{to}.safetensors"
        convert(source, file, to=to)  # type: ignore[arg-type]
        convert(str(file), tmp_path / f"from-{to}", architecture=architecture)
        again = load_network(str(tmp_path / f"from-{to}"))
        assert (again.kind, again.num_words, again.num_frames) == (kind, 16, 12)
        assert_same_weights(again.backbone, network.backbone)  # type: ignore[arg-type]
    assert not caplog.records


def test_an_archive_that_tells_no_size_loads_by_its_architecture(
    architecture: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """TorchScript of open_clip's own CLIP: the names alone; OpenAI's has the sizes beside them."""
    clip = small_clip(open_clip.get_model_config(architecture), has_sizes=False)
    file = tmp_path / "scripted.pt"
    save_archive(clip, file)
    with pytest.raises(CheckpointMismatch, match="GELU or QuickGELU"):
        convert(str(file), tmp_path / "no")
    convert(str(file), tmp_path / "ours", architecture=architecture)
    loaded = load_network(str(tmp_path / "ours")).backbone.clip.state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in clip.state_dict().items())
    save_archive(torch.nn.Linear(2, 2), tmp_path / "other.pt")
    with pytest.raises(CheckpointMismatch, match=r"unknown \(clip\.bias, clip\.weight\)"):
        convert(str(tmp_path / "other.pt"), tmp_path / "no", architecture=architecture)
    save_archive(small_clip(open_clip.get_model_config(architecture)), tmp_path / "openai.pt")
    convert(str(tmp_path / "openai.pt"), tmp_path / "theirs", architecture=architecture)
    assert load_network(str(tmp_path / "theirs")).kind == "xclip" and not caplog.records


def test_openais_archive_and_a_folder_of_open_clip_are_sources(tmp_path: Path) -> None:
    write_merges(tmp_path)
    clip = small_clip(PLAIN).half()
    save_archive(clip, tmp_path / "ViT-S.pt")
    done = convert(str(tmp_path / "ViT-S.pt"), tmp_path / "halves", dtype="fp16")
    assert (done.layout, done.kind) == ("vidgrain", "xclip")
    written = load_file(tmp_path / "halves" / "model.safetensors")
    names = clip.state_dict().keys() - {"input_resolution", "context_length", "vocab_size"}
    assert all(torch.equal(written[f"clip.{name}"], clip.state_dict()[name]) for name in names)
    hub = tmp_path / "hub"
    hub.mkdir()
    convert(str(tmp_path / "ViT-S.pt"), hub / "open_clip_model.safetensors", to="open_clip")
    pixels = {"mean": [0.5, 0.5, 0.5], "resize_mode": "squash"}
    (hub / "open_clip_config.json").write_text(json.dumps({"model_cfg": PLAIN, "preprocess_cfg": pixels}))
    write_merges(hub)
    convert(str(hub), tmp_path / "ours")
    ours = load_network(str(tmp_path / "ours"))
    assert ours.backbone.preprocess.resize_mode == "squash" and ours.backbone.preprocess.mean == (0.5, 0.5, 0.5)
    with pytest.raises(CheckpointMismatch, match=r"mean is \[0\.5, 0\.5, 0\.5\] and would be"):
        convert(str(hub), tmp_path / "file.safetensors", to="hugging_face")
    convert(str(hub), tmp_path / "hf", to="hugging_face")
    again = load_network(str(tmp_path / "hf"))
    assert again.backbone.preprocess == ours.backbone.preprocess
    assert_same_weights(again.backbone, ours.backbone)  # type: ignore[arg-type]


def test_a_folder_of_hugging_face_holds_heads_and_activation(tmp_path: Path) -> None:
    """Heads 16 wide: no file could say so; config.json does."""
    network = small_network_of("clip4clip", tmp_path)
    source = saved(tmp_path, network)
    with pytest.raises(CheckpointMismatch, match="width of 32"):
        convert(source, tmp_path / "file.safetensors", to="hugging_face")
    done = convert(source, tmp_path / "hub", to="hugging_face")
    assert done.num_tensors == len(load_file(tmp_path / "hub" / "model.safetensors")) and "W = 8" in done.notes[0]
    with safe_open(tmp_path / "hub" / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
    config = json.loads((tmp_path / "hub" / "config.json").read_text())
    assert config["vision_config"]["num_attention_heads"] == 2 and config["text_config"]["hidden_act"] == "quick_gelu"
    again = load_network(str(tmp_path / "hub"), num_frames=4)
    assert again.kind == "clip4clip" and again.backbone.model_cfg == network.backbone.model_cfg
    assert_same_weights(again, network)
    assert again.backbone.tokenize(["red dog"], 8)[2] == (("red", "dog"),)


def test_a_hub_folder_of_two_one_tower_models_is_one_model(tmp_path: Path) -> None:
    """Text and image model beside each other, each with its config, as the transformers library saves them."""
    network = plain_network(tmp_path, "clip4clip", "mean")
    convert(saved(tmp_path, network), tmp_path / "whole.safetensors", to="hugging_face")
    state = load_file(tmp_path / "whole.safetensors")
    both = tmp_path / "both"
    for part, prefix in (("text", "text_"), ("vision", "vis")):
        (both / part).mkdir(parents=True)
        half = {name: value for name, value in state.items() if name.startswith(prefix)}
        save_file(half, both / part / "model.safetensors")
        (both / part / "config.json").write_text(json.dumps(hf_config(PLAIN)[f"{part}_config"]))
    write_merges(both)
    again = load_network(str(both))
    state_again, expected = again.state_dict(), network.state_dict()
    assert again.kind == "clip4clip" and all(
        torch.equal(value, expected[name]) for name, value in state_again.items() if "logit_scale" not in name
    )
    with pytest.raises(CheckpointMismatch, match=r"both.text: the image tower is missing"):
        load_network(str(both / "text"))


@pytest.mark.parametrize("to", TARGETS)
def test_halves_are_written_in_every_layout(to: Target, tmp_path: Path) -> None:
    network = plain_network(tmp_path)
    target = tmp_path / ("half" if to == "vidgrain" else "half.safetensors")
    convert(saved(tmp_path, network), target, to=to, dtype="fp16", is_towers_only=True)
    written = load_file(target / "model.safetensors" if to == "vidgrain" else target)
    floating = {value.dtype for value in written.values() if value.is_floating_point()}
    assert floating == {torch.float16}
    if to != "open_clip":
        assert_same_weights(load_network(str(target)).backbone, network.backbone, torch.float16)  # type: ignore[arg-type]


def test_what_halves_cannot_hold_is_said(tmp_path: Path) -> None:
    network = plain_network(tmp_path)
    with torch.no_grad():
        network.backbone.clip.ln_final.weight[0] = 1e5  # type: ignore[index,union-attr]
    source = saved(tmp_path, network)
    for target in ("ours", "file.safetensors"):
        with pytest.raises(CheckpointMismatch, match=r"65504, and .*ln_final\.weight"):
            convert(source, tmp_path / target, dtype="fp16")
        assert not (tmp_path / target).exists()


@pytest.mark.parametrize(
    ("head", "options", "told"),
    [
        ("xclip", {"aggregation": "mean_max"}, "aggregation is mean_max and would be aosm"),
        ("xclip", {"is_temperature_learnt": True}, "temperature"),
        ("clip2video", {"global_weight": 0.75}, "global_weight is 0.75 and would be 0.5"),
    ],
)
def test_a_head_that_the_papers_do_not_have_is_refused(
    head: HeadKind, options: dict[str, Any], told: str, tmp_path: Path
) -> None:
    source = saved(tmp_path, plain_network(tmp_path, head, **options))
    with pytest.raises(CheckpointMismatch, match=told):
        convert(source, tmp_path / "o.safetensors")
    convert(source, tmp_path / "ours")


def test_towers_that_the_papers_code_would_misread_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointMismatch, match="width of 32"):
        convert(saved(tmp_path, small_network_of("xclip", tmp_path)), tmp_path / "o.safetensors")
    narrow = PLAIN | {"text_cfg": PLAIN["text_cfg"] | {"heads": 4}, "quick_gelu": False}
    odd = PooledNetwork(build_backbone(narrow, merges=write_merges(tmp_path)), NetworkConfig("clip4clip", 7, 5))
    source = saved(tmp_path / "odd", odd)
    with pytest.raises(CheckpointMismatch, match=r"quick_gelu is False and would be True; text_cfg\.heads is 4 .* 2"):
        convert(source, tmp_path / "o.safetensors")
    with pytest.raises(CheckpointMismatch, match=r"'patch_size'|vision transformer only"):
        convert("tiny", tmp_path / "hub", to="hugging_face", is_towers_only=True)


def test_the_bundled_model_goes_into_a_folder_of_halves(tmp_path: Path) -> None:
    convert("tiny", tmp_path / "half", dtype="fp16")
    assert_same_weights(load_network(str(tmp_path / "half")), load_network("tiny"), torch.float16)


def test_without_its_head_a_model_pools_by_the_mean(tmp_path: Path) -> None:
    network = plain_network(tmp_path)
    bare = without_head(network)
    assert bare.kind == "clip4clip" and bare.is_towers_only and not network.is_towers_only
    identity = XClipNetwork(network.backbone, NetworkConfig("xclip", 7, 5))
    assert identity.is_towers_only


def test_what_lies_beside_the_target_stays(tmp_path: Path) -> None:
    source = saved(tmp_path, plain_network(tmp_path))
    (tmp_path / "ours.partial").mkdir()
    (tmp_path / "ours.partial" / "mine.txt").write_text("mine")
    before = {path.name for path in tmp_path.iterdir()}
    convert(source, tmp_path / "ours")
    assert {path.name for path in tmp_path.iterdir()} == before | {"ours"}
    assert (tmp_path / "ours.partial" / "mine.txt").read_text() == "mine"
    assert (tmp_path / "ours").stat().st_mode & 0o777 == (tmp_path / "model").stat().st_mode & 0o777


@pytest.mark.parametrize(
    ("target", "to", "told"),
    [
        ("model", None, "already there"),
        ("no/such/folder.safetensors", None, "isn't there"),
        ("ours.safetensors", "vidgrain", "a folder"),
        ("folder", "official", "one file"),
        ("towers.pt", "openai", "pickled"),
    ],
)
def test_targets_that_cannot_be_are_said_before_anything_is_loaded(
    target: str, to: Target | None, told: str, tmp_path: Path
) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(InvalidSettings, match=told):
        convert("no such model", tmp_path / target, to=to)


@pytest.mark.parametrize(
    ("source", "error"),
    [("no such model", UnknownModel), ("absent.safetensors", WeightsUnavailable), ("empty", UnknownModel)],
)
def test_sources_that_are_none_are_said(source: str, error: type[VidgrainError], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(error):
        convert(str(tmp_path / source), tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["empty"]


def test_the_command_says_what_it_wrote_and_what_went_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = saved(tmp_path, plain_network(tmp_path, "clip4clip", "seqLSTM"))
    main_ended(["convert", source, str(tmp_path / "o.safetensors"), "--json"], 0)
    said = capsys.readouterr()
    told = json.loads(said.out)
    assert told["layout"] == "official" and told["size_bytes"] == (tmp_path / "o.safetensors").stat().st_size
    assert "W = 7 and F = 5" in said.err and "vocabulary" in said.err
    main_ended(["convert", source, str(tmp_path / "p.safetensors"), "--to", "openai"], 2)
    assert "--towers-only" in capsys.readouterr().err
    main_ended(["convert", source, str(tmp_path / "p.safetensors"), "--to", "openai", "--towers-only"], 0)
    assert "openai" in capsys.readouterr().out
    main_ended(["convert", source, str(tmp_path / "q"), "--to", "onnx"], 2)
    main_ended(["convert", source, str(tmp_path / "q"), "--dtype", "int8"], 2)
    assert not (tmp_path / "q").exists()


def main_ended(arguments: list[str], status: int) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == status
