"""The decode sandbox: the same answers as in-process, and one clear error for a hang, a crash, a bomb."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from indexer.errors import (
    BackendMissing,
    DecodeCrashed,
    DecodeInterrupted,
    DecodeTimeout,
    MediaError,
    SandboxClosed,
    UnsupportedMedia,
    VideoUndecodable,
)
from indexer.media import reading as media
from indexer.media.sandbox import DecodeSandbox, SandboxLimits
from tests.support.clips import numbered_frames, read_number, write_clip


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "plain.mp4", numbered_frames(50), 25)


@pytest.fixture(scope="module")
def shared_sandbox() -> Iterator[DecodeSandbox]:
    with DecodeSandbox() as sandbox:
        yield sandbox


def test_the_answers_are_those_of_media(shared_sandbox: DecodeSandbox, clip: Path) -> None:
    assert shared_sandbox.probe(clip) == media.probe(clip)
    ours, theirs = shared_sandbox.read_frames(clip, [0.1, 1.2]), media.read_frames(clip, [0.1, 1.2])
    assert np.array_equal(ours.pixels, theirs.pixels)
    assert np.array_equal(ours.times_s, theirs.times_s)
    assert shared_sandbox.thumbnail(clip, 0.5, 100) == media.thumbnail(clip, 0.5, 100)


def test_errors_cross_with_class_message_and_hint(shared_sandbox: DecodeSandbox, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(UnsupportedMedia, match=r"text\.mp4: Not a video file"):
        shared_sandbox.probe(tmp_path / "text.mp4")
    with pytest.raises(VideoUndecodable, match="No frame near"):
        shared_sandbox.read_frames(clip, [100.0])
    with pytest.raises(ValueError, match="instants"):
        shared_sandbox.read_frames(clip, [])
    assert shared_sandbox.probe(clip).duration_s == pytest.approx(2.0)


def test_decord_in_the_sandbox(clip: Path) -> None:
    with DecodeSandbox("decord") as sandbox:
        try:
            frames = sandbox.read_frames(clip, [0.5])
        except BackendMissing as error:
            assert "vidgrain[decord]" in error.hint
        else:
            assert read_number(frames.pixels[0]) == 12


def test_a_name_with_odd_bytes(shared_sandbox: DecodeSandbox, clip: Path, tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"\xff odd\n\xc3\xbc.mp4")
    odd.write_bytes(clip.read_bytes())
    assert shared_sandbox.probe(odd).codec == "h264"


def test_ordinary_1080p_fits_the_limits(shared_sandbox: DecodeSandbox, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "hd.mp4", numbered_frames(6, (1920, 1080)), 6, b_frames=2)
    frames = shared_sandbox.read_frames(path, [(i + 0.5) / 6 for i in range(6)])
    assert frames.pixels.shape == (6, 1080, 1920, 3)
    assert [read_number(p) for p in frames.pixels] == list(range(6))


def test_a_hang_is_stopped_and_the_next_request_works(clip: Path) -> None:
    with DecodeSandbox(limits=SandboxLimits(timeout_s=2.0)) as sandbox:
        sandbox.probe(clip)
        hanging = _pid(sandbox)
        os.kill(hanging, signal.SIGSTOP)
        with pytest.raises(DecodeTimeout, match=r"plain\.mp4: Decoding took longer than 2 s"):
            sandbox.probe(clip)
        assert _is_gone(hanging)
        assert sandbox.probe(clip).codec == "h264"
        assert _pid(sandbox) != hanging


def test_an_allocation_bomb_dies_of_the_memory_limit(tmp_path: Path, clip: Path) -> None:
    path = write_clip(tmp_path / "bomb.mp4", numbered_frames(60, (1200, 900)), 30, codec="mpeg4")
    with DecodeSandbox(limits=SandboxLimits(memory_bytes=500 * 2**20)) as sandbox:
        assert len(sandbox.read_frames(path, [0.1, 0.5]).times_s) == 2
        with pytest.raises(DecodeCrashed, match=r"bomb\.mp4: Decoding needs more than its memory limit of 500 MiB"):
            sandbox.read_frames(path, [(i + 0.5) / 30 for i in range(60)])
        assert sandbox.probe(clip).codec == "h264"


def _send_while_busy(pid: int, number: signal.Signals) -> list[threading.Timer]:
    """Stop the child, so that a request is on its way when the signal comes."""
    os.kill(pid, signal.SIGSTOP)
    timers = [threading.Timer(0.3, os.kill, (pid, number)), threading.Timer(0.4, _continue, (pid,))]
    for timer in timers:
        timer.start()
    return timers


def _continue(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def test_a_crash_is_tried_once_more_in_a_fresh_child(clip: Path) -> None:
    with DecodeSandbox() as sandbox:
        sandbox.probe(clip)
        crashing = _pid(sandbox)
        timers = _send_while_busy(crashing, signal.SIGSEGV)
        assert sandbox.probe(clip).codec == "h264"
        assert _pid(sandbox) != crashing
        for timer in timers:
            timer.join()


def test_a_second_crash_is_an_error_with_the_signal(clip: Path) -> None:
    with DecodeSandbox() as sandbox, _on_every_child(sandbox, signal.SIGSEGV) as hit:
        with pytest.raises(DecodeCrashed, match=r"plain\.mp4: The decoder died \(signal SIGSEGV"):
            sandbox.probe(clip)
        assert len(hit) == 2


@contextmanager
def _on_every_child(sandbox: DecodeSandbox, number: signal.Signals) -> Iterator[list[int]]:
    """Sends every child the signal as soon as it is started; gives their process ids."""
    hit: list[int] = []
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(0.001):
            if (pid := sandbox.child_pid) is not None and pid not in hit:
                os.kill(pid, number)
                hit.append(pid)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield hit
    finally:
        is_over.set()
        thread.join()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_kill_from_outside_is_not_the_fault_of_the_file(clip: Path, number: signal.Signals) -> None:
    with DecodeSandbox() as sandbox:
        sandbox.probe(clip)
        timers = _send_while_busy(_pid(sandbox), number)
        with pytest.raises(DecodeInterrupted, match=rf"plain\.mp4: .*\(signal {number.name}\)") as caught:
            sandbox.probe(clip)
        assert caught.value.is_retryable and not isinstance(caught.value, MediaError)
        for timer in timers:
            timer.join()
        assert sandbox.probe(clip).codec == "h264"


def test_a_child_that_died_while_idle_is_replaced_without_a_word(clip: Path) -> None:
    with DecodeSandbox() as sandbox:
        sandbox.probe(clip)
        pid = _pid(sandbox)
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert sandbox.probe(clip).codec == "h264"


def test_too_little_memory_to_start_is_an_error(clip: Path) -> None:
    with (
        DecodeSandbox(limits=SandboxLimits(memory_bytes=40 * 2**20)) as sandbox,
        pytest.raises(DecodeCrashed) as caught,
    ):
        sandbox.probe(clip)
    assert "/" not in caught.value.message
    assert "Traceback" not in caught.value.message


def test_close_ends_a_request_in_flight(clip: Path) -> None:
    sandbox = DecodeSandbox()
    sandbox.probe(clip)
    os.kill(_pid(sandbox), signal.SIGSTOP)
    closing = threading.Timer(0.3, sandbox.close)
    closing.start()
    with pytest.raises(SandboxClosed):
        sandbox.probe(clip)
    closing.join()
    sandbox.close()
    with pytest.raises(SandboxClosed):
        sandbox.probe(clip)


def test_close_without_a_request_and_twice() -> None:
    sandbox = DecodeSandbox()
    sandbox.close()
    sandbox.close()
    assert sandbox.child_pid is None


def test_threads_take_turns(shared_sandbox: DecodeSandbox, clip: Path) -> None:
    """Each gets its own answer, also after the thread that started the child has ended."""
    got: dict[int, int | None] = {}

    def read(number: int) -> None:
        got[number] = read_number(shared_sandbox.read_frames(clip, [(number + 0.5) / 25]).pixels[0])

    threads = [threading.Thread(target=read, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == {n: n for n in range(12)}


def test_the_child_survives_the_thread_that_started_it(clip: Path) -> None:
    with DecodeSandbox() as sandbox:
        starter = threading.Thread(target=sandbox.probe, args=(clip,))
        starter.start()
        starter.join()
        pid = _pid(sandbox)
        sandbox.probe(clip)
        assert sandbox.child_pid == pid


def test_the_child_has_no_torch_and_none_of_our_environment(
    clip: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("VIDGRAIN_A_SECRET", "told to nobody")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "av.py").write_text("raise SystemExit('a module of the working folder was loaded')")
    with DecodeSandbox() as sandbox:
        sandbox.read_frames(clip, [0.0])
        child = Path(f"/proc/{_pid(sandbox)}")
        if not child.is_dir():
            pytest.skip("no /proc here")
        assert "libtorch" not in (child / "maps").read_text()
        assert b"SECRET" not in (child / "environ").read_bytes()


@pytest.mark.parametrize("is_busy", [False, True])
def test_the_child_ends_with_a_killed_parent(clip: Path, is_busy: bool) -> None:
    """kill -9 of the parent, whether the child waits for a request or is in the middle of one."""
    code = (
        "import sys, threading; from pathlib import Path; from indexer.media.sandbox import DecodeSandbox\n"
        "sandbox = DecodeSandbox(); clip = Path(sys.argv[1]); sandbox.probe(clip)\n"
        "busy = lambda: [sandbox.read_frames(clip, [i / 25 for i in range(50)]) for _ in range(10**6)]\n"
        "threading.Thread(target=busy, daemon=True).start() if sys.argv[2] == 'True' else None\n"
        "print(sandbox.child_pid, flush=True); sys.stdin.read()"
    )
    root = str(Path(media.__file__).resolve().parents[2])
    with subprocess.Popen(
        [sys.executable, "-c", code, str(clip), str(is_busy)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": root},
    ) as parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        assert not _is_gone(pid)
        parent.kill()
    _wait_until(lambda: _is_gone(pid))


def _pid(sandbox: DecodeSandbox) -> int:
    assert sandbox.child_pid is not None
    return sandbox.child_pid


def _is_gone(pid: int) -> bool:
    """Ended and reaped; of an orphan, a zombie that the system's first process has yet to reap counts as well."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    stat = Path(f"/proc/{pid}/stat")
    return stat.is_file() and stat.read_text().rsplit(")", 1)[1].split()[0] == "Z" and os.getpid() != _parent(stat)


