"""A run without a command line: what it writes, refuses, goes on with, and what a diverging one leaves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.checkpoints.folder import save_checkpoint
from model.datasets.frames import FrameReader
from model.datasets.records import Clip
from model.errors import DatasetError, InvalidTraining, ModelError, TrainingDiverged, TrainingError, UnknownModel
from model.families.clip2video import Clip2VideoNetwork
from model.families.clip4clip import PooledNetwork
from model.families.tight import TightNetwork
from model.families.xclip import XClipNetwork
from model.registry import load_network
from model.training.config import ModelPart, TrainConfig, config_from
from model.training.log import RunLog, read_log
from model.training.plot import charts_of, svg_of
from model.training.run import run_training
from model.training.saved import Progress, RunFolder
from model.training.sources import open_data
from model.training.start import start_network
from model.training.trainer import Outcome, Plan
from model.types import Pixels
from tests.support.training import write_start
from tests.unit.model.small import small_network


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_start(tmp_path_factory.mktemp("start"))


def config_of_run(start: Path, **parts: Mapping[str, Any]) -> TrainConfig:
    """Two steps on the shapes, unless `parts` say otherwise."""
    run = {"steps": 2, "batch_size": 4, "precision": "fp32", "log_every": 1, "workers": 1, "device": "cpu"}
    values = {"model": {"start": str(start)}, "run": run}
    return config_from({**values, **{k: {**values.get(k, {}), **v} for k, v in parts.items()}}, "test")


def no_reader(rule: object, resize: object) -> FrameReader:
    raise AssertionError("shapes are drawn")


def go(config: TrainConfig, out: Path, lines: list[Mapping[str, Any]] | None = None, **options: Any) -> Outcome:
    told = [] if lines is None else lines
    options.setdefault("make_reader", no_reader)
    return run_training(config, RunFolder(out), listener=told.append, **options)


def test_a_run_writes_what_it_says(start: Path, tmp_path: Path) -> None:
    out, lines = tmp_path / "out", []
    outcome = go(config_of_run(start), out, lines)
    assert outcome.status == "finished" and outcome.progress.step == 2
    assert [line["event"] for line in lines] == ["started", "step_done", "step_done", "validated", "saved", "finished"]
    assert read_log(out / "log.jsonl") == lines
    step = lines[1]
    assert set(step["learning_rates"]) == {"head", "head_bias", "clip", "clip_bias"}
    assert step["learning_rates"]["head"] == 0.0 and step["loss"] > 0 and step["samples_per_s"] > 0
    assert lines[0]["frozen_tensors"] > 0 and lines[3]["num_videos"] == 200
    svg = (out / "plot.svg").read_text()
    assert svg.startswith("<svg") and svg.count("<polyline") == 1 + 2 + 2
    before, after = load_network(str(start)).state_dict(), load_network(str(out / "last")).state_dict()
    moved = {key for key, value in after.items() if not torch.equal(value, before[key])}
    assert any(key.startswith("temporal.") for key in moved) and "head.local_mat_weight" in moved
    assert not any("token_embedding" in key or "conv1" in key for key in moved), "the stem is frozen"
    again: list[Mapping[str, Any]] = []
    assert go(config_of_run(start), out, again) == outcome and again == []


def test_another_configuration_is_refused_and_fresh_begins_anew(start: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    go(config_of_run(start), out)
    (out / "notes.txt").write_text("mine")
    other = config_of_run(start, run={"seed": 7, "save_every": 1})
    with pytest.raises(TrainingError, match=r"run\.seed 42 is now 7") as found:
        go(other, out)
    assert "--fresh" in found.value.hint and "save_every" not in found.value.message
    lines: list[Mapping[str, Any]] = []
    go(other, out, lines, is_fresh=True)
    assert lines[0]["event"] == "started" and read_log(out / "log.jsonl") == lines
    assert (out / "notes.txt").read_text() == "mine"


def test_two_trainings_do_not_share_a_folder(start: Path, tmp_path: Path) -> None:
    out, config = tmp_path / "out", config_of_run(start)
    with RunFolder(out).held(), pytest.raises(TrainingError, match="Another training writes") as found:
        go(config, out)
    assert "--out" in found.value.hint and not list(out.iterdir())
    assert go(config, out).status == "finished"


def test_data_that_changed_are_refused(start: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    go(config_of_run(start), out, should_stop=lambda: True)
    progress = json.loads((out / "last" / "progress.json").read_text())
    (out / "last" / "progress.json").write_text(json.dumps(progress | {"total_steps": 9}))
    with pytest.raises(TrainingError, match="was of 9 steps"):
        go(config_of_run(start), out)


def test_a_kill_between_the_renames_costs_nothing(start: Path, tmp_path: Path) -> None:
    """`last` is away for an instant: the old one is there as last.old, the new one as last.new."""
    out, config = tmp_path / "out", config_of_run(start)
    assert go(config, out, should_stop=lambda: True).status == "stopped"
    (out / "last").rename(out / "last.old")
    (out / "last.new").mkdir()
    (out / "last.new" / "config.json").write_text("torn")
    lines: list[Mapping[str, Any]] = []
    assert go(config, out, lines).status == "finished"
    assert lines[0]["event"] == "resumed" and lines[0]["step"] == 1
    assert sorted(path.name for path in out.iterdir()) == ["best", "last", "log.jsonl", "plot.svg", "run.json"]


def test_a_disk_that_fails_leaves_what_was_saved(start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, config = tmp_path / "out", config_of_run(start)
    go(config, out, should_stop=lambda: True)
    before = {path.name: path.read_bytes() for path in (out / "last").iterdir()}

    def full(state: object, path: Path) -> None:
        path.write_bytes(b"torn")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(TrainingError, match="can't be written: No space left"):
        go(config, out)
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in (out / "last").iterdir()} == before
    assert go(config, out).status == "finished"
    with pytest.raises(TrainingError, match="can't be written"):
        go(config, start / "config.json" / "below")


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_that_cannot_begin_leaves_everything_as_it_was(start: Path, tmp_path: Path) -> None:
    """Also anew: the old run is removed when nothing is left that could fail. And it blocks no folder."""
    out = tmp_path / "out"
    wrong = config_of_run(start, model={"start": "tinny"})
    for _ in range(2):
        with pytest.raises(UnknownModel, match="tinny"):
            go(wrong, out)
    assert files_of(out) == {}
    go(config_of_run(start), out)
    before = files_of(out)
    for failing in (wrong, config_of_run(start, data={"num_words": 500})):
        with pytest.raises(ModelError):
            go(failing, out, is_fresh=True)
        assert files_of(out) == before


def test_a_run_does_not_remove_what_it_starts_from(start: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    go(config_of_run(start), out)
    before = files_of(out)
    for name in ("best", "last/model.safetensors"):
        with pytest.raises(InvalidTraining, match="which --fresh would remove"):
            go(config_of_run(start, model={"start": str(out / name)}), out, is_fresh=True)
    assert files_of(out) == before
    shutil.copytree(start, out / "base")
    assert go(config_of_run(out / "base"), out, is_fresh=True).status == "finished"


@pytest.mark.parametrize("name", ["best/thesis.txt", "last/notes", "log.jsonl", "plot.svg"])
def test_what_no_run_left_is_not_removed(name: str, start: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / name).parent.mkdir(parents=True)
    (out / name).write_text("mine")
    with pytest.raises(TrainingError, match=r"no run\.json") as found:
        go(config_of_run(start), out)
    assert "--fresh" in found.value.hint and (out / name).read_text() == "mine"
    assert go(config_of_run(start), out, is_fresh=True).status == "finished"


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("last/optimiser.pt", b"", r"optimiser\.pt can't be read"),
        ("last/optimiser.pt", None, r"optimiser\.pt can't be read"),
        ("last/optimiser.pt", [1, 2], r"optimiser\.pt can't be read"),
        ("last/progress.json", b"{}", r"progress\.json lacks"),
        ("last/progress.json", {"step": "one"}, "lacks or misstates 'one'"),
        ("last/progress.json", {"step": -5}, "lacks or misstates -5"),
        ("last/progress.json", {"step": 3}, "impossible numbers of steps"),
        ("last/progress.json", {"best": 3}, r"progress\.json lacks"),
        ("last/progress.json", b"[" * 100_000, r"progress\.json can't be read"),
        ("run.json", {"config": 3}, r"run\.json isn't a run's"),
        ("run.json", {"config": {"model": 3}}, r"run\.json isn't a run's"),
        ("log.jsonl", b"\xff\xfe", r"log\.jsonl can't be read"),
    ],
)
def test_a_damaged_state_is_said_in_words(name: str, content: Any, told: str, start: Path, tmp_path: Path) -> None:
    """None: cut in half. A dictionary: laid over the file's."""
    out, config = tmp_path / "out", config_of_run(start)
    go(config, out, should_stop=lambda: True)
    file = out / name
    if isinstance(content, list):
        torch.save(content, file)
    elif isinstance(content, dict):
        file.write_text(json.dumps(json.loads(file.read_text()) | content))
    else:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2] if content is None else content)
    with pytest.raises(TrainingError, match=told):
        go(config, out)


