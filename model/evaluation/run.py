"""Run a model over a set of clips and report how well it retrieves, both ways and by slices; one answer for all sets.

It takes a built model and a set whose clips can be read; it loads none, looks for no file and prints nothing.
Memory is bounded: see encode.py and blocks.py.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from model.datasets.shapes import Item
from model.errors import DatasetError, ModelError
from model.evaluation.blocks import score_texts
from model.evaluation.cache import FeatureCache
from model.evaluation.encode import EncodedClips, Progress, encode_clips, video_features
from model.evaluation.metrics import RetrievalRanks, Ties, recall_figures
from model.evaluation.published import published_rows
from model.evaluation.sets import EvaluationSet, set_of_shapes
from model.served_model import ServedModel
from model.types import ScorerName

NAMES_SHOWN = 100
"""Missing and unreadable clips named in the answer; the count covers all of them."""

WAYS = ("text_to_video", "video_to_text")


@dataclass(frozen=True, slots=True)
class EvaluationOptions:
    """How a set is measured.

    scorer: None for the one the model was trained for. cache: None to keep nothing. num_readers: clips that are read at
    the same time. allow_missing: clips that can't be read are left out and named, instead of ending the run.
    missing: ids of clips that were left out of the set because they have no file. warnings: go into the answer.
    """

    scorer: ScorerName | None = None
    cache: FeatureCache | None = None
    num_readers: int = 2
    allow_missing: bool = False
    missing: Sequence[str] = ()
    warnings: Sequence[str] = field(default=())


def evaluate(
    model: ServedModel,
    chosen: EvaluationSet,
    options: EvaluationOptions | None = None,
    on_progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure the model over the set; docs/evaluation.md explains every field of the answer, a plain JSON object.

    Equal scores count as the papers count them where masks are official and the set is a dataset of theirs; else
    against the model. The queries of a slice are ranked among all clips, not among those of the slice.
    Raises: DatasetError if clips can't be read, which names them; UnknownScorer; ModelError if a score is NaN.
    """
    options = options or EvaluationOptions()
    report = on_progress or (lambda what, done, total: None)
    network = model.network
    ties: Ties = "official" if network.masks == "reference" and not chosen.slices else "against"
    began_s = time.monotonic()
    encoded = encode_clips(
        network, chosen, model.spec.fingerprint, options.cache, num_readers=options.num_readers, on_progress=report
    )
    _refuse_unreadable(encoded, options)
    videos = video_features(network, encoded)
    encoded_s = time.monotonic()
    measured = encoded.clips
    texts = measured.texts
    ranks = RetrievalRanks(
        len(measured.clips), measured.video_of_text if measured.is_multi_caption else None, ties=ties
    )
    report("scoring texts", 0, len(texts))
    for block_BV in score_texts(network, texts, videos, options.scorer):
        if np.isnan(block_BV).any():
            raise ModelError(
                f"The model {model.spec.name!r} gave scores that are not numbers.",
                "Its weights are damaged, or its training diverged.",
            )
        ranks.add(block_BV)
        report("scoring texts", ranks.num_texts_seen, len(texts))
    ended_s = time.monotonic()
    return {
        "model": model.spec.name,
        "fingerprint": model.spec.fingerprint,
        "kind": model.spec.kind,
        "dataset": chosen.dataset,
        "split": chosen.split,
        "protocol": {
            "num_words": network.num_words,
            "num_frames": network.num_frames,
            "is_paragraph": chosen.is_paragraph,
            "is_multi_caption": chosen.is_multi_caption,
            "frame_rule": asdict(chosen.frame_rule),
            "masks": network.masks,
            "scorer": options.scorer,
            "ties": ties,
        },
        "num_texts": len(texts),
        "num_videos": len(measured.clips),
        "missing": {"count": len(options.missing), "names": list(options.missing[:NAMES_SHOWN])},
        "unreadable": {
            "count": len(encoded.unreadable),
            "reasons": dict(list(encoded.unreadable.items())[:NAMES_SHOWN]),
        },
        **ranks.figures(),
        "slices": _slices(measured, ranks),
        "published": [row.as_dict() for row in published_rows(chosen.dataset, chosen.split)],
        "warnings": list(options.warnings),
        "cache": _cache_figures(options.cache),
        "timings_s": {
            "encode_videos": round(encoded_s - began_s, 3),
            "score": round(ended_s - encoded_s, 3),
            "total": round(ended_s - began_s, 3),
        },
    }


def evaluate_shapes(
    model: ServedModel, items: Sequence[Item] | None = None, on_progress: Progress | None = None
) -> dict[str, Any]:
    """`evaluate` over the held-out drawn shapes (all 1,000, or `items`)."""
    return evaluate(model, set_of_shapes(items), on_progress=on_progress)


def _refuse_unreadable(encoded: EncodedClips, options: EvaluationOptions) -> None:
    found = encoded.unreadable
    if found and (not options.allow_missing or not encoded.clips.clips):
        shown = "; ".join(list(found.values())[:5])
        raise DatasetError(
            f"{len(found)} of {len(found) + len(encoded.clips.clips)} clips can't be read: {shown}"
            + ("; ..." if len(found) > 5 else ""),
            "Mend them, or leave them out and have them named with --allow-missing.",
        )


def _slices(chosen: EvaluationSet, ranks: RetrievalRanks) -> dict[str, dict[str, Mapping[str, float]]]:
    """Figures of each slice that has members, both ways."""
    found: dict[str, dict[str, Mapping[str, float]]] = {}
    for name in chosen.slices:
        members_V = chosen.members(name)
        if members_V.any():
            found[name] = {
                WAYS[0]: recall_figures(ranks.text_to_video()[members_V[chosen.video_of_text]]),
                WAYS[1]: recall_figures(ranks.video_to_text()[members_V]),
            }
    return found


def _cache_figures(cache: FeatureCache | None) -> dict[str, Any]:
    if cache is None:
        return {"folder": None, "num_read": 0, "num_written": 0, "num_damaged": 0, "size_bytes": 0}
    return {
        "folder": str(cache.folder),
        "num_read": cache.num_read,
        "num_written": cache.num_written,
        "num_damaged": cache.num_damaged,
        "size_bytes": cache.size_bytes,
    }
