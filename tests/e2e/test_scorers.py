"""Models of every paper behind HTTP: indexed, recalled, and scored by everything that they allow, query by query."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from indexer.index import VideoIndex
from model.checkpoints.folder import TENSORS_FILE, save_checkpoint
from model.registry import load_model
from model.scorers import SCORERS
from model.types import HeadKind, VideoTextModel
from tests.e2e.conftest import Clip, Service, make_service
from tests.support.clips import write_clip
from tests.unit.model.small import small_network_of

KINDS: tuple[HeadKind, ...] = ("xclip", "clip4clip", "tight", "clip2video")
SHARED = {"aosm", "multi_grained", "maxsim", "max_frame", "mean"}
ALLOWED = {"xclip": SHARED, "clip4clip": SHARED, "tight": {"tight", *SHARED}, "clip2video": {"clip2video"}}
DEFAULT = {"xclip": "aosm", "clip4clip": "mean", "tight": "tight", "clip2video": "clip2video"}
COLOURS = ("red", "green", "blue", "white")


def saved_model(kind: HeadKind, folder: Path) -> VideoTextModel:
    """A small network with random weights, written to a folder of ours and loaded as any other model."""
    torch.manual_seed(5)
    save_checkpoint(folder / "model", small_network_of(kind, folder, "seqTransf"))
    return load_model(str(folder / "model"), device="cpu")


@pytest.fixture(scope="module", params=KINDS)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, clip: Clip) -> Iterator[Service]:
    """A service over four clips, of which the tests of this file only read."""
    folder = tmp_path_factory.mktemp(request.param)
    for made in make_service(folder, saved_model(request.param, folder), models=(folder,)):
        for colour in COLOURS:
            made.add(clip(colour, 3.0), title=colour)
        yield made


def kind_of(service: Service) -> HeadKind:
    return service.index.model.spec.kind


def ask(service: Service, path: str = "/search/text", *, expect: int = 200, **body: Any) -> dict[str, Any]:
    answer = service.client.post(path, json=body)
    assert answer.status_code == expect, answer.text
    found: dict[str, Any] = answer.json()
    return found


def check_hits(answer: dict[str, Any], num_hits: int) -> None:
    """Scores fall, every hit has the parts of its scorer, and its best moment lies in the video."""
    scores = [hit["score"] for hit in answer["results"]]
    assert len(scores) == num_hits and scores == sorted(scores, reverse=True)
    for hit in answer["results"]:
        parts = hit["explain"]["grains"]
        assert tuple(parts) == SCORERS[answer["effective"]["scorer"]].parts
        assert all(math.isfinite(value) for value in (hit["score"], *parts.values()))
        assert hit["score"] == pytest.approx(sum(parts.values()) / len(parts), abs=2e-3)
        best = hit["moments"][0]
        assert 0 <= best["start_s"] <= best["best_s"] <= best["end_s"] <= 3.1


def of_clips(kind: str) -> str:
    return "clip2video" if kind == "clip2video" else "maxsim"


def test_what_may_be_asked_for_is_listed(served: Service) -> None:
    kind = kind_of(served)
    for prefix in ("", "/v1"):
        listed = served.client.get(f"{prefix}/scorers").json()["scorers"]
        assert {scorer["name"] for scorer in listed} == ALLOWED[kind]
        assert [scorer["name"] for scorer in listed if scorer["is_default"]] == [DEFAULT[kind]] == [listed[0]["name"]]
        for scorer in listed:
            assert scorer["about"].endswith(".") and scorer["parts"] == list(SCORERS[scorer["name"]].parts)
            assert scorer["takes_clips"] is (scorer["name"] != "tight")
        assert [scorer["name"] for scorer in listed if scorer["is_default_of_clips"]] == [of_clips(kind)]


def test_every_scorer_ranks_the_same_stored_features(served: Service) -> None:
    kind = kind_of(served)
    generation = served.client.get("/index").json()["generation"]
    assert ask(served, query="red dog")["effective"]["scorer"] == DEFAULT[kind]
    totals = {}
    for name in sorted(ALLOWED[kind]):
        for mode in ("ann", "exact"):
            answer = ask(served, query="red dog", scorer=name, recall={"mode": mode})
            assert answer["effective"]["scorer"] == name and answer["warnings"] == []
            check_hits(answer, len(COLOURS))
            scored = {hit["video_id"]: hit["score"] for hit in answer["results"]}
            assert totals.setdefault(name, scored) == pytest.approx(scored, abs=1e-5)
    assert len({round(sum(scored.values()), 4) for scored in totals.values()}) == len(totals), "two are the same"
    assert served.client.get("/index").json()["generation"] == generation, "nothing was indexed anew"


def test_a_clip_finds_its_own_video(served: Service, clip: Clip) -> None:
    kind = kind_of(served)
    for name in sorted(ALLOWED[kind] - {"tight"}):
        with clip("blue", 3.0).open("rb") as file:
            answer = served.client.post(
                "/search/video", files={"file": ("b.mp4", file)}, data={"options": json.dumps({"scorer": name})}
            )
        assert answer.status_code == 200, answer.text
        check_hits(answer.json(), len(COLOURS))
    blue = ask(served, query="x")["results"]
    video_id = next(hit["video_id"] for hit in blue if hit["title"] == "blue")
    for options in ({}, {"start_s": 0.0, "end_s": 1.5}):
        answer = ask(served, "/search/video", video_id=video_id, include_self=True, **options)
        assert answer["effective"]["scorer"] == of_clips(kind)
        check_hits(answer, len(COLOURS))
    for name in ("mean", "clip2video"):
        if name in ALLOWED[kind]:
            answer = ask(served, "/search/video", video_id=video_id, include_self=True, scorer=name)
            assert answer["results"][0]["title"] == "blue"
            assert answer["results"][0]["score"] == pytest.approx(1.0, abs=2e-3)


@pytest.mark.parametrize("scorer", ["clip2video", "mean", "tight", "no such scorer", ""])
def test_a_scorer_that_does_not_fit_is_refused_with_those_that_do(served: Service, clip: Clip, scorer: str) -> None:
    allowed = ALLOWED[kind_of(served)]
    video_id = ask(served, query="x")["results"][0]["video_id"]
    asked: list[tuple[str, dict[str, Any], set[str]]] = [
        ("/search/text", {"query": "red dog"}, allowed),
        ("/v1/search/video", {"video_id": video_id}, allowed - {"tight"}),
    ]
    for path, body, fitting in asked:
        if scorer in fitting:
            assert ask(served, path, **body, scorer=scorer)["effective"]["scorer"] == scorer
            continue
        problem = ask(served, path, **body, scorer=scorer, expect=422)
        assert problem["code"] == "unknown_scorer" and repr(scorer) in problem["detail"]
        assert all(name in problem["hint"] for name in fitting)
        assert ("sentences only" in problem["detail"]) is (scorer in allowed)


def test_a_scorer_is_refused_before_a_clip_is_read(served: Service, tmp_path: Path) -> None:
    junk = tmp_path / "junk.mp4"
    junk.write_bytes(b"no video at all" * 100)
    with junk.open("rb") as file:
        answer = served.client.post(
            "/search/video", files={"file": ("junk.mp4", file)}, data={"options": '{"scorer": "nonsense"}'}
        )
    assert (answer.status_code, answer.json()["code"]) == (422, "unknown_scorer")
    assert served.incoming() == []


def test_the_models_at_hand_are_listed_with_the_served_one_first(served: Service, tmp_path: Path) -> None:
    spec = served.index.model.spec
    for prefix in ("", "/v1"):
        answer = served.client.get(f"{prefix}/models")
        first, *others = answer.json()["models"]
        assert first == {
            "name": "model",
            "kind": spec.kind,
            "fingerprint": spec.fingerprint,
            "precision": spec.precision,
            "embed_dim": spec.embed_dim,
            "num_frames": spec.num_frames,
            "num_words": spec.num_words,
            "image_size": spec.image_size,
            "temporal": spec.temporal,
            "scorers": list(spec.scorers),
            "is_served": True,
            "error": None,
        }
        assert "tiny" in [model["name"] for model in others] and not any(model["is_served"] for model in others)
        assert "model" not in [model["name"] for model in others], "the served folder is listed once"
        assert str(served.settings.data.parent) not in answer.text


def test_a_damaged_folder_is_listed_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    shelf = tmp_path / "shelf"
    for name in ("cut", "empty", "foreign", "good"):
        save_checkpoint(shelf / name, small_network_of("clip2video", tmp_path))
    weights = shelf / "cut" / TENSORS_FILE
    weights.write_bytes(weights.read_bytes()[:-4])
    (shelf / "empty" / TENSORS_FILE).unlink()
    (shelf / "foreign" / "config.json").write_text('{"format": "of another program"}')
    (shelf / "no model at all").mkdir()
    for service in make_service(tmp_path, models=(shelf, tmp_path / "nowhere")):
        answer = service.client.get("/models")
        listed = {model["name"]: model for model in answer.json()["models"]}
    assert set(listed) >= {"fake", "tiny", "cut", "empty", "foreign", "good", "nowhere"}
    assert "no model at all" not in listed
    assert listed["good"]["error"] is None and listed["good"]["scorers"] == ["clip2video"]
    assert listed["good"]["kind"] == "clip2video" and listed["good"]["fingerprint"] is None
    wrong = {name: listed[name]["error"]["code"] for name in ("cut", "empty", "foreign", "nowhere")}
    assert wrong == {
        "cut": "weights_unavailable",
        "empty": "weights_unavailable",
        "foreign": "checkpoint_mismatch",
        "nowhere": "weights_unavailable",
    }
    assert str(tmp_path) not in answer.text


def test_a_range_that_cuts_a_segment_is_still_a_query(tmp_path: Path, clip: Clip) -> None:
    """Also where pooled vectors are wider than frames, so that no mean of frames can stand for them."""
    folder = tmp_path / "model"
    folder.mkdir()
    with VideoIndex.open(tmp_path / "data", saved_model("clip2video", folder)) as index:
        film = write_clip(tmp_path / "film.mp4", _two_halves(), fps=10)
        added = [index.add(path).video_id for path in (film, clip("red"), clip("blue"))]
        worker = index.worker()
        while worker.run_once() is not None:
            pass
        whole = index.search_stored(added[0])
        half = index.search_stored(added[0], start_s=0.0, end_s=1.9)
    assert [hit.score for hit in half.hits] == pytest.approx([hit.score for hit in whole.hits], abs=1e-5)


def _two_halves() -> list[np.ndarray]:
    return [np.full((48, 64, 3), colour, np.uint8) for colour in ((220, 30, 30), (30, 30, 220)) for _ in range(20)]
