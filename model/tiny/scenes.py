"""Scenes of one or two coloured shapes that move, grow or appear, and the sentences that describe them.

A scene is what happens; shapes.py draws it. Everything is sampled from a numpy Generator, so a seed is a data set.
Six of the forty-eight pairs of colour and shape are held out: no training scene shows them.
Coordinates are fractions of the picture's side (x to the right, y downwards), times fractions of the clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

Kind = Literal["one", "two", "then", "flash"]

SHAPES: dict[str, tuple[str, ...]] = {
    "circle": ("circle", "disc"),
    "square": ("square", "box"),
    "triangle": ("triangle",),
    "star": ("star",),
    "ring": ("ring", "hoop"),
    "cross": ("cross", "plus sign"),
}
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 40, 40),
    "green": (40, 170, 60),
    "blue": (40, 70, 220),
    "yellow": (235, 215, 50),
    "orange": (240, 135, 30),
    "purple": (140, 50, 170),
    "cyan": (60, 205, 215),
    "white": (245, 245, 245),
}
OPPOSITE = {"right": "left", "left": "right", "up": "down", "down": "up", "grow": "shrink", "shrink": "grow"}
DIRECTIONS = ("right", "left", "up", "down")
MOTIONS = (*DIRECTIONS, "grow", "shrink")
VERBS: dict[str, tuple[str, ...]] = {
    "right": ("moves from left to right", "moves to the right", "slides right", "drifts rightwards"),
    "left": ("moves from right to left", "moves to the left", "slides left", "drifts leftwards"),
    "up": ("moves up", "rises", "climbs upwards", "moves from bottom to top"),
    "down": ("moves down", "falls", "sinks downwards", "moves from top to bottom"),
    "grow": ("grows", "gets bigger", "becomes larger", "expands"),
    "shrink": ("shrinks", "gets smaller", "becomes tiny", "contracts"),
    "still": ("stays still", "does not move", "rests", "stands still"),
    "appear": ("appears", "shows up", "comes into view"),
    "flash": ("flashes briefly", "appears for a moment", "blinks once", "shows up for an instant"),
}
TEMPLATES: dict[Kind, tuple[str, ...]] = {
    "one": ("{a} {m}", "in this clip {a} {m}", "there is {a} and it {m}"),
    "two": ("{a} {m} while {b} {n}", "{a} {m} and {b} {n}", "as {a} {m}, {b} {n}"),
    "then": (
        "{a} {m}, then {b} {n}",
        "first {a} {m} and then {b}",
        "{b} {n} after {a}",
        "{a} {m} before {b}",
        "{a} is followed by {b}",
    ),
    "flash": ("{a} {m} and {b} {n}", "{b} {n} beside {a}", "next to {a}, {b} {n}"),
}
GROUNDS: dict[str, tuple[str, ...]] = {
    "plain": ("on a plain ground", "on a smooth ground"),
    "noisy": ("on a noisy ground", "on a speckled ground"),
}
LOOKS = tuple((colour, shape) for colour in COLOURS for shape in SHAPES)
HELD_OUT_LOOKS = frozenset(
    (colour, shape)
    for i, colour in enumerate(COLOURS)
    for j, shape in enumerate(SHAPES)
    if (i + 3 * j) % len(COLOURS) == 0
)


@dataclass(frozen=True, slots=True)
class Actor:
    """A coloured shape and what it does.

    x, y: where it is at half time; radius; seen from appears to vanishes (fractions of the clip).
    """

    colour: str
    shape: str
    motion: str
    x: float
    y: float
    radius: float
    appears: float = 0.0
    vanishes: float = 1.01

    @property
    def look(self) -> tuple[str, str]:
        """Colour and shape: what the sentence names it by."""
        return self.colour, self.shape


@dataclass(frozen=True, slots=True)
class Scene:
    """What happens in a clip. `seed` fixes the ground and the small variations of the drawing."""

    kind: Kind
    actors: tuple[Actor, ...]
    ground: str
    seed: int

    @property
    def meaning(self) -> tuple[object, ...]:
        """What a sentence distinguishes; scenes of one meaning are right answers for one another's sentences."""
        seen = [(actor.look, actor.motion) for actor in self.actors]
        return self.kind, *(sorted(seen) if self.kind == "two" else seen)

    @property
    def has_held_out_look(self) -> bool:
        """Whether a pair of colour and shape is shown that no training scene shows."""
        return any(actor.look in HELD_OUT_LOOKS for actor in self.actors)


KIND_WEIGHTS: dict[Kind, float] = {"one": 0.2, "two": 0.3, "then": 0.3, "flash": 0.2}


