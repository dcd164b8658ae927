"""The benchmark of indexing: its videos are what their recipes say, its arithmetic is right, and its parts run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import indexing_clips as clips
from benchmarks.indexing_alone import Speed
from benchmarks.indexing_clips import Clip, Library
from benchmarks.indexing_decode import Case, Group, cases_of, groups_of, packets_of, rows_of_case
from benchmarks.indexing_decode import decode_groups as decode
from benchmarks.indexing_footage import pictures
from benchmarks.indexing_memory import MemoryRun, growth
from benchmarks.indexing_memory import rows_of as memory_rows_of
from benchmarks.indexing_sizing import Sized, table
from benchmarks.indexing_whole import WholeRun, Work, index_whole, rows_of, stage_rows
from benchmarks.process_tree import Memory, Used, cpu_s_of_tree, measured, memory_of_tree
from benchmarks.report import Spread
from benchmarks.stages import Stages
from indexer.media.reading import probe

SMALL = (64, 48)


def drawn(group: str = "drawn", number: int = 0, **given: object) -> Clip:
    return replace(Clip(group, number, 1.0, 10, 5, 0, 100, SMALL), **given)  # type: ignore[arg-type]


def run_of(num_frames: int, wall_s: float, **shares: float) -> WholeRun:
    return WholeRun(4, 100.0, num_frames, Used(wall_s, 1.5 * wall_s, Memory(300 * 2**20, 200 * 2**20)), shares)


# ---- videos


def test_a_recipe_gives_the_same_bytes_again(tmp_path: Path) -> None:
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
        clips.make(drawn(), drawn().path(tmp_path / folder))
    one, other = (drawn().path(tmp_path / folder) for folder in ("one", "other"))
    assert one.read_bytes() == other.read_bytes() and one.name == other.name
    assert drawn(gop=4).path(tmp_path) != drawn().path(tmp_path)


@pytest.mark.parametrize(("suffix", "codec"), [(".mp4", "libx264"), (".mkv", "libx264"), (".ts", "libx264")])
def test_a_repeated_piece_keeps_its_length_and_key_frames(suffix: str, codec: str, tmp_path: Path) -> None:
    clip = drawn(suffix=suffix, codec=codec, repeats=3, b_frames=2)
    path = clip.path(tmp_path)
    clips.make(clip, path)
    shown, keys, tick_s = packets_of(path)
    assert probe(path).duration_s == pytest.approx(3.0, abs=0.01)
    assert [round((key - shown[0]) * tick_s, 2) for key in keys] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
    assert list(tmp_path.iterdir()) == [path]


def test_titled_copies_differ_in_their_bytes_and_not_in_their_frames(tmp_path: Path) -> None:
    clips.make(drawn(), drawn().path(tmp_path))
    paths = clips.titled(tmp_path, [drawn()], 3)
    assert len({path.read_bytes() for path in paths}) == 3
    assert {len(packets_of(path)[0]) for path in paths} == {10}


def test_mixed_videos_last_what_was_asked_in_whole_key_frame_groups() -> None:
    planned = clips.plan_mixed(clips.FULL, ["a real video"])
    assert len(planned) == 40 and {clip.suffix for clip in planned} == {".mp4", ".mkv", ".ts", ".webm"}
    assert all(20 <= clip.seconds * clip.repeats <= 60 for clip in planned)
    assert all(clip.num_frames % clip.gop == 0 for clip in planned if clip.repeats > 1)
    assert {clip.gop for clip in planned} == {30, 60, 250, 600} and {clip.b_frames for clip in planned} == {0, 3}
    assert {clip.footage for clip in planned} == {"a real video", None}


def test_a_length_is_cut_into_repeated_pieces_where_whole_groups_fit() -> None:
    assert clips.cut(1000, 30, 500, 1500) == (330, 3)
    assert clips.cut(1000, 600, 500, 1500) == (600, 2)
    assert clips.cut(1000, 800, 500, 1500) == (1000, 1)


def test_the_library_makes_only_what_its_parts_read(tmp_path: Path) -> None:
    sizes = clips.Sizes(1, (1, 2), 2, 1, 2, 1, 2, 1, size=SMALL, tiny_size=SMALL)
    made = clips.made_library(tmp_path, sizes, ["clips"])
    assert len(made.short) == 2 and not made.mixed and not made.long
    assert probe(made.one_file).duration_s == pytest.approx(2.0, abs=0.01)


def test_a_drawn_scene_moves_and_fits_its_planes() -> None:
    first, second = pictures(None, 2, SMALL, seed=3)
    assert first.shape == (72, 64) and first.dtype == np.uint8
    assert np.abs(first.astype(int) - second).mean() > 1


# ---- arithmetic


def test_groups_are_those_that_hold_a_wanted_frame() -> None:
    shown, keys = list(range(0, 300, 10)), [0, 100, 200]
    assert groups_of(shown, keys, 0.01, [0.0, 0.35, 2.04, 9.0]) == [Group(0, 30), Group(200, 290)]


def test_a_group_is_decoded_up_to_its_last_wanted_frame(tmp_path: Path) -> None:
    clips.make(drawn(), path := drawn().path(tmp_path))
    groups = groups_of(*packets_of(path), [0.1, 0.75])
    assert decode(path, groups, 1) == 2 + 3
    assert decode(path, [Group(0, 2**62)], 1) == 10


def test_the_rows_of_a_case_name_the_better_bound() -> None:
    took = {"ours": Spread.of([2.0]), "bound by key frame groups": Spread.of([1.5]), "decord": Spread.of([3.0])}
    took["bound in one pass"] = Spread.of([1.0])
    case = Case("case", Path("a"), [0.0], times_decord=1.25)
    beside, bound = rows_of_case(case, took, is_alone=True)
    assert (beside.ratio, beside.holds) == (1.5, True)
    assert (bound.ratio, list(bound.against)) == (0.5, ["bound in one pass"])


def test_cases_lie_inside_their_videos(tmp_path: Path) -> None:
    library = Library(clips.QUICK, [], [], tmp_path, {30: tmp_path}, {30: tmp_path}, [])
    start, middle = cases_of(library)
    assert 0 < start.instants_s[0] < start.instants_s[-1] < clips.QUICK.twelve_s
    assert 4 < middle.instants_s[0] < middle.instants_s[-1] < 8


def test_end_to_end_is_held_to_the_slower_part_and_shown_beside_both_on_one_machine() -> None:
    rows = rows_of("model", [Speed(30.0, 2.0)], [Speed(60.0, 1.8, "best")], [run_of(190, 10.0)])
    assert rows[0].ratio == pytest.approx(19 / 30) and rows[0].holds is False
    assert rows[1].ratio == pytest.approx(19 / 20)
    assert [row.unit for row in rows] == ["frames/s", "frames/s", "cores", "x real time", "MiB"]


def test_stages_on_a_gpu_are_shares_of_the_time() -> None:
    rows = stage_rows("model", [run_of(1000, 10.0, encode=0.6, publish=0.1)], copied_per_s=400.0)
    assert [row.value.median for row in rows if isinstance(row.value, Spread)] == [0.4, 0.6, 0.1, 0.25]


def test_looks_are_counted_by_stage() -> None:
    stages = Stages({"encode": ("", "encode_video"), "publish": ("jobs.py", "publish")}, "wait")
    stages.look({("a.py", "encode_video"), ("jobs.py", "publish")})
    stages.look({("other.py", "publish")})
    assert stages.shares() == {"encode": 0.5, "publish": 0.5, "wait": 0.5}


def test_growth_leaves_the_first_quarter_out() -> None:
    assert growth([1, 1, 10, 10, 10, 10, 12, 12]) == pytest.approx(1.2)
    with pytest.raises(ValueError, match="no quarters"):
        growth([1, 2, 3])
    most, end = memory_rows_of(
        MemoryRun([Memory(2**20 * size, None) for size in (1, 5, 5, 5)], Memory(6 * 2**20, None), 4)
    )
    assert (most.value, end.ratio, end.holds) == (6, 1, True)


def test_the_sizing_table_has_a_line_for_each_run() -> None:
    lines = table([Sized("tiny", "fp32", "cpu", run_of(10, 10.0), 2)]).splitlines()
    assert lines[2] == "| tiny, fp32 | 2 cores | 10 | 5 | 1.5 | 200 MiB |"


# ---- measuring


def test_a_process_tree_has_memory_and_cpu_time() -> None:
    before = cpu_s_of_tree()
    with measured() as used:
        sum(range(10**6))
    assert used.wall_s > 0 and used.cpu_s >= 0 and cpu_s_of_tree() >= before
    found = memory_of_tree()
    assert found.rss > 2**20 and found.best <= found.rss


def test_videos_are_indexed_end_to_end_with_the_bundled_model(tmp_path: Path) -> None:
    clips.make(drawn(), drawn().path(tmp_path))
    paths = clips.titled(tmp_path, [drawn()], 2)
    run = index_whole(Work(paths, "tiny", max_segment_s=0.5))
    assert (run.num_videos, run.num_frames) == (2, 2 * 2 * 8)
    assert run.seconds == pytest.approx(2.0, abs=0.01) and run.used.peak.best > 2**20
