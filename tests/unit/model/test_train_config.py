"""Configurations of trainings: presets, what a file says over them, and mistakes that are named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from model.datasets.protocols import DATASETS
from model.errors import InvalidTraining
from model.training.config import PRESETS, TrainConfig, config_from, differences, preset_names, read_config

LEAST = {"run": {"steps": 1}}


def written(folder: Path, text: str) -> Path:
    path = folder / "run.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_a_configuration_and_says_its_source(name: str) -> None:
    config = read_config(preset=name)
    assert "# Source:" in (text := (PRESETS / f"{name}.toml").read_text()) or "published" in text
    assert max(map(len, text.splitlines())) <= 120
    if config.data.dataset != "shapes":
        row = DATASETS[config.data.dataset]
        assert (config.data.num_words, config.data.num_frames) == (row.num_words, row.num_frames)
        kind, _, dataset = name.partition("-")
        assert (config.model.kind, config.data.dataset) == (kind, dataset)


def test_the_papers_numbers() -> None:
    """The table of hyper-parameters of the official scripts."""
    runs = {
        "xclip-msrvtt-1ka": (300, 5), "xclip-msvd": (300, 5), "xclip-lsmdc": (300, 5),
        "xclip-didemo": (64, 20), "xclip-activitynet": (112, 20),
        "clip4clip-msrvtt-1ka": (128, 5), "clip4clip-msvd": (128, 5), "clip4clip-lsmdc": (128, 5),
        "clip4clip-didemo": (128, 5), "clip4clip-activitynet": (128, 5),
    }  # fmt: skip
    for name, (batch_size, epochs) in runs.items():
        config = read_config(preset=name)
        assert (config.run.batch_size, config.run.epochs, config.run.seed) == (batch_size, epochs, 42), name
        found = config.optimiser
        rates = (found.kind, found.learning_rate, found.coef_lr, found.weight_decay, found.warmup, found.max_grad_norm)
        assert rates == ("official", 1e-4, 1e-3, 0.2, 0.1, 1.0), name
        assert config.run.freeze_layer_num == 0 and config.model.masks == "reference"
        is_xclip = name.startswith("xclip")
        assert (config.model.temporal, config.model.temporal_layers) == (
            ("seqTransf", 4) if is_xclip else ("mean", None)
        )
    centres = {
        name: read_config(preset=name).model.head["num_centres"] for name in preset_names() if "clip2video" in name
    }
    assert centres == {
        "clip2video-msrvtt-1ka": 5, "clip2video-msrvtt-full": 5, "clip2video-msvd": 5, "clip2video-vatex": 7,
    }  # fmt: skip


def test_a_file_wins_over_its_preset_and_the_command_line_over_both(tmp_path: Path) -> None:
    file = written(tmp_path, 'preset = "xclip-msvd"\n[run]\nbatch_size = 16\nout = "here"\n[model]\nmasks = "masked"\n')
    config = read_config(file, over={"run": {"out": "there"}})
    assert (config.run.batch_size, config.run.out, config.run.epochs) == (16, "there", 5)
    assert (config.model.masks, config.model.kind, config.data.dataset) == ("masked", "xclip", "msvd")
    assert read_config(file, "clip4clip-msvd").model.kind == "clip4clip"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[run]\nbatchsize = 4\n", "[run] has no key 'batchsize'"),
        ("[train]\n", "'train'"),
        ("[run]\nbatch_size = 4.5\n", "[run] batch_size is 4.5; a whole number is needed"),
        ("[run]\nbatch_size = true\n", "[run] batch_size is True"),
        ("[run]\nbatch_size = 1\n", "[run] batch_size is 1; at least 2"),
        ("[run]\nprecision = 'fp16'\n", "one of 'bf16', 'fp32' is needed"),
        ("[run]\nsteps = 0\n", "[run] steps is 0"),
        ("[run]\nfreeze_layer_num = -2\n", "freeze_layer_num is -2"),
        ("[run]\nseed = 99999999999999999999999\n", "[run] seed is 99999999999999999999999; at most"),
        ("[run]\nsteps = 99999999999999999999999\n", "[run] steps is 99999999999999999999999; at most"),
        ("[optimiser]\nwarmup = 1.0\n", "[optimiser] warmup is 1.0"),
        ("[optimiser]\nlearning_rate = nan\n", "learning_rate is nan"),
        ("[optimiser]\nmax_grad_norm = nan\n", "max_grad_norm is nan; a finite number is needed"),
        ("[optimiser]\nlearning_rate = inf\n", "learning_rate is inf; a finite number is needed"),
        ("[optimiser]\nkind = 'sgd'\n", "[optimiser] kind is 'sgd'"),
        ("model = 3\n", "[model] is 3; a table is needed"),
        ("[model]\nhead = 3\n", "[model] head is 3; a table is needed"),
        ("[data]\nnum_words = 2\n", "[data] num_words is 2"),
        ("preset = 'xclip'\n", "no preset 'xclip'"),
        ("preset = 3\n", "preset is 3"),
        ("[run\n", "isn't TOML"),
        ("[model]\n", "neither epochs nor steps"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InvalidTraining) as found:
        read_config(written(tmp_path, text))
    assert words in str(found.value)
    assert "run.toml" in found.value.message or "preset" in found.value.message


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidTraining, match=r"none\.toml can't be read"):
        read_config(tmp_path / "none.toml")


@pytest.mark.parametrize(("former", "present"), [("served", "masked"), ("official", "reference")])
def test_former_names_are_still_read(former: str, present: str, tmp_path: Path) -> None:
    file = tmp_path / "old.toml"
    file.write_text(f'[model]\nmasks = "{former}"\n[model.head]\nis_fine_temporal = true\n[run]\nsteps = 1\n')
    found = read_config(file)
    assert (found.model.masks, dict(found.model.head)) == (present, {"fine_grains_use_temporal": True})
    stored = json.loads(json.dumps(found.as_dict()))
    stored["model"] |= {"masks": former, "head": {"is_fine_temporal": True}}
    assert differences(stored, found) == []
    file.write_text('[model]\nmasks = "none"\n[run]\nsteps = 1\n')
    with pytest.raises(InvalidTraining, match="one of 'masked', 'reference' is needed"):
        read_config(file)


def test_a_kind_that_is_unknown_is_named_with_those_there_are() -> None:
    with pytest.raises(InvalidTraining, match="the kind 'clip5clip' is unknown") as refused:
        config_from(LEAST | {"model": {"kind": "clip5clip"}}, "test")
    assert refused.value.hint == "There are xclip, clip2video, tight, clip4clip."


def test_what_a_run_began_with_is_compared_key_by_key() -> None:
    began = config_from(LEAST | {"model": {"head": {"grains": ["frame_word"]}}}, "test")
    stored = json.loads(json.dumps(began.as_dict()))
    assert differences(stored, began) == []
    moved = replace(began, run=replace(began.run, out="elsewhere", device="cpu", save_every=3, log_every=2, workers=9))
    assert differences(stored, moved) == []
    changed = replace(moved, run=replace(moved.run, seed=1), model=replace(moved.model, masks="reference"))
    assert differences(stored, changed) == ["model.masks 'masked' is now 'reference'", "run.seed 42 is now 1"]
    assert differences({}, TrainConfig())