def _parent(stat: Path) -> int:
    return int(stat.read_text().rsplit(")", 1)[1].split()[1])


def _wait_until(is_so: Callable[[], bool], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_many_open_files_are_no_hindrance(clip: Path) -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 1200:
        pytest.skip(f"only {soft} files may be open here")
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(1030)]
    try:
        with DecodeSandbox() as sandbox:
            assert sandbox.probe(clip).duration_s == pytest.approx(2.0)
    finally:
        for number in held:
            os.close(number)


def test_a_file_stays_open_in_the_child_until_it_is_released(shared_sandbox: DecodeSandbox, clip: Path) -> None:
    shared_sandbox.read_frames(clip, [0.1])
    assert _holds(shared_sandbox, clip)
    shared_sandbox.read_frames(clip, [1.1])
    assert _holds(shared_sandbox, clip)
    shared_sandbox.release()
    assert not _holds(shared_sandbox, clip)
    shared_sandbox.release()
    assert read_number(shared_sandbox.read_frames(clip, [0.5]).pixels[0]) == 12


def test_releasing_starts_no_child_and_forgives_a_dead_one(clip: Path) -> None:
    with DecodeSandbox() as sandbox:
        sandbox.release()
        assert sandbox.child_pid is None
        sandbox.probe(clip)
        pid = _pid(sandbox)
        os.kill(pid, signal.SIGKILL)
        sandbox.release()
        assert read_number(sandbox.read_frames(clip, [0.5]).pixels[0]) == 12
    sandbox.release()


