"""Managed files and their rows come together and go together; nothing else is ever deleted."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from indexer.catalogue.videos import NewVideo
from indexer.errors import CatalogueUnreadable, DuplicateVideo, FileMissing, InvalidMetadata, NotFound
from indexer.records import AddResult, OnDuplicate
from indexer.storage import ReceivedFile, Storage, open_without_links
from tests.support.catalogues import SPEC, Catalogue, claim


class Shelf:
    """A data folder with its catalogue and storage."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.catalogue = Catalogue(folder / "catalogue.sqlite")
        self.catalogue.bind_model(SPEC)
        self.storage = Storage(folder, self.catalogue)

    def receive(self, content: bytes, suffix: str = ".mp4") -> ReceivedFile:
        """An upload that has arrived."""
        place = self.storage.incoming() / uuid.uuid4().hex
        place.write_bytes(content)
        return ReceivedFile(place, hashlib.sha256(content).hexdigest(), len(content), suffix)

    def upload(self, content: bytes, suffix: str = ".mp4", on_duplicate: OnDuplicate = "skip") -> AddResult:
        """An upload that arrives and is kept."""
        received = self.receive(content, suffix)
        try:
            return self.storage.adopt(received, title="t", metadata={}, on_duplicate=on_duplicate, max_attempts=3)
        finally:
            received.path.unlink(missing_ok=True)

    def media(self) -> dict[str, bytes]:
        """The files in media/."""
        return {path.name: path.read_bytes() for path in (self.folder / "media").glob("*") if path.is_file()}

    def pending(self) -> list[str]:
        """Markers that are left."""
        return [path.name for path in (self.folder / "pending").glob("*")]


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    made = Shelf(tmp_path / "data")
    yield made
    made.catalogue.close()


def name_of(content: bytes, suffix: str = ".mp4") -> str:
    return hashlib.sha256(content).hexdigest() + suffix


def test_an_upload_is_moved_to_its_place_and_goes_with_its_video(shelf: Shelf) -> None:
    added = shelf.upload(b"one")
    assert shelf.media() == {name_of(b"one"): b"one"}
    assert shelf.catalogue.get_video(added.video_id).path == shelf.folder / "media" / name_of(b"one")
    assert shelf.storage.size_bytes() == 3
    shelf.storage.remove(added.video_id)
    assert (shelf.media(), shelf.pending()) == ({}, [])
    with pytest.raises(NotFound):
        shelf.storage.remove(added.video_id)


@pytest.mark.parametrize("suffix", ["", ".MKV", "./../x", ".a/b", ".", ".\0", "..", ".toolongasuffix", "x"])
def test_a_suffix_is_kept_only_if_it_looks_like_one(shelf: Shelf, suffix: str) -> None:
    shelf.upload(b"one", suffix)
    assert list(shelf.media()) == [name_of(b"one", ".mkv" if suffix == ".MKV" else "")]


def test_the_same_content_is_kept_once_under_the_name_it_has(shelf: Shelf) -> None:
    first = shelf.upload(b"one")
    before = (shelf.folder / "media" / name_of(b"one")).stat()
    again = shelf.upload(b"one", ".mov")
    assert again.is_duplicate and again.job_id == first.job_id
    assert shelf.media() == {name_of(b"one"): b"one"}
    after = (shelf.folder / "media" / name_of(b"one")).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns), "a worker may be reading it"


@pytest.mark.parametrize("damage", [b"two", b"longer than it was", b"", None])
def test_a_damaged_file_is_replaced_by_the_same_good_upload(shelf: Shelf, damage: bytes | None) -> None:
    first = shelf.upload(b"one")
    place = shelf.folder / "media" / name_of(b"one")
    place.unlink() if damage is None else place.write_bytes(damage)
    shelf.catalogue.fail_job(claim(shelf.catalogue), "video_undecodable", "damaged", retry=False)
    again = shelf.upload(b"one", ".mov")
    assert (again.video_id, again.is_duplicate) == (first.video_id, True)
    assert again.job_id != first.job_id, "the failure said nothing about the content"
    assert shelf.media() == {name_of(b"one"): b"one"}


def test_a_failure_of_the_content_sticks_where_the_file_is_whole(shelf: Shelf) -> None:
    first = shelf.upload(b"one")
    shelf.catalogue.fail_job(claim(shelf.catalogue), "video_undecodable", "no video", retry=False)
    assert shelf.upload(b"one").job_id == first.job_id


