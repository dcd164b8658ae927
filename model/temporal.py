"""Temporal encoders: what turns F frame embeddings into F embeddings that know of one another.

Letters: V segments, F frame slots, D embedding width. All of them share one call: (V, F, D) raw frames and a mask
(V, F) bool in, (V, F, D) out; pooling is not theirs. Padded slots never reach real ones: their keys are masked.
A new encoder is a class here, a name in `TemporalKind` and a line in `build_temporal`.
Sources: CLIP4Clip, arXiv:2104.08860, section 3.3 (meanP, seqLSTM, seqTransf), used by X-CLIP unchanged; CLIP2Video,
arXiv:2106.11097, section 3.3 (TDB).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from model.heads.clip2video import Clip2VideoConfig, Clip2VideoHead
from model.transformer import Transformer, copy_blocks

TemporalKind = Literal["mean", "seqTransf", "seqLSTM", "TDB"]

TRANSFORMERS: tuple[TemporalKind, ...] = ("seqTransf", "TDB")
"""Those with layers, heads and positions; training starts them from CLIP's text tower."""

POSITIONS_KEY = "frame_position_embeddings.weight"
DIFFERENCE_KEY = "type_position_embeddings.weight"


@dataclass(frozen=True)
class TemporalConfig:
    """Which temporal encoder, and how large."""

    kind: TemporalKind = "mean"

    layers: int = 4
    """Blocks of the transformers."""

    heads: int | None = None
    """Attention heads of the transformers; None for the width / 64, as in CLIP."""

    @property
    def is_transformer(self) -> bool:
        """Whether it has layers, heads and positions."""
        return self.kind in TRANSFORMERS

    def settled(self, embed_dim: int) -> TemporalConfig:
        """With the heads that an encoder of this width gets, and without what its kind has no use for."""
        if not self.is_transformer:
            return TemporalConfig(self.kind)
        return TemporalConfig(self.kind, self.layers, self.heads or default_heads(embed_dim))


class TemporalEncoder(nn.Module):
    """What all encoders have in common besides the call."""

    @property
    def num_positions(self) -> int | None:
        """The most frame slots that it can place in time; None for any number."""
        return None

    def start_from_clip(self, positions: Tensor, blocks: Iterable[nn.Module]) -> None:
        """Start from a text tower of the same width: its positions (context length, D) and its first blocks.

        The encoders that the official code starts at random do nothing. Source: CLIP4Clip, section 3.3.
        """


class MeanTemporal(TemporalEncoder):
    """meanP: frames pass unchanged, their mean is the video. The only encoder that zero-shot weights allow."""

    def forward(self, frames_VFD: Tensor, mask_VF: Tensor) -> Tensor:
        """(V, F, D) -> (V, F, D), the same tensor."""
        return frames_VFD


class LstmTemporal(TemporalEncoder):
    """seqLSTM: one unidirectional LSTM layer over the real frames, added to the input.

    A segment's real frames must be its first slots. Slots past its length but below the batch's longest come out as
    the input, slots past the longest as twice the input (the official code's filling); pooling masks both.
    """

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(embed_dim, embed_dim, batch_first=True, num_layers=1)

    def forward(self, frames_VFD: Tensor, mask_VF: Tensor) -> Tensor:
        """(V, F, D) -> (V, F, D); every segment needs at least one real frame."""
        lengths = mask_VF.sum(-1).cpu()
        packed = pack_padded_sequence(frames_VFD, lengths, batch_first=True, enforce_sorted=False)
        out_VfD, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        out_VFD = torch.cat([out_VfD, frames_VFD[:, out_VfD.shape[1] :]], dim=1)
        return out_VFD + frames_VFD


