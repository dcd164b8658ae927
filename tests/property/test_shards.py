"""Whatever is published, removed, kept in files and opened again, in any order: a view equals the catalogue."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.shards.rows import rows_allowed, rows_live, rows_of_video
from tests.support.shards import Library
from tests.support.views import check, held

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["publish", "publish", "publish", "remove", "touch", "follow", "keep", "restart"]),
        st.integers(0, 15),
        st.integers(1, 4),
    ),
    max_size=30,
)


@settings(max_examples=40, deadline=None)
@given(steps=STEPS, store=st.sampled_from(["fp16", "int8"]))
def test_a_view_equals_the_catalogue_whatever_happened(steps: list[tuple[str, int, int]], store: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        library = Library(Path(folder) / "shards", store=store)  # type: ignore[arg-type]
        for what, number, num_segments in steps:
            name = f"v{number}"
            if what == "publish":
                library.publish(name, num_segments=num_segments)
            elif what in ("remove", "touch") and name in library.shelf.video_ids():
                getattr(library.shelf, what)(name)
            elif what == "follow":
                library.follow()
            elif what == "keep":
                library.kept()
            elif what == "restart":
                library = library.again(store=store)
            check(library.vectors.view())
        library.follow()
        assert_same(library)
        library.close()


def assert_same(library: Library) -> None:
    """What is held is what is stored, and rows are found by numbers and by ids."""
    view, shelf = library.vectors.view(), library.shelf
    check(view)
    videos = held(view)
    assert set(videos) == set(shelf.video_ids())
    for video_id, segments in videos.items():
        for mine, stored in zip(segments, shelf.segments(video_id), strict=True):
            assert mine.id == stored.id
            np.testing.assert_allclose(mine.frames, stored.features.frames, atol=0.005)
    chosen = sorted(videos)[::2]
    numbers = np.sort(np.array([shelf.number(video_id) for video_id in chosen], dtype=np.int64))
    for shard in view.shards:
        of_each = [rows_of_video(shard, video_id) for video_id in chosen]
        expected = np.zeros(len(shard), dtype=np.bool_)
        expected[np.concatenate([*of_each, np.empty(0, np.int64)]).astype(np.int64)] = True
        assert (rows_allowed(shard, numbers) == expected).all()
        assert not (expected & ~rows_live(shard)).any()
        assert not len(rows_of_video(shard, "unknown")) and not len(rows_of_video(shard, "ünknown"))
