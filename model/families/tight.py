"""CLIP4Clip tightTransf: a transformer over sentence and frames. Recall is by the pooled cosine; it reranks.

Its sentences and frames stay raw: the transformer reads their lengths too. Letters as in model/network.py.
Source: CLIP4Clip, arXiv:2104.08860, section 3.3 (tight type); official behaviour at revision 508ffa3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.nn.functional import normalize

from model.heads.tight import TightConfig, TightHead
from model.kernels.aosm_reference import Mixing
from model.losses import tight_loss
from model.network import Network, NetworkConfig
from model.shared_scorers import ScorerInfo, parts_of, shared_score
from model.temporal import default_heads, num_blocks
from model.transformer import pool
from model.types import Query, Scores, TextFeatures, VideoFeatures

if TYPE_CHECKING:
    from model.backbone import Backbone

JOINT = ScorerInfo(
    "tight",
    "CLIP4Clip tightTransf: sentence and frames read together by a transformer.",
    ("joint",),
    cost="joint",
    takes_clips=False,
)

_POSITIONS_KEY = "cross.embeddings.position_embeddings.weight"


class TightNetwork(Network):
    """A score per pair of sentence and video, and no vector that has it."""

    kind = "tight"
    scorers = ("tight", "mean", "max_frame", "maxsim", "multi_grained", "aosm")
    own_scorer = JOINT
    similarity_cost = "joint"
    switches = TightConfig
    has_frame_recall = False
    tensor_names = (
        r"cross\.transformer\.resblocks\.{block}|cross\.embeddings\.position_embeddings\.weight"
        r"|cross\.pooler\.(ln_pool|dense)\.(weight|bias)|similarity_dense\.(weight|bias)"
    )

    def __init__(self, backbone: Backbone, config: NetworkConfig, num_positions: int | None = None) -> None:
        super().__init__(backbone, config, num_positions)
        self.head = TightHead(backbone.embed_dim, **asdict(self._config.head))

    @classmethod
    def is_in(cls, state: Mapping[str, Any]) -> bool:
        """By the cross encoder."""
        return any(key.startswith("cross.") for key in state)

    @classmethod
    def described(cls, state: Mapping[str, Tensor], config: NetworkConfig) -> NetworkConfig:
        """Layers and positions; weights don't show attention heads."""
        positions = 77 if _POSITIONS_KEY not in state else len(state[_POSITIONS_KEY])
        return replace(config, head=TightConfig(num_blocks(state, "cross.transformer."), None, positions))

    @classmethod
    def settled(cls, config: NetworkConfig, width: int) -> NetworkConfig:
        """With the number of attention heads."""
        found = super().settled(config, width)
        return replace(found, head=replace(found.head, heads=found.head.heads or default_heads(width)))

    @classmethod
    def positions_needed(cls, config: NetworkConfig) -> int:
        """The sentence takes one."""
        return config.num_frames + 1

    @property
    def most_frames(self) -> int | None:
        """One position is the sentence's."""
        return int(self._config.head.num_positions) - 1

    @property
    def starts_from_text_tower(self) -> bool:
        """Always."""
        return True

    def video_from_frames(self, raw_VFD: Tensor, mask_VF: Tensor) -> VideoFeatures:
        """Pooled is the mean of the frames (meanP), normalised; frames are raw, padded slots zero."""
        return VideoFeatures(pool(raw_VFD, mask_VF), raw_VFD * mask_VF[..., None], mask_VF)

    def text_from_words(self, sentence_TD: Tensor, words_TWD: Tensor, mask_TW: Tensor) -> TextFeatures:
        """The sentence stays raw."""
        return TextFeatures(sentence_TD, normalize(words_TWD, dim=-1), mask_TW)

    def similarity(self, texts: TextFeatures, videos: VideoFeatures) -> Tensor:
        """The joint scores, which have no fixed scale."""
        scores: Tensor = self.head(texts.sentence, videos.frames, videos.mask)
        return scores

    def loss(self, texts: TextFeatures, videos: VideoFeatures) -> Tensor:
        """`tight_loss`: no logit scale."""
        return tight_loss(self.similarity(texts, videos))

    def start_from_clip(self) -> None:
        """Positions and blocks from the text tower."""
        self.head.start_from_text_tower(*self.backbone.text_blocks())

    def _own_score(self, query: Query, videos: VideoFeatures) -> Scores:
        """Texts jointly; a clip has no sentence to be read with the frames, so it is compared by pooled cosine."""
        given = parts_of(query, videos)
        if isinstance(query, VideoFeatures):
            return shared_score("mean", given, Mixing())
        joint_TV = self.head(query.sentence.float(), videos.frames.float(), videos.mask)
        return Scores(joint_TV, joint_TV[..., None], JOINT.parts)
