"""The face that the rest of Vidgrain uses: a network, ready to encode pictures and sentences and to score.

Letters: T texts, V segments, Q queries, W words, F frame slots, D embedding width, P width of what is recalled.
It knows tensors and devices; it knows no file and no index. Built by registry.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from model.errors import ShapeError
from model.kernels.panel import Panel
from model.network import Network
from model.picture_tower import PictureTower
from model.query_text import QueryPrecision, QueryText
from model.resize import FrameResize
from model.types import ModelSpec, Pixels, Precision, Query, ScorerName, Scores, TextFeatures, VideoFeatures


class ServedModel:
    """VideoTextModel over a network: uint8 frames and sentences in, features and scores out.

    Served scores are masked: padding, and the start token, take no part (docs/decisions). `similarity` is what the
    papers' evaluation ranks by, under the network's own reading of masks.
    """

    def __init__(
        self,
        network: Network,
        spec: ModelSpec,
        device: torch.device,
        query_precision: QueryPrecision = "fp32",
        pictures: PictureTower | None = None,
    ) -> None:
        """pictures: what encodes frames, as `spec` says; None for the network itself, in float32."""
        self.network = network.to(device).eval()
        self.device = device
        self._spec = spec
        self._pictures = pictures or PictureTower(self.network, device)
        self._queries = QueryText(self.network, device, query_precision)

    @property
    def spec(self) -> ModelSpec:
        """What the numbers mean, with the fingerprint of weights and configuration."""
        return self._spec

    @property
    def query_precision(self) -> Precision:
        """What sentences are encoded in; settled when it is first asked for, or by the first sentence."""
        return self._queries.precision

    @property
    def resize(self) -> FrameResize:
        """How frames of any size become those that the image tower takes."""
        return self.network.backbone.preprocess.resize

    @torch.inference_mode()
    def encode_video(self, segments: Sequence[Pixels]) -> VideoFeatures:
        """V segments of (n, height, width, 3) uint8 frames, 1 <= n <= F -> features on the model's device.

        Frames that went through `resize` before give the same features, bit for bit.
        Raises: ShapeError for no segment, or a segment of no or too many frames.
        """
        if not segments:
            raise ShapeError("there is no segment to encode")
        slots = self.spec.num_frames
        counts = [len(pixels) for pixels in segments]
        for count, pixels in zip(counts, segments, strict=True):
            if not 1 <= count <= slots or pixels.ndim != 4 or pixels.shape[-1] != 3:
                raise ShapeError(f"a segment has shape {pixels.shape}; (1..{slots}, height, width, 3) is needed")
        resized = torch.from_numpy(np.concatenate([self.resize(pixels) for pixels in segments]))
        mask_VF = (torch.arange(slots)[None, :] < torch.tensor(counts)[:, None]).to(self.device)
        raw_VFD = self.network.in_slots(self._pictures(resized), mask_VF)
        return self.network.video_from_frames(raw_VFD, mask_VF)

    def encode_text(self, texts: Sequence[str]) -> TextFeatures:
        """T sentences -> features; what does not fit in W tokens is cut. Slots without a word hold zeros.

        Raises: ShapeError for an empty list.
        """
        if not texts:
            raise ShapeError("there is no text to encode")
        return self._queries.encode(texts)

    @torch.inference_mode()
    def recall_vectors(self, query: Query) -> Tensor:
        """(Q, P): what recall looks for, see VideoTextModel."""
        return self.network.recall_vectors(query)

    @torch.inference_mode()
    def score(self, query: Query, videos: VideoFeatures, scorer: ScorerName | None = None) -> Scores:
        """Each query against each segment by one of `spec.scorers`, None for the first.

        Shapes:  query of Q rows, videos of V segments -> Scores (Q, V), (Q, V, G).
        Raises:  ShapeError if embedding widths differ, UnknownScorer.
        """
        if videos.pooled.shape[-1] != self.spec.pooled_width or videos.frames.shape[-1] != self.spec.embed_dim:
            raise ShapeError(
                f"stored embeddings are {videos.pooled.shape[-1]} and {videos.frames.shape[-1]} wide, "
                f"the model's {self.spec.pooled_width} and {self.spec.embed_dim}"
            )
        return self.network.score(query, self._here(videos), scorer)

    def panel(self, query: Query, scorer: ScorerName | None = None) -> Panel | None:
        """What a kernel scores a query by, see VideoTextModel. Raises: UnknownScorer."""
        return self.network.panel(query, scorer)

    @torch.inference_mode()
    def frame_relevance(self, query: Query, videos: VideoFeatures) -> Tensor:
        """(Q, V, F): how much each frame supports the query, -inf in padding."""
        return self.network.frame_relevance(query, self._here(videos))

    def _here(self, videos: VideoFeatures) -> VideoFeatures:
        return VideoFeatures(*(x.to(self.device) for x in (videos.pooled, videos.frames, videos.mask)))

    @torch.inference_mode()
    def similarity(self, texts: TextFeatures, videos: VideoFeatures) -> Tensor:
        """(T, V) float32, no logit scale: by the head it was trained with. Memory: see the head; callers cut blocks."""
        return self.network.similarity(texts, videos)