def test_an_upload_that_is_refused_leaves_nothing(shelf: Shelf) -> None:
    with pytest.raises(InvalidMetadata):
        shelf.storage.adopt(
            shelf.receive(b"one"), title="t", metadata={"x": float("nan")}, on_duplicate="skip", max_attempts=3
        )
    assert (shelf.media(), shelf.pending()) == ({}, [])
    shelf.upload(b"two")
    with pytest.raises(DuplicateVideo):
        shelf.upload(b"two", on_duplicate="error")
    assert (shelf.media(), shelf.pending()) == ({name_of(b"two"): b"two"}, [])


def test_a_video_that_leaves_its_managed_file_for_a_named_one_takes_it_away(shelf: Shelf, tmp_path: Path) -> None:
    added = shelf.upload(b"one")
    named = tmp_path / "named.mp4"
    named.write_bytes(b"one")
    new = NewVideo(named, hashlib.sha256(b"one").hexdigest(), 3, "t")
    shelf.storage.add_in_place(new, "skip", 3)
    assert list(shelf.media()) == [name_of(b"one")], "it has a file"
    shelf.storage.add_in_place(new, "replace", 3)
    assert shelf.media() == {}
    assert shelf.catalogue.get_video(added.video_id).path == named
    shelf.storage.remove(added.video_id)
    assert named.exists()


def test_a_removal_in_a_copied_folder_leaves_the_originals_file(shelf: Shelf, tmp_path: Path) -> None:
    added = shelf.upload(b"one")
    shelf.catalogue.close()
    shutil.copytree(shelf.folder, tmp_path / "copy")
    copy = Shelf(tmp_path / "copy")
    assert copy.catalogue.get_video(added.video_id).path.is_relative_to(copy.folder)
    copy.storage.remove(added.video_id)
    assert copy.media() == {} and list(shelf.media()) == [name_of(b"one")]
    copy.catalogue.close()


def test_a_moved_folder_keeps_its_uploads(shelf: Shelf, tmp_path: Path) -> None:
    added = shelf.upload(b"one")
    shelf.catalogue.close()
    shelf.folder.rename(tmp_path / "moved")
    moved = Shelf(tmp_path / "moved")
    assert moved.catalogue.get_video(added.video_id).path.read_bytes() == b"one"
    moved.catalogue.close()


@pytest.mark.parametrize("path", [b"../outside.mp4", b"/etc/../outside.mp4", b"media/../../outside.mp4", b"media/.."])
def test_nothing_outside_of_media_is_ever_deleted(shelf: Shelf, path: bytes) -> None:
    outside = shelf.folder.parent / "outside.mp4"
    outside.write_bytes(b"precious")
    added = shelf.upload(b"one")
    with shelf.catalogue.write() as tx:
        tx.change("UPDATE videos SET path = ?", path)
    shelf.storage.remove(added.video_id)
    assert outside.read_bytes() == b"precious"


def test_files_without_row_or_marker_are_named_and_left(shelf: Shelf, caplog: pytest.LogCaptureFixture) -> None:
    """They may be newer than a catalogue that was restored from a backup."""
    shelf.upload(b"one")
    (shelf.folder / "media" / "newer.mp4").write_bytes(b"x")
    assert shelf.storage.sweep() == 0
    assert [path.name for path in shelf.storage.unknown_files()] == ["newer.mp4"]
    (warning,) = caplog.records
    assert (warning.message, warning.__dict__["first"], warning.__dict__["size_bytes"]) == (
        "media_unknown",
        ["newer.mp4"],
        1,
    )
    assert "newer.mp4" in shelf.media()


@pytest.mark.parametrize("verb", ["adopt", "remove"])
@pytest.mark.parametrize("at", [1, 2, 3])
def test_what_a_kill_leaves_half_done_is_finished_by_the_sweep(shelf: Shelf, verb: str, at: int) -> None:
    """kill -9 before the transaction, after it, and after the file was dealt with."""
    kept = shelf.upload(b"kept").video_id
    received = shelf.receive(b"one")
    child = multiprocessing.get_context("fork").Process(target=_killed, args=(shelf.folder, verb, at, kept, received))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    shelf.storage.sweep()
    files = {video.path.name for video in shelf.catalogue.list_videos()[0]}
    assert set(shelf.media()) == files, "each video has its file, each file its video"
    assert shelf.pending() == []
    assert name_of(b"kept") in files or verb == "remove"
    assert shelf.upload(b"one").video_id == hashlib.sha256(b"one").hexdigest()[:16]


