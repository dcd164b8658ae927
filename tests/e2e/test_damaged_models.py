"""What is wrong with a damaged model is reported over HTTP without the folders of the machine."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from model.checkpoints.folder import CONFIG_FILE, TENSORS_FILE, save_checkpoint
from model.errors import ModelError
from model.registry import load_network
from service import edge
from tests.e2e.conftest import make_service
from tests.unit.model.small import small_network_of


def test_no_damaged_model_shows_a_folder_of_the_machine(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    shelf = tmp_path / "my shelf"
    kinds = ("config cut", "config binary", "value", "nested", "no weights", "junk", "cut", "hub", "open clip")
    for name in kinds:
        save_checkpoint(shelf / name, small_network_of("clip4clip", tmp_path))
    (shelf / "config cut" / CONFIG_FILE).write_text('{"format": ')
    (shelf / "config binary" / CONFIG_FILE).write_bytes(b"\xff\xfe")
    (shelf / "value" / CONFIG_FILE).write_text('{"format": "vidgrain-2", "num_words": -1}')
    (shelf / "nested" / CONFIG_FILE).write_text("[" * 200_000)
    (shelf / "no weights" / TENSORS_FILE).unlink()
    (shelf / "junk" / TENSORS_FILE).write_bytes(b"x" * 500)
    weights = shelf / "cut" / TENSORS_FILE
    weights.write_bytes(weights.read_bytes()[:-4])
    (shelf / "hub" / CONFIG_FILE).write_text('{"model_type": "bert"}')
    (shelf / "open clip" / CONFIG_FILE).unlink()
    (shelf / "open clip" / "open_clip_config.json").write_text("{")
    (shelf / "garbage.pt").write_bytes(b"no archive")
    for service in make_service(tmp_path, models=(shelf, tmp_path / "nowhere", tmp_path / "my shelf" / "garbage.pt")):
        answer = service.client.get("/models")
    listed = {model["name"]: model["error"] for model in answer.json()["models"]}
    assert {name for name, error in listed.items() if error} >= {*kinds[:7], "nowhere"}
    assert listed["no weights"]["message"] == "model.safetensors: There is no such file."
    assert str(tmp_path) not in answer.text and "my shelf" not in answer.text


def test_what_loading_a_damaged_model_raises_shows_no_folder_over_http(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "good", small_network_of("clip4clip", tmp_path))
    damaged = []
    for name in ("foreign", "config", "weights", "shape", "junk"):
        damaged.append(shutil.copytree(tmp_path / "good", tmp_path / name))
    (tmp_path / "foreign" / CONFIG_FILE).write_text('{"format": "of another program"}')
    (tmp_path / "config" / CONFIG_FILE).write_text("{")
    (tmp_path / "weights" / TENSORS_FILE).unlink()
    (tmp_path / "shape" / TENSORS_FILE).write_bytes(save({"a": torch.ones(1)}))
    (tmp_path / "junk" / TENSORS_FILE).write_bytes(b"x" * 500)
    (tmp_path / "empty").mkdir()
    for name in ("garbage.pt", "garbage.bin"):
        (tmp_path / name).write_bytes(b"no archive")
    with zipfile.ZipFile(tmp_path / "program.pt", "w") as archive:
        archive.writestr("a/data.pkl", b"cos\nsystem\n.")
        archive.writestr("a/constants.pkl", b"")
    damaged += [tmp_path / name for name in ("empty", "garbage.pt", "garbage.bin", "program.pt", "gone", "gone.pt")]
    names = [*map(str, damaged), *(f"{arch}/{tmp_path}/gone.pt" for arch in ("ViT-B-32", "ViT-B-33"))]
    for name in names:
        with pytest.raises(ModelError) as caught:
            load_network(name)
        assert str(tmp_path) in caught.value.describe(), "the command line shows where"
        assert str(tmp_path) not in bytes(edge.answer(caught.value).body).decode(), name