def test_a_log_that_cannot_be_written_ends_the_run_in_words(start: Path, tmp_path: Path) -> None:
    log = RunLog(tmp_path / "none" / "log.jsonl", lambda line: None)
    with pytest.raises(TrainingError, match=r"log\.jsonl can't be written"):
        log.write("started", 0)


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ({"temporal": "seqTransf", "temporal_layers": 0}, "0 temporal layers"),
        ({"temporal": "seqTransf", "temporal_heads": 0}, "of 0 heads"),
        ({"head": {"kind": "banana"}}, "no key 'kind'"),
        ({"kind": "tight", "head": {"num_positions": 3}}, "no key 'num_positions'"),
        ({"head": {"temperature": 0.0}}, "temperature is 0.0"),
        ({"head": {"grains": ["video_word", "video_word"]}}, "twice"),
    ],
)
def test_a_model_that_cannot_be_is_refused_before_the_training(part: dict[str, Any], told: str, start: Path) -> None:
    with pytest.raises(InvalidTraining, match=told):
        start_network(replace(config_of_run(start).model, **part), None, None, 1)


def test_a_diverging_run_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    network = small_network(tmp_path, "mean")
    with torch.no_grad():
        network.head.local_mat_weight[0, 0] = float("nan")
    save_checkpoint(tmp_path / "ill", network)
    save_checkpoint(tmp_path / "well", small_network(tmp_path, "mean"))
    out, config = tmp_path / "out", config_of_run(tmp_path / "well")
    go(config, out, should_stop=lambda: True)
    shutil.copy(tmp_path / "ill" / "model.safetensors", out / "last" / "model.safetensors")
    before = {path.name: path.read_bytes() for path in (out / "last").iterdir()}
    with pytest.raises(TrainingDiverged, match="the loss of step 1 is nan"):
        go(config, out)
    assert {path.name: path.read_bytes() for path in (out / "last").iterdir()} == before


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"data": {"dataset": "msrvtt"}}, "no dataset 'msrvtt'"),
        ({"data": {"dataset": "msvd"}}, "videos is needed for msvd"),
        ({"data": {"videos": "x"}}, "don't belong to shapes"),
        ({"data": {"num_words": 40}}, "num_words is 40; the text tower"),
        ({"model": {"kind": "clip2video"}, "data": {"num_frames": 17}}, "num_frames is 17"),
        ({"model": {"kind": "tight"}, "data": {"num_frames": 16}}, "num_frames is 16"),
        ({"model": {"kind": "clip2video", "temporal": "seqTransf"}}, "temporal doesn't belong to the kind"),
        ({"model": {"temporal": "mean", "temporal_layers": 2}}, "temporal_layers is for seqTransf"),
        ({"model": {"temporal_heads": 5}}, "don't fit a width of 32"),
        ({"model": {"kind": "clip4clip", "temporal": "TDB"}}, "temporal is 'TDB', which clip4clip can't have"),
        ({"model": {"head": {"grains": ["word"]}}}, "grains are ['word']"),
        ({"model": {"head": {"temprature": 1.0}}}, "[model.head] has no key 'temprature'"),
        ({"model": {"kind": "clip4clip", "head": {"layers": 1}}}, "has the key 'layers'"),
        ({"model": {"kind": "clip2video", "head": {"masks": "official"}}}, "no key 'masks'"),
    ],
)
def test_what_cannot_be_trained_is_said_before_anything_is(
    start: Path, tmp_path: Path, parts: dict[str, Any], words: str
) -> None:
    with pytest.raises((InvalidTraining, DatasetError)) as found:
        go(config_of_run(start, **parts), tmp_path / "out")
    assert words in str(found.value)


