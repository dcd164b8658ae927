"""The catalogue: what it keeps, what it refuses, and that nothing is done by halves."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexer.catalogue import videos
from indexer.catalogue.database import DAMAGED, DISK_MAY_BE_FULL, ERRORS
from indexer.catalogue.reader import CatalogueReader
from indexer.catalogue.rows import Transaction
from indexer.catalogue.videos import NewVideo
from indexer.errors import (
    CatalogueBusy,
    CatalogueUnreadable,
    DuplicateVideo,
    InvalidMetadata,
    InvalidQuery,
    JobConflict,
    JobLost,
    ModelMismatch,
    NotFound,
    StorageFull,
)
from indexer.records import JobProgress, VideoChange
from model.errors import ModelError, ShapeError
from model.precision import in_precision
from model.types import ModelSpec
from tests.support.catalogues import MEDIA, SPEC, Catalogue, Clock, add, add_ready, claim, features
from tests.support.shelf import random_features

OTHER = ModelSpec("other", "fake-2", 16, 4, 8, 32, "mean")
HOSTILE = [
    "",
    " ",
    "' OR 1=1 --",
    "a\0b",
    "\ud800",
    "é" * 10,
    "x" * 10_000,
    "../etc",
    "%",
    "0" * 16,
    None,
    7,
    b"x",
    ["a"],
]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def catalogue(tmp_path: Path, clock: Clock) -> Iterator[Catalogue]:
    with Catalogue(tmp_path / "data" / "catalogue.sqlite", clock=clock) as opened:
        opened.bind_model(SPEC)
        yield opened


# ---- opening


def test_a_commit_is_on_the_disk_when_it_returns(catalogue: Catalogue) -> None:
    with catalogue.read() as tx:
        settings = {name: tx.rows(f"PRAGMA {name}")[0][0] for name in ("journal_mode", "synchronous", "foreign_keys")}
    assert settings == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


def test_what_was_written_is_there_after_opening_again(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.sqlite"
    with Catalogue(path) as first:
        first.bind_model(SPEC)
        video_id = add_ready(first, "a")
        video = first.get_video(video_id)
    with Catalogue(path) as second:
        assert second.get_video(video_id) == video
        assert second.model() == SPEC
    assert not Path(f"{path}-wal").exists(), "the last one out leaves a single file"


@pytest.mark.parametrize("content", [b"not a database, not by far" * 100, b"SQLite format 3\0" + b"\7" * 5000])
def test_a_file_that_is_no_database_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "catalogue.sqlite"
    path.write_bytes(content)
    with pytest.raises(CatalogueUnreadable, match=r"catalogue\.sqlite"):
        Catalogue(path)
    assert path.read_bytes() == content


def test_another_programs_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.sqlite"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE cats (name)")
    other.commit()
    other.close()
    with pytest.raises(CatalogueUnreadable, match="not a catalogue"):
        Catalogue(path)


def test_a_newer_format_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.sqlite"
    Catalogue(path).close()
    newer = sqlite3.connect(path)
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(CatalogueUnreadable, match=r"format 99.*newer version"):
        Catalogue(path)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CatalogueUnreadable):
        Catalogue(tmp_path / "file" / "catalogue.sqlite")


def test_a_closed_catalogue_says_so(tmp_path: Path) -> None:
    catalogue = Catalogue(tmp_path / "catalogue.sqlite")
    catalogue.close()
    catalogue.close()
    with pytest.raises(CatalogueUnreadable, match="closed"):
        catalogue.count()


def test_a_full_disk_is_told_and_loses_nothing(catalogue: Catalogue) -> None:
    video_id = add_ready(catalogue, "kept")
    connection = catalogue._take()
    connection.execute("PRAGMA max_page_count = 1")  # SQLite then says "database or disk is full", as a full disk does
    catalogue._give_back(connection)
    with pytest.raises(StorageFull, match="No room left"):
        add(catalogue, "too much", metadata={"text": "x" * 60_000})
    assert [video.id for video in catalogue.list_videos()[0]] == [video_id]
    add(catalogue, "fits again")  # with a fresh connection, as after a person has made room


def test_a_writer_that_waits_too_long_says_busy(tmp_path: Path) -> None:
    with Catalogue(tmp_path / "catalogue.sqlite", busy_timeout_s=0.01) as catalogue:
        other = sqlite3.connect(tmp_path / "catalogue.sqlite", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(CatalogueBusy):
            add(catalogue, "a")
        assert catalogue.count() == (0, 0), "readers do not wait for writers"
        other.execute("ROLLBACK")
        other.close()
        add(catalogue, "a")


# ---- the model


def test_another_model_is_refused_with_the_way_out(catalogue: Catalogue) -> None:
    catalogue.bind_model(SPEC)
    with pytest.raises(ModelMismatch, match=r"made by the model fake .*choose another data folder"):
        catalogue.bind_model(OTHER)
    assert catalogue.model() == SPEC


def test_another_precision_is_refused_with_the_setting_that_chooses_it(catalogue: Catalogue) -> None:
    fast = in_precision(SPEC, "bf16")
    catalogue.bind_model(SPEC)
    with pytest.raises(ModelMismatch, match=r"fake in fp32, not in bf16.*VIDGRAIN_PRECISION=auto or fp32"):
        catalogue.bind_model(fast)
    with pytest.raises(ModelMismatch, match=r"made by the model fake .*not by other"):
        catalogue.bind_model(in_precision(OTHER, "bf16"))


def test_a_folder_bound_before_there_was_a_choice_is_in_fp32(catalogue: Catalogue) -> None:
    stored = {name: value for name, value in asdict(SPEC).items() if name != "precision"}
    with catalogue.write() as tx:
        tx.change("UPDATE state SET value = ? WHERE key = 'model'", json.dumps(stored))
    assert catalogue.model() == SPEC and SPEC.precision == "fp32"
    catalogue.bind_model(SPEC)


def test_features_of_another_model_never_get_in(catalogue: Catalogue) -> None:
    added = add(catalogue, "a")
    job = claim(catalogue)
    with pytest.raises(ModelMismatch):
        catalogue.publish(job, MEDIA, features(1), OTHER.fingerprint)
    assert catalogue.get_video(added.video_id).status == "pending"
    assert catalogue.segments(added.video_id) == ()


def test_nothing_is_published_before_a_model_is_bound(tmp_path: Path) -> None:
    with Catalogue(tmp_path / "catalogue.sqlite") as catalogue:
        add(catalogue, "a")
        with pytest.raises(ModelMismatch):
            catalogue.publish(claim(catalogue), MEDIA, features(1), SPEC.fingerprint)


# ---- videos


def test_a_video_and_its_job_begin_together(catalogue: Catalogue, clock: Clock) -> None:
    added = add(catalogue, "a", metadata={"tags": ["x"], "deep": {"a": [1, None, True]}})
    video, job = catalogue.get_video(added.video_id), catalogue.get_job(added.job_id)
    assert not added.is_duplicate
    assert video.id == video.sha256[:16]
    assert (video.status, video.media, video.num_segments, video.indexed_at) == ("pending", None, 0, None)
    assert video.metadata == {"tags": ["x"], "deep": {"a": [1, None, True]}}
    assert (job.video_id, job.status, job.stage, job.attempt) == (video.id, "queued", "queued", 0)
    assert video.created_at == job.created_at == clock.now_s


def test_two_contents_that_share_sixteen_digits_stay_two(catalogue: Catalogue) -> None:
    ids = []
    for end in "ab":
        sha256 = "0" * 63 + end
        added = catalogue.add_video(NewVideo(Path("/x"), sha256, 1, ""))
        ids.append(added.video_id)
    assert ids == ["0" * 16, "0" * 63 + "b"]


def test_names_that_are_no_unicode_are_kept_as_they_can_be(catalogue: Catalogue) -> None:
    path = Path(os.fsdecode(b"/videos/\xff\xfe.mp4"))
    added = add(catalogue, "a", path=path, title="odd \udcff\0 name", metadata={"k\ud800": "v\0"})
    video = catalogue.get_video(added.video_id)
    assert video.path == path
    assert "\0" not in video.title
    assert video.title.startswith("odd ") and video.title.endswith(" name")
    assert [key.rstrip("\ufffd") for key in video.metadata] == ["k"]
    assert catalogue.list_videos(filter={"title": video.title})[0] == (video,)


@pytest.mark.parametrize(
    "metadata",
    [{"a": float("nan")}, {"a": {1, 2}}, {1: "a"}, {"a": "x" * 70_000}, {"a": object()}, {"a": [float("inf")]}],
)
def test_metadata_that_json_cannot_hold_is_refused(catalogue: Catalogue, metadata: dict[str, object]) -> None:
    with pytest.raises(InvalidMetadata):
        add(catalogue, "a", metadata=metadata)
    assert catalogue.list_videos() == ((), None)


def test_metadata_nested_without_end_is_refused(catalogue: Catalogue) -> None:
    endless: dict[str, object] = {}
    endless["again"] = endless
    with pytest.raises(InvalidMetadata, match="deeper"):
        add(catalogue, "a", metadata=endless)


def test_skip_gives_the_known_video_and_its_last_job(catalogue: Catalogue, tmp_path: Path) -> None:
    (tmp_path / "here.mp4").write_text("here")
    first = add(catalogue, "a", path=tmp_path / "here.mp4", title="first")
    again = add(catalogue, "a", path=tmp_path / "there.mp4", title="second")
    assert (again.video_id, again.job_id, again.is_duplicate) == (first.video_id, first.job_id, True)
    video = catalogue.get_video(first.video_id)
    assert (video.title, video.path) == ("first", tmp_path / "here.mp4")


def test_skip_follows_a_file_that_moved(catalogue: Catalogue, tmp_path: Path) -> None:
    added = add(catalogue, "a", path=tmp_path / "gone.mp4")
    add(catalogue, "a", path=tmp_path / "new.mp4")
    assert catalogue.get_video(added.video_id).path == tmp_path / "new.mp4"


def test_error_names_the_known_video(catalogue: Catalogue) -> None:
    added = add(catalogue, "a")
    with pytest.raises(DuplicateVideo, match=added.video_id):
        add(catalogue, "a", on_duplicate="error")


def test_a_failure_of_the_content_is_remembered_one_of_its_place_is_not(catalogue: Catalogue) -> None:
    first = add(catalogue, "a")
    catalogue.fail_job(claim(catalogue), "video_undecodable", "broken", retry=False)
    assert add(catalogue, "a").job_id == first.job_id
    assert catalogue.get_video(first.video_id).error_code == "video_undecodable"
    second = add(catalogue, "b")
    catalogue.fail_job(claim(catalogue), "file_missing", "gone", retry=False)
    again = add(catalogue, "b")
    assert again.is_duplicate and again.job_id != second.job_id
    assert catalogue.get_video(second.video_id).status == "pending"


def test_replace_keeps_the_old_features_until_the_new_ones_are_there(catalogue: Catalogue) -> None:
    video_id = add_ready(catalogue, "a", 3, seed=1)
    old = catalogue.segments(video_id)
    seq = catalogue.last_seq()
    again = add(catalogue, "a", on_duplicate="replace", title="renamed", metadata={"new": 1})
    assert add(catalogue, "a", on_duplicate="replace", title="renamed").job_id == again.job_id, "one waits already"
    video = catalogue.get_video(video_id)
    assert (video.title, video.status, video.num_segments) == ("renamed", "ready", 3)
    assert [s.id for s in catalogue.segments(video_id)] == [s.id for s in old]
    assert catalogue.last_seq() > seq, "readers learn of the new title"
    job = claim(catalogue)
    catalogue.publish(job, MEDIA, features(2, seed=2), SPEC.fingerprint)
    new = catalogue.segments(video_id)
    assert len(new) == 2
    assert not {s.id for s in new} & {s.id for s in old}


def test_a_replacement_that_fails_leaves_the_video_searchable(catalogue: Catalogue) -> None:
    video_id = add_ready(catalogue, "a", 3)
    again = add(catalogue, "a", on_duplicate="replace")
    catalogue.fail_job(claim(catalogue), "decode_timeout", "slow", retry=False)
    assert catalogue.get_job(again.job_id).status == "failed"
    assert catalogue.get_video(video_id).status == "ready"
    assert catalogue.count() == (1, 3)


def test_update_changes_what_is_given_and_only_that(catalogue: Catalogue) -> None:
    video_id = add_ready(catalogue, "a", metadata={"x": 1})
    seq = catalogue.last_seq()
    assert catalogue.update_video(video_id, title="new").metadata == {"x": 1}
    changed = catalogue.update_video(video_id, metadata={"y": 2})
    assert (changed.title, changed.metadata) == ("new", {"y": 2})
    assert catalogue.changes(seq) == (VideoChange(seq + 2, video_id, 2, 1, seq),)
    with pytest.raises(InvalidMetadata):
        catalogue.update_video(video_id, title="no", metadata={"y": float("nan")})
    assert catalogue.get_video(video_id) == changed


def test_a_removed_video_is_gone_and_its_job_ends(catalogue: Catalogue) -> None:
    video_id = add_ready(catalogue, "a")
    other = add(catalogue, "b")
    job = claim(catalogue)
    catalogue.remove_video(other.video_id)
    for gone in (lambda: catalogue.heartbeat(job, 10, "encode", JobProgress(1, 2)), lambda: catalogue.release_job(job)):
        with pytest.raises(JobLost):
            gone()
    with pytest.raises(JobLost):
        catalogue.publish(job, MEDIA, features(1), SPEC.fingerprint)
    assert catalogue.get_job(job.id).status == "cancelled"
    with pytest.raises(JobConflict, match="removed"):
        catalogue.retry_job(job.id)
    assert catalogue.remove_video(video_id).num_segments == 2
    for verb in (catalogue.get_video, catalogue.remove_video, catalogue.update_video):
        with pytest.raises(NotFound):
            verb(video_id)
    assert catalogue.segments(video_id) == ()
    assert catalogue.count() == (0, 0)
    assert catalogue.list_videos() == ((), None)
    assert catalogue.live_videos([video_id]) == {}
    assert len(catalogue.allowed_numbers(None, None)) == 0


def test_a_removed_video_may_come_back(catalogue: Catalogue) -> None:
    video_id = add_ready(catalogue, "a", 2)
    old_ids = {s.id for s in catalogue.segments(video_id)}
    catalogue.remove_video(video_id)
    added = add(catalogue, "a", title="again")
    assert (added.video_id, added.is_duplicate) == (video_id, False)
    video = catalogue.get_video(video_id)
    assert (video.status, video.media, video.title) == ("pending", None, "again")
    catalogue.publish(claim(catalogue), MEDIA, features(2), SPEC.fingerprint)
    assert not old_ids & {s.id for s in catalogue.segments(video_id)}, "an old reader can't take one for the other"


def test_pages_hold_every_video_once_newest_first(catalogue: Catalogue, clock: Clock) -> None:
    for n in range(7):
        add(catalogue, f"v{n}")
        clock.pass_s(0.0 if n % 2 else 1.5)
    seen: list[str] = []
    cursor = None
    while True:
        page, cursor = catalogue.list_videos(limit=3, cursor=cursor)
        seen += [video.title for video in page]
        if cursor is None:
            break
    assert sorted(seen) == [f"v{n}" for n in range(7)]
    created = [catalogue.list_videos(filter={"title": title})[0][0].created_at for title in seen]
    assert created == sorted(created, reverse=True)


def test_lists_may_be_narrowed_by_status(catalogue: Catalogue) -> None:
    ready = add_ready(catalogue, "a")
    pending = add(catalogue, "b").video_id
    assert [v.id for v in catalogue.list_videos(status="ready")[0]] == [ready]
    assert [v.id for v in catalogue.list_videos(status="pending")[0]] == [pending]


@pytest.mark.parametrize(
    "cursor",
    ["", "x", "é", "\ud800", "W10", "WyJhIl0", "bnVsbA", "W05hTiwgImEiXQ", "WzEuMCwgIlx1ZDgwMCJd", "a" * 5000, 7],
)
def test_a_cursor_not_ours_is_refused(catalogue: Catalogue, cursor: str) -> None:
    with pytest.raises(InvalidQuery, match="cursor"):
        catalogue.list_videos(cursor=cursor)
    with pytest.raises(InvalidQuery, match="cursor"):
        catalogue.list_jobs(cursor=cursor)


@pytest.mark.parametrize("limit", [0, -1, 1001, True, "5", 1.5])
def test_a_page_has_bounds(catalogue: Catalogue, limit: int) -> None:
    with pytest.raises(InvalidQuery):
        catalogue.list_videos(limit=limit)


@pytest.mark.parametrize("given", HOSTILE, ids=lambda given: ascii(given)[:20])
def test_any_id_at_all_is_simply_not_found(catalogue: Catalogue, given: str) -> None:
    add_ready(catalogue, "a")
    verbs = (
        *(catalogue.get_video, catalogue.update_video, catalogue.remove_video),
        *(catalogue.get_job, catalogue.cancel_job, catalogue.retry_job),
    )
    for verb in verbs:
        with pytest.raises(NotFound) as caught:
            verb(given)
        assert str(caught.value).isascii() and len(str(caught.value)) < 200
    assert catalogue.live_videos([given]) == {}
    assert catalogue.list_jobs(video_id=given) == ((), None) or given is None
    assert len(catalogue.allowed_numbers(None, [given])) == 0


# ---- features and the change feed


def test_features_come_back_bit_for_bit(catalogue: Catalogue) -> None:
    stored = features(3, seed=5)
    video_id = add_ready(catalogue, "a", 3, seed=5)
    for position, (given, back) in enumerate(zip(stored, catalogue.segments(video_id), strict=True)):
        assert (back.video_id, back.position) == (video_id, position)
        assert (back.features.start_s, back.features.end_s) == (given.start_s, given.end_s)
        assert back.features.times_s == given.times_s
        assert back.features.pooled.dtype == back.features.frames.dtype == np.float16
        np.testing.assert_array_equal(back.features.pooled, given.pooled)
        np.testing.assert_array_equal(back.features.frames, given.frames)


def test_pooled_vectors_wider_than_frames_come_back_as_they_were(tmp_path: Path) -> None:
    spec = replace(SPEC, kind="clip2video", pooled_dim=32, has_frame_recall=False, scorers=("clip2video",))
    good = random_features(np.random.default_rng(1), 3, pooled_dim=32)
    with Catalogue(tmp_path / "catalogue.sqlite") as catalogue:
        catalogue.bind_model(spec)
        added, job = add(catalogue, "a"), claim(catalogue)
        with pytest.raises(ShapeError, match="32, 16 wide"):
            catalogue.publish(job, MEDIA, features(1), SPEC.fingerprint)
        catalogue.publish(job, MEDIA, good, SPEC.fingerprint)
    with Catalogue(tmp_path / "catalogue.sqlite") as catalogue:
        assert catalogue.model() == spec
        back = [segment.features for segment in catalogue.segments(added.video_id)]
    for one, other in zip(back, good, strict=True):
        np.testing.assert_array_equal(one.pooled, other.pooled)
        np.testing.assert_array_equal(one.frames, other.frames)


def test_a_folder_from_before_there_were_kinds_opens_as_what_it_was(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.sqlite"
    with Catalogue(path) as catalogue:
        catalogue.bind_model(SPEC)
        video_id = add_ready(catalogue, "a")
    db = sqlite3.connect(path)
    values = json.loads(db.execute("SELECT value FROM state WHERE key = 'model'").fetchone()[0])
    assert values["scorers"] == ["aosm", "mean"]
    for later in ("kind", "pooled_dim", "has_frame_recall", "scorers"):
        del values[later]
    for stored in (values, values | {"of_a_later_version": [1]}):
        db.execute("UPDATE state SET value = ? WHERE key = 'model'", (json.dumps(stored),))
        db.commit()
        with Catalogue(path) as catalogue:
            catalogue.bind_model(SPEC)
            assert catalogue.model() == ModelSpec("fake", "fake-1", 16, 4, 8, 32, "mean")
            assert len(catalogue.segments(video_id)) == 2
            catalogue.remove_video(video_id)
            video_id = add_ready(catalogue, "a")
    db.close()


def test_a_flipped_bit_in_the_features_is_found_and_named(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.sqlite"
    with Catalogue(path) as catalogue:
        catalogue.bind_model(SPEC)
        video_id = add_ready(catalogue, "a", 2)
        whole, other = catalogue.segments(video_id)
    content = bytearray(path.read_bytes())
    place = content.index(other.features.pooled.tobytes())
    assert content.count(other.features.pooled.tobytes()) == 1
    content[place] ^= 1
    path.write_bytes(content)
    with (
        Catalogue(path) as catalogue,
        pytest.raises(CatalogueUnreadable, match=f"Segment {other.id} of video {video_id}"),
    ):
        catalogue.segments(video_id)
    assert whole.id != other.id


def test_features_that_do_not_fit_are_refused_whole(catalogue: Catalogue) -> None:
    added = add(catalogue, "a")
    job = claim(catalogue)
    good, wide = features(1)[0], features(1, num_frames=5)[0]
    cut = type(good)(0.0, 1.0, good.times_s, good.pooled[:8], good.frames)
    empty = type(good)(0.0, 1.0, (), good.pooled, good.frames[:0])
    for bad in ((good, wide), (good, cut), (good, empty), ()):
        with pytest.raises(ShapeError):
            catalogue.publish(job, MEDIA, bad, SPEC.fingerprint)
    nan = type(good)(0.0, 1.0, good.times_s, good.pooled * np.float16("nan"), good.frames)
    with pytest.raises(ModelError, match="not finite"):
        catalogue.publish(job, MEDIA, (good, nan), SPEC.fingerprint)
    assert catalogue.segments(added.video_id) == ()
    assert catalogue.get_job(job.id).status == "running"


def test_publishing_shows_all_at_once(catalogue: Catalogue, clock: Clock) -> None:
    added = add(catalogue, "a")
    assert (catalogue.count(), catalogue.last_seq(), catalogue.changes(0)) == ((0, 0), 0, ())
    clock.pass_s(5)
    catalogue.publish(claim(catalogue), MEDIA, features(3), SPEC.fingerprint)
    video, job = catalogue.get_video(added.video_id), catalogue.get_job(added.job_id)
    assert (video.status, video.media, video.num_segments, video.indexed_at) == ("ready", MEDIA, 3, clock.now_s)
    assert (job.status, job.stage) == ("succeeded", "done")
    assert job.progress == JobProgress(3, 3, 9, MEDIA.duration_s, MEDIA.duration_s)
    assert (job.finished_at, job.owner, job.lease_expires_at) == (clock.now_s, None, None)
    assert catalogue.count() == (1, 3)
    assert catalogue.published().tolist() == [[1, catalogue.last_seq(), 3]]


def test_the_change_feed_names_each_video_once_with_its_newest(catalogue: Catalogue) -> None:
    a, b = add_ready(catalogue, "a"), add_ready(catalogue, "b")
    assert catalogue.changes(0) == (VideoChange(1, a, 2, 1, 1), VideoChange(2, b, 2, 2, 2))
    catalogue.remove_video(a)
    assert catalogue.changes(0) == (VideoChange(2, b, 2, 2, 2), VideoChange(3, a, 0, 1, 1))
    assert catalogue.changes(2) == (VideoChange(3, a, 0, 1, 1),)
    assert catalogue.changes(0, limit=1) == (VideoChange(2, b, 2, 2, 2),)
    assert catalogue.changes(catalogue.last_seq()) == ()


def test_videos_keep_their_numbers_and_new_ones_rise(catalogue: Catalogue) -> None:
    a, b = add_ready(catalogue, "a"), add_ready(catalogue, "b")
    catalogue.remove_video(b)
    add_ready(catalogue, "c")
    assert add_ready(catalogue, "b") == b
    catalogue.update_video(a, title="new")
    seq = catalogue.last_seq()
    assert catalogue.published().tolist() == [[1, 1, 2], [2, seq - 1, 2], [3, 4, 2]]
    assert [(change.number, change.features_seq) for change in catalogue.changes(seq - 1)] == [(1, 1)]


def test_numbers_pass_filter_and_choice(catalogue: Catalogue) -> None:
    a = add_ready(catalogue, "a", metadata={"tags": ["x"]})
    b = add_ready(catalogue, "b", metadata={"tags": ["y"]})
    add(catalogue, "pending", metadata={"tags": ["y"]})
    assert catalogue.allowed_numbers({"tags": "y"}, None).tolist() == [2]
    assert catalogue.allowed_numbers(None, [a]).tolist() == [1]
    assert catalogue.allowed_numbers(None, [b, a, b]).tolist() == [1, 2]
    assert catalogue.allowed_numbers(None, None).tolist() == [1, 2]
    assert catalogue.allowed_numbers({"tags": "y"}, [a]).tolist() == []
    assert catalogue.allowed_numbers(None, []).tolist() == []
    assert catalogue.allowed_numbers(None, []).dtype == np.int64


def test_a_filters_result_is_kept_until_something_changes(catalogue: Catalogue) -> None:
    a = add_ready(catalogue, "a", metadata={"n": 1})
    b = add_ready(catalogue, "b", metadata={"n": 2})
    reader = CatalogueReader(catalogue)
    first = reader.allowed_numbers({"n": {"gte": 1}})
    assert first.tolist() == [1, 2]
    assert reader.allowed_numbers({"n": {"gte": 1}}) is first
    assert reader.allowed_numbers({"n": {"gte": 1}}, [b]).tolist() == [2]
    assert reader.allowed_numbers({"n": {"gte": 1}}) is first
    assert reader.allowed_numbers({"n": 1}).tolist() == [1]
    assert reader.allowed_numbers({"n": True}).tolist() == [], "not the number 1"
    catalogue.update_video(a, metadata={"n": 0})
    assert reader.allowed_numbers({"n": {"gte": 1}}).tolist() == [2]
    catalogue.update_video(a, metadata={"n": 5}, title="five")
    assert reader.allowed_numbers({"n": {"gte": 1}}).tolist() == [1, 2]
    add(catalogue, "b", metadata={"n": 0}, on_duplicate="replace")
    assert reader.allowed_numbers({"n": {"gte": 1}}).tolist() == [1], "a replacing upload brings its metadata at once"
    catalogue.remove_video(a)
    assert reader.allowed_numbers({"n": {"gte": 1}}).tolist() == []
    add(catalogue, "a", metadata={"n": 7})
    assert reader.allowed_numbers({"n": {"gte": 1}}).tolist() == [], "not indexed yet"
    for number in range(40):
        reader.allowed_numbers({"n": number})
    assert reader.allowed_numbers({"n": 0}).tolist() == [2]


# ---- jobs


def test_jobs_are_claimed_in_order_and_once(catalogue: Catalogue, clock: Clock) -> None:
    first, second = add(catalogue, "a"), add(catalogue, "b")
    job = claim(catalogue, "w1", lease_s=10)
    assert (job.id, job.status, job.owner, job.attempt) == (first.job_id, "running", "w1", 1)
    assert (job.started_at, job.lease_expires_at) == (clock.now_s, clock.now_s + 10)
    assert claim(catalogue, "w2").id == second.job_id
    assert catalogue.claim_job("w3", 10) is None


def test_a_silent_worker_loses_its_job_and_its_word(catalogue: Catalogue, clock: Clock) -> None:
    added = add(catalogue, "a")
    old = claim(catalogue, "w1", lease_s=10)
    clock.pass_s(9.9)
    assert catalogue.claim_job("w2", 10) is None
    clock.pass_s(0.1)
    new = claim(catalogue, "w2", lease_s=10)
    assert (new.id, new.attempt) == (old.id, 2)
    late = (
        lambda: catalogue.publish(old, MEDIA, features(9), SPEC.fingerprint),
        lambda: catalogue.heartbeat(old, 10, "encode", JobProgress(1, 2)),
        lambda: catalogue.fail_job(old, "x", "y", retry=False),
        lambda: catalogue.release_job(old),
        lambda: catalogue.end_cancelled(old),
    )
    for word in late:
        with pytest.raises(JobLost, match="w1"):
            word()
    catalogue.publish(new, MEDIA, features(2), SPEC.fingerprint)
    with pytest.raises(JobLost):
        catalogue.publish(new, MEDIA, features(9), SPEC.fingerprint)
    assert len(catalogue.segments(added.video_id)) == 2


def test_one_worker_that_claims_twice_is_fenced_by_the_attempt(catalogue: Catalogue, clock: Clock) -> None:
    add(catalogue, "a")
    old = claim(catalogue, "same", lease_s=1)
    clock.pass_s(2)
    claim(catalogue, "same", lease_s=1)
    with pytest.raises(JobLost):
        catalogue.publish(old, MEDIA, features(1), SPEC.fingerprint)


def test_a_heartbeat_keeps_the_lease_and_stores_the_progress(catalogue: Catalogue, clock: Clock) -> None:
    add(catalogue, "a")
    job = claim(catalogue, lease_s=10)
    clock.pass_s(9)
    after = catalogue.heartbeat(job, 10, "encode", JobProgress(2, 5))
    assert (after.stage, after.progress) == ("encode", JobProgress(2, 5))
    clock.pass_s(9)
    assert catalogue.claim_job("w2", 10) is None


def test_a_worker_that_keeps_dying_is_not_asked_for_ever(catalogue: Catalogue, clock: Clock) -> None:
    added = add(catalogue, "a", max_attempts=2)
    for _ in range(2):
        claim(catalogue, lease_s=1)
        clock.pass_s(2)
    assert catalogue.claim_job("w", 1) is None
    job, video = catalogue.get_job(added.job_id), catalogue.get_video(added.video_id)
    assert (job.status, job.error_code, job.attempt) == ("failed", "worker_lost", 2)
    assert (video.status, video.error_code) == ("failed", "worker_lost")


def test_a_failed_attempt_waits_longer_each_time(catalogue: Catalogue, clock: Clock) -> None:
    added = add(catalogue, "a", max_attempts=3)
    for pause_s in (2, 4):
        catalogue.fail_job(claim(catalogue), "internal", "boom", retry=True)
        waiting = catalogue.get_job(added.job_id)
        assert (waiting.status, waiting.error_code) == ("queued", "internal")
        clock.pass_s(pause_s - 0.1)
        assert catalogue.claim_job("w", 10) is None
        clock.pass_s(0.1)
    catalogue.fail_job(claim(catalogue), "internal", "boom", retry=True)
    assert catalogue.get_job(added.job_id).status == "failed"
    assert catalogue.get_video(added.video_id).error_message == "boom"


def test_one_video_is_never_worked_on_by_two(catalogue: Catalogue, clock: Clock) -> None:
    add(catalogue, "a")
    first = claim(catalogue, "w1", lease_s=10)
    again = add(catalogue, "a", on_duplicate="replace")
    assert again.job_id != first.id
    assert catalogue.claim_job("w2", 10) is None
    clock.pass_s(11)
    assert claim(catalogue, "w2", lease_s=10).id == first.id
    assert catalogue.claim_job("w3", 10) is None


def test_a_queued_job_is_cancelled_at_once_a_running_one_is_asked(catalogue: Catalogue, clock: Clock) -> None:
    queued = add(catalogue, "a")
    assert catalogue.cancel_job(queued.job_id).status == "cancelled"
    assert catalogue.get_video(queued.video_id).error_code == "cancelled"
    with pytest.raises(JobConflict, match="cancelled"):
        catalogue.cancel_job(queued.job_id)
    running = add(catalogue, "b")
    job = claim(catalogue, lease_s=10)
    asked = catalogue.cancel_job(running.job_id)
    assert (asked.status, asked.is_cancel_requested) == ("running", True)
    assert catalogue.heartbeat(job, 10, "encode", JobProgress(0, 1)).is_cancel_requested
    catalogue.end_cancelled(job)
    assert catalogue.get_job(job.id).status == "cancelled"
    died = add(catalogue, "c")
    claim(catalogue, lease_s=10)
    catalogue.cancel_job(died.job_id)
    clock.pass_s(11)
    assert catalogue.claim_job("w", 10) is None
    assert catalogue.get_job(died.job_id).status == "cancelled"


def test_retry_gives_a_job_its_attempts_anew(catalogue: Catalogue) -> None:
    added = add(catalogue, "a", max_attempts=1)
    with pytest.raises(JobConflict, match="queued"):
        catalogue.retry_job(added.job_id)
    old = claim(catalogue)
    with pytest.raises(JobConflict, match="running"):
        catalogue.retry_job(added.job_id)
    catalogue.fail_job(old, "internal", "boom", retry=True)
    again = catalogue.retry_job(added.job_id)
    assert (again.status, again.error_code, again.max_attempts) == ("queued", None, 2)
    assert catalogue.get_video(added.video_id).status == "pending"
    new = claim(catalogue)
    assert new.attempt == 2, "attempts only rise, so the first attempt's worker stays out"
    with pytest.raises(JobLost):
        catalogue.publish(old, MEDIA, features(1), SPEC.fingerprint)
    catalogue.publish(new, MEDIA, features(1), SPEC.fingerprint)
    with pytest.raises(JobConflict, match="succeeded"):
        catalogue.retry_job(added.job_id)


def test_a_job_is_not_retried_beside_another_of_its_video(catalogue: Catalogue) -> None:
    added = add(catalogue, "a")
    catalogue.fail_job(claim(catalogue), "video_undecodable", "broken", retry=False)
    again = add(catalogue, "a", on_duplicate="replace")
    with pytest.raises(JobConflict, match=again.job_id):
        catalogue.retry_job(added.job_id)


def test_a_job_given_back_has_lost_no_attempt(catalogue: Catalogue) -> None:
    add(catalogue, "a", max_attempts=1)
    for _ in range(3):
        catalogue.release_job(claim(catalogue))
    assert claim(catalogue).status == "running"


def test_lists_of_jobs(catalogue: Catalogue) -> None:
    added = [add(catalogue, name) for name in "abcde"]
    catalogue.cancel_job(added[1].job_id)
    seen, cursor = [], None
    while True:
        page, cursor = catalogue.list_jobs(limit=2, cursor=cursor)
        seen += [job.id for job in page]
        if cursor is None:
            break
    assert seen == [one.job_id for one in reversed(added)]
    assert [j.id for j in catalogue.list_jobs(status="cancelled")[0]] == [added[1].job_id]
    assert [j.id for j in catalogue.list_jobs(video_id=added[3].video_id)[0]] == [added[3].job_id]
    assert catalogue.count_jobs() == {"queued": 4, "running": 0, "succeeded": 0, "failed": 0, "cancelled": 1}


# ---- several at once


def test_threads_and_two_openings_claim_each_job_once(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.sqlite"
    with Catalogue(path) as first, Catalogue(path) as second:
        first.bind_model(SPEC)
        for n in range(40):
            add(first, f"v{n}")
        done: list[str] = []
        errors: list[BaseException] = []

        def work(catalogue: Catalogue, owner: str) -> None:
            try:
                while (job := catalogue.claim_job(owner, 60)) is not None:
                    catalogue.heartbeat(job, 60, "encode", JobProgress(0, 1))
                    catalogue.publish(job, MEDIA, features(1), SPEC.fingerprint)
                    done.append(job.id)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=((first, second)[n % 2], f"w{n}")) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors
        assert len(done) == len(set(done)) == 40
        assert first.count() == second.count() == (40, 40)
        assert [change.seq for change in second.changes(0)] == list(range(1, 41))


def test_many_may_open_a_new_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.sqlite"
    opened: list[Catalogue] = []
    start = threading.Barrier(8)

    def open_it() -> None:
        start.wait()
        opened.append(Catalogue(path))

    threads = [threading.Thread(target=open_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 8
    for catalogue in opened:
        assert catalogue.count() == (0, 0)
        catalogue.close()


def test_a_failure_says_nothing_of_a_video_whose_next_job_waits(catalogue: Catalogue) -> None:
    added = add(catalogue, "a")
    job = claim(catalogue)
    again = add(catalogue, "a", on_duplicate="replace")
    assert again.job_id != added.job_id
    catalogue.fail_job(job, "video_undecodable", "no", retry=False)
    assert catalogue.get_video(added.video_id).status == "pending"
    catalogue.fail_job(claim(catalogue), "video_undecodable", "no", retry=False)
    assert catalogue.get_video(added.video_id).status == "failed"


def test_what_a_claim_reads_does_not_grow_with_the_queue(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(50):
        add(catalogue, str(n))
    num_read: list[int] = []
    rows = Transaction.rows

    def counted(self: Transaction, sql: str, *parameters: object) -> list[Any]:
        found = rows(self, sql, *parameters)
        num_read.append(len(found))
        return found

    monkeypatch.setattr(Transaction, "rows", counted)
    for _ in range(3):
        claim(catalogue)
    assert max(num_read) <= 3


def test_a_managed_file_is_kept_by_its_place_in_the_data_folder(catalogue: Catalogue) -> None:
    folder = catalogue.path.parent
    place = folder / "media" / "a.mp4"
    added = catalogue.add_video(NewVideo(place, "a" * 64, 1, "t", is_managed=True))
    with catalogue.read() as tx:
        assert tx.rows("SELECT path FROM videos")[0]["path"] == b"media/a.mp4"
        assert videos.has_managed_file(tx, place) and not videos.has_managed_file(tx, folder / "media" / "b.mp4")
    assert catalogue.get_video(added.video_id).path == place
    assert catalogue.managed_paths() == {place}
    catalogue.remove_video(added.video_id)
    assert catalogue.managed_paths() == frozenset()


@pytest.mark.parametrize("error_code", ["worker_lost", "decode_interrupted", "cancelled"])
def test_what_befell_the_worker_does_not_stick_to_the_content(catalogue: Catalogue, error_code: str) -> None:
    first = add(catalogue, "a")
    catalogue.fail_job(claim(catalogue), error_code, "killed", retry=False)
    again = add(catalogue, "a")
    assert again.is_duplicate and again.job_id != first.job_id
    assert catalogue.get_video(first.video_id).status == "pending"


def test_every_error_of_sqlite_has_a_meaning() -> None:
    """SQLite's primary result codes for errors are 1 to 26; 27 and 28 are for its log only."""
    assert set(ERRORS) == set(range(1, 27))
    assert set(ERRORS) >= DAMAGED and set(ERRORS) >= DISK_MAY_BE_FULL


