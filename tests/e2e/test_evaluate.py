"""`vidgrain evaluate` as a person types it: drawn clips in MSR-VTT's own layout, the bundled model, real decoding."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from model.datasets.load import load_split
from model.datasets.shapes import Item, held_out
from model.evaluation.published import published_rows
from service.cli.main import main
from tests.e2e.test_cli import Outcome
from tests.support.annotations import write_annotations, write_videos
from tests.support.clips import write_clip

FRAMES = 8
"""Of the bundled model; a clip shows one a second, which is what the papers' rule takes of it."""


@pytest.fixture(scope="module")
def items() -> list[Item]:
    return held_out(8, 2)


@pytest.fixture(scope="module")
def dataset(items: list[Item], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """annotations/ and videos/ of MSR-VTT 1k-A with twelve clips."""
    folder = tmp_path_factory.mktemp("msrvtt")
    (folder / "annotations").mkdir()
    (folder / "videos").mkdir()
    lines = ["key,vid_key,video_id,sentence"]
    for number, item in enumerate(items):
        write_clip(folder / "videos" / f"video{7010 + number}.mp4", item.pixels(FRAMES), 1)
        lines.append(f'ret{number},msr{7010 + number},video{7010 + number},"{item.sentence}"')
    (folder / "annotations" / "MSRVTT_JSFUSION_test.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def evaluate(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """`vidgrain evaluate` with the bundled model; `dataset` is the folder to look in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VIDGRAIN_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("VIDGRAIN_DEVICE", "cpu")

    def run(folder: Path, *arguments: object, name: str = "msrvtt-1ka") -> Outcome:
        capsys.readouterr()
        where = ["--dataset", name, "--videos", folder / "videos", "--annotations", folder / "annotations"]
        try:
            main([str(a) for a in ("evaluate", "--model", "tiny", *where, *arguments)])
            status = 0
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        said = capsys.readouterr()
        return Outcome(status, said.out, said.err)

    yield run


def test_it_finds_the_clips_and_the_second_run_decodes_nothing(evaluate: Any, dataset: Path, tmp_path: Path) -> None:
    first = evaluate(dataset, "--json", "--out", tmp_path / "found.json")
    assert first.status == 0, first
    found = first.json
    assert found == json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert (found["dataset"], found["split"], found["num_texts"], found["num_videos"]) == ("msrvtt-1ka", "test", 12, 12)
    assert found["text_to_video"]["r1"] >= 0.9 and found["video_to_text"]["r5"] == 1.0
    assert found["protocol"] == {
        "num_words": 32,
        "num_frames": FRAMES,
        "is_paragraph": False,
        "is_multi_caption": False,
        "frame_rule": {"choice": "clip4clip", "frames_per_s": 1, "divisor": 1},
        "masks": "masked",
        "scorer": None,
        "ties": "against",
    }
    assert (found["missing"]["count"], found["unreadable"]["count"]) == (0, 0)
    assert len(found["published"]) == len(published_rows("msrvtt-1ka")) > 5
    assert any("12 clips here and 1,000" in warning for warning in found["warnings"])
    assert any("F=8" in warning and "F=12" in warning for warning in found["warnings"])
    assert (found["cache"]["num_read"], found["cache"]["num_written"]) == (0, 12)
    again = evaluate(dataset, "--json").json
    assert (again["cache"]["num_read"], again["cache"]["num_written"]) == (12, 0)
    assert again["text_to_video"] == found["text_to_video"]
    assert evaluate(dataset, "--json", "--no-cache").json["cache"]["folder"] is None


def test_the_table_shows_published_rows_as_such(evaluate: Any, dataset: Path) -> None:
    shown = evaluate(dataset, "--cache", "features")
    assert shown.status == 0, shown
    lines = shown.out.splitlines()
    assert "R@50" in shown.out
    ours = [line for line in lines if "text_to_video" in line or "video_to_text" in line]
    theirs = [line for line in lines if "CLIP4Clip" in line or "X-CLIP" in line or "CLIP2Video" in line]
    assert len(ours) == 2 and len(theirs) == 22
    assert all("published" in line and "arXiv:" in line for line in theirs)
    assert "0 of 12 videos from the cache; 12 kept" in shown.err and "features" in shown.err


def test_missing_videos_stop_the_run_or_are_named(evaluate: Any, dataset: Path, tmp_path: Path) -> None:
    folder = tmp_path / "part"
    shutil.copytree(dataset, folder)
    (folder / "videos" / "video7011.mp4").unlink()
    (folder / "videos" / "video7013.mp4").write_bytes(b"no video")
    stopped = evaluate(folder)
    assert stopped.status == 2 and stopped.out == ""
    assert "1 of 12 videos aren't below" in stopped.err and "video7011" in stopped.err
    assert "--allow-missing" in stopped.err
    done = evaluate(folder, "--allow-missing", "--json")
    assert done.status == 0, done
    assert done.json["missing"] == {"count": 1, "names": ["video7011"]}
    assert done.json["unreadable"]["count"] == 1 and "video7013" in done.json["unreadable"]["reasons"]
    assert done.json["num_videos"] == done.json["num_texts"] == 10
    shown = evaluate(folder, "--allow-missing")
    assert "1 missing, left out: video7011" in shown.err and "1 unreadable, left out: clip video7013" in shown.err
    assert any("are missing" in warning for warning in done.json["warnings"])


def test_a_broken_video_alone_stops_the_run(evaluate: Any, dataset: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(dataset, folder)
    (folder / "videos" / "video7013.mp4").write_bytes(b"no video")
    stopped = evaluate(folder)
    assert stopped.status == 2 and "1 of 12 clips can't be read: clip video7013" in stopped.err


@pytest.mark.parametrize("name", ["msvd", "didemo", "folder"])
def test_other_datasets_give_the_same_fields(name: str, evaluate: Any, dataset: Path, tmp_path: Path) -> None:
    write_annotations(name, tmp_path / "annotations", 3)
    write_videos(load_split(name, "test", tmp_path / "annotations"), tmp_path / "videos")
    masks = "reference" if name == "msvd" else "official"  # the former name is still read
    found = evaluate(tmp_path, "--json", "--masks", masks, "--no-cache", name=name).json
    assert found.keys() == evaluate(dataset, "--json", "--scorer", "mean").json.keys()
    assert (found["num_videos"], found["protocol"]["masks"], found["protocol"]["ties"]) == (3, "reference", "official")
    assert found["protocol"]["is_multi_caption"] == (name != "didemo")
    assert found["protocol"]["is_paragraph"] == (name == "didemo")
    assert found["num_texts"] == {"msvd": 9, "didemo": 3, "folder": 4}[name]


def test_scorers_and_what_goes_wrong_in_words(evaluate: Any, dataset: Path, tmp_path: Path) -> None:
    found = evaluate(dataset, "--json", "--scorer", "max_frame").json
    assert (found["protocol"]["scorer"], found["protocol"]["masks"]) == ("max_frame", "masked")
    wrong = (
        (("--scorer", "tight"), "has no scorer 'tight'"),
        (("--scorer", "mean", "--masks", "reference"), "works with padding masked only"),
        (("--split", "dev"), "There is no split 'dev'"),
        (("--dataset", "imagenet"), "There is no dataset 'imagenet'"),
        (("--dataset", "shapes", "--split", "train"), "no split 'train'"),
        (("--annotations", tmp_path / "none"), "There is no folder of annotations"),
    )
    for arguments, words in wrong:
        said = evaluate(dataset, *arguments)
        assert said.status == 2 and words in said.err, said
    assert "is unknown; use trained, masked, reference" in evaluate(dataset, "--masks", "none").err
    assert "no folder" in evaluate(dataset, "--out", tmp_path / "none" / "x.json").err
    assert "is a folder" in " ".join(evaluate(dataset, "--out", tmp_path).err.replace("│", " ").split())


def test_a_real_dataset_needs_its_folders(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["evaluate", "--model", "tiny", "--dataset", "msvd", "--videos", str(tmp_path)])
    assert "msvd needs --annotations" in capsys.readouterr().err
