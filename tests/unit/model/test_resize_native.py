"""The compiled resize stays inside its frame, is refused where it differs from PIL, and costs little memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from model.errors import ShapeError
from model.resampling import native
from model.resampling.filters import MAX_SIDE, taps
from model.resampling.native import NativeResize
from model.resize import FrameResize

is_built = pytest.mark.skipif(not native.paths(), reason=native.problem())

AT_THE_EDGE = """
import ctypes, mmap
import numpy as np
from model.resampling.native import NativeResize, Side, paths

PAGE = mmap.PAGESIZE
pages = mmap.mmap(-1, 9 * PAGE)
base = ctypes.addressof(ctypes.c_char.from_buffer(pages))
libc = ctypes.CDLL(None, use_errno=True)
for guard in (0, 8):  # reading either page ends the process
    assert libc.mprotect(ctypes.c_void_p(base + guard * PAGE), ctypes.c_size_t(PAGE), 0) == 0
room = np.frombuffer(pages, np.uint8)[PAGE:-PAGE]
for height, width in [(1, 1), (1, 7), (7, 1), (3, 5), (16, 16), (40, 33), (90, 60), (61, 101)]:
    size = height * width * 3
    for at in (0, len(room) - size):
        frame = room[at : at + size].reshape(height, width, 3)
        for view in (frame, frame[::-1], frame[:, ::-1], frame.transpose(1, 0, 2), frame.transpose(1, 0, 2)[:, ::-1]):
            for side in (1, 4, 23, 64):
                out = np.empty((side, side, 3), np.uint8)
                for path in paths():
                    assert NativeResize(path)(view, out, Side(side, 0, side), Side(side, 0, side), "bicubic")
"""


@is_built
def test_no_byte_beside_a_frame_is_read() -> None:
    done = subprocess.run([sys.executable, "-c", AT_THE_EDGE], cwd=Path(__file__).parents[3], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


@is_built
def test_the_best_path_is_taken_and_others_can_be_asked_for() -> None:
    resize = native.load()
    assert native.problem() == "" and resize is not None and resize.path == native.paths()[0]
    assert native.paths()[-1] == "portable" and NativeResize("portable").path == "portable"
    with pytest.raises(ValueError, match="no sse9"):
        NativeResize("sse9")  # type: ignore[arg-type]


@is_built
def test_a_pillow_that_sums_in_another_order_is_noticed() -> None:
    def is_never_width_first(height: int, width: int, new_height: int, new_width: int) -> bool:
        return False

    assert native.agrees_with_pil(NativeResize())
    assert not native.agrees_with_pil(NativeResize(None, is_never_width_first))


def test_a_picture_of_millions_of_pixels_in_a_row_takes_a_small_table() -> None:
    found = taps(10_000_000, 224 * 10_000_000, 1_000_000_000, 224, "bicubic")
    assert found is not None and found.coefs.shape == (224, 4) and found.starts.max() < 10_000_000
    assert taps(10_000_000, 224, 0, 224, "bicubic") is None  # 40 million coefficients: left to PIL


@is_built
@pytest.mark.parametrize("shape", [(1, 2_000_000), (2_000_000, 1)])
def test_the_centre_of_a_line_is_cut_without_making_the_rest(shape: tuple[int, int]) -> None:
    """Whole, it would be 300 GB."""
    line = np.zeros((1, *shape, 3), np.uint8)
    line[:, shape[0] // 2 :, shape[1] // 2 :] = 200
    resized = FrameResize(224)(line)
    assert resized.min() == 0 or resized.max() == 200


def test_a_side_beyond_what_pil_counts_is_refused() -> None:
    line = np.broadcast_to(np.zeros(3, np.uint8), (1, 1, MAX_SIDE + 1, 3))
    with pytest.raises(ShapeError, match=str(MAX_SIDE + 1)):
        FrameResize(224, resize_mode="squash")(line)


def test_coefficients_add_up_to_one_within_their_rounding() -> None:
    for source, full in ((1280, 398), (720, 224), (5, 224), (224, 224), (1, 7), (1000, 1)):
        found = taps(source, full, 0, full, "bicubic")
        assert found is not None
        assert np.abs(found.coefs.sum(axis=1) - (1 << 22)).max() <= found.coefs.shape[1]
        assert found.starts.min() >= 0 and (found.starts + found.coefs.shape[1]).max() <= source


def test_frames_are_the_same_without_the_compiled_file() -> None:
    frames = np.random.default_rng(3).integers(0, 256, (2, 90, 160, 3), np.uint8)
    for view in (frames, frames[:, :, ::-1], frames.transpose(0, 2, 1, 3)):
        resize = FrameResize(32)
        assert np.array_equal(resize(view), resize.resized(view, None))
