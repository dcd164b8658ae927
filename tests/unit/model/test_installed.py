"""Models at hand are told by their configurations, without reading weights; what is broken is named with its reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from model import installed
from model.checkpoints.folder import CONFIG_FILE, TENSORS_FILE, save_checkpoint
from model.errors import ModelError, UnknownModel
from model.installed import described, installed_models
from model.registry import load_model, load_network
from model.types import HeadKind
from tests.unit.model.small import small_network_of

KINDS: tuple[HeadKind, ...] = ("xclip", "clip4clip", "tight", "clip2video")


@pytest.mark.parametrize("kind", KINDS)
def test_a_description_is_what_the_loaded_model_says_of_itself(kind: HeadKind, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / kind, small_network_of(kind, tmp_path, "seqLSTM", num_words=7, num_frames=3))
    found = next(model for model in installed_models([tmp_path]) if model.folder == tmp_path / kind)
    assert found == described(str(tmp_path / kind)) and found.error is None
    spec = load_model(str(tmp_path / kind), device="cpu").spec
    for name in ("name", "kind", "embed_dim", "num_frames", "num_words", "image_size", "temporal", "scorers"):
        assert getattr(found, name) == getattr(spec, name), name


def test_the_bundled_model_is_always_there_and_known_by_each_of_its_names() -> None:
    tiny = installed_models([])[0]
    assert (tiny.name, tiny.error, tiny.kind) == ("tiny", None, "xclip")
    assert tiny.is_called("tiny") and tiny.is_called(str(tiny.folder)) and not tiny.is_called("other")
    assert described("tiny") == tiny


def test_a_folder_may_be_a_model_or_hold_models(tmp_path: Path) -> None:
    for name in ("b", "a", ".hidden"):
        save_checkpoint(tmp_path / name, small_network_of("clip4clip", tmp_path))
    (tmp_path / "notes").mkdir()
    (tmp_path / "merges.txt").touch()
    (tmp_path / "loose.pt").touch()
    names = [
        model.name for model in installed_models([tmp_path, tmp_path / "b"]) if model.folder and model.name != "tiny"
    ]
    assert names == [str(tmp_path / "a"), str(tmp_path / "b"), str(tmp_path / "loose.pt"), str(tmp_path / "b")]


@pytest.mark.parametrize(
    ("break_it", "why"),
    [
        (lambda folder: (folder / TENSORS_FILE).unlink(), "no such file"),
        (lambda folder: (folder / CONFIG_FILE).write_text("{"), "can't be read"),
        (lambda folder: (folder / CONFIG_FILE).write_text("[" * 200_000), "can't be read"),
        (lambda folder: (folder / CONFIG_FILE).write_text('{"format": "of tomorrow"}'), "of tomorrow"),
        (lambda folder: _restate(folder, num_frames=float("inf")), "misstates"),
        (lambda folder: _restate(folder, num_words=-1), "num_words is -1"),
        (lambda folder: _restate(folder, num_frames=10**30), "num_frames is 10"),
        (lambda folder: _restate(folder, model_cfg={"embed_dim": -4}), "embed_dim is -4"),
        (lambda folder: _restate(folder, model_cfg={"embed_dim": "32"}), "embed_dim is '32'"),
        (lambda folder: (folder / CONFIG_FILE).write_text('{"format": "vidgrain-2", "head": {}}'), "lacks"),
        (lambda folder: (folder / TENSORS_FILE).write_bytes(b""), "can't be read"),
        (lambda folder: (folder / TENSORS_FILE).write_bytes(b"x" * 500), "can't be read"),
        (lambda folder: _cut(folder / TENSORS_FILE), "can't be read"),
    ],
)
def test_a_damaged_folder_is_there_with_its_reason(break_it, why: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    save_checkpoint(tmp_path / "model", small_network_of("xclip", tmp_path))
    break_it(tmp_path / "model")
    (found,) = (model for model in installed_models([tmp_path]) if model.folder == tmp_path / "model")
    assert found.error is not None and why in found.error.message
    with pytest.raises(ModelError):
        load_model(str(tmp_path / "model"), device="cpu")


def test_weights_in_other_layouts_are_listed_by_name_alone(tmp_path: Path) -> None:
    hub = tmp_path / "models" / "hub"
    hub.mkdir(parents=True)
    (hub / CONFIG_FILE).write_text('{"model_type": "clip"}')
    (hub / "pytorch_model.bin").write_bytes(b"not read")
    found = next(model for model in installed_models([tmp_path / "models"]) if model.folder == hub)
    assert found == described(str(hub)) and (found.error, found.kind, found.scorers) == (None, None, ())
    file = hub / "pytorch_model.bin"
    assert described(str(file)).error is None and described(f"ViT-B-32/{file}").error is None
    (hub / CONFIG_FILE).write_text("{")
    found = next(model for model in installed_models([tmp_path / "models"]) if model.folder == hub)
    assert found.error is not None and found.error.code == "checkpoint_mismatch"


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    (found,) = (model for model in installed_models([tmp_path / "gone"]) if model.folder == tmp_path / "gone")
    assert found.error is not None and found.error.path == tmp_path / "gone" and "VIDGRAIN_MODELS" in found.error.hint


def test_towers_in_the_cache_are_told_as_the_registry_would_make_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed, "cached_weights", lambda: [("ViT-B-32-quickgelu", "openai")])
    cached = installed_models([])[-1]
    assert (cached.name, cached.error, cached.folder) == ("ViT-B-32-quickgelu/openai", None, None)
    assert (cached.embed_dim, cached.num_frames, cached.num_words, cached.image_size) == (512, 12, 32, 224)
    assert described("ViT-B-32-quickgelu/openai") == cached
    away = described("ViT-B-16/openai")
    assert away.error is not None and away.error.code == "weights_unavailable" and away.embed_dim == 512


@pytest.mark.parametrize(
    ("name", "code"), [("nothing", "unknown_model"), ("ViT-B-32/gone.pt", "weights_unavailable"), ("", "unknown_model")]
)
def test_a_name_that_is_no_model_is_described_with_why(name: str, code: str) -> None:
    found = described(name)
    assert found.error is not None and found.error.code == code and found.scorers == ()


@pytest.mark.parametrize("name", ["x" * 300, "ViT-B-32/" + "x" * 5000, "a/" * 4000])
def test_a_name_that_no_file_can_have_is_no_model(name: str) -> None:
    found = described(name)
    assert found.error is not None and "too long" in found.error.message
    with pytest.raises(UnknownModel, match="too long"):
        load_network(name)


def _restate(folder: Path, **values: object) -> None:
    config = json.loads((folder / CONFIG_FILE).read_text())
    (folder / CONFIG_FILE).write_text(json.dumps(config | values))


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-4])