def test_epochs_of_shapes_are_refused(start: Path, tmp_path: Path) -> None:
    config = config_of_run(start)
    with pytest.raises(InvalidTraining, match="steps is needed for shapes"):
        go(replace(config, run=replace(config.run, steps=None, epochs=1)), tmp_path / "out")


def test_the_start_keeps_its_head_or_gets_a_new_one(start: Path) -> None:
    kept, told = start_network(ModelPart(str(start)), None, None, 1)
    theirs = load_network(str(start))
    assert "head of" in told and torch.equal(kept.head.local_mat_weight, theirs.head.local_mat_weight)
    same, _ = start_network(ModelPart(str(start), kind="xclip", temporal="seqTransf"), 8, 4, 1)
    assert torch.equal(same.head.local_mat_weight, theirs.head.local_mat_weight)
    wider, told = start_network(ModelPart(str(start)), None, 6, 1)
    assert "a new xclip head" in told and torch.equal(wider.head.local_mat_weight, torch.eye(32))
    assert isinstance(wider, XClipNetwork)
    positions, blocks = wider.backbone.text_blocks()
    assert torch.equal(wider.temporal.frame_position_embeddings.weight, positions)
    assert torch.equal(wider.temporal.transformer.resblocks[0].mlp.c_fc.weight, blocks[0].mlp.c_fc.weight)
    lstm, _ = start_network(ModelPart(str(start), kind="clip4clip", temporal="seqLSTM"), None, None, 1)
    save_checkpoint(start.parent / "lstm", lstm)
    longer, told = start_network(ModelPart(str(start.parent / "lstm")), 10, 9, 1)
    assert "clip4clip head of" in told and (longer.num_words, longer.num_frames) == (10, 9)
    assert torch.equal(longer.head.temporal.lstm.weight_ih_l0, lstm.head.temporal.lstm.weight_ih_l0)
    scratch, told = start_network(ModelPart(str(start), is_random=True), None, None, 1)
    twice, _ = start_network(ModelPart(str(start), is_random=True), None, None, 1)
    assert "random towers" in told and scratch.config == kept.config
    for key, value in scratch.state_dict().items():
        assert torch.equal(value, twice.state_dict()[key]), key
    assert not torch.equal(scratch.backbone.clip.visual.proj, theirs.backbone.clip.visual.proj)


