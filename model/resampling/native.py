"""The compiled resize: the only door to model/resampling/native, by ctypes, which releases the GIL while it runs.

Equal to the bit to PIL's resize of RGB pictures, a few times as fast: it makes only the columns and rows that are kept
and reads the frame where it lies, mirrored, upended or transposed. The file is built with the package where there is a
C++ compiler. It needs numpy and PIL alone, so that a small process can open it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Literal

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

from model.compiled import open_compiled
from model.resampling.filters import Filter, Taps, taps

ABI_VERSION: Final = 1
"""What native/shapes.h must have been when the file was built."""

PathName = Literal["avx512", "avx2", "portable"]
"""The instruction sets, best first."""

Order = Callable[[int, int, int, int], bool]
"""Height and width before and after -> whether the sums along rows come before those along columns."""

_FILTERS: Final[dict[Filter, Image.Resampling]] = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
}
_PROBES: Final = ((61, 83, 16, 16), (40, 9, 57, 31), (70, 40, 20, 15), (71, 40, 20, 15), (90, 20, 60, 41))
"""Height and width before and after, for the comparison with PIL when the file is opened; some lie where the order of
the two sums changes."""


class _Axis(ctypes.Structure):
    _fields_ = (
        ("starts", ctypes.c_void_p),
        ("coefs", ctypes.c_void_p),
        ("count", ctypes.c_int32),
        ("taps", ctypes.c_int32),
    )


class _Picture(ctypes.Structure):
    _fields_ = (
        ("pixels", ctypes.c_void_p),
        ("row_bytes", ctypes.c_int64),
        ("width", ctypes.c_int32),
        ("height", ctypes.c_int32),
        ("columns", _Axis),
        ("rows", _Axis),
        ("is_rows_first", ctypes.c_int32),
        ("out", ctypes.c_void_p),
        ("out_row_bytes", ctypes.c_int64),
    )


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a resized picture, of which a stretch is kept."""

    full: int
    """Pixels of the whole side."""
    first: int
    """The first pixel kept."""
    count: int
    """How many are kept."""


def is_width_first_before_13(height: int, width: int, new_height: int, new_width: int) -> bool:
    """Whether Pillow before version 13 sums along the rows of a picture before it sums along its columns: always."""
    return True


def is_width_first_since_13(height: int, width: int, new_height: int, new_width: int) -> bool:
    """The same from version 13 on: not where the height loses more than twice as many pixels as the width."""
    return new_height >= height or height - new_height <= 2 * (width - new_width)


class NativeResize:
    """PIL's resize on one path of instructions."""

    def __init__(self, path: PathName | None = None, is_width_first: Order | None = None) -> None:
        """path: an instruction set that this CPU has, None for the best.

        is_width_first: whether a picture is summed along its rows first; None: as the installed Pillow does it.
        Raises: ValueError without the compiled file, the instruction set, or an order that agrees with Pillow.
        """
        library, why_not = _library()
        available = paths()
        if library is None or not available or (path is not None and path not in available):
            raise ValueError(why_not or f"this CPU has no {path}: choose among {', '.join(available)}")
        self._library = library
        self.path: PathName = path or available[0]
        self._number = _numbers(library)[self.path]
        order = is_width_first or _order_of_pil()
        if order is None:
            raise ValueError(problem())
        self._is_width_first = order

    def __call__(
        self, frame: NDArray[np.uint8], out: NDArray[np.uint8], height: Side, width: Side, name: Filter
    ) -> bool:
        """Resize a frame of shape (h, w, 3) and write what is kept of it into out, (height.count, width.count, 3).

        frame may be any view; channels side by side and either axis of one pixel's step are read in place. out's
        pixels lie side by side. False, with out untouched, where the frame is so long that the coefficients would be a
        burden. Raises: MemoryError.
        """
        rows = taps(frame.shape[0], height.full, height.first, height.count, name)
        columns = taps(frame.shape[1], width.full, width.first, width.count, name)
        if rows is None or columns is None:
            return False
        is_width_first = self._is_width_first(frame.shape[0], frame.shape[1], height.full, width.full)
        if not _is_in_place(frame):
            frame = np.ascontiguousarray(frame)
        if is_transposed := abs(frame.strides[1]) != 3 and frame.shape[1] > 1:
            frame = frame.transpose(1, 0, 2)
            rows, columns = columns, rows
        if frame.strides[1] < 0 and frame.shape[1] > 1:
            frame = frame[:, ::-1]
            columns = columns.mirrored(frame.shape[1])
        target = np.empty((width.count, height.count, 3), np.uint8) if is_transposed else out
        picture = _Picture(
            frame.ctypes.data,
            frame.strides[0],
            frame.shape[1],
            frame.shape[0],
            _axis(columns),
            _axis(rows),
            is_width_first == is_transposed,
            target.ctypes.data,
            target.strides[0],
        )
        if not self._library.vidgrain_resize(self._number, ctypes.byref(picture)):
            raise MemoryError("no room for resizing")
        if is_transposed:
            out[:] = target.transpose(1, 0, 2)
        return True


