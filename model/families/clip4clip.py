"""CLIP4Clip with independent towers: meanP, seqLSTM or seqTransf, then a cosine. Letters as in model/network.py.

Source: CLIP4Clip, arXiv:2104.08860, section 3.3; official behaviour at revision 508ffa3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.nn.functional import normalize

from model.heads.pooled import PooledHead
from model.losses import pooled_loss
from model.network import Network, NetworkConfig
from model.types import TextFeatures, VideoFeatures

if TYPE_CHECKING:
    from model.backbone import Backbone


class PooledNetwork(Network):
    """One vector per video, one per sentence."""

    kind = "clip4clip"
    scorers = ("mean", "max_frame", "maxsim", "multi_grained", "aosm")
    temporal_kinds = ("mean", "seqTransf", "seqLSTM")

    def __init__(self, backbone: Backbone, config: NetworkConfig, num_positions: int | None = None) -> None:
        super().__init__(backbone, config, num_positions)
        self.head = PooledHead(self.built_temporal())

    @classmethod
    def is_in(cls, state: Mapping[str, Any]) -> bool:
        """Always: towers alone pool by the mean."""
        return True

    @property
    def most_frames(self) -> int | None:
        """Those of the temporal encoder."""
        return self.head.temporal.num_positions

    def video_from_frames(self, raw_VFD: Tensor, mask_VF: Tensor) -> VideoFeatures:
        """Pooled by the temporal encoder; the frames are kept for the other scorers."""
        return VideoFeatures(self.head.video(raw_VFD, mask_VF), normalize(raw_VFD, dim=-1), mask_VF)

    def similarity(self, texts: TextFeatures, videos: VideoFeatures) -> Tensor:
        """Cosines; the official code masks here too, so both readings agree."""
        return texts.sentence @ videos.pooled.T

    def loss(self, texts: TextFeatures, videos: VideoFeatures) -> Tensor:
        """`pooled_loss` of the cosines."""
        return pooled_loss(self.similarity(texts, videos), self.scale)

    def start_from_clip(self) -> None:
        """seqTransf from the text tower; meanP and seqLSTM take nothing."""
        if self.starts_from_text_tower:
            self.head.temporal.start_from_clip(*self.backbone.text_blocks())
