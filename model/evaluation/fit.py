"""W and F of an evaluation: the protocol's where a model's weights leave them open, else the model's own, and said so.

Letters: W words, F frame slots. X-CLIP's matrices over words and frames fix both, unless they are the identity, as
before any training. The other heads read any number of frames up to their learnt positions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.evaluation.sets import EvaluationSet
from model.heads.clip2video import Clip2VideoHead
from model.heads.tight import TightHead
from model.networks import MaskReading, Network, XClipNetwork
from model.temporal import TransformerTemporal

OVER_WORDS = ("word_logit_weight", "word_mat_weight", "word_mat_weight2")
OVER_FRAMES = ("frame_logit_weight", "frame_mat_weight", "frame_mat_weight2")


def fit_to_protocol(network: Network, chosen: EvaluationSet, *, num_frames: int | None = None) -> list[str]:
    """Set the network's W and F for a set, in place; what stays different from the protocol, in sentences.

    num_frames: F that the user asked for, which then stands instead of the protocol's.
    """
    warnings = []
    words = chosen.num_words
    if words is not None and words != network.num_words:
        size = min(words, network.backbone.context_length)
        if _resize(network, OVER_WORDS, size):
            network.num_words = size
        if network.num_words != words:
            why = "its text tower takes no more" if network.num_words == size else "its matrices fix it"
            warnings.append(
                f"The model reads W={network.num_words} words, {why}; the protocol of {chosen.dataset} has W={words}. "
                "What doesn't fit is cut."
            )
    frames = num_frames or chosen.num_frames
    if frames is not None and frames != network.num_frames:
        size = min(frames, most_frames(network) or frames)
        if _resize(network, OVER_FRAMES, size):
            network.num_frames = size
    if chosen.num_frames is not None and chosen.num_frames != network.num_frames:
        why = "as was asked for" if network.num_frames == num_frames else "its weights allow no other"
        warnings.append(
            f"The model sees F={network.num_frames} frames, {why}; the protocol of {chosen.dataset} has "
            f"F={chosen.num_frames}."
        )
    return warnings


def read_masks(network: Network, masks: MaskReading | None) -> None:
    """Of towers alone, which no training has settled: read masks as asked. Others are loaded with their reading."""
    if masks is not None and isinstance(network, XClipNetwork):
        network.masks = masks


def most_frames(network: Network) -> int | None:
    """The largest F that the learnt positions allow; None without any."""
    for part in network.modules():
        if isinstance(part, TransformerTemporal):
            return part.frame_position_embeddings.num_embeddings
        if isinstance(part, TightHead):
            return part.cross.embeddings.position_embeddings.num_embeddings - 1
        if isinstance(part, Clip2VideoHead) and part.config.has_positions:
            return part.frame_position_embeddings.num_embeddings
    return None


def _resize(network: Network, names: tuple[str, ...], size: int) -> bool:
    """Whether the matrices allow that size: a head without them allows any; identities are made anew."""
    if not isinstance(network, XClipNetwork):
        return True
    matrices: list[Tensor] = [getattr(network.head, name) for name in names]
    if not all(torch.equal(matrix, torch.eye(len(matrix), device=matrix.device)) for matrix in matrices):
        return False
    for name, matrix in zip(names, matrices, strict=True):
        setattr(network.head, name, nn.Parameter(torch.eye(size, device=matrix.device)))
    return True
