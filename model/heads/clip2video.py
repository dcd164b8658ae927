"""CLIP2Video's head: a global branch that sees differences between frames (TDB), and one of shared centres (TAB).

Letters: T texts, V segments, F frame slots, D embedding width, W words, K centres, L tokens of a sequence, N texts or
segments. Both branches give one vector per segment and one per text, so both can recall. Masks are bool, True = real.
The official code misreads masks; `MaskForm` chooses the reading, and docs/decisions explains why there are two.
It knows no logit scale: that belongs to the towers and is the caller's. Parameter names are the official ones, so that
an official checkpoint fits without a table.
Source: CLIP2Video, arXiv:2106.11097; official behaviour at revision e941318.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from model.errors import ShapeError
from model.transformer import MASKED_LOGIT, Transformer, copy_blocks, pool

CENTRE_STD = 0.125
"""Standard deviation that the centres start with, as in the official code."""


@dataclass(frozen=True)
class MaskForm:
    """How masks of segments of unequal lengths are read."""

    is_head_order_swapped: bool
    """Whether head h of segment v uses the mask of segment (v * H + h) mod V, so that neighbours in a batch matter."""

    is_difference_leaky: bool
    """Whether the difference between the last real frame and the first padded one counts as real."""

    is_finite: bool
    """Whether a masked key carries -1e6 and not minus infinity. Where all keys of a row are masked, as in the
    difference attention of a segment of one frame, the row then attends by what rounding leaves of its logits, and the
    leak makes that count; and float16 can't hold the number."""


OFFICIAL = MaskForm(is_head_order_swapped=True, is_difference_leaky=True, is_finite=True)
"""Exactly what the official code computes: for parity, and for evaluation under the official protocol."""

CORRECTED = MaskForm(is_head_order_swapped=False, is_difference_leaky=False, is_finite=False)
"""What the paper describes: a segment's vectors depend on its real frames alone. For serving and for new training."""


@dataclass(frozen=True)
class Clip2VideoConfig:
    """Which parts the head has; the defaults are those of the released models, in the corrected form."""

    embed_dim: int
    """D."""

    global_branch: Literal["mean", "seqTransf", "TDB"] = "TDB"
    """What is pooled into the global vector."""

    difference: Literal["plain", "sigmoid_mlp", "sigmoid_selfA"] = "sigmoid_selfA"
    """What becomes of a difference before it enters a sequence."""

    alignment: Literal["none", "frames", "TAB", "TAB_TDB"] = "TAB_TDB"
    """Which video tokens are aligned to the centres: none (no such branch), the frames alone, or the frames and every
    second one after a transformer over those (TAB) or over those and their differences (TAB_TDB)."""

    num_centres: int = 5
    """K."""

    global_weight: float = 0.5
    """The global branch's share of the score, 0 to 1."""

    layers: int = 4
    """Blocks of the global branch's transformer."""

    heads: int | None = None
    """Attention heads; None for D / 64."""

    num_positions: int = 77
    """Frames that can be placed in time."""

    masks: MaskForm = CORRECTED
    """How masks are read."""

    @property
    def has_differences(self) -> bool:
        """Whether any branch reads differences between frames."""
        return self.global_branch == "TDB" or self.alignment == "TAB_TDB"

    @property
    def has_positions(self) -> bool:
        """Whether any branch places frames in time."""
        return self.global_branch != "mean" or self.alignment in ("TAB", "TAB_TDB")


class BranchVectors(NamedTuple):
    """Of V segments or T texts, normalised: global (N, D), and aligned (N, D) or None without that branch."""

    whole_ND: Tensor
    aligned_ND: Tensor | None


class BranchScores(NamedTuple):
    """Cosines of each branch and their weighted mean, (T, V) each; aligned is None without that branch."""

    global_TV: Tensor
    aligned_TV: Tensor | None
    mixed_TV: Tensor


