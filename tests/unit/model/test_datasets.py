"""Every dataset in its real format: loaded, counted, its videos found; what is wrong is said with its place."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest

from model.datasets.load import count_note, dataset_of, find_videos, load_split
from model.datasets.protocols import DATASETS
from model.datasets.records import SPLIT_NAMES, Clip, Split
from model.errors import DatasetError
from tests.support.annotations import WRITERS, sentences, write_annotations

ROOT = Path(__file__).resolve().parents[3]
NUM = 3


def split_of(*clips: Clip) -> Split:
    return Split("folder", "test", clips, False)


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return folder


@pytest.mark.parametrize("name", DATASETS)
def test_every_split_loads_in_the_order_of_its_list(name: str, tmp_path: Path) -> None:
    ids = write_annotations(name, tmp_path, NUM)
    for split in SPLIT_NAMES:
        loaded = load_split(name, split, tmp_path)
        assert (loaded.dataset, loaded.name) == (name, split)
        assert tuple(clip.id for clip in loaded.clips) == ids[split]
        assert loaded.without_captions == ()
        assert all(clip.captions and all(clip.captions) for clip in loaded.clips)
        assert len(loaded.pairs) == len(loaded.video_of_text) == loaded.num_captions
        assert [position for position, _ in loaded.pairs] == loaded.video_of_text.tolist()
    assert set(WRITERS) == set(DATASETS)


@pytest.mark.parametrize("name", [name for name, row in DATASETS.items() if not row.is_multi_caption])
def test_a_single_caption_test_has_one_caption_a_clip(name: str, tmp_path: Path) -> None:
    write_annotations(name, tmp_path, NUM)
    test = load_split(name, "test", tmp_path)
    assert not test.is_multi_caption
    assert np.array_equal(test.video_of_text, np.arange(NUM))


@pytest.mark.parametrize("name", [name for name, row in DATASETS.items() if row.is_multi_caption])
def test_a_multi_caption_test_has_several(name: str, tmp_path: Path) -> None:
    write_annotations(name, tmp_path, NUM)
    test = load_split(name, "test", tmp_path)
    assert test.is_multi_caption and test.num_captions > NUM


def test_msrvtt_trains_on_every_caption_and_tests_on_one(tmp_path: Path) -> None:
    write_annotations("msrvtt-1ka", tmp_path, NUM)
    train, test = (load_split("msrvtt-1ka", split, tmp_path) for split in ("train", "test"))
    assert train.num_captions == 3 * NUM and train.is_multi_caption
    assert train.clips[0].captions == tuple(sentences("video0", 0, 3))
    assert test.clips[0].captions == (sentences("video7010", 0, 1)[0] + ", as someone said",)


def test_msrvtt_full_goes_by_its_list_before_the_field(tmp_path: Path) -> None:
    write_annotations("msrvtt-full", tmp_path, NUM)
    (tmp_path / "MSRVTT_test.full.csv").write_text("video_id\nvideo7011\nvideo7011\nvideo0\nvideo9999\n")
    test = load_split("msrvtt-full", "test", tmp_path)
    assert [clip.id for clip in test.clips] == ["video7011", "video0"]
    assert test.without_captions == ("video9999",)


def test_msvd_as_pickle_of_any_protocol_and_as_json(tmp_path: Path) -> None:
    write_annotations("msvd", tmp_path, NUM)
    expected = load_split("msvd", "test", tmp_path)
    captions = pickle.loads((tmp_path / "raw-captions.pkl").read_bytes())
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / "raw-captions.pkl").write_bytes(pickle.dumps(captions, protocol))
        assert load_split("msvd", "test", tmp_path) == expected
    (tmp_path / "raw-captions.pkl").unlink()
    joined = {video: [" ".join(words) for words in several] for video, several in captions.items()}
    (tmp_path / "captions_msvd.json").write_text(json.dumps(joined))
    assert load_split("msvd", "test", tmp_path) == expected


def test_msvd_files_may_go_by_their_other_names(tmp_path: Path) -> None:
    ids = write_annotations("msvd", tmp_path, 2)["test"]
    (tmp_path / "youtube_mapping.txt").write_text(f"{ids[0]} vid1301\n{ids[1]} vid1302\n")
    videos = touch(tmp_path / "videos", "vid1301.avi")
    found = find_videos(load_split("msvd", "test", tmp_path), videos)
    assert found.paths == {ids[0]: videos / "vid1301.avi"} and found.missing == (ids[1],)


def test_a_line_of_lsmdc_is_a_pair_of_its_own(tmp_path: Path) -> None:
    times = "0\t1\t0\t1"
    (tmp_path / "LSMDC16_annos_val.csv").write_text(f'a\t{times}\tOne.\r\na\t{times}\tTwo "words".\n\nb\t{times}\tB.\n')
    val = load_split("lsmdc", "val", tmp_path)
    assert [(c.id, c.video, c.captions) for c in val.clips] == [
        ("a", "a", ("One.",)),
        ("a#2", "a", ('Two "words".',)),
        ("b", "b", ("B.",)),
    ]


def test_didemo_is_paragraphs_of_the_first_31_seconds(tmp_path: Path) -> None:
    write_annotations("didemo", tmp_path, NUM)
    clip = load_split("didemo", "val", tmp_path).clips[1]
    assert clip.captions == (" ".join(sentences(clip.video, 1, 3)),)
    assert (clip.start_s, clip.end_s) == (0.0, 31.0)


def test_activitynet_ends_at_the_next_whole_second(tmp_path: Path) -> None:
    write_annotations("activitynet", tmp_path, NUM)
    clip = load_split("activitynet", "test", tmp_path).clips[0]
    assert clip.video == clip.id.removeprefix("v_") and clip.aliases == (clip.id,)
    assert (clip.start_s, clip.end_s) == (0.0, 2.0)
    (tmp_path / "val_ids.json").write_text(json.dumps([clip.id, "v_gone", clip.id]))
    test = load_split("activitynet", "test", tmp_path)
    assert len(test.clips) == 1 and test.without_captions == ("v_gone",)


@pytest.mark.parametrize("shape", ["clip2video", "hgr"])
def test_vatex_reads_all_three_layouts(shape: str, tmp_path: Path) -> None:
    write_annotations("vatex", tmp_path, NUM)
    expected = load_split("vatex", "test", tmp_path)
    captions = {clip.id: list(clip.captions) for clip in expected.clips}
    for path in tmp_path.glob("vatex_*.json"):
        path.unlink()
    if shape == "clip2video":
        (tmp_path / "vatex_data.json").write_text(json.dumps({k: {"enCap": v} for k, v in captions.items()}))
    else:
        (tmp_path / "ref_captions.json").write_text(json.dumps(captions))
    assert load_split("vatex", "test", tmp_path) == expected


def test_own_data_as_json_lines_with_stretches(tmp_path: Path) -> None:
    lines = [
        {"video": "a.mp4", "caption": "one", "start_s": 2, "end_s": 4.5},
        {"video": "a.mp4", "captions": ["two", " three "], "start_s": 2, "end_s": 4.5},
        {"video": "a.mp4", "caption": "other", "start_s": 7, "my_key": 1},
        {"video": "deep/b", "caption": "four", "id": "B"},
    ]
    (tmp_path / "captions.jsonl").write_text("\ufeff" + "\n".join(json.dumps(line) for line in lines), "utf-8")
    test = load_split("folder", "test", tmp_path)
    assert test.clips == (
        Clip("a.mp4@2-4.5", "a.mp4", ("one", "two", "three"), 2.0, 4.5),
        Clip("a.mp4@7-", "a.mp4", ("other",), 7.0, None),
        Clip("B", "deep/b", ("four",)),
    )
    assert test.is_multi_caption
    assert not test.only({"B"}).only(["B"]).clips[1:] and test.only({"B"}).clips[0].id == "B"


def test_own_data_as_csv(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text('video,caption,start_s,end_s,note\nx,"a, b",,,\ny,"line\nbreak",1,2,n\n')
    test = load_split("folder", "test", tmp_path)
    assert test.clips == (Clip("x", "x", ("a, b",)), Clip("y@1-2", "y", ("line\nbreak",), 1.0, 2.0))
    assert not test.is_multi_caption


BAD: dict[str, tuple[str, str, str, str]] = {  # dataset, file, its text, what the error says
    "no json": ("didemo", "test_data.json", "{", "test_data.json: not JSON: .*line 1"),
    "no list": ("didemo", "test_data.json", "{}", "test_data.json, entry: an object where a list"),
    "no video": ("didemo", "test_data.json", '[{"description": "x"}]', "entry 0: there is no 'video'"),
    "no text": ("didemo", "test_data.json", '[{"video": "a", "description": 3}]', "entry 0: a number where text"),
    "deep": ("didemo", "test_data.json", "[" * 100_000, "test_data.json: not JSON"),
    "surrogate": ("didemo", "test_data.json", r'[{"video": "a", "description": "\ud800"}]', "entry 0: half of"),
    "cells": ("lsmdc", "LSMDC16_annos_val.csv", "a\t0\t1\t0\t1\tS.\nb\t0\n", "line 2: 2 cells between tabs"),
    "column": ("msrvtt-1ka", "MSRVTT_JSFUSION_test.csv", "key,video\na,b\n", "line 1: no column video_id, sentence"),
    "row": ("msrvtt-1ka", "MSRVTT_train.9k.csv", "video_id\na,b\n", "line 2: 2 cells where 1"),
    "quote": ("msrvtt-1ka", "MSRVTT_train.9k.csv", 'video_id\n"a\n', "not CSV"),
    "empty": ("msrvtt-1ka", "MSRVTT_train.9k.csv", "", "MSRVTT_train.9k.csv: the file is empty"),
    "split": (
        "msrvtt-full",
        "MSRVTT_data.json",
        '{"videos": [{"video_id": "v", "split": "x"}], "sentences": []}',
        "'x'",
    ),
    "up": ("msvd", "test_list.txt", "a\n../../etc/passwd\n", "test_list.txt, line 2: .* no name inside"),
    "absolute": ("vatex", "test_list.txt", "/etc/passwd\n", "line 1: .* no name inside"),
    "duration": ("activitynet", "val_1.json", '{"v_a": {"sentences": [], "duration": "nan"}}', "'v_a': 'nan' where a"),
    "ids": ("activitynet", "val_ids.json", "[3]", "val_ids.json, entry 0: a number where text"),
    "pickle": ("msvd", "raw-captions.pkl", "cos\nsystem\n(S'true'\ntR.", "byte 0: GLOBAL is more than plain captions"),
    "no pickle": ("msvd", "raw-captions.pkl", "hello", "raw-captions.pkl: not a pickle"),
    "nothing": ("msvd", "test_list.txt", "nobody\n", "no clip of the split 'test'"),
    "own line": ("folder", "test.jsonl", '{"video": "a", "caption": "x"}\n[]\n', "line 2: a list where an object"),
    "own blank": ("folder", "test.jsonl", '{"video": "a", "caption": " "}', "line 1: a clip needs a caption"),
    "own none": ("folder", "test.jsonl", '{"video": "a"}', "line 1: a clip needs a caption"),
    "own stretch": ("folder", "test.jsonl", '{"video": "a", "caption": "x", "start_s": 3, "end_s": 3}', "is empty"),
    "own before": ("folder", "test.jsonl", '{"video": "a", "caption": "x", "start_s": -1}', "before the video's start"),
    "own typo": ("folder", "test.jsonl", '{"video": "a", "caption": "x", "start": 1}', "the key 'start' is unknown"),
    "own id": (
        "folder",
        "test.jsonl",
        '{"video": "a", "caption": "x", "id": "i"}\n{"video": "b", "caption": "y", "id": "i"}',
        "line 2: the id 'i' stood for another",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_said_with_its_place(case: str, tmp_path: Path) -> None:
    name, file, text, told = BAD[case]
    write_annotations(name, tmp_path, 2)
    (tmp_path / file).write_text(text)
    split = "train" if "train" in file else "val" if "annos_val" in file else "test"
    with pytest.raises(DatasetError, match=told):
        load_split(name, split, tmp_path)


def test_what_is_no_utf8_is_said_with_its_line(tmp_path: Path) -> None:
    write_annotations("lsmdc", tmp_path, 2)
    (tmp_path / "LSMDC16_annos_val.csv").write_bytes(b"a\t0\t1\t0\t1\tS.\nb\t0\t1\t0\t1\tCaf\xe9.\n")
    with pytest.raises(DatasetError, match="line 2: not UTF-8"):
        load_split("lsmdc", "val", tmp_path)


def test_a_pickle_is_never_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "ran",))

    write_annotations("msvd", tmp_path, 2)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / "raw-captions.pkl").write_bytes(pickle.dumps({"a": [Bomb()]}, protocol))
        with pytest.raises(DatasetError, match="more than plain captions"):
            load_split("msvd", "test", tmp_path)
    assert not (tmp_path / "ran").exists()


def test_a_pickle_that_swells_is_refused(tmp_path: Path) -> None:
    value: list[object] = ["x"]
    for _ in range(40):
        value = [value] * 10
    write_annotations("msvd", tmp_path, 2)
    (tmp_path / "raw-captions.pkl").write_bytes(pickle.dumps({"a": value}))
    with pytest.raises(DatasetError, match="far more than it holds"):
        load_split("msvd", "test", tmp_path)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=re.escape("no dataset 'imagenet'")):
        load_split("imagenet", "test", tmp_path)
    with pytest.raises(DatasetError, match="no split 'dev'"):
        load_split("msvd", "dev", tmp_path)
    with pytest.raises(DatasetError, match="no folder of annotations"):
        load_split("msvd", "test", tmp_path / "none")
    for name in DATASETS:
        with pytest.raises(DatasetError, match="There is no") as caught:
            load_split(name, "test", tmp_path)
        assert "docs/datasets.md" in caught.value.hint


def test_a_split_of_another_size_is_remarked(tmp_path: Path) -> None:
    write_annotations("didemo", tmp_path, 2)
    note = count_note(load_split("didemo", "test", tmp_path))
    assert note is not None and "2 clips" in note and "1,004" in note and "reported" in note
    write_annotations("folder", tmp_path, 2)
    assert count_note(load_split("folder", "test", tmp_path)) is None
    whole = Split("didemo", "test", tuple(Clip(str(i), "v", ("c",)) for i in range(1004)), False)
    assert count_note(whole) is None


def test_videos_are_found_by_any_suffix_and_below_folders(tmp_path: Path) -> None:
    clips = [
        Clip("1", "plain", ("c",)),
        Clip("2", "0001_Movie_00.00.51.926-00.00.54.129", ("c",)),
        Clip("3", "user@N00_1.avi", ("c",)),
        Clip("4", "sub/named", ("c",)),
        Clip("5", "v", ("c",), aliases=("v_v",)),
        Clip("6", "gone", ("c",)),
        Clip("7", "exact.webm", ("c",)),
        Clip("8", "text", ("c",)),
    ]
    names = [
        "plain.MKV",
        "0001_Movie/0001_Movie_00.00.51.926-00.00.54.129.avi",
        "user@N00_1.mp4",
        "sub/named.mp4",
        "v_v.webm",
        "exact.mp4",
        "exact.webm",
        "text.txt",
    ]
    found = find_videos(split_of(*clips), touch(tmp_path, *names))
    assert {id_: path.relative_to(tmp_path).as_posix() for id_, path in found.paths.items()} == {
        "1": names[0],
        "2": names[1],
        "3": names[2],
        "4": names[3],
        "5": names[4],
        "7": "exact.webm",
    }
    assert found.missing == ("6", "8") and found.ambiguous == ()


def test_of_several_files_the_one_nearest_to_the_top_is_taken_and_said(tmp_path: Path) -> None:
    touch(tmp_path, "small/a.mp4", "a.webm", "b/c/a.avi")
    (tmp_path / "lost.mp4").symlink_to(tmp_path / "nowhere")
    found = find_videos(split_of(Clip("a", "a", ("c",)), Clip("l", "lost", ("c",))), tmp_path)
    assert found.paths == {"a": tmp_path / "a.webm"} and found.ambiguous == ("a",) and found.missing == ("l",)


@pytest.mark.parametrize("name", ["../a", "a/../../b", "/a", "C:a", "a\\b", "", " ", "a\nb", "a\0"])
def test_names_that_lead_out_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="name"):
        find_videos(split_of(Clip("x", name, ("c",))), tmp_path)


def test_a_folder_of_videos_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no folder of videos"):
        find_videos(split_of(), tmp_path / "none")


def test_the_table_is_whole_and_the_page_tells_it() -> None:
    page = (ROOT / "docs" / "datasets.md").read_text(encoding="utf-8")
    for name, row in DATASETS.items():
        assert dataset_of(name) is row
        assert set(row.splits) == set(SPLIT_NAMES) and row.source and row.title
        assert (row.num_words, row.num_frames) == ((64, 64) if row.is_paragraph else (32, 12))
        assert f"`{name}`" in page
        for files in row.splits.values():
            for file in (*files.captions, *([files.members] if files.members else [])):
                assert f"`{file}`" in page, file
            if files.count is not None:
                assert files.count.source and f"{files.count.clips:,}" in page
                if files.count.captions is not None:
                    assert f"{files.count.captions:,}" in page


def test_the_frame_rule_follows_the_papers() -> None:
    assert dataset_of("msrvtt-1ka").frame_rule("clip2video").divisor == 2
    assert dataset_of("vatex").frame_rule("clip2video").divisor == 1
    assert dataset_of("didemo").frame_rule("xclip").choice == "clip4clip"
    assert dataset_of("folder").frame_rule("clip2video").choice == "served"
