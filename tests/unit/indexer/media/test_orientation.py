"""A decoded frame becomes sRGB pixels without a copy: what PyAV's own conversion gives, in lines of any length."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from indexer.errors import VideoUndecodable
from indexer.media.orientation import orientation, upright_rgb
from tests.support.clips import write_clip


def noise(width: int, height: int) -> np.ndarray:
    return np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p", "yuv420p10le", "rgb24", "gray"])
def test_pixels_are_those_of_pyavs_own_conversion(pix_fmt: str) -> None:
    for width, height in [(64, 36), (50, 38), (853, 480), (333, 251), (2, 2), (1, 1)]:
        frame = av.VideoFrame.from_ndarray(noise(width, height), format="rgb24").reformat(format=pix_fmt)
        for size in ((width, height), (2 * width, height), (40, 30)):
            expected = frame.to_ndarray(format="rgb24", width=size[0], height=size[1])
            assert np.array_equal(upright_rgb(frame, size), expected), (width, height, size)


def test_the_pixels_outlive_their_frame() -> None:
    frame = av.VideoFrame.from_ndarray(noise(50, 38), format="rgb24").reformat(format="yuv420p")
    expected = frame.to_ndarray(format="rgb24")
    pixels = upright_rgb(frame, (50, 38))
    del frame
    others = [np.full((38, 192), number, np.uint8) for number in range(50)]  # would take memory that was given back
    assert np.array_equal(pixels, expected) and len(others) == 50


@pytest.mark.parametrize("rotation_deg", [0, 90, 180, 270])
def test_padded_lines_are_turned_without_their_padding(tmp_path: Path, rotation_deg: int) -> None:
    path = write_clip(tmp_path / "turned.mp4", [noise(50, 38)] * 2, rotation_deg=rotation_deg)
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    lying = frame.to_ndarray(format="rgb24")
    assert orientation(frame)[3] == rotation_deg
    assert np.array_equal(upright_rgb(frame, (50, 38)), np.rot90(lying, -rotation_deg // 90))


def test_a_format_that_cannot_be_converted_is_reported() -> None:
    with pytest.raises(VideoUndecodable, match="palettes"):
        upright_rgb(Unconvertible(), (4, 4))


class Unconvertible:
    """A frame of a pixel format that the library refuses."""

    class format:  # noqa: N801
        name = "palettes"

    def reformat(self, **_: object) -> None:
        raise ValueError("unsupported")
