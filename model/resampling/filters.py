"""What one axis of a resize sums up: which samples of the source, with which coefficients, for each output sample.

A filter is stretched by the factor of shrinking (antialiasing), cut off at the picture's edges, normalised in double
precision and rounded to whole numbers, of which 2^22 make one: the arithmetic of PIL's resize of 8-bit pictures.
Letters: N outputs kept, K taps. It knows no pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

Filter = Literal["bicubic", "bilinear"]

PRECISION_BITS: Final = 22
MAX_TAPS: Final = 1 << 18
"""N * K up to which a table is made, 1 MB: enough for sides of 65,000 pixels."""

MAX_SIDE: Final = 1 << 24
"""Longest side of a source: PIL counts positions in single precision."""

_SUPPORT: Final = {"bicubic": 2.0, "bilinear": 1.0}


@dataclass(frozen=True, slots=True, eq=False)
class Taps:
    """One axis: output i is the sum over k of coefs[i, k] * source[starts[i] + k], all of them inside the source."""

    starts: NDArray[np.int32]
    """(N,) first sample of each output."""

    coefs: NDArray[np.int32]
    """(N, K) whole numbers, 2^22 for one."""

    def mirrored(self, source_size: int) -> Taps:
        """The same outputs from a source that is read backwards."""
        starts = source_size - self.coefs.shape[1] - self.starts
        return Taps(np.ascontiguousarray(starts, np.int32), np.ascontiguousarray(self.coefs[:, ::-1]))


@lru_cache(maxsize=64)
def taps(source_size: int, full_size: int, first: int, count: int, filter_name: Filter) -> Taps | None:
    """The outputs first to first + count of `full_size`; None where their table would be too large.

    Sizes in pixels. Equal arguments give the same object.
    """
    scale = source_size / full_size
    stretch = max(scale, 1.0)
    support = _SUPPORT[filter_name] * stretch
    if source_size > MAX_SIDE or count * (2 * math.ceil(support) + 1) > MAX_TAPS:
        return None
    centres = (np.arange(first, first + count, dtype=np.float64) + 0.5) * scale
    starts = np.maximum((centres - support + 0.5).astype(np.int64), 0)
    ends = np.minimum((centres + support + 0.5).astype(np.int64), source_size)
    num_taps = int((ends - starts).max())
    offsets = np.arange(num_taps)
    weights = _curve((offsets + starts[:, None] - centres[:, None] + 0.5) * (1.0 / stretch), filter_name)
    weights[offsets >= (ends - starts)[:, None]] = 0.0
    totals = np.add.accumulate(weights, axis=1)[:, -1:]  # from left to right: a pairwise sum rounds differently
    weights = np.divide(weights, totals, out=weights, where=totals != 0.0)
    coefs = (weights * (1 << PRECISION_BITS) + np.copysign(0.5, weights)).astype(np.int32)
    # Windows that were cut off at the far edge are shorter: they begin earlier, with zeros, to stay inside the source.
    shifts = starts - np.minimum(starts, source_size - num_taps)
    sources = offsets - shifts[:, None]
    coefs = np.where(sources >= 0, np.take_along_axis(coefs, np.maximum(sources, 0), axis=1), np.int32(0))
    found = Taps((starts - shifts).astype(np.int32), np.ascontiguousarray(coefs, np.int32))
    found.starts.setflags(write=False)  # shared by all callers
    found.coefs.setflags(write=False)
    return found


def _curve(x: NDArray[np.float64], filter_name: Filter) -> NDArray[np.float64]:
    """The filter's height at distances x; bicubic is Keys' with a = -0.5."""
    x = np.abs(x)
    if filter_name == "bilinear":
        return np.maximum(1.0 - x, 0.0)
    a = -0.5
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))
