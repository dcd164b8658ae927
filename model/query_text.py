"""How sentences that people search with are encoded: no padding is computed, and bfloat16 is used where it is as good.

A causal tower's tokens see only those before them, so what stands after the end token changes nothing and is left out;
the features still have W word slots, zeros where there is no word. Training and evaluation go through the network
itself: here nothing is held to the papers' arithmetic on padding.

Letters: T texts, N tokens of the longest, W word slots, D embedding width. It knows a network; it knows no video.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, pad

from model.network import Network
from model.packed_blocks import UnknownParts, is_native
from model.packed_text import MIN_WEIGHTS, PackedText
from model.tokenizer import Tokens
from model.types import Precision, TextFeatures

log = logging.getLogger(__name__)

QueryPrecision = Literal["auto", "fp32", "bf16"]
"""What may be asked for; auto is bf16 where the processor has it and the model's embeddings keep their direction."""

LEAST_COSINE = 0.999
"""Between an embedding in bfloat16 and in float32, for auto to take bfloat16."""

TRIED_ON = (
    "a dog",
    "a red circle moves to the left",
    "two people are talking in a kitchen while a pan is on the stove",
    "someone scores a goal and the crowd goes wild",
    "how to tie a bowline knot, seen from above, step by step and slowly",
    "sunset over the sea",
    "the lecturer writes an equation on the blackboard",
    "a white car drives through heavy rain at night",
)
"""Sentences by which auto decides; short and long ones."""


class QueryText:
    """Encodes sentences. Thread-safe. The first call settles the precision, for the life of the process."""

    def __init__(self, network: Network, device: torch.device, asked: QueryPrecision) -> None:
        self._network = network
        self._device = device
        self._asked = asked
        self._lock = threading.Lock()
        self._is_settled = asked == "fp32"
        self._packed: PackedText | None = None

    @property
    def precision(self) -> Precision:
        """What the numbers are computed in; settled by the first sentence."""
        return "fp32" if self._settled() is None else "bf16"

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> TextFeatures:
        """T sentences -> features on the device; what does not fit in W tokens is cut."""
        packed = self._settled()
        tokens = self._network.backbone.tokenize(texts, self._network.num_words)
        features = self._in_fp32(tokens) if packed is None else self._in_bf16(tokens, packed)
        precision: Precision = "fp32" if packed is None else "bf16"
        return replace(features, pieces=tokens.pieces, is_cut=tokens.is_cut, precision=precision)

    def _in_fp32(self, tokens: Tokens) -> TextFeatures:
        ids, mask = tokens.ids.to(self._device), tokens.mask.to(self._device)
        if not self._may_trim:
            return self._network.text(ids, mask)
        longest = max(_lengths(tokens))
        return self._in_slots(self._network.text(ids[:, :longest], mask[:, :longest]), mask)

    def _in_bf16(self, tokens: Tokens, packed: PackedText) -> TextFeatures:
        lengths = _lengths(tokens)
        words_TND = packed(tokens.ids, lengths)
        ids, mask = (x[:, : max(lengths)] for x in (tokens.ids, tokens.mask))
        sentence_TD = self._network.backbone.sentence_of(words_TND, ids)
        features = self._network.text_from_words(sentence_TD, words_TND, self._network.word_mask(ids, mask))
        return self._in_slots(features, tokens.mask)

    def _in_slots(self, features: TextFeatures, real_TW: Tensor) -> TextFeatures:
        """With W word slots, those that hold no token zero: a sentence's features are the same in any batch."""
        missing = self._network.num_words - features.mask.shape[1]
        words_TWD = pad(features.words, (0, 0, 0, missing)) * real_TW[..., None]
        return replace(features, words=words_TWD, mask=pad(features.mask, (0, missing), value=False))

    @property
    def _may_trim(self) -> bool:
        """Only where padded words take no part: the reference reading of masks lets them into its sums."""
        return self._network.masks == "masked" and self._network.backbone.ends_text_at_its_last_token

    def _settled(self) -> PackedText | None:
        if not self._is_settled:
            with self._lock:
                if not self._is_settled:
                    self._packed = self._chosen()
                    self._is_settled = True
        return self._packed

    @torch.inference_mode()
    def _chosen(self) -> PackedText | None:
        """The packed tower if it is to be used."""
        reason = self._against_packing()
        if not reason:
            try:
                packed = PackedText(self._network.backbone.text_tower)
            except UnknownParts as error:
                reason = str(error)
        if not reason and self._asked == "auto" and packed.num_weights < MIN_WEIGHTS:
            reason = "the text tower is small"
        if not reason:
            cosine = self._least_cosine(packed)
            if self._asked == "bf16" or cosine >= LEAST_COSINE:
                log.info("queries_in_bf16", extra={"least_cosine": round(cosine, 6)})
                return packed
            reason = f"a cosine with float32 is {cosine:.5f}, below {LEAST_COSINE}"
        level = logging.WARNING if self._asked == "bf16" else logging.DEBUG
        log.log(level, "queries_in_fp32", extra={"reason": reason})
        return None

    def _against_packing(self) -> str:
        if self._device.type != "cpu":
            return "the model isn't on a CPU"
        if self._asked == "auto" and not is_native():
            return "the processor has no bfloat16"
        return "" if self._may_trim else "the text tower reads its padding"

    def _least_cosine(self, packed: PackedText) -> float:
        """The least cosine between the two precisions: of a sentence, or of a word that counts."""
        tokens = self._network.backbone.tokenize(TRIED_ON, self._network.num_words)
        ours, theirs = self._in_bf16(tokens, packed), self._in_fp32(tokens)
        found: Tensor = torch.cat(
            [
                cosine_similarity(ours.sentence, theirs.sentence, dim=-1),
                cosine_similarity(ours.words[ours.mask], theirs.words[theirs.mask], dim=-1),
            ]
        )
        return float(found.min())


def _lengths(tokens: Tokens) -> list[int]:
    """Each sentence's number of tokens, start and end included."""
    lengths: list[int] = tokens.mask.sum(1).tolist()
    return lengths
