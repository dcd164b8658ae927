"""The front door on real files, with a real catalogue, worker and decoding process; the model knows colours."""

from __future__ import annotations

import hashlib
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from indexer.catalogue.segments import read_segments
from indexer.config import IndexConfig
from indexer.errors import (
    CatalogueUnreadable,
    DuplicateVideo,
    FileMissing,
    InvalidQuery,
    MediaError,
    ModelMismatch,
    NotFound,
    UnsupportedMedia,
    VideoTooLong,
)
from indexer.index import VideoIndex
from indexer.records import SearchAnswer, SearchOptions, StoredSegment
from indexer.storage import ReceivedFile
from model.types import ModelSpec, TextFeatures
from tests.support.catalogues import MEDIA, Catalogue, add, claim, features
from tests.support.clips import solid_clip, write_clip
from tests.support.fakes import COLOURS, FakeModel

CONFIG = IndexConfig(max_segment_s=4.0)


def colours_clip(path: Path, *colours: str, each_s: float = 2.0, fps: int = 10) -> Path:
    pictures = [np.full((48, 64, 3), COLOURS[c], dtype=np.uint8) for c in colours for _ in range(round(each_s * fps))]
    return write_clip(path, pictures, fps)


def work_off(index: VideoIndex) -> None:
    worker = index.worker()
    while worker.run_once() is not None:
        pass


def ids(answer: SearchAnswer) -> list[str]:
    return [hit.video.id for hit in answer.hits]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("clips")
    return {
        "red": solid_clip(folder / "red.mp4", COLOURS["red"], 2.0),
        "green": solid_clip(folder / "green.mp4", COLOURS["green"], 2.0),
        "long": colours_clip(folder / "long.mp4", "white", "white", "yellow", "blue", "black", "black"),
    }


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, clips: dict[str, Path]) -> Iterator[VideoIndex]:
    """An index of the three clips that tests only read."""
    with VideoIndex.open(tmp_path_factory.mktemp("shared"), FakeModel(), CONFIG) as index:
        for name, path in clips.items():
            index.add(path, metadata={"name": name})
        work_off(index)
        yield index


@pytest.fixture
def index(tmp_path: Path) -> Iterator[VideoIndex]:
    with VideoIndex.open(tmp_path / "data", FakeModel(), CONFIG) as index:
        yield index


def received(index: VideoIndex, path: Path) -> ReceivedFile:
    """A copy of a file as an upload leaves it."""
    content = path.read_bytes()
    place = index.storage.incoming() / uuid.uuid4().hex
    place.write_bytes(content)
    return ReceivedFile(place, hashlib.sha256(content).hexdigest(), len(content), path.suffix)


