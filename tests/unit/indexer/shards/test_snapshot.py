"""Files of shards: what they hold is used only where it is right, and everything else comes from the catalogue."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from indexer.errors import CatalogueUnreadable
from indexer.shards.coarse import Coarse
from indexer.shards.snapshot import MANIFEST, CoarseMaker
from model.kernels.block import Store
from tests.support.shards import DIM, FAKE_COARSE, CountedShelf, FakeCoarse, Library
from tests.support.views import check, held, ids

NAMES = tuple(f"v{number}" for number in range(20))


@pytest.fixture
def library(tmp_path: Path) -> Library:
    """Twenty videos in files, but for those in the open shard."""
    return filled(tmp_path / "shards")


def filled(folder: Path, store: Store = "fp16") -> Library:
    library = Library(folder, CountedShelf(), store=store)
    for name in NAMES:
        library.publish(name)
        library.follow()
    library.upkeep.run_once()
    assert library.num_mapped == len(library.sealed) > 0
    return library


def stored_ids(library: Library) -> dict[str, list[int]]:
    return {key: [segment.id for segment in library.shelf.segments(key)] for key in library.shelf.video_ids()}


def num_read_again(library: Library, **options: object) -> tuple[int, Library]:
    """Open once more; how many videos were read from the catalogue, which then all are right."""
    shelf = library.shelf
    assert isinstance(shelf, CountedShelf)
    before = shelf.num_read
    fresh = library.again(**options)
    check(fresh.vectors.view())
    assert ids(fresh.vectors.view()) == stored_ids(fresh)
    assert fresh.vectors.generation == shelf.last_seq()
    assert fresh.vectors.is_whole
    return shelf.num_read - before, fresh


def files(library: Library) -> list[Path]:
    return sorted(library.folder.glob("*.shard"))


@pytest.mark.parametrize("store", ["fp16", "int8"])
def test_a_restart_reads_only_what_is_in_no_file(tmp_path: Path, store: Store) -> None:
    library = filled(tmp_path / "shards", store)
    before = held(library.vectors.view())
    num_open = len(NAMES) - sum(shard.num_videos for shard in library.sealed)
    num_read, fresh = num_read_again(library, store=store)
    assert num_read == num_open < 5
    for video_id, segments in held(fresh.vectors.view()).items():
        for mine, old in zip(segments, before[video_id], strict=True):
            assert (mine.id, mine.start_s, mine.end_s, mine.times_s) == (old.id, old.start_s, old.end_s, old.times_s)
            assert (mine.pooled == old.pooled).all()
            assert (mine.frames == old.frames).all()
    assert {shard.block.store for shard in fresh.vectors.view().shards} == {store}
    coarse = [shard.coarse for shard in fresh.sealed]
    assert [c.num_segments for c in coarse if isinstance(c, FakeCoarse)] == [len(shard) for shard in fresh.sealed]


def test_what_changed_meanwhile_is_taken_from_the_catalogue(library: Library) -> None:
    library.close()
    library.shelf.remove("v1")
    library.publish("v3", num_segments=3)
    library.shelf.remove("v4")
    library.publish("v4", "new")
    library.shelf.touch("v5")
    num_open = len(NAMES) - sum(shard.num_videos for shard in library.sealed)
    num_read, _ = num_read_again(library)
    assert num_read == num_open + 3


def test_removals_after_the_manifest_need_no_new_one(library: Library) -> None:
    stamp = (library.folder / MANIFEST).stat()
    library.shelf.remove("v1")
    library.kept()
    assert (library.folder / MANIFEST).stat().st_ino == stamp.st_ino
    _, fresh = num_read_again(library)
    assert "v1" not in ids(fresh.vectors.view())


def damage(path: Path, at: int, bits: int = 1) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= bits
    path.write_bytes(content)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def noise(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(5000))


WRECKS: tuple[Callable[[Path], None], ...] = (Path.unlink, cut, empty, link, pipe, folder, noise)


@pytest.mark.parametrize("wreck", WRECKS)
def test_a_shard_that_is_no_whole_file_is_read_again(
    library: Library, wreck: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    wreck(files(library)[0])
    num_read, fresh = num_read_again(library)
    assert 0 < num_read < len(NAMES), "the other shards are used"
    assert "shard_ignored" in caplog.messages
    fresh.upkeep.run_once()
    assert fresh.num_mapped == len(fresh.sealed)
    num_read, _ = num_read_again(fresh)
    assert num_read < 5


@pytest.mark.parametrize("wreck", WRECKS)
def test_without_a_whole_manifest_everything_is_read_again(library: Library, wreck: Callable[[Path], None]) -> None:
    wreck(library.folder / MANIFEST)
    num_read, _ = num_read_again(library)
    assert num_read == len(NAMES)


def test_a_flip_anywhere_is_noticed_or_harmless(library: Library) -> None:
    path = files(library)[0]
    whole = path.read_bytes()
    before = {name: [s.frames for s in segments] for name, segments in held(library.vectors.view()).items()}
    for at in np.random.default_rng(1).integers(0, len(whole), 60).tolist():
        path.write_bytes(whole)
        damage(path, at)
        fresh = library.again()
        fresh.upkeep.run_once()
        fresh.follow()
        assert ids(fresh.vectors.view()) == stored_ids(fresh)
        for name, segments in held(fresh.vectors.view()).items():
            assert all((mine.frames == old).all() for mine, old in zip(segments, before[name], strict=True))
        library = fresh
        path = files(library)[0]
        whole = path.read_bytes()


def test_damaged_features_are_found_after_the_start_and_read_again(
    library: Library, caplog: pytest.LogCaptureFixture
) -> None:
    damage(files(library)[0], -1, 0x10)
    num_read, fresh = num_read_again(library)
    assert num_read < 5, "they aren't read at the start"
    fresh.upkeep.run_once()
    assert "shard_damaged" in caplog.messages
    assert fresh.vectors.generation == 0, "so that a search waits for what is missing"
    fresh.follow()
    assert ids(fresh.vectors.view()) == stored_ids(fresh)
    fresh.upkeep.run_once()
    num_read, _ = num_read_again(fresh)
    assert num_read < 5


def test_a_damaged_file_of_another_process_is_left_after_one_look(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    library = Library(tmp_path / "shards")
    library.publish("a", "b", "c", "d")
    library.kept()
    other = Library(tmp_path / "shards", library.shelf)
    damage(files(library)[0], -1, 0x10)
    other.follow()
    for _ in range(3):
        other.upkeep.run_once()
        other.follow()
    assert ids(other.vectors.view()) == stored_ids(other)
    assert (other.num_mapped, caplog.messages.count("shard_damaged")) == (0, 1)


@pytest.mark.parametrize("options", [{"store": "int8"}, {"fingerprint": "another"}])
def test_files_of_another_model_or_setting_are_not_used(library: Library, options: dict[str, object]) -> None:
    num_read, fresh = num_read_again(library, **options)
    assert num_read == len(NAMES)
    fresh.upkeep.run_once()
    num_read, _ = num_read_again(fresh, **options)
    assert num_read < 5, "they have been replaced"


def test_files_of_an_older_state_of_a_restored_catalogue_are_not_used(library: Library) -> None:
    """A backup from before the manifest, after which other videos got the same numbers and changes."""
    shelf = CountedShelf()
    restored = Library(library.folder, shelf)
    library.close()
    for name in NAMES:
        restored.publish(name, num_segments=1)
    restored.follow()
    assert ids(restored.vectors.view()) == stored_ids(restored)
    assert shelf.num_read == len(NAMES)


def test_files_that_nobody_knows_are_deleted_and_folders_are_not(library: Library, tmp_path: Path) -> None:
    outside = tmp_path / "precious"
    outside.write_text("keep me")
    (library.folder / "old.shard").write_text("x")
    (library.folder / ".1234.partial").write_text("x")
    (library.folder / "link").symlink_to(outside)
    (library.folder / "folder").mkdir()
    _, fresh = num_read_again(library)
    fresh.upkeep.run_once()
    named = {shard.backing.name for shard in fresh.sealed if shard.backing is not None}
    assert {path.name for path in library.folder.iterdir()} == {MANIFEST, "folder", *named}
    assert outside.read_text() == "keep me"


def test_files_of_merged_shards_go(library: Library) -> None:
    old = set(files(library))
    for number in range(20, 60):
        library.publish(f"v{number}")
        library.kept()
    assert len(old - set(files(library))) == 1, "the small one"
    assert len(files(library)) == len(library.sealed)


def test_a_folder_that_is_a_link_is_left_alone(library: Library, tmp_path: Path) -> None:
    library.folder.rename(tmp_path / "elsewhere")
    library.folder.symlink_to(tmp_path / "elsewhere")
    before = sorted(path.name for path in (tmp_path / "elsewhere").iterdir())
    num_read, fresh = num_read_again(library)
    assert num_read == len(NAMES)
    fresh.upkeep.run_once()
    assert sorted(path.name for path in (tmp_path / "elsewhere").iterdir()) == before


def test_the_folder_may_be_deleted_while_it_is_used(library: Library) -> None:
    for path in library.folder.iterdir():
        path.unlink()
    library.folder.rmdir()
    assert ids(library.vectors.view()) == stored_ids(library), "mapped memory outlives its file"
    library.upkeep.run_once()
    assert len(files(library)) == len(library.sealed)
    num_read, _ = num_read_again(library)
    assert num_read < 5


def test_one_process_writes_and_another_may_read(library: Library) -> None:
    other = Library(library.folder, library.shelf)
    other.follow()
    assert ids(other.vectors.view()) == stored_ids(library)
    before = files(library)
    for number in range(20, 30):
        other.publish(f"v{number}")
        other.follow()
    other.upkeep.run_once()
    assert files(library) == before
    library.close()
    other.upkeep.run_once()
    assert len(files(library)) == other.num_mapped == len(other.sealed)


def test_a_real_coarse_index_finds_the_same_out_of_a_file(tmp_path: Path) -> None:
    maker = CoarseMaker(lambda shard: Coarse.build(shard.parts.block, has_frame_recall=True), Coarse.from_parts)
    library = Library(tmp_path / "shards", coarse=maker)
    library.publish(*NAMES)
    library.kept()
    fresh = library.again(coarse=maker)
    queries = np.random.default_rng(0).standard_normal((3, DIM)).astype(np.float32)
    for old, new in zip(library.vectors.view().shards, fresh.vectors.view().shards, strict=True):
        assert old.coarse is not None and new.coarse is not None and old.coarse is not new.coarse
        for name in ("by_pooled", "by_frames"):
            before, after = (getattr(shard.coarse, name)(queries, 5, None) for shard in (old, new))
            assert (before.rows == after.rows).all() and (before.scores == after.scores).all()


def test_a_coarse_index_that_cannot_be_read_is_built_again(library: Library, caplog: pytest.LogCaptureFixture) -> None:
    def refuse(_: object) -> FakeCoarse:
        raise CatalogueUnreadable("another format")

    num_read, fresh = num_read_again(library, coarse=CoarseMaker(FAKE_COARSE.build, refuse))
    assert num_read < 5 and "coarse_ignored" in caplog.messages
    assert [shard.coarse for shard in fresh.sealed] == [None] * len(fresh.sealed)
    old = files(library)
    fresh.upkeep.run_once()
    assert all(isinstance(shard.coarse, FakeCoarse) for shard in fresh.sealed)
    new = files(library)
    assert not set(old) & set(new), "and written again"
    fresh.upkeep.run_once()
    assert files(library) == new, "once"


def test_a_small_index_makes_no_folder(tmp_path: Path) -> None:
    library = Library(tmp_path / "shards")
    library.publish("a")
    library.kept()
    assert not library.folder.exists()
