"""Whatever stands in an annotation file, reading it ends in a Split or in a DatasetError, never in a traceback."""

from __future__ import annotations

import json
import pickle
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.datasets.load import find_videos, load_split
from model.datasets.protocols import DATASETS
from model.datasets.records import SPLIT_NAMES, Split
from model.errors import DatasetError
from tests.support.annotations import write_annotations

KEYS = st.sampled_from(
    ["videos", "sentences", "video_id", "caption", "split", "video", "description", "duration", "videoID", "enCap",
     "captions", "start_s", "end_s", "id", "v_a", "a"]
)  # fmt: skip
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.sampled_from(["train", "test", "a"])
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS | st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
LINES = st.text(alphabet=st.sampled_from('ab,\t"\n\r./\\\ufeff\x00é{}[]:'), max_size=60)


def files_of(name: str) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        write_annotations(name, Path(folder), 1)
        return sorted(path.name for path in Path(folder).iterdir())


def loads_or_says(name: str, file: str, data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder_name:
        folder = Path(folder_name)
        write_annotations(name, folder, 1)
        (folder / file).write_bytes(data)
        for split in SPLIT_NAMES:
            try:
                loaded = load_split(name, split, folder)
            except DatasetError as error:
                assert error.message
                continue
            assert isinstance(loaded, Split) and loaded.clips
            assert len({clip.id for clip in loaded.clips}) == len(loaded.clips)
            for _, caption in loaded.pairs:
                caption.encode()
            assert not find_videos(loaded, folder).paths


CASES = [(name, file) for name in DATASETS for file in files_of(name)]


@pytest.mark.parametrize(("name", "file"), CASES)
@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_any_content_is_read_or_refused(name: str, file: str, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["bytes", "lines", "json", "pickle"]))
    if kind == "bytes":
        content = data.draw(st.binary(max_size=80))
    elif kind == "lines":
        content = data.draw(LINES).encode()
    elif kind == "json":
        content = json.dumps(data.draw(VALUES)).encode()
    else:
        content = pickle.dumps(data.draw(VALUES), data.draw(st.integers(0, pickle.HIGHEST_PROTOCOL)))
        content = content[: data.draw(st.integers(0, len(content)))] + data.draw(st.binary(max_size=4))
    loads_or_says(name, file, content)