def _killed(folder: Path, verb: str, at: int, video_id: str, received: ReceivedFile) -> None:
    class Deadly(Catalogue):
        num_writes = 0

        def write(self) -> object:  # type: ignore[override]
            if at == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().write()

    class DeadlyStorage(Storage):
        def _delete_if_unused(self, path: Path) -> bool:
            if at == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            deleted = super()._delete_if_unused(path)
            os.kill(os.getpid(), signal.SIGKILL)
            return deleted

    storage = DeadlyStorage(folder, Deadly(folder / "catalogue.sqlite"))
    if verb == "remove":
        storage.remove(video_id)
    else:
        storage.adopt(received, title="t", metadata={}, on_duplicate="skip", max_attempts=3)


def test_a_removal_does_not_wait_for_an_upload_that_is_being_hashed(shelf: Shelf) -> None:
    """The kept copy of the uploaded content is a pipe here: hashing it lasts until the test lets it end."""
    other = shelf.upload(b"other").video_id
    shelf.upload(b"one")
    place = shelf.folder / "media" / name_of(b"one")
    received = shelf.receive(b"one")
    reading, let_go = threading.Event(), threading.Event()

    class Slow(Storage):
        def _kept(self, sha256: str) -> Path | None:
            found = super()._kept(sha256)
            reading.set()
            let_go.wait(30)
            return found

    slow = Slow(shelf.folder, shelf.catalogue)
    uploading = threading.Thread(
        target=lambda: slow.adopt(received, title="t", metadata={}, on_duplicate="skip", max_attempts=3)
    )
    uploading.start()
    assert reading.wait(30)
    shelf.storage.remove(other)
    assert uploading.is_alive()
    let_go.set()
    uploading.join()
    assert list(shelf.media()) == [place.name]


def test_a_data_folder_behind_a_link_gives_its_files(tmp_path: Path) -> None:
    """The links on the way to the data folder, and that of media/ itself, are the owner's own."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "data").symlink_to(tmp_path / "disk")
    shelf = Shelf(tmp_path / "data")
    video = shelf.catalogue.get_video(shelf.upload(b"one").video_id)
    with shelf.storage.open_file(video) as file:
        assert file.read() == b"one"
    (tmp_path / "disk" / "media").rename(tmp_path / "disk" / "uploads")
    (tmp_path / "disk" / "media").symlink_to("uploads")
    with shelf.storage.open_file(video) as file:
        assert file.read() == b"one"
    video.path.rename(tmp_path / "secret")
    video.path.symlink_to(tmp_path / "secret")
    with pytest.raises(FileMissing):
        shelf.storage.open_file(video)
    shelf.catalogue.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_folders_that_may_be_passed_but_not_listed_are_passed() -> None:
    """As a home folder with the mode 711 on the way to a library."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        folder.chmod(0o711)
        (folder / "film.mp4").write_bytes(b"one")
        (folder / "film.mp4").chmod(0o644)
        child = multiprocessing.get_context("fork").Process(target=_read_as_nobody, args=(folder / "film.mp4",))
        child.start()
        child.join()
    assert child.exitcode == 0


def _read_as_nobody(path: Path) -> None:
    os.setuid(65534)
    with pytest.raises(PermissionError):
        list(path.parent.iterdir())
    with open_without_links(path) as file:
        assert file.read() == b"one"


def test_a_data_folder_that_is_gone_takes_no_upload(shelf: Shelf) -> None:
    received = shelf.receive(b"one")
    shelf.folder.rename(shelf.folder.with_name("away"))
    uses: list[Callable[[], object]] = [
        shelf.storage.incoming,
        lambda: shelf.storage.remove("x"),
        lambda: shelf.storage.adopt(received, title="t", metadata={}, on_duplicate="skip", max_attempts=3),
    ]
    for use in uses:
        with pytest.raises(CatalogueUnreadable):
            use()
    assert not shelf.folder.exists()


def test_many_upload_the_same_and_remove_it_at_once(shelf: Shelf) -> None:
    errors: list[BaseException] = []

    def work(n: int) -> None:
        try:
            for _ in range(5):
                added = shelf.upload(b"same", on_duplicate="replace" if n % 2 else "skip")
                if n % 3 == 0:
                    try:
                        shelf.storage.remove(added.video_id)
                    except NotFound:
                        continue
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    files = {video.path.name for video in shelf.catalogue.list_videos()[0]}
    assert set(shelf.media()) == files
    assert shelf.pending() == []
