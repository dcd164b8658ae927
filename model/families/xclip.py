"""X-CLIP: temporal encoder, pooled vector, four grains by AOSM. The fine grains read the raw frames, normalised.

Letters as in model/network.py. Over plain CLIP towers, without a temporal encoder and with identity matrices, it is
what zero-shot weights are served as.
Source: X-CLIP, arXiv:2207.07285; official behaviour at revision 6b5344f.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from model.checked import BadValue
from model.heads.multi_grained import GrainOptions, MultiGrainedHead
from model.kernels.aosm_reference import Mixing
from model.kernels.panel import Panel
from model.network import MaskReading, Network, NetworkConfig
from model.shared_scorers import SHARED_SCORERS, parts_of
from model.temporal import TemporalKind
from model.transformer import pool
from model.types import GRAINS, Query, ScorerName, Scores, TextFeatures, VideoFeatures

if TYPE_CHECKING:
    from model.backbone import Backbone

OVER_WORDS = ("word_logit_weight", "word_mat_weight", "word_mat_weight2")
OVER_FRAMES = ("frame_logit_weight", "frame_mat_weight", "frame_mat_weight2")
MIXING_KEYS = frozenset({"global_mat_weight", "local_mat_weight", *OVER_WORDS, *OVER_FRAMES})

FORMER_SWITCHES = {"is_fine_temporal": "fine_grains_use_temporal"}
"""What switches were called in files that are still read, and are called in fingerprints for ever."""


class XClipNetwork(Network):
    """X-CLIP, with the variants that the head's options switch."""

    kind = "xclip"
    scorers = SHARED_SCORERS
    similarity_cost = "words_frames"
    switches = GrainOptions
    temporal_kinds = get_args(TemporalKind)
    has_fixed_sizes = True
    tensor_names = r"(global|local)_mat_weight|(word|frame)_(logit_weight|mat_weight2?)"
    optional_tensors = MIXING_KEYS

    def __init__(self, backbone: Backbone, config: NetworkConfig, num_positions: int | None = None) -> None:
        super().__init__(backbone, config, num_positions)
        self.temporal = self.built_temporal()
        self.head = MultiGrainedHead(backbone.embed_dim, config.num_words, config.num_frames, self._config.head)

    @classmethod
    def is_in(cls, state: Mapping[str, Any]) -> bool:
        """By any of the eight matrices."""
        return not MIXING_KEYS.isdisjoint(state)

    @classmethod
    def described(cls, state: Mapping[str, Tensor], config: NetworkConfig) -> NetworkConfig:
        """W and F by the matrices; the head is the paper's."""
        if "word_logit_weight" not in state or "frame_logit_weight" not in state:
            return config
        words, frames = len(state["word_logit_weight"]), len(state["frame_logit_weight"])
        return replace(config, num_words=words, num_frames=frames)

    @classmethod
    def read_switches(cls, values: Mapping[str, Any], where: str, width: int, context_length: int | None = None) -> Any:
        """GrainOptions. Raises: BadValue."""
        named = {FORMER_SWITCHES.get(key, key): value for key, value in values.items()}
        options: GrainOptions = super().read_switches(named, where, width, context_length)
        if not options.grains or not set(options.grains) <= set(GRAINS):
            raise BadValue(f"{where} grains are {list(options.grains)}.", f"There are {', '.join(GRAINS)}.")
        if len(set(options.grains)) < len(options.grains):
            raise BadValue(f"{where} grains has one twice: {', '.join(options.grains)}.")
        if not options.temperature > 0.0:
            raise BadValue(f"{where} temperature is {options.temperature}; it must be above 0.")
        return options

    @classmethod
    def hashed_head(cls, switches: GrainOptions) -> dict[str, Any] | None:
        """Nothing for the paper's head, which was the only one when the first fingerprints were made."""
        if switches == GrainOptions():
            return None
        former = {now: then for then, now in FORMER_SWITCHES.items()}
        return {"kind": cls.kind} | {former.get(key, key): value for key, value in cls.head_values(switches).items()}

    @property
    def most_frames(self) -> int | None:
        """Those of the temporal encoder."""
        return self.temporal.num_positions

    def can_have(self, *, num_words: int | None = None, num_frames: int | None = None) -> bool:
        """The matrices fix both, unless they are the identity as before any training."""
        for size, present, names in (
            (num_words, self.num_words, OVER_WORDS),
            (num_frames, self.num_frames, OVER_FRAMES),
        ):
            if size is not None and size != present and not all(map(_is_identity, self._matrices(names))):
                return False
        return super().can_have(num_words=num_words, num_frames=num_frames)

    def reconfigure(
        self, *, num_words: int | None = None, num_frames: int | None = None, masks: MaskReading | None = None
    ) -> None:
        """Identity matrices are made again in the new size. Raises: ShapeError for others."""
        super().reconfigure(num_words=num_words, num_frames=num_frames, masks=masks)
        for size, names in ((self.num_words, OVER_WORDS), (self.num_frames, OVER_FRAMES)):
            for name, matrix in zip(names, self._matrices(names), strict=True):
                if len(matrix) != size:
                    setattr(self.head, name, nn.Parameter(torch.eye(size, device=matrix.device)))

    @property
    def is_towers_only(self) -> bool:
        """Also with identity matrices and frames that pass unchanged."""
        others = [value for name, value in self.state_dict().items() if not name.startswith("backbone.")]
        return self.config.temporal.kind == "mean" and all(map(_is_identity, others))

    def video_from_frames(self, raw_VFD: Tensor, mask_VF: Tensor) -> VideoFeatures:
        """Pooled by the temporal encoder; frames are the raw ones, or the encoded ones if the options ask for it."""
        moved_VFD = self.temporal(raw_VFD, mask_VF)
        fine_VFD = moved_VFD if self.head.options.fine_grains_use_temporal else raw_VFD
        return VideoFeatures(pool(moved_VFD, mask_VF), normalize(fine_VFD, dim=-1), mask_VF)

    def similarity(self, texts: TextFeatures, videos: VideoFeatures) -> Tensor:
        """The mean of the grains; the reference's reading has no masks at all."""
        masks = (None, None) if self.masks == "reference" else (texts.mask, videos.mask)
        found = self.head(texts.sentence, texts.words, videos.pooled, videos.frames, *masks)
        return self.head.total(found.grains_TV4)

    def start_from_clip(self) -> None:
        """The temporal transformer from the text tower; mixing is the identity from the start."""
        if self.starts_from_text_tower:
            self.temporal.start_from_clip(*self.backbone.text_blocks())

    def mixing(self) -> Mixing:
        """The eight matrices."""
        return self.head.mixing()

    @property
    def temperature(self) -> float | Tensor:
        """The head's own, learnt or not."""
        return self.head.temperature()

    def score(self, query: Query, videos: VideoFeatures, scorer: ScorerName | None = None) -> Scores:
        """As Network.score; a head with other options than the paper's scores sentences as it was trained."""
        if scorer not in (None, "aosm") or isinstance(query, VideoFeatures) or self.head.is_the_papers:
            return super().score(query, videos, scorer)
        given = parts_of(query, videos)
        grains_TV4 = self.head(
            given.whole, given.parts, given.pooled, given.frames, given.parts_mask, given.frames_mask
        ).grains_TV4
        return Scores(self.head.total(grains_TV4), grains_TV4)

    def panel(self, query: Query, scorer: ScorerName | None = None) -> Panel | None:
        """As Network.panel; None for sentences under a head with other options than the paper's."""
        is_own = self.checked_scorer(scorer) == "aosm" and not isinstance(query, VideoFeatures)
        return None if is_own and not self.head.is_the_papers else super().panel(query, scorer)

    def _sentence_vectors(self, query: TextFeatures) -> Tensor:
        return query.sentence.float() @ self.head.global_mat_weight

    def _matrices(self, names: tuple[str, ...]) -> list[Tensor]:
        return [getattr(self.head, name) for name in names]


def _is_identity(matrix: Tensor) -> bool:
    is_square = matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1]
    return is_square and torch.equal(matrix.detach().cpu(), torch.eye(len(matrix)))