def video_id(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def test_a_word_finds_its_video_and_its_second(shared: VideoIndex, clips: dict[str, Path]) -> None:
    assert ids(shared.search_text("red"))[0] == video_id(clips["red"])
    hit = shared.search_text("blue").hits[0]
    assert hit.video.title == "long"
    assert hit.video.metadata == {"name": "long"}
    (moment,) = hit.moments
    assert 6.0 <= moment.best_s < 8.0
    assert moment.start_s == pytest.approx(6.0, abs=0.6)
    assert moment.end_s == pytest.approx(8.0, abs=0.6)


def test_a_clip_finds_its_own_video_and_a_range_finds_what_it_shows(
    shared: VideoIndex, clips: dict[str, Path], tmp_path: Path
) -> None:
    for name in clips:
        assert ids(shared.search_video(clips[name]))[0] == video_id(clips[name])
    mixed = colours_clip(tmp_path / "mixed.mp4", "green", "red")
    assert ids(shared.search_video(mixed, start_s=2.2))[0] == video_id(clips["red"])
    assert ids(shared.search_video(mixed, end_s=1.8))[0] == video_id(clips["green"])


def test_a_stored_video_leaves_itself_out_unless_asked(shared: VideoIndex, clips: dict[str, Path]) -> None:
    own = video_id(clips["red"])
    assert own not in ids(shared.search_stored(own))
    assert ids(shared.search_stored(own, SearchOptions(include_self=True)))[0] == own


def test_a_range_of_a_stored_video_is_only_what_it_shows(shared: VideoIndex, clips: dict[str, Path]) -> None:
    own = video_id(clips["long"])
    options = SearchOptions(include_self=True)
    (moment, *_) = shared.search_stored(own, options, start_s=6.0, end_s=8.0).hits[0].moments
    assert 6.0 <= moment.best_s < 8.0


def _segments(index: VideoIndex, video_id: str) -> tuple[StoredSegment, ...]:
    with index._database.read() as tx:
        return read_segments(tx, video_id)


def test_a_range_without_a_stored_frame_is_read_from_the_file(shared: VideoIndex, clips: dict[str, Path]) -> None:
    own = video_id(clips["long"])
    segment = _segments(shared, own)[1].features
    assert all(not 6.05 <= at_s < 6.15 for at_s in segment.times_s)
    (moment, *_) = shared.search_stored(own, SearchOptions(include_self=True), start_s=6.05, end_s=6.15).hits[0].moments
    assert 6.0 <= moment.best_s < 8.0


@pytest.mark.parametrize("bounds", [(3.0, 3.0), (5.0, 4.0), (-1.0, 2.0), (99.0, None), (float("nan"), None)])
def test_empty_ranges_are_refused(
    shared: VideoIndex, clips: dict[str, Path], bounds: tuple[float, float | None]
) -> None:
    start_s, end_s = bounds
    with pytest.raises(InvalidQuery):
        shared.search_stored(video_id(clips["long"]), start_s=start_s, end_s=end_s)
    with pytest.raises(InvalidQuery):
        shared.search_video(clips["long"], start_s=start_s, end_s=end_s)


def test_a_clip_longer_than_the_limit_is_refused_but_a_range_of_it_is_not(
    tmp_path: Path, clips: dict[str, Path]
) -> None:
    with VideoIndex.open(tmp_path / "data", FakeModel(), IndexConfig(max_query_s=5.0)) as index:
        with pytest.raises(VideoTooLong):
            index.search_video(clips["long"])
        assert index.search_video(clips["long"], end_s=4.0).hits == ()


@pytest.mark.parametrize(
    ("query", "code"),
    [("", "empty_query"), ("  \n", "empty_query"), ("x" * 2001, "query_too_long"), (" x" * 1001, "query_too_long")],
)
def test_empty_and_overlong_queries_are_refused(shared: VideoIndex, query: str, code: str) -> None:
    with pytest.raises(InvalidQuery) as caught:
        shared.search_text(query)
    assert caught.value.code == code


def test_odd_text_is_searched_and_a_query_that_was_cut_is_reported(shared: VideoIndex) -> None:
    assert shared.search_text("red \ud800 \0").hits
    assert [code for code, _ in shared.search_text("red " * 9).warnings] == ["query_truncated"]
    assert shared.search_text("red").warnings == ()
    assert shared.search_text("red " * 8).warnings == (), "it fills the model's words exactly: nothing is missing"


class Meeting(FakeModel):
    """Encodes a sentence only once another thread encodes one, too."""

    def __init__(self) -> None:
        super().__init__()
        self._both = threading.Barrier(2)

    def encode_text(self, texts: Sequence[str]) -> TextFeatures:
        self._both.wait(timeout=30)
        return super().encode_text(texts)


def test_sentences_are_encoded_by_several_threads_at_once(tmp_path: Path, clips: dict[str, Path]) -> None:
    with VideoIndex.open(tmp_path / "data", FakeModel()) as index:
        for colour in ("red", "green"):
            index.add(clips[colour])
        work_off(index)
        alone = {query: ids(index.search_text(query)) for query in ("red", "green")}
    with VideoIndex.open(tmp_path / "data", Meeting()) as index, ThreadPoolExecutor(2) as pool:
        together = dict(pool.map(lambda query: (query, ids(index.search_text(query))), alone))
    assert together == alone


def test_adding_waits_for_a_worker_and_what_is_pending_is_no_query(index: VideoIndex, clips: dict[str, Path]) -> None:
    added = index.add(clips["red"])
    assert (added.video_id, added.is_duplicate) == (video_id(clips["red"]), False)
    assert index.get(added.video_id).status == "pending"
    assert index.get(added.video_id).size_bytes == clips["red"].stat().st_size
    assert [code for code, _ in index.search_text("red").warnings] == ["index_empty"]
    with pytest.raises(InvalidQuery, match="pending"):
        index.search_stored(added.video_id)
    work_off(index)
    assert index.job(added.job_id).status == "succeeded"
    assert ids(index.search_text("red")) == [added.video_id]


def test_the_same_content_is_the_same_video(index: VideoIndex, clips: dict[str, Path], tmp_path: Path) -> None:
    first = index.add(clips["red"], title="First")
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(clips["red"].read_bytes())
    again = index.add(copy)
    assert (again.video_id, again.job_id, again.is_duplicate) == (first.video_id, first.job_id, True)
    assert index.get(first.video_id).title == "First"
    with pytest.raises(DuplicateVideo):
        index.add(copy, on_duplicate="error")


def test_what_is_no_file_is_refused(index: VideoIndex, tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(FileMissing):
        index.add(tmp_path / "absent.mp4")
    with pytest.raises(UnsupportedMedia, match="not a file"):
        index.add(tmp_path)
    with pytest.raises(UnsupportedMedia, match="empty"):
        index.add(tmp_path / "empty.mp4")
    with pytest.raises(FileMissing):
        index.search_video(tmp_path / "absent.mp4")
    assert index.list() == ((), None)


def test_a_file_that_is_no_video_fails_its_job_with_a_reason(index: VideoIndex, tmp_path: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("not a video " * 100)
    added = index.add(text)
    work_off(index)
    assert (index.job(added.job_id).status, index.job(added.job_id).error_code) == ("failed", "unsupported_media")
    with pytest.raises(MediaError):
        index.search_video(text)


def test_removing_takes_it_out_of_search_and_deletes_only_what_is_managed(
    index: VideoIndex, clips: dict[str, Path], tmp_path: Path
) -> None:
    green = index.add_received(received(index, clips["green"]), title="own").video_id
    managed = index.get(green).path
    assert managed.read_bytes() == clips["green"].read_bytes()
    red = index.add(clips["red"]).video_id
    work_off(index)
    thumbnail = index.thumbnail(green, 0.5)
    assert set(ids(index.search_text("green"))) == {green, red}
    index.remove(green)
    assert ids(index.search_text("green")) == [red]
    assert not managed.exists()
    assert not thumbnail.exists()
    index.remove(red)
    assert index.search_text("red").hits == ()
    assert clips["red"].exists()
    for gone in (green, "unknown"):
        with pytest.raises(NotFound):
            index.remove(gone)
        with pytest.raises(NotFound):
            index.search_stored(gone)


def test_a_removed_video_can_be_added_again(index: VideoIndex, clips: dict[str, Path]) -> None:
    red = index.add(clips["red"]).video_id
    work_off(index)
    index.remove(red)
    assert index.add(clips["red"]).video_id == red
    work_off(index)
    assert ids(index.search_text("red")) == [red]


def test_updates_are_seen_by_filters_at_once(index: VideoIndex, clips: dict[str, Path]) -> None:
    red = index.add(clips["red"], metadata={"tags": ["a"]}).video_id
    green = index.add(clips["green"], metadata={"tags": ["b"]}).video_id
    work_off(index)
    with_b = SearchOptions(filter={"tags": "b"})
    assert ids(index.search_text("red", with_b)) == [green]
    index.update(red, title="Red", metadata={"tags": ["b"]})
    answer = index.search_text("red", with_b)
    assert ids(answer) == [red, green]
    assert answer.hits[0].video.title == "Red"


def test_two_indexes_on_one_folder_see_each_other_at_once(index: VideoIndex, clips: dict[str, Path]) -> None:
    with VideoIndex.open(index.folder, FakeModel(), CONFIG) as other:
        red = index.add(clips["red"]).video_id
        work_off(other)
        assert ids(index.search_text("red")) == ids(other.search_text("red")) == [red]
        other.remove(red)
        assert index.search_text("red").hits == ()


def test_a_restart_finds_the_same(tmp_path: Path, clips: dict[str, Path]) -> None:
    with VideoIndex.open(tmp_path, FakeModel(), CONFIG) as index:
        for path in clips.values():
            index.add(path)
        work_off(index)
        before = index.search_text("yellow blue")
    with VideoIndex.open(tmp_path, FakeModel(), CONFIG) as index:
        after = index.search_text("yellow blue")
    assert after.hits == before.hits
    assert after.total_indexed == 3


def test_data_of_another_model_is_refused(tmp_path: Path) -> None:
    VideoIndex.open(tmp_path, FakeModel()).close()
    with pytest.raises(ModelMismatch):
        VideoIndex.open(tmp_path, FakeModel(fingerprint="fake-2"))


def test_only_what_is_used_is_loaded(tmp_path: Path, clips: dict[str, Path]) -> None:
    def load(_: ModelSpec | None) -> FakeModel:
        loaded.append("model")
        return FakeModel()

    loaded: list[str] = []
    with VideoIndex.open(tmp_path, load, CONFIG) as index:
        red = index.add(clips["red"]).video_id
        assert index.list()[0][0].id == red and index.jobs()[0] and index.stats()["videos"] == 0
        index.remove(red)
        assert (loaded, index._parts.loaded_follower) == ([], None), "listing, adding and removing load neither"
        index.add(clips["red"])
        work_off(index)
        assert (loaded, index._parts.loaded_follower) == (["model"], None), "a worker holds no vectors"
        assert ids(index.search_text("red")) == [red]
        assert loaded == ["model"]


def test_another_model_is_refused_when_it_is_loaded(tmp_path: Path) -> None:
    VideoIndex.open(tmp_path, FakeModel()).close()
    with VideoIndex.open(tmp_path, lambda _: FakeModel(fingerprint="fake-2")) as index:
        assert index.list() == ((), None)
        for use in (index.warm_up, lambda: index.search_text("red"), index.worker):
            with pytest.raises(ModelMismatch):
                use()


def test_the_loader_learns_what_the_data_are_bound_to(tmp_path: Path) -> None:
    def load(bound: ModelSpec | None) -> FakeModel:
        found.append(bound)
        return FakeModel()

    found: list[ModelSpec | None] = []
    for _ in range(2):
        with VideoIndex.open(tmp_path, load, CONFIG) as index:
            spec = index.model.spec
            assert index.stats()["precision"] == "fp32"
    assert found == [None, spec]


def test_a_warm_index_follows_what_others_publish_without_a_search(tmp_path: Path, clips: dict[str, Path]) -> None:
    with (
        VideoIndex.open(tmp_path, FakeModel(), CONFIG) as index,
        VideoIndex.open(tmp_path, FakeModel(), CONFIG) as other,
    ):
        index.warm_up()
        red = other.add(clips["red"]).video_id
        work_off(other)
        index.catch_up_soon()
        vectors = index._parts.follower.vectors
        ends_s = time.monotonic() + 30
        while not vectors.num_videos and time.monotonic() < ends_s:
            time.sleep(0.01)
        assert vectors.num_videos == 1
        assert ids(index.search_text("red")) == [red]
        other.remove(red)
        assert index.search_text("red").hits == ()


def test_a_warm_index_keeps_large_shards_in_files_for_the_next_start(tmp_path: Path) -> None:
    with Catalogue(tmp_path / "catalogue.sqlite") as catalogue:
        catalogue.bind_model(FakeModel().spec)
        add(catalogue, "long")
        catalogue.publish(claim(catalogue), MEDIA, features(8200, num_frames=1), FakeModel().spec.fingerprint)
    answers = []
    for _ in range(2):
        with VideoIndex.open(tmp_path, FakeModel(), CONFIG) as index:
            index.warm_up()
            ends_s = time.monotonic() + 60
            while not index.stats()["shards"]["mapped"] and time.monotonic() < ends_s:
                time.sleep(0.05)
            shards = index.stats()["shards"]
            assert (shards["segments"], shards["sealed"], shards["mapped"], shards["coarse"]) == ([8200], 1, 1, 1)
            (hit,) = index.search_text("red").hits
            answers.append((hit.score, hit.moments))
        assert len(list((tmp_path / "shards").glob("*.shard"))) == 1
    assert answers[0] == answers[1]


def test_a_lost_catalogue_beside_uploaded_videos_is_not_replaced_by_an_empty_one(
    tmp_path: Path, clips: dict[str, Path]
) -> None:
    with VideoIndex.open(tmp_path, FakeModel(), CONFIG) as index:
        index.add_received(received(index, clips["red"]), title="red")
    file = tmp_path / "catalogue.sqlite"
    whole = file.read_bytes()
    for lose in (lambda: file.write_bytes(b""), file.unlink):
        lose()
        with pytest.raises(CatalogueUnreadable, match="missing or empty"):
            VideoIndex.open(tmp_path, FakeModel(), CONFIG)
    assert not file.exists()
    file.write_bytes(whole)
    with VideoIndex.open(tmp_path, FakeModel(), CONFIG) as index:
        assert len(index.list()[0]) == 1


def test_a_link_in_an_indexed_files_place_leads_nowhere(
    index: VideoIndex, clips: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "a.mp4").write_bytes(clips["red"].read_bytes())
    (tmp_path / "linked").symlink_to(folder)
    red = index.add(tmp_path / "linked" / "a.mp4").video_id
    assert index.get(red).path == folder / "a.mp4", "links are followed when a file is added"
    _, file = index.open_file(red)
    assert file.read() == clips["red"].read_bytes()
    file.close()
    (folder / "a.mp4").rename(tmp_path / "secret.mp4")
    (folder / "a.mp4").symlink_to(tmp_path / "secret.mp4")
    for use in (lambda: index.open_file(red), lambda: index.thumbnail(red, 0.0)):
        with pytest.raises(FileMissing):
            use()
    (folder / "a.mp4").unlink()
    folder.rmdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "secret.mp4").rename(tmp_path / "elsewhere" / "a.mp4")
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileMissing):
        index.open_file(red)


def test_a_thumbnail_shows_its_second_and_is_made_once(shared: VideoIndex, clips: dict[str, Path]) -> None:
    from PIL import Image

    own = video_id(clips["long"])
    path = shared.thumbnail(own, 7.0)
    assert path == shared.folder / "thumbnails" / own / "7000.jpg"
    with Image.open(path) as picture:
        assert picture.format == "JPEG"
        colour = np.asarray(picture.convert("RGB")).reshape(-1, 3).mean(0)
    assert np.abs(colour - COLOURS["blue"]).max() < 12
    stamp = path.stat().st_mtime_ns
    assert shared.thumbnail(own, 7.0).stat().st_mtime_ns == stamp
    assert shared.thumbnail(own, 1e9).is_file()
    assert shared.thumbnail(own, -5.0).name == "0.jpg"
    assert not list(path.parent.glob("*.part"))
    with pytest.raises(InvalidQuery):
        shared.thumbnail(own, float("inf"))
    with pytest.raises(NotFound):
        shared.thumbnail("unknown", 0.0)


def test_a_thumbnail_of_a_file_that_is_gone_is_a_clear_error(index: VideoIndex, tmp_path: Path) -> None:
    path = solid_clip(tmp_path / "gone.mp4", COLOURS["red"], 1.0)
    added = index.add(path)
    path.unlink()
    with pytest.raises(FileMissing):
        index.thumbnail(added.video_id, 0.0)


def test_stats_count(shared: VideoIndex) -> None:
    stats = shared.stats()
    assert (stats["videos"], stats["segments"], stats["generation"]) == (3, 5, 3)
    assert stats["jobs"]["succeeded"] == 3
    assert (stats["model"], stats["fingerprint"], stats["precision"]) == ("fake", "fake-1", "fp32")
    assert stats["unreadable"] == {}
    assert stats["bytes"]["catalogue"] > 0


def test_stats_describe_the_shards_once_they_are_needed(tmp_path: Path, clips: dict[str, Path]) -> None:
    with VideoIndex.open(tmp_path, FakeModel(), replace(CONFIG, store="int8")) as index:
        index.add(clips["red"])
        work_off(index)
        assert index.stats()["shards"] is None
        index.search_text("red")
        shards = index.stats()["shards"]
        assert shards.pop("bytes") > 0
        expected = {"store": "int8", "segments": [1], "dead": 0, "sealed": 0, "mapped": 0, "coarse": 0}
        assert shards == expected


def test_jobs_can_be_listed_cancelled_and_tried_again(index: VideoIndex, clips: dict[str, Path]) -> None:
    added = index.add(clips["red"])
    assert [job.id for job in index.jobs()[0]] == [added.job_id]
    assert index.cancel_job(added.job_id).status == "cancelled"
    work_off(index)
    assert index.search_text("red").hits == ()
    assert index.retry_job(added.job_id).status == "queued"
    work_off(index)
    assert ids(index.search_text("red")) == [added.video_id]


def test_many_threads_search_while_videos_come_and_go(index: VideoIndex, clips: dict[str, Path]) -> None:
    red = index.add(clips["red"]).video_id
    work_off(index)
    wrong: list[str] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            found = ids(index.search_text("red"))
            if found[:1] != [red]:
                wrong.append(f"found {found}")

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        for _ in range(3):
            green = index.add(clips["green"]).video_id
            work_off(index)
            index.remove(green)
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert wrong == []


def test_closing_twice_is_fine(tmp_path: Path) -> None:
    index = VideoIndex.open(tmp_path, FakeModel())
    index.close()
    index.close()


def test_a_job_in_hand_is_given_back_when_decoding_is_stopped(tmp_path: Path, clips: dict[str, Path]) -> None:
    with VideoIndex.open(tmp_path / "data", FakeModel(), CONFIG) as index:
        job_id = index.add(clips["red"]).job_id
        worker = index.worker()
        index.stop_decoding()
        worker.run_once()
        assert (index.job(job_id).status, index.job(job_id).error_code) == ("queued", None)
        work_off(index)  # a worker with a decoding process of its own
        assert index.job(job_id).status == "succeeded"
