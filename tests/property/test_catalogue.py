"""Whatever is done to a catalogue in whatever order, it agrees with a plain dictionary; filters agree with Python."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from indexer.catalogue.filters import OPERATORS, compile_filter
from indexer.catalogue.segments import published_videos
from indexer.errors import InvalidFilter, InvalidMetadata, JobConflict, JobLost
from indexer.records import Job, SegmentFeatures
from tests.support.catalogues import MEDIA, SPEC, Catalogue, Clock, add, features

NAMES = ["a", "b"]
LEASE_S = 10.0


class CatalogueMachine(RuleBasedStateMachine):
    """A catalogue beside a model of it: which features are live, and which jobs are held. A follower reads the feed."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = Clock()
        self.catalogue = Catalogue(Path(self.folder.name) / "catalogue.sqlite", clock=self.clock)
        self.live: dict[str, tuple[SegmentFeatures, ...]] = {}
        self.known: dict[str, str] = {}
        self.held: list[Job] = []
        self.old: list[Job] = []
        self.followed: dict[str, list[int]] = {}
        self.seen_seq = 0
        self.all_ids: dict[int, str] = {}

    @initialize()
    def bind(self) -> None:
        self.catalogue.bind_model(SPEC)

    def teardown(self) -> None:
        self.catalogue.close()
        self.folder.cleanup()

    @rule(name=st.sampled_from(NAMES), on_duplicate=st.sampled_from(["skip", "replace"]))
    def add(self, name: str, on_duplicate: Any) -> None:
        added = add(self.catalogue, name, on_duplicate=on_duplicate)
        assert added.is_duplicate == (name in self.known)
        assert self.known.setdefault(name, added.video_id) == added.video_id

    @rule(owner=st.sampled_from(["w1", "w2"]))
    def claim(self, owner: str) -> None:
        job = self.catalogue.claim_job(owner, LEASE_S)
        if job is not None:
            self.old += [held for held in self.held if held.video_id == job.video_id]
            self.held = [held for held in self.held if held.video_id != job.video_id] + [job]

    @rule(name=st.sampled_from(NAMES), seed=st.integers(0, 99), num_segments=st.integers(1, 4))
    def index_anew(self, name: str, seed: int, num_segments: int) -> None:
        """The whole way of a job, so that videos with features of an earlier time are common."""
        self.add(name, "replace")
        self.claim("w1")
        if self.held:
            self._publish(self.held[-1], features(num_segments, seed))

    @precondition(lambda self: self.held)
    @rule(seed=st.integers(0, 99), num_segments=st.integers(1, 4), data=st.data())
    def publish(self, seed: int, num_segments: int, data: st.DataObject) -> None:
        self._publish(data.draw(st.sampled_from(self.held)), features(num_segments, seed))

    @precondition(lambda self: self.old)
    @rule(data=st.data())
    def publish_too_late(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(self.old))
        try:
            self.catalogue.publish(job, MEDIA, features(1), SPEC.fingerprint)
        except JobLost:
            return
        raise AssertionError("a worker without the lease has published")

    @precondition(lambda self: self.held)
    @rule(data=st.data(), retry=st.booleans())
    def fail(self, data: st.DataObject, retry: bool) -> None:
        job = data.draw(st.sampled_from(self.held))
        self.catalogue.fail_job(job, "internal", "boom", retry)
        self._let_go(job)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(self.held))
        self.catalogue.release_job(job)
        self._let_go(job)

    @rule(data=st.data(), verb=st.sampled_from(["cancel_job", "retry_job"]))
    def a_person_asks(self, data: st.DataObject, verb: str) -> None:
        jobs, _ = self.catalogue.list_jobs()
        if jobs:
            with suppress(JobConflict):
                getattr(self.catalogue, verb)(data.draw(st.sampled_from([job.id for job in jobs])))

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.known)))
        video_id = self.known.pop(name)
        self.catalogue.remove_video(video_id)
        self.live.pop(video_id, None)
        for job in [job for job in self.held if job.video_id == video_id]:
            self._let_go(job)

    @rule(seconds=st.sampled_from([1.0, 11.0, 400.0]))
    def pass_time(self, seconds: float) -> None:
        self.clock.pass_s(seconds)

    @rule()
    def follow(self) -> None:
        while page := self.catalogue.changes(self.seen_seq, limit=2):
            for change in page:
                assert change.seq > self.seen_seq
                self.seen_seq = change.seq
                self.followed.pop(change.video_id, None)
                if change.is_live:
                    self.followed[change.video_id] = [s.id for s in self.catalogue.segments(change.video_id)]
        assert self.seen_seq == self.catalogue.last_seq()
        published = self.catalogue.published()
        assert sorted(map(len, self.followed.values())) == sorted(published[:, 2].tolist())
        with self.catalogue.read() as tx:
            whole = list(published_videos(tx, 0, 2**62))
        assert [video.number for video in whole] == published[:, 0].tolist()
        packed = {video.video_id: [segment.id for segment in video.segments] for video in whole}
        assert (packed, {video.damage for video in whole} - {None}) == (self.followed, set())

    @invariant()
    def features_are_those_last_published(self) -> None:
        assert self.catalogue.count() == (len(self.live), sum(map(len, self.live.values())))
        for video_id, expected in self.live.items():
            stored = self.catalogue.segments(video_id)
            assert [s.features.times_s for s in stored] == [s.times_s for s in expected]
            for back, given_ in zip(stored, expected, strict=True):
                np.testing.assert_array_equal(back.features.frames, given_.frames)
                assert self.all_ids.setdefault(back.id, video_id) == video_id
        assert {v.id for v in self.catalogue.list_videos()[0]} == set(self.known.values())

    @invariant()
    def no_video_waits_for_nothing(self) -> None:
        open_jobs = {j.video_id for s in ("queued", "running") for j in self.catalogue.list_jobs(status=s)[0]}  # type: ignore[arg-type]
        for video in self.catalogue.list_videos()[0]:
            assert (video.status == "pending") <= (video.id in open_jobs)
            assert (video.status == "ready") == (video.id in self.live)

    @invariant()
    def the_sums_are_those_of_the_jobs(self) -> None:
        with self.catalogue.read() as tx:
            sums = {row["status"]: (row["jobs"], row["size_bytes"]) for row in tx.rows("SELECT * FROM job_sums")}
            counted = tx.rows(
                "SELECT j.status, COUNT(*) AS jobs, SUM(v.size_bytes) AS size_bytes "
                "FROM jobs AS j JOIN videos AS v ON v.id = j.video_id GROUP BY j.status"
            )
        assert {status: sum_ for status, sum_ in sums.items() if sum_ != (0, 0)} == {
            row["status"]: (row["jobs"], row["size_bytes"]) for row in counted
        }

    def _publish(self, job: Job, made: tuple[SegmentFeatures, ...]) -> None:
        self.catalogue.publish(job, MEDIA, made, SPEC.fingerprint)
        self.live[job.video_id] = made
        self._let_go(job)

    def _let_go(self, job: Job) -> None:
        self.held.remove(job)
        self.old.append(job)


