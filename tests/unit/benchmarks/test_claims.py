"""The program behind the claims' table: batches, the pool over feature maps, runs that go on, sums over seeds."""

from __future__ import annotations

import json
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import claims
from benchmarks.claims_data import BatchKind, Clips, batches, read_clips, sample_pool
from benchmarks.claims_models import CONTESTANTS
from benchmarks.claims_start import feature_maps, load_start, new_backbone, pool_maps, trunk_parameters
from benchmarks.claims_table import as_json, as_markdown
from model.tiny.scenes import OPPOSITE


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the start and the clips of a quick run, and nothing run yet."""
    folder = tmp_path_factory.mktemp("claims")
    claims.prepare(folder, claims.QUICK, list(claims.plan(claims.QUICK, ["xclip"])))
    return folder


def test_maps_pooled_are_what_the_tower_says_of_a_frame(out: Path) -> None:
    backbone = load_start(out / "start.safetensors")
    pixels = np.random.default_rng(0).integers(0, 256, size=(3, 64, 64, 3), dtype=np.uint8)
    maps = torch.from_numpy(feature_maps(backbone)([pixels])[0]).float()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        wanted = backbone.encode_frames(backbone.preprocess(pixels)).float()
    found = pool_maps(backbone.clip.visual.attnpool, maps)  # type: ignore[union-attr]
    cosines = torch.nn.functional.cosine_similarity(found, wanted)
    assert cosines.min() > 0.999 and torch.allclose(found, wanted, atol=0.05)


def test_pooled_maps_equal_the_attention_pool_in_full_precision() -> None:
    attention = new_backbone().clip.visual.attnpool  # type: ignore[union-attr]
    torch.manual_seed(0)
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    maps = torch.randn(5, attention.k_proj.in_features, 2, 2)
    with torch.inference_mode():
        wanted, found = attention(maps), pool_maps(attention, maps.flatten(2).transpose(1, 2))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


def test_the_trunk_is_frozen_and_the_pool_over_it_is_not(out: Path) -> None:
    backbone = load_start(out / "start.safetensors")
    trained = {name for name, p in backbone.clip.named_parameters() if p.requires_grad}
    assert all(not p.requires_grad for p in trunk_parameters(backbone))
    assert "visual.attnpool.k_proj.weight" in trained and "transformer.resblocks.0.mlp.c_fc.weight" in trained
    assert not any(name.startswith(("visual.layer", "visual.conv")) for name in trained)


def test_a_twin_turns_its_scene_round() -> None:
    places = sample_pool(200, seed=1)
    by_role = {(place.group, place.role): place.scene for place in places}
    pairs = [(scene, by_role.get((group, role + 2))) for (group, role), scene in by_role.items() if role < 2]
    assert sum(other is not None for _, other in pairs) > 50
    for scene, other in pairs:
        if other is None:
            continue
        if scene.kind == "then":
            assert [a.look for a in other.actors] == [a.look for a in reversed(scene.actors)]
        else:
            assert other.actors[0].motion == OPPOSITE[scene.actors[0].motion]


@pytest.mark.parametrize("kind", ["twins_and_shapes", "twins", "random"])
def test_batches_hold_no_meaning_twice(out: Path, kind: BatchKind) -> None:
    clips = read_clips(out / "pool-8")
    for batch in islice(batches(clips, kind, 12, seed=3), 9):
        assert len(batch) == 12 == len(set(clips.meaning[batch].tolist()))


def test_what_stands_in_a_batch(out: Path) -> None:
    clips = read_clips(out / "pool-8")
    assert set(_roles(clips, "twins")) <= {0, 2}
    assert {1, 3} <= set(_roles(clips, "twins_and_shapes"))
    grouped = next(batches(clips, "twins", 12, seed=3))
    assert any(clips.group[a] == clips.group[b] for a, b in pairwise(grouped.tolist()))


def test_a_run_that_is_done_is_not_run_again(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tasks = list(claims.plan(claims.QUICK, ["clip4clip-mean", "clip2video", "xclip"]))
    claims.run_all(out, claims.QUICK, tasks[:4], workers=1)
    mark = out / "runs" / "xclip-seed1.json"
    mark.write_text(json.dumps({**json.loads(mark.read_text()), "title": "kept"}))
    claims.run_all(out, claims.QUICK, tasks, workers=1)
    found = claims.results(out)
    assert {r["name"] for r in found} == {task.name for task in tasks}
    assert next(r for r in found if r["name"] == "xclip-seed1")["title"] == "kept"
    assert all(np.isfinite(r["last_losses"]) for r in found)
    told = capsys.readouterr().out
    assert told.count("xclip-seed1: text-to-video") == 1


def test_means_and_deviations_over_seeds() -> None:
    results = [_result("clip4clip-mean", seed, r1) for seed, r1 in ((1, 0.2), (2, 0.4), (3, 0.6))]
    row = as_json([*results, _result("clip2video", 1, 0.5)])["models"]
    assert row["clip4clip-mean"]["T2V R@1"] == {"mean": pytest.approx(0.4), "std": pytest.approx(0.2)}
    assert row["clip2video"]["T2V R@1"] == {"mean": 0.5, "std": None}
    lines = as_markdown(results).splitlines()
    assert any(line.startswith("| CLIP4Clip meanP | 3 | 40.0 ± 20.0 |") for line in lines)


def test_runs_for_the_learning_rate_are_not_counted() -> None:
    tried = {**_result("clip4clip-mean", 1, 0.9), "name": "rate-0.002-clip4clip-mean"}
    tables = as_json([_result("clip4clip-mean", 1, 0.2), tried])
    assert tables["models"]["clip4clip-mean"]["T2V R@1"]["mean"] == 0.2
    assert tables["rates"] == {"clip4clip-mean-seed1": 0.2, "rate-0.002-clip4clip-mean": 0.9}
    assert as_json([_result("clip4clip-mean", 1, 0.2)])["rates"] == {}


def _roles(clips: Clips, kind: BatchKind) -> list[int]:
    return [int(clips.role[i]) for batch in islice(batches(clips, kind, 12, seed=3), 6) for i in batch]


def _result(contestant: str, seed: int, r1: float) -> dict[str, object]:
    ways = {way: {"r1": r1} for way in ("text_to_video", "video_to_text")}
    parts = dict.fromkeys(("all", "few_frames", "direction", "order", "mixed"), ways)
    return {
        "name": f"{contestant}-seed{seed}",
        "contestant": contestant,
        "table": "models",
        "title": CONTESTANTS[contestant].title,
        "seed": seed,
        "last_losses": 1.0,
        "temperature": 0.01,
        "train_s": 1.0,
        "exams": {"held_out": parts, "validation": parts},
        "machine": {},
    }