def sample_scene(
    rng: np.random.Generator, looks: Sequence[tuple[str, str]], kinds: dict[Kind, float] = KIND_WEIGHTS
) -> Scene:
    """Draw a scene with two different looks out of `looks` (colour, shape), of a kind drawn by its weight."""
    names = list(kinds)
    weights = np.array([kinds[name] for name in names])
    kind = names[int(rng.choice(len(names), p=weights / weights.sum()))]
    first, second = (looks[int(i)] for i in rng.choice(len(looks), size=2, replace=False))
    actors: tuple[Actor, ...]
    if kind == "one":
        actors = (_actor(rng, first, _pick(rng, MOTIONS)),)
    elif kind == "two":
        motion = _pick(rng, MOTIONS)
        beside = _pick(rng, MOTIONS) if rng.random() < 0.5 else "still"
        actors = _apart(rng, (_actor(rng, first, motion), _actor(rng, second, beside)))
    else:
        actors = _apart(rng, (_actor(rng, first, "still"), _actor(rng, second, "still")))
        if kind == "then":
            start, gap = rng.uniform(0.05, 0.25), rng.uniform(0.3, 0.5)
            actors = (replace(actors[0], appears=start), replace(actors[1], appears=start + gap))
        else:
            start = rng.uniform(0.05, 0.65)
            actors = (actors[0], replace(actors[1], appears=start, vanishes=start + rng.uniform(0.2, 0.3)))
    ground = "noisy" if rng.random() < 0.5 else "plain"
    return Scene(kind, actors, ground, int(rng.integers(2**31)))


def twin(scene: Scene, rng: np.random.Generator) -> Scene:
    """The scene that differs in the direction of one motion, or in the order of two events, and in nothing else.

    Raises: ValueError for a "flash", which has neither.
    """
    seed = int(rng.integers(2**31))
    first = scene.actors[0]
    if scene.kind in ("one", "two"):
        turned = replace(first, motion=OPPOSITE[first.motion])
        return replace(scene, actors=(turned, *scene.actors[1:]), seed=seed)
    if scene.kind == "then":
        second = scene.actors[1]
        swapped = (replace(second, appears=first.appears), replace(first, appears=second.appears))
        return replace(scene, actors=swapped, seed=seed)
    raise ValueError("a flash has no direction and no order to turn round")


def reshape(scene: Scene, rng: np.random.Generator, looks: Sequence[tuple[str, str]]) -> Scene:
    """The scene with one actor of another shape and the same colour, out of `looks`; all else is as it was."""
    place = int(rng.integers(len(scene.actors)))
    shown = {actor.look for actor in scene.actors}
    actor = scene.actors[place]
    shapes = [shape for colour, shape in looks if colour == actor.colour and (colour, shape) not in shown]
    actors = list(scene.actors)
    actors[place] = replace(actor, shape=_pick(rng, shapes))
    return replace(scene, actors=tuple(actors), seed=int(rng.integers(2**31)))


def describe(scene: Scene, rng: np.random.Generator) -> str:
    """One of the sentences that are true of the scene, drawn from the grammar; lower case, no full stop."""
    first = scene.actors[0]
    values = {"a": _named(first, rng)}
    values["m"] = _pick(rng, VERBS["appear" if scene.kind == "then" else first.motion])
    if len(scene.actors) == 2:
        second = scene.actors[1]
        values["b"] = _named(second, rng)
        values["n"] = _pick(rng, VERBS[{"then": "appear", "flash": "flash"}.get(scene.kind, second.motion)])
    sentence = _pick(rng, TEMPLATES[scene.kind]).format(**values)
    return f"{sentence} {_pick(rng, GROUNDS[scene.ground])}" if rng.random() < 0.3 else sentence


def grammar_words() -> list[str]:
    """Every word that `describe` uses, sorted: the tiny tokenizer's vocabulary."""
    phrases = [*COLOURS, "a", "an"]
    phrases += [name for names in SHAPES.values() for name in names]
    phrases += [verb for verbs in VERBS.values() for verb in verbs]
    phrases += [ground for grounds in GROUNDS.values() for ground in grounds]
    phrases += [template.format(a="", b="", m="", n="") for templates in TEMPLATES.values() for template in templates]
    return sorted({word for phrase in phrases for word in phrase.replace(",", " ").split()})


def _actor(rng: np.random.Generator, look: tuple[str, str], motion: str) -> Actor:
    x, y = rng.uniform(0.4, 0.6, size=2)
    return Actor(look[0], look[1], motion, float(x), float(y), float(rng.uniform(0.15, 0.21)))


def _apart(rng: np.random.Generator, actors: tuple[Actor, Actor]) -> tuple[Actor, ...]:
    """Give two actors rows (or columns) of their own, along which either may move."""
    low, high = rng.uniform(0.24, 0.3), rng.uniform(0.7, 0.76)
    places = (low, high) if rng.random() < 0.5 else (high, low)
    motions = {actor.motion for actor in actors}
    vertical = bool(motions & {"up", "down"})
    in_rows = not vertical if motions & set(DIRECTIONS) else bool(rng.random() < 0.5)
    if in_rows:
        return tuple(replace(actor, y=float(place)) for actor, place in zip(actors, places, strict=True))
    return tuple(replace(actor, x=float(place)) for actor, place in zip(actors, places, strict=True))


def _named(actor: Actor, rng: np.random.Generator) -> str:
    article = "an" if actor.colour[0] in "aeiou" else "a"
    return f"{article} {actor.colour} {_pick(rng, SHAPES[actor.shape])}"


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]