# ---- the file that goes away while it is in use


def test_a_catalogue_that_was_deleted_takes_nothing_more(catalogue: Catalogue) -> None:
    add(catalogue, "a")
    catalogue.path.unlink()
    for verb in (lambda: add(catalogue, "b"), catalogue.count):
        with pytest.raises(CatalogueUnreadable, match="deleted or replaced"):
            verb()
    assert not catalogue.path.exists(), "and no empty one is made in its place"


def test_a_catalogue_that_was_replaced_takes_nothing_more_and_one_put_back_does(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    video_id = add(catalogue, "a").video_id
    folder, away = catalogue.path.parent, tmp_path / "away"
    folder.rename(away)
    with Catalogue(catalogue.path) as other:
        other.bind_model(SPEC)
        with pytest.raises(CatalogueUnreadable, match="deleted or replaced"):
            add(catalogue, "b")
        assert other.list_videos() == ((), None)
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    away.rename(folder)
    assert [video.id for video in catalogue.list_videos()[0]] == [video_id]
    add(catalogue, "b")


def test_a_commit_into_a_file_that_is_just_being_deleted_is_not_acknowledged(catalogue: Catalogue) -> None:
    with pytest.raises(CatalogueUnreadable, match="deleted or replaced"), catalogue.write() as tx:
        videos.add(tx, NewVideo(Path("/x"), "a" * 64, 1, ""))
        catalogue.path.unlink()
