"""What CLIP2Video's two readings of masks cost in ranking: trained and ranked with either, on clips of unequal lengths.

    python -m benchmarks.clip2video_masks --out DIR [--steps 300] [--json]

It needs the start and the clips of `python -m benchmarks.claims --out DIR`, and makes them where they are missing.
Each clip keeps its first n frames of 8, n drawn evenly from 2 to 8, and is padded with grey pictures, as the
official loaders pad; so the official form's head order and its leaking difference have something to misread. Ranking
is by batches of 64, in which the official form lets clips see one another; the same clips are ranked a second time in
another order, and what changes is counted. One seed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks import claims
from benchmarks.claims_data import Clips, batches, read_clips
from benchmarks.claims_models import CONTESTANTS, NUM_FRAMES
from benchmarks.claims_run import RunSettings, _texts
from benchmarks.claims_start import decayed, feature_maps, load_start, pool_maps, take_step
from benchmarks.machine import describe_machine
from model.backbone import Backbone
from model.evaluation.metrics import ranks_of_diagonal, recall_figures
from model.families.clip2video import Clip2VideoNetwork
from model.heads.clip2video import CORRECTED, OFFICIAL, MaskForm
from model.training.optim import warmup_cosine
from model.types import VideoFeatures

FORMS = {"official": OFFICIAL, "corrected": CORRECTED}
SEED, SHORTEST, BATCH = 1, 2, 64


def measure(out: Path, settings: RunSettings) -> dict[str, Any]:
    """Train once with each form, rank each with both."""
    claims.prepare(out, claims.Sizes(), [claims.Task("", "clip2video", SEED, settings)])
    start, pool, exam = out / "start.safetensors", read_clips(out / "pool-8"), read_clips(out / "held_out-8")
    grey = _grey(load_start(start))
    trained: dict[str, Any] = {}
    for name, form in FORMS.items():
        torch.manual_seed(SEED)
        network = CONTESTANTS["clip2video"].build(load_start(start))
        assert isinstance(network, Clip2VideoNetwork)
        began = time.monotonic()
        _train(network, form, settings, pool, grey)
        took_s = time.monotonic() - began
        network.eval()
        trained[name] = {"ranked": {other: _examine(network, FORMS[other], exam, grey) for other in FORMS}}
        trained[name]["train_s"] = took_s
    return {"steps": settings.steps, "trained": trained, "machine": describe_machine()}


def _train(
    network: Clip2VideoNetwork, form: MaskForm, settings: RunSettings, pool: Clips, grey: NDArray[np.float16]
) -> None:
    network.train()
    rng = np.random.default_rng(SEED)
    optimizer = torch.optim.AdamW(decayed(network, settings.weight_decay), lr=settings.learning_rate, betas=(0.9, 0.98))
    order = batches(pool, "twins_and_shapes", settings.batch_size, SEED)
    for step in range(settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * warmup_cosine(step, settings.steps, settings.warmup_steps)
        batch = next(order)
        said = rng.integers(pool.ids.shape[1], size=len(batch))
        texts = _texts(network, pool.ids[batch, said], pool.mask[batch, said])
        lengths = rng.integers(SHORTEST, NUM_FRAMES + 1, size=len(batch))
        take_step(
            optimizer, network.loss(texts, _videos(network, form, pool.maps[batch], lengths, grey)), network.backbone
        )


@torch.inference_mode()
def _examine(network: Clip2VideoNetwork, form: MaskForm, exam: Clips, grey: NDArray[np.float16]) -> dict[str, float]:
    num = len(exam.maps)
    lengths = np.random.default_rng(SEED).integers(SHORTEST, NUM_FRAMES + 1, size=num)
    texts = _texts(network, exam.ids[:, 0], exam.mask[:, 0])
    scores = []
    for order in (np.arange(num), np.random.default_rng(SEED + 1).permutation(num)):
        parts = np.split(order, range(BATCH, num, BATCH))
        pooled = torch.cat([_videos(network, form, exam.maps[p], lengths[p], grey).pooled for p in parts])
        in_place = torch.empty_like(pooled)
        in_place[torch.from_numpy(order)] = pooled
        empty = torch.zeros(num, 0, 0)
        videos = VideoFeatures(in_place, empty, torch.zeros(num, 0, dtype=torch.bool))
        scores.append(network.similarity(texts, videos).float().numpy())
    ranks = [ranks_of_diagonal(matrix) for matrix in scores]
    return {
        "t2v_r1": recall_figures(ranks[0])["r1"],
        "v2t_r1": recall_figures(ranks_of_diagonal(scores[0].T))["r1"],
        "largest_change_of_a_cosine_by_order": float(np.abs(scores[0] - scores[1]).max()),
        "texts_whose_rank_changed_by_order": float((ranks[0] != ranks[1]).mean()),
    }


def _videos(
    network: Clip2VideoNetwork,
    form: MaskForm,
    maps_VFLC: NDArray[np.float16],
    lengths_V: NDArray[np.int64],
    grey: NDArray[np.float16],
) -> VideoFeatures:
    """The first frames of each clip, the rest replaced by grey pictures, through the head read as `form` says."""
    mask_VF = np.arange(NUM_FRAMES)[None] < lengths_V[:, None]
    filled = np.where(mask_VF[..., None, None], maps_VFLC, grey)
    visual: Any = network.backbone.clip.visual
    with torch.autocast("cpu", torch.bfloat16):
        raw: Tensor = pool_maps(visual.attnpool, torch.from_numpy(filled).flatten(0, 1).bfloat16()).float()
    network.head.config = replace(network.head.config, masks=form)
    return network.video_from_frames(raw.reshape(*mask_VF.shape, -1), torch.from_numpy(mask_VF))


def _grey(backbone: Backbone) -> NDArray[np.float16]:
    """(L, C) the trunk's map of a picture that is zero after normalisation."""
    mean = np.round(np.array(backbone.preprocess.mean) * 255).astype(np.uint8)
    picture = np.broadcast_to(mean, (1, backbone.image_size, backbone.image_size, 3)).copy()
    return np.asarray(feature_maps(backbone)([picture])[0, 0])


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the folder of the claims")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--json", action="store_true", help="print JSON")
    chosen = parser.parse_args()
    found = measure(chosen.out, RunSettings(steps=chosen.steps))
    if chosen.json:
        json.dump(found, sys.stdout, indent=1)
        print()
        return
    print("| trained | ranked | T2V R@1 | V2T R@1 | largest change by order | texts whose rank changed |")
    print("|---|---|---|---|---|---|")
    for name, trained in found["trained"].items():
        for other, row in trained["ranked"].items():
            figures = " | ".join(f"{value:.3f}" for value in row.values())
            print(f"| {name} | {other} | {figures} |")
    print(f"\n{found['steps']} steps, {found['machine']}")


if __name__ == "__main__":
    main()