@pytest.mark.parametrize(
    ("part", "kind"),
    [
        ({"kind": "clip4clip", "temporal": "seqLSTM"}, PooledNetwork),
        ({"kind": "clip4clip", "temporal": "mean"}, PooledNetwork),
        ({"temporal": "TDB", "temporal_layers": 1}, XClipNetwork),
        ({"kind": "tight", "temporal": "mean", "head": {"layers": 1}}, TightNetwork),
        ({"kind": "clip2video", "head": {"layers": 1, "num_centres": 3}}, Clip2VideoNetwork),
        ({"kind": "xclip", "head": {"aggregation": "mean_max", "grains": ["frame_word"]}}, XClipNetwork),
    ],
)
@pytest.mark.parametrize("masks", ["masked", "reference"])
def test_every_kind_trains_is_saved_and_goes_on(
    start: Path, tmp_path: Path, part: dict[str, Any], kind: type, masks: str
) -> None:
    config = config_of_run(start, model={**part, "masks": masks})
    out, lines = tmp_path / "out", []
    go(config, out, should_stop=lambda: True)
    go(config, out, lines)
    assert lines[0]["event"] == "resumed"
    trained = load_network(str(out / "best"), masks=None)
    assert isinstance(trained, kind) and trained.masks == masks
    assert all(bool(value.isfinite().all()) for value in trained.state_dict().values() if value.is_floating_point())


class Drawn:
    """A reader of videos that aren't there: frames of one colour by the clip's name."""

    def __call__(self, path: Path, clip: Clip, num_frames: int, *, jitter_seed: int | None = None) -> Pixels:
        assert path.is_file()
        shade = 40 * (sum(map(ord, clip.id)) % 6)
        return np.full((min(2, num_frames), 32, 32, 3), shade, np.uint8)


