"""Pictures made by arithmetic, the same everywhere: what a tower's precision is tried on.

Noise, gradients, stripes and drawn shapes: fine and coarse, dark, bright and coloured. It knows no tower.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SEED = 16


def made_pictures(side: int) -> NDArray[np.uint8]:
    """(4, side, side, 3) uint8."""
    down, across = np.mgrid[0:side, 0:side] / side
    noise = np.random.default_rng(SEED).integers(0, 256, (side, side, 3))
    gradient = np.stack([255 * across, 255 * down, 255 * (1 - across)], -1)
    stripes = 127.5 + 127.5 * np.sin(40 * (across + down**2))[..., None] * (1.0, 0.5, -1.0)
    shapes = np.full((side, side, 3), (30.0, 60.0, 120.0))
    shapes[(across - 0.35) ** 2 + (down - 0.4) ** 2 < 0.05] = (230, 40, 30)
    shapes[(np.abs(across - 0.7) < 0.15) & (np.abs(down - 0.65) < 0.2)] = (240, 220, 40)
    return np.stack([noise, gradient, stripes, shapes]).astype(np.uint8)