class Clip2VideoHead(nn.Module):
    """TDB and TAB as configured. A part that the configuration has no use for doesn't exist."""

    frame_position_embeddings: nn.Embedding
    type_position_embeddings: nn.Embedding
    transformerClip: Transformer
    frame2t_attention: Transformer
    frame2t_projection: nn.Parameter
    trans_layernorm: nn.LayerNorm
    actionClip: Transformer
    weight_center: nn.Parameter
    emb_center: nn.Parameter

    def __init__(self, config: Clip2VideoConfig) -> None:
        super().__init__()
        self.config = config
        width = config.embed_dim
        heads = config.heads or max(1, width // 64)
        if config.has_positions:
            self.frame_position_embeddings = nn.Embedding(config.num_positions, width)
        if config.global_branch != "mean":
            self.transformerClip = Transformer(width, config.layers, heads)
        if config.has_differences:
            self.type_position_embeddings = nn.Embedding(2, width)
            if config.difference == "sigmoid_selfA":
                self.frame2t_attention = Transformer(width, 1, heads)
            if config.difference == "sigmoid_mlp":
                self.frame2t_projection = nn.Parameter(torch.randn(width, width) * width**-0.5)
            if config.difference != "plain":
                self.trans_layernorm = nn.LayerNorm(width)
        if config.alignment in ("TAB", "TAB_TDB"):
            self.actionClip = Transformer(width, 1, heads)
        if config.alignment != "none":
            self.weight_center = nn.Parameter(torch.randn(config.num_centres, width) * CENTRE_STD)
            self.emb_center = nn.Parameter(torch.randn(config.num_centres, width) * CENTRE_STD)

    def start_from_clip(
        self, positions: Tensor, blocks: Iterable[nn.Module], visual_projection: Tensor | None = None
    ) -> None:
        """Copy what the official code copies from CLIP; LayerNorm and centres keep their start.

        positions (context length, D) and blocks are the text tower's; visual_projection (at least D, D), the image
        tower's, is needed for sigmoid_mlp. Raises: ShapeError if it is missing or too small.
        """
        config, text_blocks = self.config, list(blocks)
        with torch.no_grad():
            if config.has_positions:
                self.frame_position_embeddings.weight.copy_(positions[: config.num_positions])
            if config.has_differences:
                self.type_position_embeddings.weight.copy_(positions[:2])
            if config.has_differences and config.difference == "sigmoid_mlp":
                if visual_projection is None or len(visual_projection) < config.embed_dim:
                    found = None if visual_projection is None else tuple(visual_projection.shape)
                    raise ShapeError(f"the image tower's projection is {found}; {config.embed_dim} rows are needed")
                self.frame2t_projection.copy_(visual_projection[: config.embed_dim])
        for name in ("transformerClip", "frame2t_attention", "actionClip"):
            if hasattr(self, name):
                copy_blocks(getattr(self, name), text_blocks)

    def video(self, frames_VFD: Tensor, mask_VF: Tensor) -> BranchVectors:
        """Raw frames (V, F, D), mask (V, F) bool -> both vectors of each segment.

        A segment without real frames gets zeros in the corrected form. Raises: ShapeError for tensors that don't
        belong together, and in the official form for too few slots to have a difference: TDB 2, TAB_TDB 3.
        """
        self._check(frames_VFD, mask_VF)
        whole_VD = pool(self.encoded(frames_VFD, mask_VF), mask_VF)
        if self.config.alignment == "none":
            return BranchVectors(whole_VD, None)
        return BranchVectors(whole_VD, self._align(*self.visual_tokens(frames_VFD, mask_VF)))

    def encoded(self, frames_VFD: Tensor, mask_VF: Tensor) -> Tensor:
        """Frames that know of one another by the global branch, before they are pooled: (V, F, D) -> (V, F, D)."""
        moved_VFD = frames_VFD
        if self.config.global_branch == "seqTransf":
            placed_VFD = frames_VFD + self._positions(frames_VFD)
            moved_VFD = self._attend(self.transformerClip, placed_VFD, mask_VF) + frames_VFD
        elif self.config.global_branch == "TDB":
            sequence_VLD, mask_VL = self._with_differences(frames_VFD, mask_VF)
            moved_VFD = self._attend(self.transformerClip, sequence_VLD, mask_VL)[:, 0::2] + frames_VFD
        return moved_VFD

    def text(self, sentence_TD: Tensor, words_TWD: Tensor, mask_TW: Tensor) -> BranchVectors:
        """Raw sentences (T, D), raw words (T, W, D), mask (T, W) bool -> both vectors of each text.

        The first word, a text's start token, takes no part, whatever the mask has there.
        """
        whole_TD = normalize(sentence_TD, dim=-1)
        if self.config.alignment == "none":
            return BranchVectors(whole_TD, None)
        return BranchVectors(whole_TD, self._align(words_TWD[:, 1:], mask_TW[:, 1:]))

    def score(self, texts: BranchVectors, videos: BranchVectors) -> BranchScores:
        """Cosines of T texts with V segments, logit scale not inside."""
        global_TV = texts.whole_ND @ videos.whole_ND.T
        if texts.aligned_ND is None or videos.aligned_ND is None:
            return BranchScores(global_TV, None, global_TV)
        aligned_TV = texts.aligned_ND @ videos.aligned_ND.T
        weight = self.config.global_weight
        return BranchScores(global_TV, aligned_TV, weight * global_TV + (1.0 - weight) * aligned_TV)

    def forward(
        self, sentence_TD: Tensor, words_TWD: Tensor, word_mask_TW: Tensor, frames_VFD: Tensor, frame_mask_VF: Tensor
    ) -> BranchScores:
        """Raw features of T texts and V segments -> their scores, logit scale not inside."""
        return self.score(self.text(sentence_TD, words_TWD, word_mask_TW), self.video(frames_VFD, frame_mask_VF))

    def visual_tokens(self, frames_VFD: Tensor, mask_VF: Tensor) -> tuple[Tensor, Tensor]:
        """What TAB aligns: the raw frames, then every second one in context.

        Shapes:  (V, F, D), (V, F) -> (V, F + ceil(F / 2), D), (V, F + ceil(F / 2)) bool; F slots for "frames"
        """
        if self.config.alignment == "frames":
            return frames_VFD, mask_VF
        coarse_VfD, mask_Vf = frames_VFD[:, 0::2], mask_VF[:, 0::2]
        if self.config.alignment == "TAB_TDB":
            sequence_VLD, mask_VL = self._with_differences(coarse_VfD, mask_Vf)
            context_VfD = self._attend(self.actionClip, sequence_VLD, mask_VL)[:, 0::2]
        else:
            context_VfD = self._attend(self.actionClip, coarse_VfD + self._positions(coarse_VfD), mask_Vf)
        return torch.cat([frames_VFD, context_VfD + coarse_VfD], dim=1), torch.cat([mask_VF, mask_Vf], dim=1)

    def _with_differences(self, frames_VFD: Tensor, mask_VF: Tensor) -> tuple[Tensor, Tensor]:
        """(V, F, D) -> frames with the difference to the next one after each, (V, 2F - 1, D), and their mask."""
        positions = self._positions(frames_VFD)
        difference_type, frame_type = self.type_position_embeddings.weight
        tokens_VFD = frames_VFD + positions + frame_type
        if frames_VFD.shape[1] == 1:
            return tokens_VFD, mask_VF
        is_real = mask_VF[:, :-1] & mask_VF[:, 1:]
        is_key = mask_VF[:, 1:] if self.config.masks.is_difference_leaky else is_real
        is_counted = mask_VF[:, :-1] if self.config.masks.is_difference_leaky else is_real
        difference = self._project(frames_VFD[:, 1:] - frames_VFD[:, :-1], positions[1:], is_key)
        placed = difference + positions[:-1] + difference_type
        pairs_VLD = torch.stack([tokens_VFD[:, :-1], placed], dim=2).flatten(1, 2)
        pairs_VL = torch.stack([mask_VF[:, :-1], is_counted], dim=2).flatten(1, 2)
        return torch.cat([pairs_VLD, tokens_VFD[:, -1:]], dim=1), torch.cat([pairs_VL, mask_VF[:, -1:]], dim=1)

    def _project(self, difference_VfD: Tensor, positions_fD: Tensor, mask_Vf: Tensor) -> Tensor:
        if self.config.difference == "plain":
            return difference_VfD
        if self.config.difference == "sigmoid_mlp":
            moved = difference_VfD @ self.frame2t_projection
        else:
            moved = self._attend(self.frame2t_attention, difference_VfD + positions_fD, mask_Vf)
        squashed: Tensor = 2.0 * torch.sigmoid(self.trans_layernorm(moved)) - 1.0
        return squashed

    def _align(self, tokens_NLD: Tensor, mask_NL: Tensor) -> Tensor:
        """(N, L, D) -> (N, D): residuals to each centre, summed over real tokens as they are assigned to it."""
        share_NLK = torch.softmax(tokens_NLD @ self.weight_center.T, dim=-1).masked_fill(~mask_NL[..., None], 0.0)
        # sum over tokens of share * (token - centre), without an (N, L, K, D) tensor
        residual_NKD = share_NLK.transpose(1, 2) @ tokens_NLD - share_NLK.sum(1)[..., None] * self.emb_center
        return normalize(normalize(residual_NKD, dim=-1).mean(1), dim=-1)

    def _attend(self, transformer: Transformer, x_VLD: Tensor, mask_VL: Tensor) -> Tensor:
        return transformer.with_bias(x_VLD, key_bias(mask_VL, transformer.heads, x_VLD.dtype, self.config.masks))

    def _positions(self, frames_VFD: Tensor) -> Tensor:
        return self.frame_position_embeddings.weight[: frames_VFD.shape[1]]

    def _check(self, frames_VFD: Tensor, mask_VF: Tensor) -> None:
        config = self.config
        if frames_VFD.shape != (*mask_VF.shape, config.embed_dim):
            raise ShapeError(
                f"frames are {tuple(frames_VFD.shape)} and their mask {tuple(mask_VF.shape)}; "
                f"(V, F, {config.embed_dim}) and (V, F) are needed"
            )
        num_frames = frames_VFD.shape[1]
        fewest = 1
        if config.masks == OFFICIAL and config.has_differences:
            fewest = 3 if config.alignment == "TAB_TDB" else 2
        most = config.num_positions if config.has_positions else num_frames
        if not fewest <= num_frames <= most:
            raise ShapeError(f"there are {num_frames} frame slots; this head takes {fewest} to {most}")


def key_bias(mask_VL: Tensor, heads: int, dtype: torch.dtype, form: MaskForm) -> Tensor:
    """The additive attention bias of a mask over keys, read by `form`; never NaN after the softmax.

    With minus infinity, a row without any real key attends to all of them: its result is never read.
    Shapes:  mask (V, L) bool -> (V * heads, L, L), segment-major as torch's attention expects it
    """
    if not form.is_finite:
        mask_VL = mask_VL | ~mask_VL.any(-1, keepdim=True)
    closed = MASKED_LOGIT if form.is_finite else float("-inf")
    bias_VL = torch.zeros(mask_VL.shape, dtype=dtype, device=mask_VL.device).masked_fill(~mask_VL, closed)
    rows = bias_VL.repeat(heads, 1) if form.is_head_order_swapped else bias_VL.repeat_interleave(heads, dim=0)
    return rows[:, None, :].repeat(1, mask_VL.shape[1], 1)
