"""X-CLIP: the network (backbone, temporal encoder, head) and the face that the rest of Vidgrain uses.

Letters: T texts, V segments, Q queries, W words, F frame slots, D embedding width, S image side.
It knows tensors and devices; it knows no file and no index. Built by registry.py.
Source: X-CLIP, Ma et al., ACM MM 2022, arXiv:2207.07285.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from model.backbone import Backbone
from model.errors import ShapeError
from model.heads.multi_grained import MultiGrainedHead
from model.kernels.aosm_reference import GrainScores, Mixing, four_grains
from model.temporal import pool
from model.types import ModelSpec, Pixels, Query, Scores, TextFeatures, VideoFeatures

ENCODE_FRAMES_PER_BATCH = 256
"""Frames through the image tower at once; bounds memory, not results."""


class XClipNetwork(nn.Module):
    """Backbone -> temporal encoder -> multi-grained head. Raw tensors in and out; used by training and by parity."""

    def __init__(self, backbone: Backbone, temporal: nn.Module, num_words: int, num_frames: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.temporal = temporal
        self.head = MultiGrainedHead(backbone.embed_dim, num_words, num_frames)
        self.num_words = num_words
        self.num_frames = num_frames

    def video(self, pixels_VFCSS: Tensor, mask_VF: Tensor) -> VideoFeatures:
        """Every slot through the image tower, padding included, as the official code does.

        Shapes:  pixels (V, F, 3, S, S) normalised float, mask (V, F) bool -> pooled (V, D), frames (V, F, D)
        """
        raw = self.backbone.encode_frames(pixels_VFCSS.flatten(0, 1)).float()
        return self.video_from_frames(raw.reshape(*mask_VF.shape, -1), mask_VF)

    def video_from_frames(self, raw_VFD: Tensor, mask_VF: Tensor) -> VideoFeatures:
        """Temporal encoding and pooling of raw frame embeddings; the fine grains keep the raw frames, normalised."""
        pooled = pool(self.temporal(raw_VFD, mask_VF), mask_VF)
        return VideoFeatures(pooled, normalize(raw_VFD, dim=-1), mask_VF)

    def text(self, ids_TW: Tensor) -> tuple[Tensor, Tensor]:
        """Token ids (T, W) -> sentence (T, D) and words (T, W, D), normalised."""
        sentence, words = self.backbone.encode_words(ids_TW)
        return normalize(sentence.float(), dim=-1), normalize(words.float(), dim=-1)


class XClip:
    """VideoTextModel over an XClipNetwork: uint8 frames and sentences in, features and scores out.

    Served scores are masked: padding, and the start token, take no part (docs/decisions).
    """

    def __init__(self, network: XClipNetwork, spec: ModelSpec, device: torch.device) -> None:
        self.network = network.to(device).eval()
        self.device = device
        self._spec = spec

    @property
    def spec(self) -> ModelSpec:
        """What the numbers mean, with the fingerprint of weights and configuration."""
        return self._spec

    @torch.inference_mode()
    def encode_video(self, segments: Sequence[Pixels]) -> VideoFeatures:
        """V segments of (n, height, width, 3) uint8 frames, 1 <= n <= F -> features on the model's device.

        Raises: ShapeError for no segment, or a segment of no or too many frames.
        """
        if not segments:
            raise ShapeError("there is no segment to encode")
        slots = self.spec.num_frames
        counts = [len(pixels) for pixels in segments]
        for count, pixels in zip(counts, segments, strict=True):
            if not 1 <= count <= slots or pixels.ndim != 4 or pixels.shape[-1] != 3:
                raise ShapeError(f"a segment has shape {pixels.shape}; (1..{slots}, height, width, 3) is needed")
        prepared = torch.cat([self.network.backbone.preprocess(pixels) for pixels in segments])
        batches = torch.split(prepared, ENCODE_FRAMES_PER_BATCH)
        raw = torch.cat([self.network.backbone.encode_frames(batch.to(self.device)).float() for batch in batches])
        mask_VF = torch.arange(slots)[None, :] < torch.tensor(counts)[:, None]
        mask_VF = mask_VF.to(self.device)
        raw_VFD = raw.new_zeros(len(segments), slots, raw.shape[-1])
        raw_VFD[mask_VF] = raw
        return self.network.video_from_frames(raw_VFD, mask_VF)

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str]) -> TextFeatures:
        """T sentences -> features; what does not fit in W tokens is cut. Raises: ShapeError for an empty list."""
        if not texts:
            raise ShapeError("there is no text to encode")
        ids_TW, mask_TW, pieces = self.network.backbone.tokenize(texts, self.spec.num_words)
        mask_TW = served_word_mask(ids_TW, mask_TW, self.network.backbone.tokenizer.start_id)
        sentence, words = self.network.text(ids_TW.to(self.device))
        return TextFeatures(sentence, words, mask_TW.to(self.device), pieces)

    @torch.inference_mode()
    def recall_vectors(self, query: Query) -> Tensor:
        """(Q, D): the sentence through its mixing matrix, or the pooled embedding of a video query."""
        if isinstance(query, VideoFeatures):
            return query.pooled.float()
        return query.sentence.float() @ self.network.head.global_mat_weight

    @torch.inference_mode()
    def score(self, query: Query, videos: VideoFeatures) -> Scores:
        """Four grains of each query against each segment. Of a video query its frames stand for the words, unmixed.

        Shapes:  query of Q rows, videos of V segments -> Scores (Q, V), (Q, V, 4), (Q, V, F).
        Raises:  ShapeError if embedding widths differ.
        """
        if videos.pooled.shape[-1] != self.spec.embed_dim:
            raise ShapeError(f"stored embeddings are {videos.pooled.shape[-1]} wide, the model's {self.spec.embed_dim}")
        pooled, frames, mask = (x.to(self.device) for x in (videos.pooled, videos.frames, videos.mask))
        if isinstance(query, VideoFeatures):
            whole, parts, mixing = query.pooled, query.frames, Mixing()
        else:
            whole, parts, mixing = query.sentence, query.words, self.network.head.mixing()
        found: GrainScores = four_grains(
            whole.float(), parts.float(), pooled.float(), frames.float(), mixing, query.mask, mask
        )
        relevance = found.relevance_TVF.masked_fill(~mask[None], float("-inf"))
        return Scores(found.grains_TV4.mean(-1), found.grains_TV4, relevance)


def served_word_mask(ids_TW: Tensor, mask_TW: Tensor, start_id: int | None) -> Tensor:
    """A tokenizer's mask (True on start..end) without the start token, which says nothing of its sentence.

    Tokenizers without one keep their first word. Shapes: ids and mask (T, W) -> (T, W) bool.
    """
    return mask_TW if start_id is None else mask_TW & (ids_TW != start_id)
