"""Draw scenes: moving coloured shapes as uint8 pictures, with soft edges from signed distances.

S is the picture's side in pixels, n the number of instants. It draws arrays only; it writes no file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.tiny.scenes import COLOURS, Actor, Scene
from model.types import Pixels

Floats = NDArray[np.floating[Any]]

TRAVEL = 0.56
"""How far a moving shape goes, as a fraction of the picture's side."""
GROWTH = 2.2
"""How many times larger a growing shape is at the end of its motion."""


def draw_clip(scene: Scene, instants: Sequence[float] | Floats, size: int) -> Pixels:
    """Draw a scene at instants (fractions of the clip, 0..1) as (n, size, size, 3) sRGB uint8."""
    rng = np.random.default_rng(scene.seed)
    times_n = np.asarray(instants, dtype=np.float32)
    ground_SS3 = _ground(scene.ground, size, rng)
    picture = np.repeat(ground_SS3[None], len(times_n), axis=0)
    for actor in scene.actors:
        colour = np.array(COLOURS[actor.colour], dtype=np.float32) + rng.uniform(-14, 14, size=3).astype(np.float32)
        for frame, alpha, (rows, columns) in _visible(actor, times_n, size):
            patch = picture[frame, rows, columns]
            patch += alpha[..., None] * (colour - patch)
    if scene.ground == "noisy":
        picture += rng.normal(0.0, 5.0, size=picture.shape).astype(np.float32)
    return np.clip(picture, 0, 255).astype(np.uint8)


def _visible(actor: Actor, times_n: Floats, size: int) -> list[tuple[int, Floats, tuple[slice, slice]]]:
    """For each frame that shows the actor: its index, the coverage of its patch, and where the patch lies."""
    patches = []
    for frame, t in enumerate(times_n):
        if not actor.appears <= t < actor.vanishes:
            continue
        x, y, radius = _pose(actor, float(t))
        rows, columns = (
            slice(max(0, int((c - radius) * size) - 1), min(size, int((c + radius) * size) + 2)) for c in (y, x)
        )
        if rows.start >= rows.stop or columns.start >= columns.stop:
            continue
        v = (np.arange(rows.start, rows.stop, dtype=np.float32) + 0.5) / size - y
        u = (np.arange(columns.start, columns.stop, dtype=np.float32) + 0.5) / size - x
        distance = _DISTANCES[actor.shape](u[None, :], v[:, None], radius)
        patches.append((frame, np.clip(0.5 - distance * size, 0.0, 1.0), (rows, columns)))
    return patches


def _pose(actor: Actor, t: float) -> tuple[float, float, float]:
    """Centre and radius at time t."""
    x, y, scale = actor.x, actor.y, 1.0
    way = (t - 0.5) * TRAVEL
    if actor.motion == "right":
        x += way
    elif actor.motion == "left":
        x -= way
    elif actor.motion == "down":
        y += way
    elif actor.motion == "up":
        y -= way
    elif actor.motion == "grow":
        scale = GROWTH ** (t - 0.5)
    elif actor.motion == "shrink":
        scale = GROWTH ** (0.5 - t)
    return x, y, actor.radius * scale


def _ground(kind: str, size: int, rng: np.random.Generator) -> Floats:
    """A dim or pale ground: one colour, or soft blotches of two with grain."""
    base = (rng.uniform(60, 120) + rng.uniform(-25, 25, size=3)).astype(np.float32)
    if kind == "plain":
        return np.broadcast_to(base, (size, size, 3)).copy()
    cells = int(rng.integers(3, 8))
    coarse = rng.uniform(-38, 38, size=(cells + 1, cells + 1, 3)).astype(np.float32)
    at = np.linspace(0, cells, size, dtype=np.float32)
    low = np.minimum(at.astype(int), cells - 1)
    part = (at - low)[:, None, None]
    rows = coarse[low] * (1 - part) + coarse[low + 1] * part
    part = (at - low)[None, :, None]
    blotches = rows[:, low] * (1 - part) + rows[:, low + 1] * part
    grain = rng.normal(0.0, 9.0, size=(size, size, 1)).astype(np.float32)
    return np.asarray(base + blotches + grain, dtype=np.float32)


def _circle(u: Floats, v: Floats, r: float) -> Floats:
    return np.asarray(np.hypot(u, v) - r)


def _box(u: Floats, v: Floats, half_u: float, half_v: float) -> Floats:
    return np.asarray(np.maximum(np.abs(u) - half_u, np.abs(v) - half_v))


def _square(u: Floats, v: Floats, r: float) -> Floats:
    return _box(u, v, 0.85 * r, 0.85 * r)


def _triangle(u: Floats, v: Floats, r: float) -> Floats:
    return np.asarray(np.maximum(np.abs(u) * 0.866 - (v + 0.25 * r) * 0.5, v - 0.5 * r) - 0.25 * r)


def _star(u: Floats, v: Floats, r: float) -> Floats:
    """Five points; between two of them the edge is straight from the outer to the inner radius."""
    inner, half = 0.42 * r, np.pi / 5
    turn = np.abs((np.arctan2(u, -v) + half) % (2 * half) - half)
    edge = r * inner * np.sin(half) / (r * np.sin(turn) + inner * np.sin(half - turn))
    return np.asarray((np.hypot(u, v) - edge) * 0.7)


def _ring(u: Floats, v: Floats, r: float) -> Floats:
    return np.asarray(np.abs(np.hypot(u, v) - 0.76 * r) - 0.22 * r)


def _cross(u: Floats, v: Floats, r: float) -> Floats:
    return np.asarray(np.minimum(_box(u, v, r, 0.3 * r), _box(u, v, 0.3 * r, r)))


_DISTANCES: dict[str, Callable[[Floats, Floats, float], Floats]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "ring": _ring,
    "cross": _cross,
}
"""Signed distance of a shape of radius r at offsets (u, v) from its centre, as fractions of the side; inside < 0."""