class TransformerTemporal(TemporalEncoder):
    """seqTransf: a transformer over frames with learnt positions, added to the input.

    num_positions is the text tower's context length in official checkpoints (77).
    """

    def __init__(self, embed_dim: int, layers: int, heads: int, num_positions: int = 77) -> None:
        super().__init__()
        self.frame_position_embeddings = nn.Embedding(num_positions, embed_dim)
        self.transformer = Transformer(embed_dim, layers, heads)

    @property
    def num_positions(self) -> int | None:
        """Rows of the table."""
        return self.frame_position_embeddings.num_embeddings

    def start_from_clip(self, positions: Tensor, blocks: Iterable[nn.Module]) -> None:
        """Positions and blocks, as many as both sides have."""
        with torch.no_grad():
            self.frame_position_embeddings.weight.copy_(positions[: self.num_positions])
        copy_blocks(self.transformer, blocks)

    def forward(self, frames_VFD: Tensor, mask_VF: Tensor) -> Tensor:
        """(V, F, D), mask (V, F) bool -> (V, F, D)."""
        positions = self.frame_position_embeddings.weight[: frames_VFD.shape[1]]
        moved_VFD: Tensor = self.transformer(frames_VFD + positions, mask_VF)
        return moved_VFD + frames_VFD


class DifferenceTemporal(Clip2VideoHead, TemporalEncoder):
    """TDB: the global branch of CLIP2Video with sigmoid_selfA, up to the pooling; parameters have its names.

    Between two frames stands a token of their difference, and one transformer reads both kinds. On drawn shapes it is
    what tells directions apart (docs/experiments.md). No paper gives it to X-CLIP; the arithmetic is CLIP2Video's with
    its masks corrected. Source: CLIP2Video, arXiv:2106.11097, section 3.3.
    """

    def __init__(self, embed_dim: int, layers: int, heads: int, num_positions: int = 77) -> None:
        super().__init__(
            Clip2VideoConfig(embed_dim, alignment="none", layers=layers, heads=heads, num_positions=num_positions)
        )

    @property
    def num_positions(self) -> int | None:
        """Rows of the table."""
        return self.config.num_positions

    def forward(self, frames_VFD: Tensor, mask_VF: Tensor) -> Tensor:  # type: ignore[override]
        """(V, F, D) raw frames, mask (V, F) bool -> (V, F, D); the difference tokens are left out again."""
        return self.encoded(frames_VFD, mask_VF)


def build_temporal(
    kind: TemporalKind, embed_dim: int, *, layers: int = 4, heads: int | None = None, num_positions: int = 77
) -> TemporalEncoder:
    """Build a temporal encoder by its name. heads: None for the width / 64, as in CLIP. Raises: ValueError."""
    if kind == "mean":
        return MeanTemporal()
    if kind == "seqLSTM":
        return LstmTemporal(embed_dim)
    if kind == "seqTransf":
        return TransformerTemporal(embed_dim, layers, heads or default_heads(embed_dim), num_positions)
    if kind == "TDB":
        return DifferenceTemporal(embed_dim, layers, heads or default_heads(embed_dim), num_positions)
    raise ValueError(f"the temporal encoder {kind!r} is unknown: there are {', '.join(get_args(TemporalKind))}")


def temporal_of_state(state: Mapping[str, Any]) -> TemporalConfig:
    """The temporal encoder by the names of an official state dict, which don't show its attention heads."""
    layers = num_blocks(state, "transformerClip.")
    if layers:
        return TemporalConfig("TDB" if DIFFERENCE_KEY in state else "seqTransf", layers=layers)
    return TemporalConfig("seqLSTM" if any(key.startswith("lstm_visual.") for key in state) else "mean")


def num_blocks(state: Iterable[str], prefix: str) -> int:
    """How many transformer blocks the official names under a prefix count."""
    start = f"{prefix}resblocks."
    return len({key.removeprefix(start).split(".")[0] for key in state if key.startswith(start)})


def default_heads(embed_dim: int) -> int:
    """Attention heads of 64 numbers each, as in CLIP; one at least."""
    return max(1, embed_dim // 64)
