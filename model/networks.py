"""The networks of the three papers, all of one shape: backbone, head, and what the head makes of frames and words.

Letters: T texts, V segments, B pairs of a batch, W words, F frame slots, D embedding width, P width of what is
recalled, S image side. Raw tensors in and out; training, evaluation and serving all go through these verbs. They know
no file, no index and no optimiser; built by registry.py.

`masks` says how padding is read. "served": it takes no part. "official": exactly what the papers' code computes, where
X-CLIP lets padded words and frames into its softmaxes and CLIP2Video swaps masks between segments: for parity and for
the papers' own protocol.
Sources: X-CLIP arXiv:2207.07285, CLIP4Clip arXiv:2104.08860, CLIP2Video arXiv:2106.11097.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from model.backbone import Backbone
from model.errors import UnknownScorer
from model.heads.clip2video import OFFICIAL, BranchVectors, Clip2VideoConfig, Clip2VideoHead
from model.heads.multi_grained import GrainOptions, MultiGrainedHead
from model.heads.pooled import PooledHead
from model.heads.tight import TightHead
from model.kernels.aosm_reference import Mixing
from model.losses import clip2video_loss, pooled_loss, symmetric_cross_entropy, tight_loss
from model.scorers import SCORERS, SHARED_SCORERS, Parts, shared_score
from model.temporal import DifferenceTemporal, initialise_from_text_tower
from model.transformer import pool
from model.types import HeadKind, Query, ScorerName, Scores, TextFeatures, VideoFeatures

FRAMES_PER_BATCH = 256
"""Frames through the image tower at once; bounds memory, not results."""

MaskReading = Literal["served", "official"]


class Network(nn.Module, ABC):
    """What the four have in common: the towers, W and F, and the ways in for pixels and token ids."""

    kind: ClassVar[HeadKind]
    scorers: ClassVar[tuple[ScorerName, ...]]
    """What this network's features can be scored by; the first is what it was trained for."""

    def __init__(self, backbone: Backbone, num_words: int, num_frames: int, masks: MaskReading = "served") -> None:
        super().__init__()
        self.backbone = backbone
        self.num_words = num_words
        self.num_frames = num_frames
        self.masks: MaskReading = masks

    @property
    def pooled_dim(self) -> int:
        """P."""
        return self.backbone.embed_dim

    @property
    def scale(self) -> Tensor:
        """exp(logit_scale), a scalar."""
        return self.backbone.logit_scale.exp()

    def raw_frames(self, pixels_VFCSS: Tensor, mask_VF: Tensor) -> Tensor:
        """Pixels through the image tower all at once, as training does it -> (V, F, D) float32, not normalised.

        Padding isn't encoded but where masks are official, and then once: zeros after normalisation.
        """
        return self.in_slots(self.backbone.encode_frames(pixels_VFCSS[mask_VF]).float(), mask_VF)

    def encode_frames(self, frames_NSSC: Tensor) -> Tensor:
        """Frames of the tower's size, (N, S, S, 3) uint8 on any device, FRAMES_PER_BATCH at once -> (N, D) float32."""
        device, normalise = self.backbone.logit_scale.device, self.backbone.preprocess.normalise
        batches = torch.split(frames_NSSC, FRAMES_PER_BATCH)
        return torch.cat([self.backbone.encode_frames(normalise(batch.to(device))).float() for batch in batches])

    def in_slots(self, raw_ND: Tensor, mask_VF: Tensor) -> Tensor:
        """Encoded real frames in the order of the mask's True entries -> (V, F, D), padded slots as `padded_frame`."""
        padded_VFD = self.padded_frame().expand(*mask_VF.shape, -1)
        return padded_VFD.masked_scatter(mask_VF[..., None], raw_ND)

    def padded_frame(self) -> Tensor:
        """(D,) float32: the raw embedding of a padded slot: zeros, or with official masks that of grey pixels."""
        device = self.backbone.logit_scale.device
        if self.masks == "served":
            return torch.zeros(self.backbone.embed_dim, device=device)
        size = self.backbone.image_size
        return self.backbone.encode_frames(torch.zeros(1, 3, size, size, device=device)).float()[0]

    def raw_text(self, ids_TW: Tensor) -> tuple[Tensor, Tensor]:
        """Token ids (T, W) -> sentence (T, D) and words (T, W, D), float32, not normalised."""
        sentence, words = self.backbone.encode_words(ids_TW)
        return sentence.float(), words.float()

    def word_mask(self, ids_TW: Tensor, mask_TW: Tensor) -> Tensor:
        """A tokenizer's mask (True on start..end) as this network reads it: served without the start token."""
        if self.masks == "official":
            return mask_TW
        return served_word_mask(ids_TW, mask_TW, self.backbone.tokenizer.start_id)

    def video(self, pixels_VFCSS: Tensor, mask_VF: Tensor) -> VideoFeatures:
        """(V, F, 3, S, S) normalised pixels, mask (V, F) bool -> features."""
        return self.video_from_frames(self.raw_frames(pixels_VFCSS, mask_VF), mask_VF)

    def text(self, ids_TW: Tensor, mask_TW: Tensor) -> TextFeatures:
        """Token ids and the tokenizer's mask (T, W) -> features."""
        return self.text_from_words(*self.raw_text(ids_TW), self.word_mask(ids_TW, mask_TW))

    def text_from_words(self, sentence_TD: Tensor, words_TWD: Tensor, mask_TW: Tensor) -> TextFeatures:
        """Raw sentence and words -> what is compared: here both normalised."""
        return TextFeatures(normalize(sentence_TD, dim=-1), normalize(words_TWD, dim=-1), mask_TW)

    @abstractmethod
    def video_from_frames(self, raw_VFD: Tensor, mask_VF: Tensor) -> VideoFeatures:
        """Raw frames (V, F, D), mask (V, F) bool -> what is stored and compared."""

    @abstractmethod
    def similarity(self, texts: TextFeatures, videos: VideoFeatures) -> Tensor:
        """(T, V) float32: what ranks in the paper's evaluation and in its loss, no logit scale; reads `masks`."""

    def loss(self, texts: TextFeatures, videos: VideoFeatures) -> Tensor:
        """The paper's loss of a batch in which text b belongs to segment b, logit scale inside -> scalar."""
        return symmetric_cross_entropy(self.scale * self.similarity(texts, videos))

    def start_from_clip(self) -> None:
        """Start what the official code starts from CLIP's own weights; random weights stay where it starts nothing."""

    def mixing(self) -> Mixing:
        """The learnt matrices of the shared scorers; the identity but for X-CLIP."""
        return Mixing()

    def recall_vectors(self, query: Query) -> Tensor:
        """(Q, P) float32: see VideoTextModel.recall_vectors."""
        return query.pooled.float() if isinstance(query, VideoFeatures) else self._sentence_vectors(query)

    def _sentence_vectors(self, query: TextFeatures) -> Tensor:
        return normalize(query.sentence.float(), dim=-1)

    def score(self, query: Query, videos: VideoFeatures, scorer: ScorerName | None = None) -> Scores:
        """Served scores by one of `scorers`, masked; of a video query its frames stand for the words, unmixed.

        Raises: UnknownScorer.
        """
        name = scorer or self.scorers[0]
        if name not in self.scorers:
            raise UnknownScorer(
                f"the scorer {name!r} doesn't work on features of {self.kind}.", f"Use {', '.join(self.scorers)}."
            )
        if name in SHARED_SCORERS:
            mixing = Mixing() if isinstance(query, VideoFeatures) else self.mixing()
            return shared_score(name, _parts(query, videos), mixing, self.temperature)
        return self._own_score(query, videos)

    @property
    def temperature(self) -> float | Tensor:
        """AOSM's, dimensionless."""
        return GrainOptions().temperature

    def _own_score(self, query: Query, videos: VideoFeatures) -> Scores:
        raise NotImplementedError(f"{self.kind} has no scorer of its own")


