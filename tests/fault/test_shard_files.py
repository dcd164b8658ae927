"""Files of shards beside a catalogue that is killed, restored, copied, or out of room: never a wrong feature."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fault.test_full_disk import ROOT, in_namespace
from tests.fault.test_full_disk import folder as small_disk  # noqa: F401  (a fixture)
from tests.support.killable import start
from tests.support.shard_folder import ShardFolder, work_until_killed


def test_kill_nine_at_any_step_leaves_what_can_be_opened(tmp_path: Path) -> None:
    """At every file that is opened, renamed or deleted, one after another, until a run gets through."""
    place = tmp_path / "data"
    with ShardFolder(place) as opened:
        opened.publish(0, 9)
        opened.keep()
    num_kills = num_used = 0
    for at in range(1, 200):
        child = start(work_until_killed, place, at, 100 * at)
        child.join()
        is_through = child.exitcode == 0
        assert is_through or child.exitcode == -signal.SIGKILL
        child.close()
        with ShardFolder(place) as opened:
            opened.check()
            num_used += opened.num_from_files() > 0
        if is_through:
            break
        num_kills += 1
    assert num_kills > 12, "in the writing of files, of the manifest, and in the deletion of old ones"
    assert num_used > num_kills / 2, "a kill doesn't cost the files of before"


def backup(source: Path, target: Path) -> None:
    """What `sqlite3 .backup` does."""
    with sqlite3.connect(source) as old, sqlite3.connect(target) as new:
        old.backup(new)
    old.close()
    new.close()


def restore(source: Path, folder: Path) -> None:
    for path in folder.glob("catalogue.sqlite*"):
        path.unlink()
    shutil.copy(source, folder / "catalogue.sqlite")


def test_a_backup_from_before_the_files_is_noticed(tmp_path: Path) -> None:
    place, saved = tmp_path / "data", tmp_path / "backup.sqlite"
    with ShardFolder(place) as opened:
        opened.publish(0, 5)
    backup(place / "catalogue.sqlite", saved)
    with ShardFolder(place) as opened:
        opened.publish(5, 12, seed=10)
        opened.keep()
        assert opened.num_from_files() > 5
    restore(saved, place)
    with ShardFolder(place) as opened:
        opened.publish(5, 12, seed=90)  # the same numbers and changes with other features
        opened.check()
    with ShardFolder(place) as opened:
        opened.check()
        assert opened.num_from_files() == 0
        opened.keep()
    with ShardFolder(place) as opened:
        opened.check()
        assert opened.num_from_files() > 5


def test_a_backup_from_after_the_files_uses_them(tmp_path: Path) -> None:
    place, saved = tmp_path / "data", tmp_path / "backup.sqlite"
    with ShardFolder(place) as opened:
        opened.publish(0, 12)
        opened.keep()
        num_kept = opened.num_from_files()
    backup(place / "catalogue.sqlite", saved)
    with ShardFolder(place) as opened:
        for video in opened.catalogue.list_videos()[0][:4]:
            opened.catalogue.remove_video(video.id)
        opened.vectors.follow(opened.reader)
    restore(saved, place)
    with ShardFolder(place) as opened:
        opened.check()
        assert opened.num_from_files() == num_kept, "what was removed after the backup is back"


def test_a_copied_folder_goes_its_own_way(tmp_path: Path) -> None:
    place, copy = tmp_path / "data", tmp_path / "copy"
    with ShardFolder(place) as opened:
        opened.publish(0, 12)
        opened.keep()
    shutil.copytree(place, copy)
    for number, folder_ in enumerate((place, copy)):
        with ShardFolder(folder_) as opened:
            opened.check()
            assert opened.num_from_files() > 5
            opened.publish(12, 24, seed=50 * (number + 1))
            opened.keep()
            opened.check()
    shutil.rmtree(place / "shards")
    shutil.copytree(copy / "shards", place / "shards")
    with ShardFolder(place) as opened:
        opened.check()
        assert opened.num_from_files() == 0, "the copy's files are foreign by now"


FULL = """
import logging, sys
from pathlib import Path
from tests.support.shard_folder import ShardFolder

folder = Path(sys.argv[1])
logging.basicConfig(stream=sys.stdout, format="%(message)s")
with ShardFolder(folder) as opened:
    opened.publish(0, 40)
    (folder / "ballast").write_bytes(b"x" * int(sys.argv[2]))
    opened.upkeep._retry_s = 0.0
    opened.upkeep.run_once()
    assert opened.num_from_files() == 0
    assert not list((folder / "shards").glob("*")), "no rest of a file is left"
    opened.check()
    (folder / "ballast").unlink()
    opened.upkeep.run_once()
    assert opened.num_from_files() > 20
    opened.check()
"""


def test_without_room_shards_stay_in_memory_and_are_written_later(small_disk: Path) -> None:  # noqa: F811
    script = 'mount -t tmpfs -o size=300m tmpfs "$1" && exec "$2" -c "$3" "$1" "$4"'
    arguments = [str(small_disk), sys.executable, FULL, str(100 * 2**20)]
    command = in_namespace("sh", "-ec", script, "sh", *arguments)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "snapshot_postponed" in done.stdout


def test_a_disk_that_turns_full_while_a_file_is_written_keeps_no_part_of_it(tmp_path: Path) -> None:
    """Past the check for room: a limit on the size of files stands for the disk."""
    program = (
        "import resource, signal, sys; from pathlib import Path; from tests.support.shard_folder import ShardFolder\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "with ShardFolder(Path(sys.argv[1])) as opened:\n"
        "    opened.publish(0, 12)\n"
        "    old = resource.getrlimit(resource.RLIMIT_FSIZE)\n"
        "    opened.upkeep._retry_s = 0.0\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (70_000, old[1]))\n"
        "    opened.upkeep.run_once()\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, old)\n"
        "    assert opened.num_from_files() == 0 and not list(Path(sys.argv[1], 'shards').iterdir())\n"
        "    opened.check()\n"
        "    opened.upkeep.run_once()\n"
        "    assert opened.num_from_files() > 5\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "data")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("suffix", [".shard", "manifest.json"])
def test_a_flipped_bit_in_any_file_gives_right_features_in_the_end(tmp_path: Path, suffix: str) -> None:
    place = tmp_path / "data"
    with ShardFolder(place) as opened:
        opened.publish(0, 12)
        opened.keep()
    for path in (place / "shards").glob(f"*{suffix}"):
        content = bytearray(path.read_bytes())
        content[len(content) * 9 // 10] ^= 4
        path.write_bytes(content)
    with ShardFolder(place) as opened:
        opened.keep()
        opened.check()
        opened.keep()
    with ShardFolder(place) as opened:
        opened.check()
        assert opened.num_from_files() > 5
