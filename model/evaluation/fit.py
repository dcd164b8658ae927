"""W and F of an evaluation: the protocol's where a model's weights allow it, else the model's own, with a warning.

Letters: W words, F frame slots. X-CLIP's matrices over words and frames fix both, unless they are the identity, as
before any training. The other heads read any number of frames up to their learnt positions.
"""

from __future__ import annotations

from model.evaluation.sets import EvaluationSet
from model.network import Network


def fit_to_protocol(network: Network, chosen: EvaluationSet, *, num_frames: int | None = None) -> list[str]:
    """Set the network's W and F for a set, in place -> warnings about what stays different from the protocol.

    num_frames: F that the user asked for, which then stands instead of the protocol's.
    """
    warnings = []
    words = chosen.num_words
    if words is not None and words != network.num_words:
        size = min(words, network.backbone.context_length)
        if network.can_have(num_words=size):
            network.reconfigure(num_words=size)
        if network.num_words != words:
            why = "its text tower takes no more" if network.num_words == size else "its matrices fix it"
            warnings.append(
                f"The model reads W={network.num_words} words, {why}; the protocol of {chosen.dataset} has W={words}. "
                "What doesn't fit is cut."
            )
    frames = num_frames or chosen.num_frames
    if frames is not None and frames != network.num_frames:
        size = min(frames, network.most_frames or frames)
        if network.can_have(num_frames=size):
            network.reconfigure(num_frames=size)
    if chosen.num_frames is not None and chosen.num_frames != network.num_frames:
        why = "as was asked for" if network.num_frames == num_frames else "its weights allow no other"
        warnings.append(
            f"The model sees F={network.num_frames} frames, {why}; the protocol of {chosen.dataset} has "
            f"F={chosen.num_frames}."
        )
    return warnings