@cache
def load() -> NativeResize | None:
    """The resize on the best path of this CPU; None without a file that fits and agrees with PIL, see `problem`."""
    return None if problem() else NativeResize()


@cache
def problem() -> str:
    """Why `load` returns None, and the way out; empty where it doesn't."""
    why_not = _library()[1]
    if not why_not and _order_of_pil() is None:
        why_not = f"The compiled resize and Pillow {PIL.__version__} give different pixels: PIL itself resizes frames."
    return why_not


def paths() -> list[PathName]:
    """The paths that this CPU has, best first; none without the compiled file."""
    library = _library()[0]
    return [] if library is None else list(_numbers(library))


def agrees_with_pil(resize: NativeResize) -> bool:
    """Whether a few pictures come out as the installed Pillow makes them."""
    for height, width, new_height, new_width in _PROBES:
        noise = np.arange(height * width * 3, dtype=np.uint32) * np.uint32(2_654_435_761) >> np.uint32(24)
        frame = noise.astype(np.uint8).reshape(height, width, 3)  # numpy.random would double what this process holds
        for name, pil in _FILTERS.items():
            ours = np.empty((new_height, new_width, 3), np.uint8)
            resize(frame, ours, Side(new_height, 0, new_height), Side(new_width, 0, new_width), name)
            theirs = Image.fromarray(frame).resize((new_width, new_height), pil)
            if not np.array_equal(ours, np.asarray(theirs)):
                return False
    return True


@cache
def _library() -> tuple[ctypes.CDLL | None, str]:
    library, why_not = open_compiled(Path(__file__).parent, ABI_VERSION)
    if library is not None:
        library.vidgrain_path_name.restype = ctypes.c_char_p
        library.vidgrain_resize.argtypes = (ctypes.c_int32, ctypes.c_void_p)
    return library, why_not


def _numbers(library: ctypes.CDLL) -> dict[PathName, int]:
    return {
        library.vidgrain_path_name(number).decode(): number
        for number in range(library.vidgrain_num_paths())
        if library.vidgrain_has_path(number)
    }


def _axis(axis: Taps) -> _Axis:
    return _Axis(axis.starts.ctypes.data, axis.coefs.ctypes.data, *axis.coefs.shape)


def _is_in_place(frame: NDArray[np.uint8]) -> bool:
    """Whether the bytes of a pixel lie side by side, and the pixels of a row or of a column."""
    steps = [abs(step) for step, size in zip(frame.strides, frame.shape, strict=True) if size > 1]
    return frame.strides[2] == 1 and (3 in steps[:-1] or not steps[:-1])


@cache
def _order_of_pil() -> Order | None:
    """The order of sums with which a few pictures come out as the installed Pillow makes them; None: with neither."""
    for order in (is_width_first_since_13, is_width_first_before_13):
        if agrees_with_pil(NativeResize(None, order)):
            return order
    return None
