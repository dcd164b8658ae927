"""One holder among threads and processes."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

from indexer.locks import FolderLock

HOLD = """
import sys
from pathlib import Path
from indexer.locks import FolderLock
with FolderLock(Path(sys.argv[1])).holding():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_another_process_holds_us_off_and_its_death_lets_us_in(tmp_path: Path) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        cwd=Path(__file__).parents[3],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert other.stdin and other.stdout
    got = threading.Event()

    def take() -> None:
        with FolderLock(tmp_path).holding():
            got.set()

    waiter = threading.Thread(target=take)
    try:
        assert other.stdout.readline() == b"held\n"
        waiter.start()
        assert not got.wait(0.2)
    finally:
        other.kill()
        other.wait()
        other.stdin.close()
        other.stdout.close()
    waiter.join(10)
    assert got.is_set()


def test_two_threads_with_locks_of_their_own_take_turns(tmp_path: Path) -> None:
    inside: list[int] = []
    most: list[int] = []

    def work() -> None:
        for _ in range(50):
            with FolderLock(tmp_path).holding():
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 200 and max(most) == 1
