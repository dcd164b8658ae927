"""CLIP2Video. Both branches give a vector per segment and per text; they stand side by side, P = 2 D.

So r . pooled is the mixed score itself, and recall needs no second search. Letters as in model/network.py.
Source: CLIP2Video, arXiv:2106.11097; official behaviour at revision e941318.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from model.heads.clip2video import OFFICIAL, BranchVectors, Clip2VideoConfig, Clip2VideoHead
from model.losses import clip2video_loss
from model.network import MaskReading, Network, NetworkConfig
from model.shared_scorers import ScorerInfo
from model.temporal import DIFFERENCE_KEY, POSITIONS_KEY, num_blocks
from model.types import Query, Scores, TextFeatures, VideoFeatures

if TYPE_CHECKING:
    from model.backbone import Backbone

BRANCHES = ScorerInfo(
    "clip2video", "CLIP2Video: its global and its aligned branch, mixed.", ("global", "aligned"), cost="frames"
)


class Clip2VideoNetwork(Network):
    """The head reads frames in order by itself."""

    kind = "clip2video"
    scorers = ("clip2video",)
    own_scorer = BRANCHES
    switches = Clip2VideoConfig
    has_frame_recall = False
    frame_choice = "clip2video"
    tensor_names = (
        r"(frame2t_attention|actionClip)\.resblocks\.{block}|type_position_embeddings\.weight|frame2t_projection"
        r"|trans_layernorm\.(weight|bias)|(weight|emb)_center"
    )

    def __init__(self, backbone: Backbone, config: NetworkConfig, num_positions: int | None = None) -> None:
        super().__init__(backbone, config, num_positions)
        self._corrected = self._config.head.masks
        self.head = Clip2VideoHead(self._config.head)
        self._read_masks()

    @classmethod
    def is_in(cls, state: Mapping[str, Any]) -> bool:
        """By centres or a type of differences."""
        return "weight_center" in state or DIFFERENCE_KEY in state

    @classmethod
    def described(cls, state: Mapping[str, Tensor], config: NetworkConfig) -> NetworkConfig:
        """The parts that are there. The share of the global branch isn't stored: one half, as released."""
        return replace(config, head=_head_of(state, int(config.model_cfg["embed_dim"])))

    @classmethod
    def _set_by_the_towers(cls, width: int, context_length: int | None) -> dict[str, Any]:
        """Also the width; and the form of the masks, which follows from their reading, has its default."""
        own = super()._set_by_the_towers(width, context_length)
        return own | {"embed_dim": width, "masks": Clip2VideoConfig.masks}

    @classmethod
    def head_values(cls, switches: Clip2VideoConfig) -> dict[str, Any]:
        """Without the width and the form of the masks, which stand elsewhere."""
        values = super().head_values(switches)
        del values["masks"], values["embed_dim"]
        return values

    @classmethod
    def temporal_name(cls, config: NetworkConfig) -> str:
        """The global branch, which is a part of the head."""
        return str(config.head.global_branch)

    @classmethod
    def positions_needed(cls, config: NetworkConfig) -> int:
        """One a frame."""
        return config.num_frames

    @property
    def most_frames(self) -> int | None:
        """Those of the head, if any branch places frames in time."""
        return self.head.config.num_positions if self.head.config.has_positions else None

    def reconfigure(
        self, *, num_words: int | None = None, num_frames: int | None = None, masks: MaskReading | None = None
    ) -> None:
        """The head has forms of its own for the readings of masks. Raises: ShapeError."""
        super().reconfigure(num_words=num_words, num_frames=num_frames, masks=masks)
        self._read_masks()

    def _read_masks(self) -> None:
        form = OFFICIAL if self.masks == "reference" else self._corrected
        self.head.config = replace(self.head.config, masks=form)

    @property
    def starts_from_text_tower(self) -> bool:
        """Always."""
        return True

    @property
    def pooled_dim(self) -> int:
        """2 D, or D for a head without an alignment branch."""
        return self.backbone.embed_dim * (1 if self.head.config.alignment == "none" else 2)

    def video_from_frames(self, raw_VFD: Tensor, mask_VF: Tensor) -> VideoFeatures:
        """Global and aligned vectors side by side; the frames, normalised, show which moment is meant."""
        return VideoFeatures(_joined(self.head.video(raw_VFD, mask_VF)), normalize(raw_VFD, dim=-1), mask_VF)

    def text_from_words(self, sentence_TD: Tensor, words_TWD: Tensor, mask_TW: Tensor) -> TextFeatures:
        """As for the video: global and aligned side by side."""
        joined_TP = _joined(self.head.text(sentence_TD, words_TWD, mask_TW))
        return TextFeatures(joined_TP, normalize(words_TWD, dim=-1), mask_TW)

    def similarity(self, texts: TextFeatures, videos: VideoFeatures) -> Tensor:
        """The branches' weighted mean."""
        return self.head.score(self._split(texts.sentence), self._split(videos.pooled)).mixed_TV

    def loss(self, texts: TextFeatures, videos: VideoFeatures) -> Tensor:
        """`clip2video_loss`: of each branch, not of the mixed score."""
        branches = self.head.score(self._split(texts.sentence), self._split(videos.pooled))
        return clip2video_loss(branches, self.scale, self.head.config.global_weight)

    def start_from_clip(self) -> None:
        """All transformers and positions from the text tower; centres and the LayerNorm keep their start."""
        projection = self.backbone.visual_projection()
        self.head.start_from_clip(*self.backbone.text_blocks(), visual_projection=projection)

    def recall_vectors(self, query: Query) -> Tensor:
        """Each branch's vector with its share of the score."""
        whole = query.pooled if isinstance(query, VideoFeatures) else query.sentence
        vectors = self._split(whole.float())
        if vectors.aligned_ND is None:
            return vectors.whole_ND
        weight = self.head.config.global_weight
        return torch.cat([weight * vectors.whole_ND, (1.0 - weight) * vectors.aligned_ND], dim=-1)

    def _own_score(self, query: Query, videos: VideoFeatures) -> Scores:
        whole = query.pooled if isinstance(query, VideoFeatures) else query.sentence
        mine, theirs = self._split(whole.float()), self._split(videos.pooled.float())
        found = self.head.score(mine, theirs)
        branches = [found.global_TV] if found.aligned_TV is None else [found.global_TV, found.aligned_TV]
        return Scores(found.mixed_TV, torch.stack(branches, dim=-1), BRANCHES.parts[: len(branches)])

    def frame_relevance(self, query: Query, videos: VideoFeatures) -> Tensor:
        """The cosine of the global branch's vector with each frame."""
        whole = query.pooled if isinstance(query, VideoFeatures) else query.sentence
        sim_TVF = torch.einsum("td,vfd->tvf", self._split(whole.float()).whole_ND, videos.frames.float())
        return sim_TVF.masked_fill(~videos.mask[None], float("-inf"))

    def _split(self, joined_NP: Tensor) -> BranchVectors:
        width = self.backbone.embed_dim
        aligned = joined_NP[:, width:] if joined_NP.shape[-1] > width else None
        return BranchVectors(joined_NP[:, :width], aligned)


def _joined(vectors: BranchVectors) -> Tensor:
    if vectors.aligned_ND is None:
        return vectors.whole_ND
    return torch.cat([vectors.whole_ND, vectors.aligned_ND], dim=-1)


def _head_of(state: Mapping[str, Tensor], embed_dim: int) -> Clip2VideoConfig:
    layers, has_differences = num_blocks(state, "transformerClip."), DIFFERENCE_KEY in state
    positions = state.get(POSITIONS_KEY)
    found = Clip2VideoConfig(
        embed_dim,
        global_branch=("TDB" if has_differences else "seqTransf") if layers else "mean",
        difference="plain",
        alignment="none",
        layers=layers or 4,
        num_positions=77 if positions is None else len(positions),
    )
    if num_blocks(state, "frame2t_attention."):
        found = replace(found, difference="sigmoid_selfA")
    elif "frame2t_projection" in state:
        found = replace(found, difference="sigmoid_mlp")
    if "weight_center" in state:
        found = replace(found, num_centres=len(state["weight_center"]), alignment="frames")
        if num_blocks(state, "actionClip."):
            found = replace(found, alignment="TAB_TDB" if has_differences else "TAB")
    return found
