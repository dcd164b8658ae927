"""Colours: matrix, range, depth and transparency come out as the sRGB that went in."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from indexer.media.reading import read_frames, thumbnail
from tests.support.clips import numbered_frames, solid_clip, write_clip

COLOURS = [(200, 40, 40), (40, 200, 40), (40, 40, 200), (128, 128, 128), (250, 250, 250), (5, 5, 5)]
BARS = np.concatenate([np.full((64, 32, 3), c, np.uint8) for c in COLOURS], axis=1)
BT601, BT709, BT2020, LIMITED, FULL = 6, 1, 9, 1, 2


def _bars(path: Path) -> np.ndarray:
    return read_frames(path, [0.0]).pixels[0][32, 16::32].astype(int)


@pytest.mark.parametrize(
    ("matrix", "span", "pix_fmt"),
    [
        (BT601, LIMITED, "yuv420p"),
        (BT709, LIMITED, "yuv420p"),
        (BT709, FULL, "yuv420p"),
        (BT601, FULL, "yuv420p"),
        (BT2020, LIMITED, "yuv420p"),
        (BT709, LIMITED, "yuv444p"),
        (BT709, LIMITED, "yuv420p10le"),
    ],
)
def test_matrix_and_range_are_those_flagged(tmp_path: Path, matrix: int, span: int, pix_fmt: str) -> None:
    path = write_clip(tmp_path / "bars.mp4", [BARS] * 2, colour=(matrix, span), pix_fmt=pix_fmt, options={"crf": "1"})
    assert np.abs(_bars(path) - COLOURS).max() <= 4


def test_an_unflagged_clip_is_bt601_limited(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "bars.mp4", [BARS] * 2, options={"crf": "1"})
    assert np.abs(_bars(path) - COLOURS).max() <= 4


def test_gif_with_transparency_keeps_the_colours_of_what_is_seen(tmp_path: Path) -> None:
    red, blue = (Image.new("RGBA", (40, 30), c) for c in ((220, 30, 30, 255), (30, 30, 220, 255)))
    for picture in (red, blue):
        picture.paste((0, 0, 0, 0), (0, 0, 10, 30))
    red.save(tmp_path / "see.gif", save_all=True, append_images=[blue], duration=100, disposal=2)
    frames = read_frames(tmp_path / "see.gif", [0.05, 0.15])
    assert frames.pixels.shape == (2, 30, 40, 3)
    assert np.abs(frames.pixels[0, 15, 30].astype(int) - (220, 30, 30)).max() <= 8
    assert np.abs(frames.pixels[1, 15, 30].astype(int) - (30, 30, 220)).max() <= 8


def test_thumbnail_is_a_small_jpeg_of_that_frame(tmp_path: Path) -> None:
    path = solid_clip(tmp_path / "red.mp4", (220, 30, 30), 1.0, size=(640, 360))
    picture = Image.open(io.BytesIO(thumbnail(path, 0.5, max_side=160)))
    assert (picture.format, picture.size) == ("JPEG", (160, 90))
    assert np.abs(np.asarray(picture)[45, 80].astype(int) - (220, 30, 30)).max() <= 10


def test_thumbnail_is_never_enlarged(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "small.mp4", numbered_frames(3, (64, 48)))
    assert Image.open(io.BytesIO(thumbnail(path, 0.0))).size == (64, 48)
