"""How the service and its index are doing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from model.types import Precision, public_name
from service.responses.jobs import QueueResponse
from service.responses.parts import Reason


class SearchCosts(BaseModel):
    """What an exact search costs on this machine, by which `auto` chooses."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    kernel: str
    """What scores: `native` with the processor's instructions, `torch`, or `triton` on a GPU."""

    cores: int
    """That a search may use when it is alone."""

    exact_budget_ms: float
    """Milliseconds that scoring everything may take before `auto` recalls candidates."""

    segment_us: Mapping[str, float]
    """Microseconds that one segment takes on one core, by scorer, rows and words of the query, as measured so far."""


class ShardsResponse(BaseModel):
    """How the features lie in memory."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    store: Literal["fp16", "int8"]
    segments: list[int]
    """Segments of each shard."""

    dead: int
    """Segments of removed and replaced videos, which take memory until their shard is rewritten."""

    sealed: int
    """Shards that take no more videos."""

    mapped: int
    """Sealed shards that lie in files."""

    coarse: int
    """Sealed shards with a coarse index; the others are scored in full."""

    bytes: int
    """Bytes of the features in memory."""


class IndexResponse(BaseModel):
    """What the index holds."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    videos: int
    segments: int
    jobs: Mapping[str, int]
    """Jobs by status."""

    queue: QueueResponse
    """How far indexing is, as in `GET /jobs/summary`."""

    generation: int
    """Rises with every change."""

    model: str
    fingerprint: str
    precision: Precision
    """What frames are encoded in."""

    bytes: Mapping[str, int]
    """Bytes on disk: of the catalogue, and of the media files that the index manages."""

    shards: ShardsResponse | None
    """Absent before the first search."""

    unreadable: Mapping[str, str]
    """Videos whose stored features are damaged, with the reason; searches leave them out."""

    search: SearchCosts | None
    """Null until the index can be searched."""

    @classmethod
    def from_stats(cls, stats: Mapping[str, Any]) -> IndexResponse:
        """stats: as `VideoIndex.stats` gives them."""
        queue = QueueResponse.from_record(stats["queue"])
        return cls(**dict(stats) | {"model": public_name(stats["model"]), "queue": queue})


class HealthResponse(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class ReadyResponse(BaseModel):
    """Searches are answered."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    status: Literal["ready"] = "ready"
    worker: Literal["running", "stopped", "external"]
    """`stopped`: it is being restarted; `external`: this server was not asked to run one."""

    last_inference_s_ago: float
    warnings: list[Reason]


class VersionResponse(BaseModel):
    """What runs here."""

    name: str
    version: str
    api: str
    model: str
    fingerprint: str
