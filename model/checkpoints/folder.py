"""Checkpoints on disk: our folder (config.json, model.safetensors, maybe merges.txt) and the papers' official files.

The tensors of both carry the official names: `clip.` + OpenAI's key for the towers, bare names for temporal encoder
and head. Loading is strict: a key too many, too few or of another shape is an error that names it.
This file knows names and shapes; it builds no network.
Source: state dict layouts of the official code of X-CLIP (6b5344f), CLIP4Clip (508ffa3) and CLIP2Video (e941318).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

import torch
from safetensors.torch import save
from torch import Tensor, nn

from model.errors import CheckpointMismatch
from model.files import write_atomic
from model.heads.clip2video import Clip2VideoConfig
from model.heads.multi_grained import GrainOptions
from model.networks import Clip2VideoNetwork, MaskReading, Network, TightNetwork, XClipNetwork
from model.temporal import DifferenceTemporal, LstmTemporal, TemporalKind, TransformerTemporal
from model.types import HeadKind

FORMAT = "vidgrain-2"
READABLE_FORMATS = ("vidgrain-xclip-1", FORMAT)
"""The first knew X-CLIP only; it is read as what it was."""
MOST = 100_000
"""Words, frame slots or numbers of an embedding that a configuration may name."""
CONFIG_FILE = "config.json"
TENSORS_FILE = "model.safetensors"
MERGES_FILE = "merges.txt"

MIXING_KEYS = (
    "global_mat_weight",
    "local_mat_weight",
    "word_logit_weight",
    "word_mat_weight",
    "word_mat_weight2",
    "frame_logit_weight",
    "frame_mat_weight",
    "frame_mat_weight2",
)
POSITIONS_KEY = "frame_position_embeddings.weight"
DIFFERENCE_KEY = "type_position_embeddings.weight"

# our network's prefix -> the files' prefix; the first that fits counts
_PREFIXES = (
    ("backbone.clip.", "clip."),
    ("temporal.transformer.", "transformerClip."),
    ("temporal.lstm.", "lstm_visual."),
    ("temporal.", ""),
    ("head.temporal.transformer.", "transformerClip."),
    ("head.temporal.lstm.", "lstm_visual."),
    ("head.temporal.", ""),
    ("head.", ""),
)
_IGNORED = {"clip.input_resolution", "clip.context_length", "clip.vocab_size"}
# official files hold these whether or not their model has a use for them; where ours has one they are no exception
_MAYBE_UNUSED = {POSITIONS_KEY, "trans_layernorm.weight", "trans_layernorm.bias"}


@dataclass(frozen=True)
class TemporalConfig:
    """kind as in model.temporal; layers and heads count for the transformers only (heads None: width / 64)."""

    kind: TemporalKind = "mean"
    layers: int = 4
    heads: int | None = None


@dataclass(frozen=True)
class TightConfig:
    """The joint transformer of tightTransf; heads None: width / 64."""

    layers: int = 4
    heads: int | None = None
    num_positions: int = 77


HeadConfig = GrainOptions | None | TightConfig | Clip2VideoConfig
"""Of X-CLIP, CLIP4Clip (no switches), tightTransf and CLIP2Video."""


@dataclass(frozen=True)
class CheckpointConfig:
    """What config.json says: the towers (open_clip's format), W, F, the temporal encoder, the head and the pixels.

    preprocess is `Preprocess.as_dict()`; empty means what the towers' configuration says. masks: the reading that the
    weights were trained with; serving always uses the served one.
    """

    model_cfg: dict[str, Any]
    num_words: int
    num_frames: int
    temporal: TemporalConfig = TemporalConfig()
    preprocess: dict[str, Any] = field(default_factory=dict)
    kind: HeadKind = "xclip"
    head: HeadConfig = field(default_factory=GrainOptions)
    masks: MaskReading = "served"

    @property
    def temporal_name(self) -> str:
        """What becomes of the frames before they are pooled, in a word; CLIP2Video's is a part of its head."""
        return self.head.global_branch if isinstance(self.head, Clip2VideoConfig) else self.temporal.kind

    def head_values(self) -> dict[str, Any]:
        """The head as plain JSON values, {"kind", its switches}."""
        values = {} if self.head is None else asdict(self.head)
        if isinstance(self.head, Clip2VideoConfig):
            del values["masks"], values["embed_dim"]
        return {"kind": self.kind, **values}


def config_of(network: Network) -> CheckpointConfig:
    """The configuration that builds a network of this shape again."""
    encoder = getattr(network, "temporal", None) or getattr(network.head, "temporal", None)
    temporal = TemporalConfig()
    if isinstance(encoder, LstmTemporal):
        temporal = TemporalConfig("seqLSTM")
    elif isinstance(encoder, DifferenceTemporal):
        blocks = encoder.transformerClip
        temporal = TemporalConfig("TDB", layers=len(blocks.resblocks), heads=blocks.heads)
    elif isinstance(encoder, TransformerTemporal):
        stack = encoder.transformer
        temporal = TemporalConfig("seqTransf", layers=len(stack.resblocks), heads=stack.heads)
    backbone = network.backbone
    return CheckpointConfig(
        backbone.model_cfg,
        network.num_words,
        network.num_frames,
        temporal,
        backbone.preprocess.as_dict(),
        network.kind,
        _head_of(network),
        network.masks,
    )


def _head_of(network: Network) -> HeadConfig:
    if isinstance(network, XClipNetwork):
        return network.head.options
    if isinstance(network, Clip2VideoNetwork):
        return network.head.config
    if isinstance(network, TightNetwork):
        cross = network.head.cross
        stack, places = cross.transformer, cross.embeddings.position_embeddings
        return TightConfig(len(stack.resblocks), stack.heads, places.num_embeddings)
    return None


def save_checkpoint(folder: Path, network: Network, *, dtype: torch.dtype = torch.float32) -> None:
    """Write our folder; floating tensors are stored as `dtype`. An existing checkpoint there is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    config, merges = config_of(network), network.backbone.merges_path
    tensors = {
        file_key(key): value.detach().cpu().to(dtype if value.is_floating_point() else value.dtype).contiguous()
        for key, value in network.state_dict().items()
    }
    write_atomic(folder / TENSORS_FILE, save(tensors))  # the library's own writer makes it readable by its owner only
    if merges is not None and merges.resolve() != (folder / MERGES_FILE).resolve():
        write_atomic(folder / MERGES_FILE, merges.read_bytes())
    temporal = {"kind": config.temporal.kind, "layers": config.temporal.layers, "heads": config.temporal.heads}
    values = {
        "format": FORMAT,
        "model_cfg": config.model_cfg,
        "num_words": config.num_words,
        "num_frames": config.num_frames,
        "temporal": temporal,
        "head": config.head_values(),
        "masks": config.masks,
        "preprocess": config.preprocess,
    }
    write_atomic(folder / CONFIG_FILE, (json.dumps(values, indent=2) + "\n").encode())


def read_config(folder: Path) -> CheckpointConfig:
    """Read a folder's config.json. Raises: CheckpointMismatch naming what is wrong with it."""
    path = folder / CONFIG_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointMismatch(f"{path} can't be read: {error}.") from error
    found = values.get("format") if isinstance(values, dict) else None
    if found not in READABLE_FORMATS:
        raise CheckpointMismatch(
            f"{path} has the format {found!r}; this version reads {', '.join(map(repr, READABLE_FORMATS))}."
        )
    try:
        temporal = TemporalConfig(**values["temporal"])
        kind, head = _head_from(dict(values.get("head", {"kind": "xclip"})), int(values["model_cfg"]["embed_dim"]))
        config = CheckpointConfig(
            model_cfg=dict(values["model_cfg"]),
            num_words=int(values["num_words"]),
            num_frames=int(values["num_frames"]),
            temporal=temporal,
            preprocess=dict(values.get("preprocess", {})),
            kind=kind,
            head=head,
            masks=values.get("masks", "served"),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise CheckpointMismatch(f"{path} lacks or misstates {error}.") from error
    width = config.model_cfg["embed_dim"]
    if type(width) is not int:
        raise CheckpointMismatch(f"{path}: embed_dim is {width!r}; a whole number is needed.")
    sizes = {"num_words": config.num_words, "num_frames": config.num_frames, "embed_dim": width}
    for key, size in sizes.items():
        if not 1 <= size <= MOST:
            raise CheckpointMismatch(f"{path}: {key} is {size}; 1 to {MOST} are possible.")
    for name, part in (("the file", config), ("temporal", temporal), ("head", head)):
        for key, known in _choices(part).items():
            if getattr(part, key) not in known:
                raise CheckpointMismatch(
                    f"{path}: {key} of {name} is {getattr(part, key)!r}, which is none of {', '.join(known)}."
                )
    return config


def _choices(part: object) -> dict[str, tuple[str, ...]]:
    """The fields of a dataclass that hold one of a few words, and the words."""
    hints = get_type_hints(type(part)) if is_dataclass(part) else {}
    return {key: get_args(hint) for key, hint in hints.items() if get_origin(hint) is Literal}


def _head_from(values: dict[str, Any], embed_dim: int) -> tuple[HeadKind, HeadConfig]:
    """Raises: TypeError for a switch that the head doesn't have, ValueError for another head."""
    kind = values.pop("kind")
    if kind == "xclip":
        grains = values.pop("grains", None)
        return kind, GrainOptions(**values) if grains is None else GrainOptions(grains=tuple(grains), **values)
    if kind == "clip2video":
        return kind, Clip2VideoConfig(embed_dim=embed_dim, **values)
    if kind == "tight":
        return kind, TightConfig(**values)
    if kind == "clip4clip" and not values:
        return kind, None
    raise ValueError(f"the head {kind!r} with {sorted(values)}")


def file_key(key: str) -> str:
    """The official name of one of our network's tensors."""
    for ours, theirs in _PREFIXES:
        if key.startswith(ours):
            return theirs + key.removeprefix(ours)
    return key


def load_state(network: nn.Module, state: Mapping[str, Tensor], source: str, *, is_head_optional: bool) -> None:
    """Load official names into our network. With is_head_optional the eight matrices may be absent, all together.

    Raises: CheckpointMismatch naming the keys and shapes that don't fit.
    """
    ours = {file_key(key): key for key in network.state_dict()}
    ignored = _IGNORED | (_MAYBE_UNUSED - ours.keys())
    given = {key: value for key, value in state.items() if key not in ignored}
    if is_head_optional and not any(key in given for key in MIXING_KEYS):
        ours = {key: value for key, value in ours.items() if key not in MIXING_KEYS}
    shapes = {file_key(key): tuple(value.shape) for key, value in network.state_dict().items()}
    # OpenAI's temperature is a scalar, some of open_clip's have one entry
    given = {
        k: v.reshape(shapes[k]) if v.numel() == 1 == math.prod(shapes.get(k, (0,))) else v for k, v in given.items()
    }
    misshapen = [
        f"{key} is {tuple(given[key].shape)} and should be {shapes[key]}"
        for key in sorted(ours.keys() & given.keys())
        if tuple(given[key].shape) != shapes[key]
    ]
    problems = [
        *_problem("missing", sorted(ours.keys() - given.keys())),
        *_problem("unknown", sorted(given.keys() - ours.keys())),
        *_problem("misshapen", misshapen),
    ]
    if problems:
        raise CheckpointMismatch(f"{source} doesn't fit: {'; '.join(problems)}.")
    network.load_state_dict({ours[key]: value for key, value in given.items()}, strict=not is_head_optional)


def config_of_state(
    state: Mapping[str, Tensor], model_cfg: dict[str, Any], *, num_words: int, num_frames: int
) -> CheckpointConfig:
    """What an official state dict says of itself; num_words and num_frames where it has no head to tell them.

    The eight matrices tell X-CLIP, centres or a difference type CLIP2Video, `cross.` tightTransf; else it is CLIP4Clip
    with independent towers. CLIP2Video's share of the global branch isn't stored: one half, as released.
    """
    temporal = TemporalConfig()
    layers = _num_blocks(state, "transformerClip.")
    if layers:
        temporal = TemporalConfig("TDB" if DIFFERENCE_KEY in state else "seqTransf", layers=layers)
    elif any(key.startswith("lstm_visual.") for key in state):
        temporal = TemporalConfig("seqLSTM")
    if "word_logit_weight" in state and "frame_logit_weight" in state:
        num_words, num_frames = len(state["word_logit_weight"]), len(state["frame_logit_weight"])
    kind: HeadKind = "clip4clip"
    head: HeadConfig = None
    if any(key in state for key in MIXING_KEYS):
        kind, head = "xclip", GrainOptions()
    elif "weight_center" in state or DIFFERENCE_KEY in state:
        kind, head = "clip2video", _clip2video_of(state, int(model_cfg["embed_dim"]), layers)
    elif any(key.startswith("cross.") for key in state):
        places = state.get("cross.embeddings.position_embeddings.weight")
        kind = "tight"
        head = TightConfig(_num_blocks(state, "cross.transformer."), None, 77 if places is None else len(places))
    if kind in ("tight", "clip2video"):
        temporal = TemporalConfig()
    return CheckpointConfig(model_cfg, num_words, num_frames, temporal, {}, kind, head, "official")


def _clip2video_of(state: Mapping[str, Tensor], embed_dim: int, layers: int) -> Clip2VideoConfig:
    has_differences = DIFFERENCE_KEY in state
    has_context = any(key.startswith("actionClip.") for key in state)
    difference = "plain"
    if any(key.startswith("frame2t_attention.") for key in state):
        difference = "sigmoid_selfA"
    elif "frame2t_projection" in state:
        difference = "sigmoid_mlp"
    aligned = ("TAB_TDB" if has_differences else "TAB") if has_context else "frames"
    positions = state.get(POSITIONS_KEY)
    return Clip2VideoConfig(
        embed_dim=embed_dim,
        global_branch=("TDB" if has_differences else "seqTransf") if layers else "mean",
        difference=cast(Any, difference),
        alignment=cast(Any, aligned if "weight_center" in state else "none"),
        num_centres=len(state["weight_center"]) if "weight_center" in state else 5,
        layers=layers or 4,
        num_positions=77 if positions is None else len(positions),
    )


def _num_blocks(state: Mapping[str, Tensor], prefix: str) -> int:
    start = f"{prefix}resblocks."
    return len({key.removeprefix(start).split(".")[0] for key in state if key.startswith(start)})


def num_positions(state: Mapping[str, Tensor]) -> int | None:
    """How many frame positions a state dict holds; None without any."""
    positions = state.get(POSITIONS_KEY)
    return None if positions is None else int(positions.shape[0])


def _problem(what: str, items: list[str]) -> list[str]:
    if not items:
        return []
    shown = ", ".join(items[:6]) + (", ..." if len(items) > 6 else "")
    return [f"{len(items)} {what} ({shown})"]
