"""State dicts with the papers' official names: loaded into a network, and what they say of the network they need.

`clip.` + OpenAI's key for the towers, bare names for temporal encoder and head. Our folder holds the same names.
Loading is strict: a key too many, too few or of another shape is an error that names it.
Source: state dict layouts of the official code of X-CLIP (6b5344f), CLIP4Clip (508ffa3) and CLIP2Video (e941318).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from model.errors import CheckpointMismatch
from model.families import FAMILIES
from model.network import Network, NetworkConfig
from model.temporal import POSITIONS_KEY, TemporalConfig, temporal_of_state

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


def file_key(key: str) -> str:
    """The official name of one of our network's tensors."""
    for ours, theirs in _PREFIXES:
        if key.startswith(ours):
            return theirs + key.removeprefix(ours)
    return key


def load_state(network: Network, state: Mapping[str, Tensor], path: Path, *, is_head_optional: bool) -> None:
    """Load official names into our network. With is_head_optional its `optional_tensors` may be absent, all together.

    path: where the tensors are from, for the error.

    Raises: CheckpointMismatch naming the keys and shapes that don't fit.
    """
    ours = {file_key(key): key for key in network.state_dict()}
    ignored = _IGNORED | (_MAYBE_UNUSED - ours.keys())
    given = {key: value for key, value in state.items() if key not in ignored}
    if is_head_optional and network.optional_tensors.isdisjoint(given):
        ours = {key: value for key, value in ours.items() if key not in network.optional_tensors}
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
        raise CheckpointMismatch(f"The weights don't fit: {'; '.join(problems)}.", path=path)
    network.load_state_dict({ours[key]: value for key, value in given.items()}, strict=not is_head_optional)


def config_of_state(
    state: Mapping[str, Tensor], model_cfg: dict[str, Any], *, num_words: int, num_frames: int
) -> NetworkConfig:
    """What an official state dict says of itself; num_words and num_frames where it doesn't fix them."""
    family = next(family for family in FAMILIES if family.is_in(state))
    temporal = temporal_of_state(state) if family.temporal_kinds else TemporalConfig()
    config = NetworkConfig(family.kind, num_words, num_frames, temporal, masks="reference", model_cfg=model_cfg)
    return family.described(state, config)


def num_positions(state: Mapping[str, Tensor]) -> int | None:
    """How many frame positions a state dict holds; None without any."""
    positions = state.get(POSITIONS_KEY)
    return None if positions is None else int(positions.shape[0])


def _problem(what: str, items: list[str]) -> list[str]:
    if not items:
        return []
    shown = ", ".join(items[:6]) + (", ..." if len(items) > 6 else "")
    return [f"{len(items)} {what} ({shown})"]