class XClipNetwork(Network):
    """X-CLIP: temporal encoder, pooled vector, four grains by AOSM. The fine grains read the raw frames, normalised."""

    kind = "xclip"
    scorers = SHARED_SCORERS

    def __init__(
        self,
        backbone: Backbone,
        temporal: nn.Module,
        num_words: int,
        num_frames: int,
        *,
        options: GrainOptions | None = None,
        masks: MaskReading = "served",
    ) -> None:
        super().__init__(backbone, num_words, num_frames, masks)
        self.temporal = temporal
        self.head = MultiGrainedHead(backbone.embed_dim, num_words, num_frames, options)

    def video_from_frames(self, raw_VFD: Tensor, mask_VF: Tensor) -> VideoFeatures:
        """Pooled by the temporal encoder; frames are the raw ones, or the encoded ones if the options say so."""
        moved_VFD = self.temporal(raw_VFD, mask_VF)
        fine_VFD = moved_VFD if self.head.options.is_fine_temporal else raw_VFD
        return VideoFeatures(pool(moved_VFD, mask_VF), normalize(fine_VFD, dim=-1), mask_VF)

    def similarity(self, texts: TextFeatures, videos: VideoFeatures) -> Tensor:
        """The mean of the grains; official masks are none at all."""
        masks = (None, None) if self.masks == "official" else (texts.mask, videos.mask)
        found = self.head(texts.sentence, texts.words, videos.pooled, videos.frames, *masks)
        return self.head.total(found.grains_TV4)

    def start_from_clip(self) -> None:
        """The temporal transformer from the text tower; mixing is the identity from the start."""
        if isinstance(self.temporal, DifferenceTemporal):
            self.temporal.start_from_clip(*self.backbone.text_blocks())
        else:
            initialise_from_text_tower(self.temporal, *self.backbone.text_blocks())

    def mixing(self) -> Mixing:
        """The eight matrices."""
        return self.head.mixing()

    @property
    def temperature(self) -> float | Tensor:
        """The head's own, learnt or not."""
        return self.head.temperature()

    def score(self, query: Query, videos: VideoFeatures, scorer: ScorerName | None = None) -> Scores:
        """As Network.score; a head of other options than the paper's scores sentences as it was trained."""
        found = super().score(query, videos, scorer)
        if scorer not in (None, "aosm") or isinstance(query, VideoFeatures) or self.head.is_the_papers:
            return found
        given = _parts(query, videos)
        grains_TV4 = self.head(
            given.whole, given.parts, given.pooled, given.frames, given.parts_mask, given.frames_mask
        ).grains_TV4
        return Scores(self.head.total(grains_TV4), grains_TV4, found.frame_relevance)

    def _sentence_vectors(self, query: TextFeatures) -> Tensor:
        return query.sentence.float() @ self.head.global_mat_weight


