"""How well a network retrieves on held-out clips, between two steps of its training.

It is what `vidgrain evaluate` does, by the network's own similarity and under the reading of masks it trains with: what
the papers choose their epoch by. It knows no optimiser and no file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from model.evaluation.run import EvaluationOptions, evaluate
from model.evaluation.sets import EvaluationSet
from model.network import Network
from model.served_model import ServedModel
from model.spec import build_spec

Validation = Callable[[Network, torch.device], dict[str, Any]]
"""Figures of a network: {"num_texts", "num_videos", "unreadable", "text_to_video": {"r1", ...}, "video_to_text"}."""

_KEPT = ("num_texts", "num_videos", "unreadable", "text_to_video", "video_to_text")


def validation_over(chosen: EvaluationSet, num_readers: int) -> Validation:
    """A validation over a set. Clips that can't be read are left out and named rather than ending a long training."""

    def validate(network: Network, device: torch.device) -> dict[str, Any]:
        was_training = network.training
        try:
            model = ServedModel(network, build_spec("training", network), device)
            found = evaluate(model, chosen, EvaluationOptions(num_readers=num_readers, allow_missing=True))
        finally:
            network.train(was_training)
        return {name: found[name] for name in _KEPT}

    return validate
