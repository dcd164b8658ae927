"""Search results as the service answers them. Made from the index's records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from indexer.records import Hit, SearchAnswer
from model.types import public_name
from service.responses.parts import Reason


class MomentResponse(BaseModel):
    """A stretch of a video to show."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    start_s: float
    end_s: float
    best_s: float
    """The time of the frame that supports the query most."""

    score: float
    thumbnail_url: str


class Explain(BaseModel):
    """What a score is made of."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    grains: dict[str, float]
    """The parts of the score, by the names that `GET /scorers` gives for the scorer."""


class SearchResult(BaseModel):
    """A video that was found, with its moments, best first."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    rank: int
    video_id: str
    title: str
    score: float
    recall_rank: int | None
    """Where recall had its first segment; null if it was scored without recall."""

    duration_s: float | None
    metadata: dict[str, Any]
    moments: list[MomentResponse]
    explain: Explain

    @classmethod
    def from_record(cls, hit: Hit, prefix: str) -> SearchResult:
        """prefix: what goes before the paths of thumbnails."""
        thumbnail = f"{prefix}/videos/{hit.video.id}/thumbnail"
        return cls(
            rank=hit.rank,
            video_id=hit.video.id,
            title=hit.video.title,
            score=hit.score,
            recall_rank=hit.recall_rank,
            duration_s=hit.video.media.duration_s if hit.video.media else None,
            metadata=dict(hit.video.metadata),
            moments=[
                MomentResponse(
                    start_s=m.start_s,
                    end_s=m.end_s,
                    best_s=m.best_s,
                    score=m.score,
                    thumbnail_url=f"{thumbnail}?t={m.best_s:.3f}",
                )
                for m in hit.moments
            ],
            explain=Explain(grains=dict(hit.grains)),
        )


class SearchResponse(BaseModel):
    """The results of a search, best first."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    query_id: str
    results: Sequence[SearchResult]
    warnings: list[Reason]
    """What the search had to do without."""

    total_indexed: int
    """Videos in the index."""

    candidates: int
    """Segments that were scored in full."""

    effective: dict[str, Any]
    """How it was searched: scorer, recall (`exact` or `ann`) with the reason, the milliseconds that an exact search was
    expected to take (null where nobody asked), candidates, kernel, model, fingerprint, device, generation, and for a
    sentence the query_precision that it was encoded in."""

    timings_ms: dict[str, float]
    """Milliseconds by stage: encode, plan, recall, rerank, hydrate, explain, total."""

    @classmethod
    def from_record(cls, answer: SearchAnswer, query_id: str, prefix: str) -> SearchResponse:
        """prefix: what goes before the paths of thumbnails."""
        effective = dict(answer.effective)
        return cls(
            query_id=query_id,
            results=[SearchResult.from_record(hit, prefix) for hit in answer.hits],
            warnings=[Reason(code=code, message=message) for code, message in answer.warnings],
            total_indexed=answer.total_indexed,
            candidates=answer.num_candidates,
            effective=effective | {"model": public_name(effective["model"])},
            timings_ms=dict(answer.timings_ms),
        )
