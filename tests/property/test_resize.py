"""Frames resized by the compiled code are PIL's to the bit, on every path of instructions, from every view."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from model.resampling import native
from model.resampling.filters import Filter
from model.resampling.native import NativeResize, Side
from model.resize import FrameResize, Interpolation, ResizeMode

FILTERS: dict[Filter, Image.Resampling] = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
}
PATHS = native.paths()
each_path = pytest.mark.parametrize("path", PATHS or [pytest.param("none", marks=pytest.mark.skip(native.problem()))])

lengths = st.one_of(st.integers(1, 12), st.integers(1, 120), st.integers(100, 700))
sides = st.one_of(st.integers(1, 8), st.integers(1, 90))
filters = st.sampled_from(sorted(FILTERS))
modes = st.sampled_from(["shortest", "squash", "longest"])
contents = st.sampled_from(["noise", "extremes", "checkerboard", "white"])
views = st.sampled_from(["plain", "upended", "mirrored", "turned", "turned and mirrored", "padded", "every second"])


def picture(height: int, width: int, content: str) -> np.ndarray:
    random = np.random.default_rng(height * 1000 + width)
    if content == "extremes":
        return random.integers(0, 2, (height, width, 3), np.uint8) * 255
    if content == "checkerboard":
        return np.repeat((np.indices((height, width)).sum(0) % 2 * 255).astype(np.uint8)[..., None], 3, axis=2)
    return (
        np.full((height, width, 3), 255, np.uint8)
        if content == "white"
        else random.integers(0, 256, (height, width, 3), np.uint8)
    )


def viewed(frame: np.ndarray, view: str) -> np.ndarray:
    """The same pixels from other strides, or other pixels where the view leaves some out."""
    if view == "upended":
        return frame[::-1]
    if view == "mirrored":
        return frame[:, ::-1]
    if view == "turned":
        return frame.transpose(1, 0, 2)
    if view == "turned and mirrored":
        return frame.transpose(1, 0, 2)[:, ::-1]
    if view == "padded":
        return np.pad(frame, ((0, 0), (3, 6), (0, 0)))[:, 3:-6]
    return frame[::2, ::2] if view == "every second" else frame


@each_path
@settings(max_examples=150, deadline=None)
@given(lengths, lengths, sides, sides, filters, contents, views, st.data())
def test_any_part_of_any_size_is_pils(
    path: native.PathName,
    height: int,
    width: int,
    new_height: int,
    new_width: int,
    name: Filter,
    content: str,
    view: str,
    data: st.DataObject,
) -> None:
    frame = viewed(picture(height, width, content), view)
    first = [data.draw(st.integers(0, full - 1)) for full in (new_height, new_width)]
    count = [data.draw(st.integers(1, full - at)) for full, at in zip((new_height, new_width), first, strict=True)]
    around = np.full((count[0] + 2, count[1] + 2, 3), 77, np.uint8)
    rows, columns = (Side(*side) for side in zip((new_height, new_width), first, count, strict=True))
    assert NativeResize(path)(frame, around[1:-1, 1:-1], rows, columns, name)
    whole = Image.fromarray(np.ascontiguousarray(frame)).resize((new_width, new_height), FILTERS[name])
    expected = np.asarray(whole)[first[0] :, first[1] :][: count[0], : count[1]]
    assert np.array_equal(around[1:-1, 1:-1], expected)
    around[1:-1, 1:-1] = 77
    assert (around == 77).all()  # nothing is written beside it


@each_path
@settings(max_examples=100, deadline=None)
@given(lengths, lengths, sides, filters, modes, contents, views)
def test_frames_at_the_towers_size_are_those_that_pil_makes(
    path: native.PathName,
    height: int,
    width: int,
    side: int,
    name: Interpolation,
    mode: ResizeMode,
    content: str,
    view: str,
) -> None:
    resize = FrameResize(side, name, mode, fill_color=9)
    frames = viewed(picture(height, width, content), view)[None]
    assert np.array_equal(resize.resized(frames, NativeResize(path)), resize.resized(frames, None))
