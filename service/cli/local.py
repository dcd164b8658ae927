"""What `--json` adds to the service's answers: where files and models are on this machine, which HTTP never shows.

Links in these answers are paths on a server of the same data folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from indexer.catalogue.rows import storable
from indexer.records import SearchAnswer, Video
from service.responses.search import SearchResponse, SearchResult
from service.responses.videos import VideoPage, VideoResponse

if TYPE_CHECKING:  # models import torch, which lists of videos do without
    from model.installed import InstalledModel
    from service.responses.models import ModelResponse


class LocalVideo(VideoResponse):
    """A video with the path of its file."""

    path: str


class LocalVideoPage(VideoPage):
    """Videos with the paths of their files."""

    videos: Sequence[LocalVideo]

    @classmethod
    def from_records(cls, videos: Sequence[Video], next_cursor: str | None) -> LocalVideoPage:
        """A page as the index lists it."""
        local = [LocalVideo(**dict(VideoResponse.from_record(v, "")), path=storable(str(v.path))) for v in videos]
        return cls(videos=local, next_cursor=next_cursor)


class LocalResult(SearchResult):
    """A search result with the path of its video's file."""

    path: str


class LocalSearchResponse(SearchResponse):
    """Search results with the paths of their files, and the model by the name that `--model` takes."""

    results: Sequence[LocalResult]

    @classmethod
    def from_answer(cls, answer: SearchAnswer, query_id: str) -> LocalSearchResponse:
        """The index's answer."""
        found = SearchResponse.from_record(answer, query_id, "")
        local = [
            LocalResult(**dict(result), path=storable(str(hit.video.path)))
            for result, hit in zip(found.results, answer.hits, strict=True)
        ]
        return cls(**dict(found) | {"results": local, "effective": dict(answer.effective)})


def local_model(model: InstalledModel, *, is_served: bool) -> ModelResponse:
    """A model by the name that `--model` takes, folders included."""
    from service.responses.models import ModelResponse

    response = ModelResponse.from_installed(model, is_served=is_served)
    return response.model_copy(update={"name": storable(model.name)})
