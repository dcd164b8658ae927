"""Every scorer there is, and which one a search uses. What each computes is in shared_scorers.py and the families."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from model.errors import UnknownScorer
from model.families import FAMILIES
from model.shared_scorers import SHARED, ScorerInfo
from model.types import ScorerName

SCORERS: Mapping[ScorerName, ScorerInfo] = MappingProxyType(
    SHARED | {family.own_scorer.name: family.own_scorer for family in FAMILIES if family.own_scorer}
)
"""Every scorer there is; `ModelSpec.scorers` says which of them a model's features allow."""

CLIP_SCORER: ScorerName = "maxsim"
"""For clips: each of its frames with the best one (docs/decisions/0008-a-clip-is-found-by-its-frames.md)."""


def choose_scorer(scorers: Sequence[ScorerName], asked: str | None, *, query_is_clip: bool) -> ScorerName:
    """The scorer that was asked for by name, else the first of a model's `scorers`, or for a clip CLIP_SCORER.

    Where a model's features don't allow that, it is the first that takes clips. query_is_clip: the query is
    a clip and not a sentence.
    Raises: UnknownScorer, whose hint lists those that may be asked for.
    """
    fitting = [name for name in scorers if SCORERS[name].takes_clips or not query_is_clip]
    if asked is None:
        return CLIP_SCORER if query_is_clip and CLIP_SCORER in fitting else fitting[0]
    if asked not in fitting:
        why = "compares sentences only" if asked in scorers else "doesn't fit this model's features"
        raise UnknownScorer(f"The scorer {asked!r} {why}.", f"Use one of {', '.join(fitting)}, or leave it out.")
    return asked