def write_own_data(folder: Path) -> dict[str, Any]:
    """Users' own videos (empty files) with six training clips of two captions and three validation clips."""
    (folder / "videos").mkdir()
    for split, count in (("train", 6), ("val", 3)):
        lines = []
        for i in range(count):
            (folder / "videos" / f"{split}{i}.mp4").write_bytes(b"")
            lines.append(json.dumps({"video": f"{split}{i}", "captions": [f"a dog {i}", f"red cat {i}"]}))
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return {"dataset": "folder", "videos": str(folder / "videos"), "annotations": str(folder)}


def test_epochs_of_a_dataset(start: Path, tmp_path: Path) -> None:
    data = write_own_data(tmp_path)
    config = config_of_run(start, data=data, run={"epochs": 2, "steps": 1})
    config = replace(config, run=replace(config.run, steps=None))
    lines: list[Mapping[str, Any]] = []
    asked = []

    def make_reader(rule: Any, resize: Any) -> FrameReader:
        asked.append(rule.choice)
        return Drawn()

    outcome = go(config, tmp_path / "out", lines, make_reader=make_reader)
    assert outcome.progress.total_steps == 6 and asked == ["served"]
    started = lines[0]
    assert (started["train"]["clips"], started["train"]["captions"], started["val"]["clips"]) == (6, 12, 3)
    assert [line["epoch"] for line in lines if line["event"] == "step_done"] == [0, 0, 0, 1, 1, 1]
    validated = [line for line in lines if line["event"] == "validated"]
    assert [line["step"] for line in validated] == [3, 6]
    assert (validated[0]["num_videos"], validated[0]["num_texts"]) == (3, 6)


def test_missing_videos_are_counted_and_named(start: Path, tmp_path: Path) -> None:
    data = write_own_data(tmp_path)
    (tmp_path / "videos" / "train4.mp4").unlink()
    with pytest.raises(DatasetError, match=r"1 of the 6 videos of folder train .*: train4"):
        open_data(config_of_run(start, data=data))
    lines: list[Mapping[str, Any]] = []
    config = config_of_run(start, data={**data, "allow_missing": True})
    go(config, tmp_path / "out", lines, make_reader=lambda rule, resize: Drawn())
    assert lines[0]["train"]["missing_names"] == ["train4"] and lines[0]["train"]["clips"] == 5


def test_a_log_is_cut_where_the_run_goes_on(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "log.jsonl", lambda line: None)
    for step in range(4):
        log.write("step_done", step, loss=1.0)
    log.write("stopped", 2)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"event": "step_d')
    log.cut(2)
    assert [(line["event"], line["step"]) for line in read_log(tmp_path / "log.jsonl")] == [
        ("step_done", 0),
        ("step_done", 1),
        ("step_done", 2),
    ]
    (tmp_path / "log.jsonl").write_text('{"event": "x"}\n{"event": "step_done", "step": 1}\n')
    with pytest.raises(TrainingError, match="line 1"):
        read_log(tmp_path / "log.jsonl")


def test_a_plot_of_nothing_and_of_odd_numbers() -> None:
    assert svg_of(charts_of([]), "a < b").count("nothing yet") == 3
    lines = [
        {"event": "step_done", "step": step, "loss": loss, "learning_rates": {"head": rate}}
        for step, loss, rate in ((1, 2.0, 0.0), (2, float("nan"), 1e-4), (3, 1.0, 1e-7))
    ]
    svg = svg_of(charts_of(lines), "run")
    assert svg.count("<polyline") == 2 and "nan" not in svg and svg.count("nothing yet") == 1
    assert svg_of(charts_of(lines[:1]), "run").count("<circle") == 1


def test_a_plan_in_steps(start: Path) -> None:
    config = config_of_run(start, run={"steps": 10, "validate_every": 4})
    assert Plan.of(config, None) == Plan(10, 10, 4, 4)
    assert Plan.of(config, 5) == Plan(10, 5, 4, 4)
    by_epochs = replace(config, run=replace(config.run, steps=None, epochs=3, validate_every=0, save_every=2))
    assert Plan.of(by_epochs, 7) == Plan(21, 7, 7, 2)
    assert Progress().best.figure < 0
