"""How much memory and time the scoring of an evaluation takes, at the size of MSR-VTT's full test: 59,800 captions.

    python -m benchmarks.evaluate_memory [--captions 256] [--videos 2990] [--kind xclip] [--tile FLOATS] [--json]

Features are random and of a real size (D 512, W 32, F 12); those of the captions are made block by block, as the text
tower would. Scores go through the evaluation's own tiles and into its ranks. With fewer captions than all, the time for
all is a projection and is called so; the memory is not: it doesn't grow with the captions, but for 8 bytes a rank.
The towers' own memory is not in it: at ViT-B's size they add their weights, 0.6 GB in float32.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from benchmarks.machine import describe_machine
from model.evaluation.blocks import TEXTS_PER_BLOCK, score_block
from model.evaluation.metrics import RetrievalRanks
from model.families.clip4clip import PooledNetwork
from model.families.xclip import XClipNetwork
from model.network import Network, NetworkConfig
from model.types import TextFeatures, VideoFeatures

WIDTH, WORDS, FRAMES = 512, 32, 12
ALL_CAPTIONS, CAPTIONS_PER_VIDEO = 59_800, 20
KINDS: dict[str, type[XClipNetwork] | type[PooledNetwork]] = {"xclip": XClipNetwork, "clip4clip": PooledNetwork}


class NoTowers(nn.Module):
    """In place of the backbone: the head alone is measured."""

    embed_dim = WIDTH
    context_length = WORDS

    def __init__(self) -> None:
        super().__init__()
        self.logit_scale = nn.Parameter(torch.zeros(()))


def measure(num_captions: int, num_videos: int, kind: str, tile_floats: int | None, device: str) -> dict[str, object]:
    """Score num_captions random captions against num_videos random clips; seconds, bytes and the machine."""
    started_bytes = _peak_bytes()
    torch.manual_seed(0)
    network: Network = KINDS[kind](NoTowers(), NetworkConfig(kind, WORDS, FRAMES)).eval().to(device)  # type: ignore[arg-type]
    counts = torch.randint(1, FRAMES + 1, (num_videos, 1))
    mask_VF = torch.arange(FRAMES)[None] < counts
    videos = VideoFeatures(
        *(x.to(device) for x in (_unit(num_videos, WIDTH), _unit(num_videos, FRAMES, WIDTH), mask_VF))
    )
    owners = np.concatenate([np.arange(num_videos), np.arange(max(0, num_captions - num_videos)) % num_videos])
    # all captions have their place in the ranks; those that aren't scored are told apart below
    ranks = RetrievalRanks(num_videos, np.sort(owners))
    began_s = time.perf_counter()
    for start in range(0, num_captions, TEXTS_PER_BLOCK):
        size = min(TEXTS_PER_BLOCK, num_captions - start)
        mask_TW = torch.arange(WORDS)[None] < torch.randint(4, WORDS + 1, (size, 1))
        texts = TextFeatures(*(x.to(device) for x in (_unit(size, WIDTH), _unit(size, WORDS, WIDTH), mask_TW)))
        ranks.add(score_block(network, texts, videos, tile_floats=tile_floats))
    took_s = time.perf_counter() - began_s
    found: dict[str, object] = {
        "kind": kind,
        "device": device,
        "captions_scored": num_captions,
        "videos": num_videos,
        "seconds": took_s,
        "seconds_per_1000_captions": took_s / num_captions * 1000,
        "peak_gb": _peak_bytes() / 1e9,
        "peak_gb_before": started_bytes / 1e9,
        "peak_gpu_gb": torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else None,
        "threads": torch.get_num_threads(),
    }
    if num_captions < ALL_CAPTIONS:
        found["projected_hours_for_59800_captions"] = took_s / num_captions * ALL_CAPTIONS / 3600
    else:
        found["hours"] = took_s / 3600
        found["text_to_video_mean_rank"] = ranks.figures()["text_to_video"]["mnr"]
    return found | {"machine": describe_machine()}


def _unit(*shape: int) -> Tensor:
    return normalize(torch.randn(shape), dim=-1)


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=int, default=256)
    parser.add_argument("--videos", type=int, default=ALL_CAPTIONS // CAPTIONS_PER_VIDEO)
    parser.add_argument("--kind", choices=list(KINDS), default="xclip")
    parser.add_argument("--tile", type=int, default=None)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    found = measure(chosen.captions, chosen.videos, chosen.kind, chosen.tile, chosen.device)
    if chosen.json:
        json.dump(found, sys.stdout, indent=2)
        print()
    else:
        for name, value in found.items():
            print(f"{name:36} {value:.4g}" if isinstance(value, float) else f"{name:36} {value}")


if __name__ == "__main__":
    main()