def test_one_thread_of_a_codec_is_one(tmp_path: Path) -> None:
    """A child reads with the thread that serves requests and the one that waits for its end, and no other."""
    path = write_clip(tmp_path / "large.mp4", numbered_frames(30, (1280, 720)), 25, b_frames=2)
    with DecodeSandbox(threads=1) as sandbox:
        sandbox.read_frames(path, [0.1, 0.9])
        tasks = Path(f"/proc/{_pid(sandbox)}/task")
        if not tasks.is_dir():
            pytest.skip("no /proc here")
        assert len(list(tasks.iterdir())) == 2


def test_without_a_device_hardware_decoding_is_ordinary_decoding(clip: Path) -> None:
    """With one it is the same but for rounding."""
    with DecodeSandbox(hardware=True) as sandbox:
        assert sandbox.probe(clip) == media.probe(clip)
        frames = sandbox.read_frames(clip, [0.1, 1.2])
    assert [read_number(p) for p in frames.pixels] == [2, 30]


def test_key_frames_through_the_child(shared_sandbox: DecodeSandbox, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "keys.mp4", numbered_frames(50), 25, gop=10)
    frames = shared_sandbox.read_frames(path, [0.1, 0.3, 1.0], sampling="keyframes")
    assert [read_number(p) for p in frames.pixels] == [0, 10, 20]
    assert frames.times_s.tolist() == pytest.approx([0.0, 0.4, 0.8])


def _holds(sandbox: DecodeSandbox, path: Path) -> bool:
    folder = Path(f"/proc/{_pid(sandbox)}/fd")
    if not folder.is_dir():
        pytest.skip("no /proc here")
    return any(link.resolve() == path.resolve() for link in folder.iterdir())


def test_a_child_that_starts_too_slowly_says_nothing_about_the_file(clip: Path) -> None:
    with DecodeSandbox(limits=SandboxLimits(start_s=0.0)) as sandbox:
        with pytest.raises(DecodeInterrupted, match="didn't start within 0 s"):
            sandbox.probe(clip)
        assert sandbox.child_pid is None


def test_closing_while_a_child_starts_ends_it(clip: Path) -> None:
    """close() is called between the look for a child and the child."""

    class Closed(DecodeSandbox):
        def __setattr__(self, name: str, value: object) -> None:
            if name == "_child" and value is not None and not self._is_closed:
                self._is_closed = True  # what close() does first
                assert self._child is None
            super().__setattr__(name, value)

    sandbox = Closed()
    with pytest.raises(SandboxClosed):
        sandbox.probe(clip)
    assert sandbox.child_pid is None
    sandbox.close()


def test_a_child_gets_the_variables_that_it_is_given_and_no_others(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "token")
    with DecodeSandbox(environment={"CUDA_VISIBLE_DEVICES": "1"}) as sandbox:
        sandbox.probe(clip)
        found = Path(f"/proc/{sandbox.child_pid}/environ").read_text().split("\0")
    assert "CUDA_VISIBLE_DEVICES=1" in found
    assert not [variable for variable in found if variable.startswith("SECRET")]
