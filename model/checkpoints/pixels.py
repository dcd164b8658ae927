"""How published models turn frames into pixels -> our Preprocess, and back.

Two forms: `preprocess_cfg` in open_clip_config.json, and Hugging Face's preprocessor_config.json. What isn't supported
here is an error that names it, unless the outcome stays nearly the same: that is logged. No file is read here;
paths only tell errors and warnings which file the values came from.
Source: PreprocessCfg of open_clip; image_processing_clip.py of transformers.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn, get_args

from model.errors import CheckpointMismatch
from model.preprocess import CLIP_MEAN, CLIP_STD, Preprocess
from model.resize import Interpolation, ResizeMode

log = logging.getLogger(__name__)

Triple = tuple[float, float, float]

# "random" is a choice of training; when it isn't training open_clip takes the first
_OPEN_CLIP_FILTERS: dict[Any, Interpolation] = {"bicubic": "bicubic", "bilinear": "bilinear", "random": "bicubic"}
_HF_FILTERS: dict[Any, Interpolation] = {2: "bilinear", 3: "bicubic", "bilinear": "bilinear", "bicubic": "bicubic"}
_OPEN_CLIP_KEYS = {"size", "mode", "mean", "std", "interpolation", "resize_mode", "fill_color"}
_HF_FOLLOWED = {
    "image_processor_type", "feature_extractor_type", "image_mean", "image_std", "resample", "rescale_factor",
    "size", "crop_size", "default_to_square", "do_resize", "do_rescale", "do_normalize", "do_center_crop",
}  # fmt: skip
# about the caller of the processor and its formats; here frames are RGB and come one by one
_HF_IRRELEVANT = {
    "processor_class", "do_convert_rgb", "data_format", "input_data_format", "return_tensors", "device",
    "disable_grouping", "use_fast",
}  # fmt: skip
_KINDLESS = ("image_mean", "image_std", "size", "resample")


def from_open_clip(values: Mapping[str, Any], image_size: int, path: Path) -> Preprocess:
    """`preprocess_cfg` -> Preprocess for a tower of image_size pixels; what it leaves out is CLIP's own.

    Raises: CheckpointMismatch naming `path` and the value that isn't supported.
    """
    given = {name: value for name, value in values.items() if value is not None}
    _log_unread(given.keys() - _OPEN_CLIP_KEYS, path)
    if given.get("mode", "RGB") != "RGB":
        _refuse(path, "mode", given["mode"])
    size = given.get("size", image_size)
    if size not in (image_size, [image_size, image_size]):
        log.warning("%s asks for frames of %s pixels and the image tower takes %s", path, size, image_size)
    fill = given.get("fill_color", 0)
    if not isinstance(fill, int) or not 0 <= fill <= 255:
        _refuse(path, "fill_color", fill)
    mode = given.get("resize_mode", "shortest")
    if mode not in get_args(ResizeMode):
        _refuse(path, "resize_mode", mode)
    return Preprocess(
        image_size=image_size,
        mean=_triple(given.get("mean", CLIP_MEAN), "mean", path),
        std=_positive(given.get("std", CLIP_STD), "std", path),
        interpolation=_filter(_OPEN_CLIP_FILTERS, given.get("interpolation", "bicubic"), "interpolation", path),
        resize_mode=mode,
        fill_color=fill,
    )


def from_hugging_face(values: Mapping[str, Any], image_size: int, path: Path) -> Preprocess:
    """An image processor's values -> Preprocess for a tower of image_size pixels.

    What a processor of CLIP's leaves out has that library's default; one of another kind must give its numbers.
    Raises: CheckpointMismatch naming `path` and the value that isn't supported.
    """
    given = {name: value for name, value in values.items() if value is not None and not name.startswith("_")}
    kind = str(given.get("image_processor_type") or given.get("feature_extractor_type") or "CLIP")
    is_for_clip = kind.startswith("CLIP")
    missing = [] if is_for_clip else [name for name in _KINDLESS if name not in given]
    if missing:
        raise CheckpointMismatch(f"It is for a {kind} and leaves out {', '.join(missing)}.", path=path)
    _log_unread({name for name in given.keys() - _HF_FOLLOWED - _HF_IRRELEVANT if given[name] is not False}, path)
    for name in ("do_resize", "do_rescale"):
        if given.get(name, True) is not True:
            _refuse(path, name, given[name])
    factor = given.get("rescale_factor", 1 / 255)
    if not isinstance(factor, float) or abs(factor * 255 - 1) > 1e-6:
        _refuse(path, "rescale_factor", factor)
    is_normalised = bool(given.get("do_normalize", True))
    return Preprocess(
        image_size=image_size,
        mean=_triple(given.get("image_mean", CLIP_MEAN), "image_mean", path) if is_normalised else (0.0, 0.0, 0.0),
        std=_positive(given.get("image_std", CLIP_STD), "image_std", path) if is_normalised else (1.0, 1.0, 1.0),
        interpolation=_filter(_HF_FILTERS, given.get("resample", 3), "resample", path),
        resize_mode=_resize_mode(given, image_size, is_for_clip, path),
    )


def to_hugging_face(preprocess: Preprocess) -> dict[str, Any]:
    """The preprocessor_config.json that `from_hugging_face` reads as these numbers, but for padding ("longest")."""
    side = {"height": preprocess.image_size, "width": preprocess.image_size}
    is_squashed = preprocess.resize_mode == "squash"
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": side if is_squashed else {"shortest_edge": preprocess.image_size},
        "resample": 2 if preprocess.interpolation == "bilinear" else 3,
        "do_center_crop": not is_squashed,
        "crop_size": side,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocess.mean),
        "image_std": list(preprocess.std),
    }


def _resize_mode(given: Mapping[str, Any], image_size: int, is_for_clip: bool, path: Path) -> ResizeMode:
    """`size`, and `crop_size` if the centre is cut out; both have to end at what the tower takes."""
    size = given.get("size", {"shortest_edge": image_size})
    if isinstance(size, int):
        is_square = bool(given.get("default_to_square", not is_for_clip))
        size = {"height": size, "width": size} if is_square else {"shortest_edge": size}
    edges = {name: edge for name, edge in size.items() if edge is not None} if isinstance(size, Mapping) else {}
    is_shortest, side = edges.keys() == {"shortest_edge"}, _side(edges)
    if not is_shortest and side is None:
        _refuse(path, "size", size)
    is_cut = bool(given.get("do_center_crop", is_for_clip))
    crop = given.get("crop_size", image_size)
    if is_cut and crop != image_size and not (isinstance(crop, Mapping) and _side(crop) == image_size):
        _refuse(path, "crop_size", crop, f"the image tower takes {image_size} pixels")
    if is_shortest and is_cut:
        if edges["shortest_edge"] != image_size:
            log.warning(
                "%s resizes the shorter side to %s and cuts out the middle %s; here it is resized to %s",
                path, edges["shortest_edge"], image_size, image_size,
            )  # fmt: skip
        return "shortest"
    if side != image_size:
        _refuse(path, "size", size, f"the image tower takes {image_size} by {image_size} pixels")
    return "squash"


def _side(edges: Mapping[str, Any]) -> int | None:
    """The side of a square {"height", "width"}; None for anything else."""
    height = edges.get("height")
    is_square = edges.keys() == {"height", "width"} and height == edges["width"]
    return height if is_square and isinstance(height, int) else None


def _triple(value: Any, name: str, path: Path) -> Triple:
    numbers = [value] * 3 if isinstance(value, float) else list(value) if isinstance(value, (list, tuple)) else []
    if len(numbers) != 3 or not all(isinstance(n, (int, float)) and not isinstance(n, bool) for n in numbers):
        _refuse(path, name, value)
    return float(numbers[0]), float(numbers[1]), float(numbers[2])


def _positive(value: Any, name: str, path: Path) -> Triple:
    triple = _triple(value, name, path)
    if not min(triple) > 0:
        _refuse(path, name, value)
    return triple


def _filter(known: Mapping[Any, Interpolation], value: Any, name: str, path: Path) -> Interpolation:
    found = known.get(value) if isinstance(value, (int, str)) else None
    return found or _refuse(path, name, value)


def _log_unread(names: Iterable[str], path: Path) -> None:
    listed = sorted(names)
    if listed:
        log.warning("%s asks for %s, which isn't supported here", path, ", ".join(listed))


def _refuse(path: Path, name: str, value: Any, why: str = "") -> NoReturn:
    because = f": {why}" if why else ""
    raise CheckpointMismatch(f"It asks for {name} = {value!r}, which isn't supported here{because}.", path=path)
