"""What the service answers: times in ISO 8601, and nothing that tells where files lie on the server."""

from __future__ import annotations

import json
from pathlib import Path

from indexer.records import Video
from service.responses.videos import VideoPage, VideoResponse


def video(**changed: object) -> Video:
    known = {
        "id": "abc",
        "sha256": "0" * 64,
        "title": "a title",
        "path": Path("/srv/films/a.mp4"),
        "is_managed": False,
        "size_bytes": 7,
        "metadata": {},
        "status": "failed",
        "created_at": 1_795_276_200.1239,
        "indexed_at": None,
        "num_segments": 0,
        "media": None,
    }
    return Video(**(known | changed))  # type: ignore[arg-type]


def test_times_of_the_world_are_iso_8601_in_utc() -> None:
    written = json.loads(VideoResponse.from_record(video(), "").model_dump_json())
    assert written["created_at"] == "2026-11-21T15:50:00.123Z" and written["indexed_at"] is None
    schema = VideoResponse.model_json_schema(mode="serialization")["properties"]["created_at"]
    assert (schema["type"], schema["format"]) == ("string", "date-time")


def test_an_answer_shows_no_folder_and_the_schema_knows_no_path() -> None:
    page = VideoPage(videos=[VideoResponse.from_record(video(), "/v1")], next_cursor=None)
    assert "/srv" not in page.model_dump_json() and '"a.mp4"' in page.model_dump_json()
    assert "path" not in VideoResponse.model_json_schema(mode="serialization")["properties"]