class PooledNetwork(Network):
    """CLIP4Clip with independent towers: meanP, seqLSTM or seqTransf, then a cosine."""

    kind = "clip4clip"
    scorers = ("mean", "max_frame", "maxsim", "multi_grained", "aosm")

    def __init__(
        self,
        backbone: Backbone,
        temporal: nn.Module,
        num_words: int,
        num_frames: int,
        *,
        masks: MaskReading = "served",
    ) -> None:
        super().__init__(backbone, num_words, num_frames, masks)
        self.head = PooledHead(temporal)

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
        initialise_from_text_tower(self.head.temporal, *self.backbone.text_blocks())


class TightNetwork(Network):
    """CLIP4Clip tightTransf: a transformer over sentence and frames. Recall is by the pooled cosine; it reranks.

    Its sentences and frames stay raw: the transformer reads their lengths too.
    """

    kind = "tight"
    scorers = ("tight", "mean", "max_frame", "maxsim", "multi_grained", "aosm")

    def __init__(
        self,
        backbone: Backbone,
        head: TightHead,
        num_words: int,
        num_frames: int,
        *,
        masks: MaskReading = "served",
    ) -> None:
        super().__init__(backbone, num_words, num_frames, masks)
        self.head = head

    def video_from_frames(self, raw_VFD: Tensor, mask_VF: Tensor) -> VideoFeatures:
        """Pooled is the mean of the frames (meanP), normalised; frames are raw, padded slots zero."""
        return VideoFeatures(pool(raw_VFD, mask_VF), raw_VFD * mask_VF[..., None], mask_VF)

    def text_from_words(self, sentence_TD: Tensor, words_TWD: Tensor, mask_TW: Tensor) -> TextFeatures:
        """The sentence stays raw."""
        return TextFeatures(sentence_TD, normalize(words_TWD, dim=-1), mask_TW)

    def similarity(self, texts: TextFeatures, videos: VideoFeatures) -> Tensor:
        """The joint scores, of no fixed scale."""
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
        if isinstance(query, VideoFeatures):
            return shared_score("mean", _parts(query, videos), Mixing())
        joint_TV = self.head(query.sentence.float(), videos.frames.float(), videos.mask)
        relevance_TVF = shared_score("max_frame", _parts(query, videos), Mixing()).frame_relevance
        return Scores(joint_TV, joint_TV[..., None], relevance_TVF, SCORERS["tight"].parts)


