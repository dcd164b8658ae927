"""The worker: every job ends somehow, with a reason that says why."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from indexer.catalogue.rows import Transaction
from indexer.catalogue.videos import NewVideo
from indexer.errors import CatalogueBusy, DecodeInterrupted, ModelMismatch, SandboxClosed, StorageFull
from indexer.indexing.pipeline import PipelineConfig
from indexer.indexing.worker import Worker, WorkerConfig
from indexer.records import AddResult, Frames, Job, MediaInfo
from model.types import Pixels, VideoFeatures
from tests.support.catalogues import Catalogue, Clock
from tests.support.fake_sandbox import FakeSandbox, write_fake_video
from tests.support.fakes import FakeModel
from tests.unit.indexer.indexing.test_pipeline import video_at

CONFIG = WorkerConfig(
    lease_s=10.0, heartbeat_s=0.01, poll_s=0.01, pipeline=PipelineConfig(max_segment_s=2.0, batch_segments=1)
)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def catalogue(tmp_path: Path, clock: Clock) -> Iterator[Catalogue]:
    with Catalogue(tmp_path / "catalogue.sqlite", clock=clock) as opened:
        yield opened


def add_file(catalogue: Catalogue, path: Path) -> AddResult:
    """Add a file as VideoIndex does."""
    video = video_at(path)
    added: AddResult = catalogue.add_video(NewVideo(path, video.sha256, video.size_bytes, path.stem))
    return added


def worker(catalogue: Catalogue, sandbox: FakeSandbox | None = None, model: FakeModel | None = None) -> Worker:
    return Worker(catalogue, [sandbox or FakeSandbox()], model or FakeModel(), CONFIG, owner="w1")


class Hooked(FakeSandbox):
    """Runs something before each reading of frames."""

    def __init__(self, before: Callable[[], object], delay_s: float = 0.0) -> None:
        super().__init__(delay_s)
        self._before = before

    def read_frames(self, path: Path, instants_s: Sequence[float], *given: Any, **named: Any) -> Frames:
        self._before()
        return super().read_frames(path, instants_s, *given, **named)


def test_a_video_is_indexed(catalogue: Catalogue, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "vidgrain.worker")
    added = add_file(catalogue, write_fake_video(tmp_path / "v", 5.0, "red"))
    job = worker(catalogue).run_once()
    assert job is not None
    assert (job.id, job.status, job.stage) == (added.job_id, "succeeded", "done")
    video = catalogue.get_video(added.video_id)
    assert (video.status, video.num_segments) == ("ready", len(catalogue.segments(video.id)))
    assert job.progress.segments_done == job.progress.segments_total == video.num_segments > 1
    assert job.progress.seconds_done == job.progress.seconds_total > 0 and job.progress.frames_done > 1
    assert [record.message for record in caplog.records] == ["job_claimed", "job_succeeded", "job_left"]
    assert {(record.job_id, record.video_id) for record in caplog.records} == {(job.id, video.id)}  # type: ignore[attr-defined]


def test_without_work_there_is_nothing_to_do(catalogue: Catalogue) -> None:
    assert worker(catalogue).run_once() is None


def test_a_catalogue_of_another_model_is_refused_at_once(catalogue: Catalogue) -> None:
    worker(catalogue)
    with pytest.raises(ModelMismatch):
        worker(catalogue, model=FakeModel(fingerprint="fake-2"))


@pytest.mark.parametrize(
    ("prepare", "error_code"),
    [
        (lambda path: path.write_text("letter"), "unsupported_media"),
        (lambda path: write_fake_video(path, 20.0, "red", bad_from_s=9.0), "video_undecodable"),
        (lambda path: write_fake_video(path, 1e6, "red"), "video_too_long"),
    ],
)
def test_a_fault_of_the_media_is_final(
    catalogue: Catalogue, tmp_path: Path, prepare: Callable[[Path], object], error_code: str
) -> None:
    prepare(tmp_path / "v")
    added = add_file(catalogue, tmp_path / "v")
    job = worker(catalogue).run_once()
    assert job is not None
    assert (job.status, job.error_code, job.attempt) == ("failed", error_code, 1)
    video = catalogue.get_video(added.video_id)
    assert (video.status, video.error_code) == ("failed", error_code)
    assert video.error_message
    assert catalogue.segments(video.id) == ()


def test_a_file_that_is_gone_or_changed_fails_with_that_reason(catalogue: Catalogue, tmp_path: Path) -> None:
    for name in "ab":
        add_file(catalogue, write_fake_video(tmp_path / name, 3.0, "red"))
    (tmp_path / "a").unlink()
    write_fake_video(tmp_path / "b", 3.0, "blue")
    jobs = [worker(catalogue).run_once() for _ in "ab"]
    assert [job and job.error_code for job in jobs] == ["file_missing", "file_changed"]
    assert [str(tmp_path) in str(job and job.error_message) for job in jobs] == [False, False]


def test_a_failed_job_keeps_no_path(catalogue: Catalogue, tmp_path: Path) -> None:
    def refuse() -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path / "v"))

    add_file(catalogue, write_fake_video(tmp_path / "v", 3.0, "red"))
    job = worker(catalogue, Hooked(refuse)).run_once()
    assert job is not None and job.error_message == "PermissionError: Permission denied"


class BrokenModel(FakeModel):
    """Fails in its first calls."""

    def __init__(self, num_failures: int) -> None:
        super().__init__()
        self.num_failures = num_failures

    def encode_video(self, segments: Sequence[Pixels]) -> VideoFeatures:
        self.num_failures -= 1
        if self.num_failures >= 0:
            raise RuntimeError("out of something")
        return super().encode_video(segments)


def test_other_errors_are_tried_again_after_a_pause(catalogue: Catalogue, tmp_path: Path, clock: Clock) -> None:
    add_file(catalogue, write_fake_video(tmp_path / "v", 3.0, "red"))
    broken = worker(catalogue, model=BrokenModel(2))
    job = broken.run_once()
    assert job is not None
    assert (job.status, job.error_code, job.error_message) == ("queued", "internal", "RuntimeError: out of something")
    assert broken.run_once() is None
    clock.pass_s(2)
    assert broken.run_once() is not None
    clock.pass_s(4)
    job = broken.run_once()
    assert job is not None
    assert (job.status, job.attempt) == ("succeeded", 3)


def test_a_decoder_killed_from_outside_is_tried_again(catalogue: Catalogue, tmp_path: Path, clock: Clock) -> None:
    def interrupt() -> None:
        if len(kills) < 1:
            kills.append("SIGKILL")
            raise DecodeInterrupted("The decoder was killed from outside (signal SIGKILL).", path=tmp_path / "v")

    kills: list[str] = []
    add_file(catalogue, write_fake_video(tmp_path / "v", 3.0, "red"))
    hurt = worker(catalogue, Hooked(interrupt))
    job = hurt.run_once()
    assert job is not None and (job.status, job.error_code) == ("queued", "decode_interrupted")
    clock.pass_s(2)
    job = hurt.run_once()
    assert job is not None and (job.status, job.attempt) == ("succeeded", 2)


def test_attempts_come_to_an_end(catalogue: Catalogue, tmp_path: Path, clock: Clock) -> None:
    added = add_file(catalogue, write_fake_video(tmp_path / "v", 3.0, "red"))
    broken = worker(catalogue, model=BrokenModel(99))
    for _ in range(3):
        broken.run_once()
        clock.pass_s(1000)
    assert broken.run_once() is None
    assert catalogue.get_job(added.job_id).status == "failed"
    assert catalogue.get_video(added.video_id).error_message == "RuntimeError: out of something"


def test_a_cancel_is_honoured_between_batches(catalogue: Catalogue, tmp_path: Path) -> None:
    added = add_file(catalogue, write_fake_video(tmp_path / "v", 2000.0, "red"))
    sandbox = Hooked(lambda: catalogue.cancel_job(added.job_id), delay_s=0.01)
    job = worker(catalogue, sandbox).run_once()
    assert job is not None
    assert job.status == "cancelled"
    assert sandbox.calls.count("read_frames") < 500
    assert catalogue.get_video(added.video_id).error_code == "cancelled"


def test_the_job_of_a_removed_video_is_dropped(
    catalogue: Catalogue, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "vidgrain.worker")
    added = add_file(catalogue, write_fake_video(tmp_path / "v", 100.0, "red"))
    is_removed = threading.Event()

    def remove() -> None:
        if not is_removed.is_set():
            is_removed.set()
            catalogue.remove_video(added.video_id)

    job = worker(catalogue, Hooked(remove)).run_once()
    assert job is not None
    assert job.status == "cancelled"
    assert "job_lost" in caplog.messages
    assert len(catalogue.published()) == 0


def test_work_whose_lease_was_lost_is_not_published(catalogue: Catalogue, tmp_path: Path, clock: Clock) -> None:
    added = add_file(catalogue, write_fake_video(tmp_path / "v", 5.0, "red"))
    taken: list[Job | None] = []

    def sleep_too_long() -> None:
        if not taken:
            clock.pass_s(11)
            taken.append(catalogue.claim_job("w2", 10))

    worker(catalogue, Hooked(sleep_too_long)).run_once()
    job = catalogue.get_job(added.job_id)
    assert (job.status, job.owner, job.attempt) == ("running", "w2", 2)
    assert catalogue.count() == (0, 0)


def test_the_lease_is_renewed_while_one_step_takes_long(tmp_path: Path) -> None:
    """The reading waits until the lease has been renewed twice; only a thread of its own can do that."""
    renewed = threading.Semaphore(0)

    class Watched(Catalogue):
        def write(self) -> AbstractContextManager[Transaction]:
            if threading.current_thread().name == "heartbeat":
                renewed.release()
            return super().write()

    with Watched(tmp_path / "catalogue.sqlite") as catalogue:
        add_file(catalogue, write_fake_video(tmp_path / "v", 1.0, "red"))
        waits = Hooked(lambda: [renewed.acquire(timeout=30) for _ in range(2)])
        job = Worker(catalogue, [waits], FakeModel(), WorkerConfig(heartbeat_s=0.01)).run_once()
    assert job is not None
    assert job.status == "succeeded"


def test_a_worker_that_is_stopped_gives_its_job_back(catalogue: Catalogue, tmp_path: Path) -> None:
    added = add_file(catalogue, write_fake_video(tmp_path / "v", 100.0, "red"))
    stop = threading.Event()
    worker(catalogue, Hooked(stop.set)).run(stop)
    job = catalogue.get_job(added.job_id)
    assert (job.status, job.owner) == ("queued", None)
    assert job.max_attempts - job.attempt == 3
    assert catalogue.claim_job("w2", 10) is not None, "at once, without waiting for the lease"


def test_ctrl_c_gives_the_job_back_too(catalogue: Catalogue, tmp_path: Path) -> None:
    added = add_file(catalogue, write_fake_video(tmp_path / "v", 3.0, "red"))

    class Interrupted(FakeModel):
        def encode_video(self, segments: Sequence[Pixels]) -> VideoFeatures:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        worker(catalogue, model=Interrupted()).run_once()
    assert catalogue.get_job(added.job_id).status == "queued"


def test_a_sandbox_that_is_being_closed_costs_no_attempt(catalogue: Catalogue, tmp_path: Path) -> None:
    added = add_file(catalogue, write_fake_video(tmp_path / "v", 3.0, "red"))

    def close() -> None:
        raise SandboxClosed("Decoding was stopped: the sandbox is closed.")

    worker(catalogue, Hooked(close)).run_once()
    job = catalogue.get_job(added.job_id)
    assert (job.status, job.max_attempts - job.attempt) == ("queued", 3)


def test_run_works_off_the_queue_and_then_waits(catalogue: Catalogue, tmp_path: Path) -> None:
    for n in range(3):
        add_file(catalogue, write_fake_video(tmp_path / f"v{n}", 3.0, "red"))
    stop = threading.Event()
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        stop.set()

    Worker(catalogue, [FakeSandbox()], FakeModel(), CONFIG, wait=wait).run(stop)
    assert catalogue.count_jobs()["succeeded"] == 3
    assert waits == [CONFIG.poll_s]


def test_run_outlives_a_full_disk_and_a_busy_catalogue(tmp_path: Path) -> None:
    troubles = [StorageFull("full"), CatalogueBusy("busy")]

    class Troubled(Catalogue):
        is_troubled = False

        def write(self) -> AbstractContextManager[Transaction]:
            if self.is_troubled and troubles:
                raise troubles.pop()
            return super().write()

    with Troubled(tmp_path / "catalogue.sqlite") as catalogue:
        add_file(catalogue, write_fake_video(tmp_path / "v", 3.0, "red"))
        stop = threading.Event()

        def wait(seconds: float) -> None:
            if catalogue.count_jobs()["succeeded"]:
                stop.set()

        troubled = Worker(catalogue, [FakeSandbox()], FakeModel(), CONFIG, wait=wait)
        catalogue.is_troubled = True
        troubled.run(stop)
        assert catalogue.count_jobs()["succeeded"] == 1


def test_no_room_to_publish_is_tried_again_later(tmp_path: Path, clock: Clock) -> None:
    is_full: list[bool] = []

    class Full(Catalogue):
        def write(self) -> AbstractContextManager[Transaction]:
            if is_full and threading.current_thread() is threading.main_thread():
                is_full.clear()
                raise StorageFull("No room left.", "Free some.")
            return super().write()

    class Filling(FakeModel):
        def encode_video(self, segments: Sequence[Pixels]) -> VideoFeatures:
            is_full.append(True)
            return super().encode_video(segments)

    with Full(tmp_path / "catalogue.sqlite", clock=clock) as catalogue:
        add_file(catalogue, write_fake_video(tmp_path / "v", 3.0, "red"))
        job = worker(catalogue, model=Filling()).run_once()
        assert job is not None
        assert (job.status, job.error_code) == ("queued", "storage_full")
        clock.pass_s(2)
        job = worker(catalogue).run_once()
        assert job is not None
        assert job.status == "succeeded"


def test_several_jobs_are_in_hand_at_once(catalogue: Catalogue, tmp_path: Path) -> None:
    """Each of three readers waits until the others read too."""
    together = threading.Barrier(3, timeout=30)

    class Meeting(FakeSandbox):
        def probe(self, path: Path) -> MediaInfo:
            together.wait()
            return super().probe(path)

    for n in range(3):
        add_file(catalogue, write_fake_video(tmp_path / f"v{n}", 3.0, "red"))
    stop = threading.Event()
    Worker(catalogue, [Meeting() for _ in range(3)], FakeModel(), CONFIG, wait=lambda _: stop.set()).run(stop)
    assert catalogue.count_jobs()["succeeded"] == 3


def test_a_cancelled_job_leaves_the_others_alone(catalogue: Catalogue, tmp_path: Path) -> None:
    slow = add_file(catalogue, write_fake_video(tmp_path / "slow", 4000.0, "red"))
    others = [add_file(catalogue, write_fake_video(tmp_path / f"v{n}", 6.0, "blue")) for n in range(5)]
    stop = threading.Event()

    class Cancelling(FakeSandbox):
        def read_frames(self, path: Path, instants_s: Sequence[float], *given: Any, **named: Any) -> Frames:
            if path.name == "slow" and instants_s[0] > 20:
                job = catalogue.get_job(slow.job_id)
                if not job.is_cancel_requested and job.status == "running":
                    catalogue.cancel_job(slow.job_id)
            return super().read_frames(path, instants_s, *given, **named)

    sources = [Cancelling(0.01), Cancelling(0.01)]
    Worker(catalogue, sources, FakeModel(), CONFIG, wait=lambda _: stop.set()).run(stop)
    assert catalogue.get_job(slow.job_id).status == "cancelled"
    assert {catalogue.get_job(added.job_id).status for added in others} == {"succeeded"}
    assert sum(source.calls.count("read_frames") for source in sources) < 1000


def test_a_job_in_its_last_attempt_is_worked_on_alone(catalogue: Catalogue, tmp_path: Path, clock: Clock) -> None:
    """Its worker was lost twice, and it may have been the one to blame: nobody shares the third with it."""
    suspect = add_file(catalogue, write_fake_video(tmp_path / "suspect", 3.0, "red"))
    for _ in range(2):
        assert catalogue.claim_job("dead", 10) is not None
        clock.pass_s(11)
    for n in range(6):
        add_file(catalogue, write_fake_video(tmp_path / f"v{n}", 3.0, "blue"))
    stop = threading.Event()
    beside: list[int] = []

    class Watching(FakeSandbox):
        def probe(self, path: Path) -> MediaInfo:
            if path.name == "suspect":
                beside.append(catalogue.count_jobs()["running"])
            return super().probe(path)

    Worker(catalogue, [Watching(), Watching()], FakeModel(), CONFIG, wait=lambda _: stop.set()).run(stop)
    assert beside == [1]
    assert catalogue.count_jobs()["succeeded"] == 7
    assert catalogue.get_job(suspect.job_id).attempt == 3


def test_what_could_not_be_written_down_is_not_lost(tmp_path: Path) -> None:
    """The catalogue is busy when a video is to be published: its features are kept until it isn't."""
    troubles = [CatalogueBusy("busy") for _ in range(3)]

    class Busy(Catalogue):
        is_encoded = False

        def write(self) -> AbstractContextManager[Transaction]:
            if self.is_encoded and troubles and threading.current_thread() is threading.main_thread():
                raise troubles.pop()
            return super().write()

    class Model(FakeModel):
        def encode_video(self, segments: Sequence[Pixels]) -> VideoFeatures:
            catalogue.is_encoded = True
            return super().encode_video(segments)

    sandbox, stop = FakeSandbox(), threading.Event()
    with Busy(tmp_path / "catalogue.sqlite") as catalogue:
        add_file(catalogue, write_fake_video(tmp_path / "v", 3.0, "red"))

        def wait(seconds: float) -> None:
            if catalogue.count_jobs()["succeeded"]:
                stop.set()

        Worker(catalogue, [sandbox], Model(), CONFIG, wait=wait).run(stop)
        assert catalogue.list_jobs()[0][0].attempt == 1
    assert not troubles
    assert sandbox.calls.count("probe") == 1