CatalogueMachine.TestCase.settings = settings(
    max_examples=30, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestCatalogue = CatalogueMachine.TestCase

KEYS = st.sampled_from(["k", "tags", 'a"b', "é", "$.k"])
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([0.5, 1.0, -2.5]),
    st.sampled_from(["", "a", "B", "é", "1"]),
)
VALUES = st.one_of(SCALARS, st.lists(SCALARS, max_size=3))
CONDITIONS = st.one_of(
    SCALARS,
    st.fixed_dictionaries({"in": st.lists(SCALARS, max_size=3)}),
    st.fixed_dictionaries({"exists": st.booleans()}),
    st.dictionaries(st.sampled_from(["eq", "ne"]), SCALARS, min_size=1),
    st.dictionaries(
        st.sampled_from(["gte", "lte", "gt", "lt"]), st.one_of(st.integers(-3, 3), st.sampled_from("aB")), min_size=1
    ),
)
FILTERS = st.recursive(
    st.dictionaries(KEYS, CONDITIONS, max_size=2),
    lambda inner: st.one_of(
        st.fixed_dictionaries({"not": inner}), st.fixed_dictionaries({"or": st.lists(inner, min_size=1, max_size=3)})
    ),
    max_leaves=4,
)


@settings(max_examples=60, deadline=None)
@given(
    metadata=st.lists(st.dictionaries(KEYS, VALUES, max_size=4), min_size=1, max_size=5),
    filters=st.lists(FILTERS, max_size=8),
)
def test_filters_agree_with_python(metadata: list[dict[str, Any]], filters: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder, Catalogue(Path(folder) / "catalogue.sqlite") as catalogue:
        for n, one in enumerate(metadata):
            add(catalogue, str(n), metadata=one)
        for filter in filters:
            found = {video.title for video in catalogue.list_videos(filter=filter)[0]}
            assert found == {str(n) for n, one in enumerate(metadata) if passes(one, filter)}, filter


def passes(metadata: dict[str, Any], filter: dict[str, Any]) -> bool:
    """The filter language in Python, written apart from the SQL."""
    for key, part in filter.items():
        if key == "not":
            if passes(metadata, part):
                return False
        elif key == "or":
            if not any(passes(metadata, one) for one in part):
                return False
        else:
            conditions = part if isinstance(part, dict) else {"eq": part}
            if not all(holds(metadata, key, operator, value) for operator, value in conditions.items()):
                return False
    return True


def holds(metadata: dict[str, Any], key: str, operator: str, value: Any) -> bool:
    """One condition on one key."""
    if operator == "exists":
        return (key in metadata) == value
    if operator == "ne":
        return not holds(metadata, key, "eq", value)
    if operator == "in":
        return any(holds(metadata, key, "eq", one) for one in value)
    if key not in metadata:
        return False
    stored = metadata[key]
    if operator == "eq":
        return any(
            kind(one) == kind(value) and one == value for one in (stored if isinstance(stored, list) else [stored])
        )
    if kind(stored) != kind(value):
        return False
    return bool({"gte": stored >= value, "lte": stored <= value, "gt": stored > value, "lt": stored < value}[operator])


def kind(value: Any) -> str:
    """Values compare with values of their own kind."""
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)
ODD_FILTERS = st.dictionaries(
    st.one_of(st.sampled_from(["not", "or", "and", "title", "fps"]), st.text(max_size=4)),
    st.one_of(JSON, st.dictionaries(st.sampled_from([*OPERATORS, "x"]), JSON, max_size=2)),
    max_size=3,
)


@settings(max_examples=150, deadline=None)
@given(filter=ODD_FILTERS, metadata=st.dictionaries(st.text(max_size=4), JSON, max_size=3))
def test_any_json_is_either_read_or_refused(odd_catalogue: Catalogue, filter: Any, metadata: Any) -> None:
    with suppress(InvalidMetadata):
        odd_catalogue.update_video(odd_catalogue.list_videos()[0][0].id, metadata=metadata)
    try:
        clause = compile_filter(filter)
    except InvalidFilter:
        return
    assert clause.sql.count("?") == len(clause.parameters)
    videos, cursor = odd_catalogue.list_videos(filter=filter)
    assert len(videos) <= 1 and cursor is None


@pytest.fixture(scope="module")
def odd_catalogue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalogue]:
    """A catalogue of one video, whose metadata each example replaces."""
    with Catalogue(tmp_path_factory.mktemp("odd") / "catalogue.sqlite") as catalogue:
        add(catalogue, "only")
        yield catalogue