class Clip2VideoNetwork(Network):
    """CLIP2Video. Both branches give a vector per segment and per text; they stand side by side, P = 2 D.

    So r . pooled is the mixed score itself, and recall needs no second search.
    """

    kind = "clip2video"
    scorers = ("clip2video",)

    def __init__(
        self,
        backbone: Backbone,
        config: Clip2VideoConfig,
        num_words: int,
        num_frames: int,
        *,
        masks: MaskReading = "served",
    ) -> None:
        super().__init__(backbone, num_words, num_frames, masks)
        self.head = Clip2VideoHead(replace(config, masks=OFFICIAL) if masks == "official" else config)

    @property
    def pooled_dim(self) -> int:
        """2 D, or D of a head without an alignment branch."""
        return self.backbone.embed_dim * (1 if self.head.config.alignment == "none" else 2)

    def video_from_frames(self, raw_VFD: Tensor, mask_VF: Tensor) -> VideoFeatures:
        """Global and aligned vectors side by side; the frames, normalised, tell which moment is meant."""
        return VideoFeatures(_joined(self.head.video(raw_VFD, mask_VF)), normalize(raw_VFD, dim=-1), mask_VF)

    def text_from_words(self, sentence_TD: Tensor, words_TWD: Tensor, mask_TW: Tensor) -> TextFeatures:
        """As the video's: global and aligned side by side."""
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
        sim_TVF = torch.einsum("td,vfd->tvf", mine.whole_ND, videos.frames.float())
        relevance_TVF = sim_TVF.masked_fill(~videos.mask[None], float("-inf"))
        names = SCORERS["clip2video"].parts[: len(branches)]
        return Scores(found.mixed_TV, torch.stack(branches, dim=-1), relevance_TVF, names)

    def _split(self, joined_NP: Tensor) -> BranchVectors:
        width = self.backbone.embed_dim
        aligned = joined_NP[:, width:] if joined_NP.shape[-1] > width else None
        return BranchVectors(joined_NP[:, :width], aligned)


def served_word_mask(ids_TW: Tensor, mask_TW: Tensor, start_id: int | None) -> Tensor:
    """A tokenizer's mask (True on start..end) without the start token, which says nothing of its sentence.

    Tokenizers without one keep their first word. Shapes: ids and mask (T, W) -> (T, W) bool.
    """
    return mask_TW if start_id is None else mask_TW & (ids_TW != start_id)


def _parts(query: Query, videos: VideoFeatures) -> Parts:
    """What the shared scorers take: normalised, so that raw features of a joint transformer fit too."""
    if isinstance(query, VideoFeatures):
        whole, parts = query.pooled, query.frames
    else:
        whole, parts = query.sentence, query.words
    unit = [normalize(x.float(), dim=-1) for x in (whole, parts, videos.pooled, videos.frames)]
    is_clip = isinstance(query, VideoFeatures)
    return Parts(unit[0], unit[1], query.mask, unit[2], unit[3], videos.mask, is_clip)


def _joined(vectors: BranchVectors) -> Tensor:
    if vectors.aligned_ND is None:
        return vectors.whole_ND
    return torch.cat([vectors.whole_ND, vectors.aligned_ND], dim=-1)
