"""Whether a search lands on the right second: drawn clips in which something flashes, searched by their own sentence.

    python -m benchmarks.moments [--model tiny] [--json]

The clips are the held-out ones of the kind "flash": one shape is there all along, another for a fifth to a third of the
clip, and the sentence names both. `best_s_inside` counts how often the best frame of the search's first moment is one
that shows the flash, `overlap` is the mean intersection over union of the moment with the flash, and `chance` is what
a frame picked at random would get. `sentence` is what is served: a frame's support is its cosine with the sentence.
`words` and `sentence_and_words` are what it might be instead: its words by AOSM through the head's matrices, and the
mean of both.
"""

from __future__ import annotations

import argparse
import json
import sys

import numpy as np
import torch

from benchmarks.machine import describe_machine
from indexer.search.moments import find_moments
from model.datasets.shapes import held_out
from model.kernels.aosm_reference import attend
from model.registry import load_model
from model.served_model import ServedModel
from model.types import TextFeatures, VideoFeatures


def measure(name: str) -> dict[str, object]:
    """Encode the clips, score each with its own sentence, and compare its moment with its flash."""
    model = load_model(name, device="cpu")
    items = [item for item in held_out() if item.scene.kind == "flash"]
    slots = model.spec.num_frames
    times_s = (np.arange(slots) + 0.5) / slots
    flashes = np.array([(item.scene.actors[1].appears, item.scene.actors[1].vanishes) for item in items])
    shows = (times_s >= flashes[:, :1]) & (times_s < flashes[:, 1:])
    videos = model.encode_video([item.pixels(slots) for item in items])
    texts = model.encode_text([item.sentence for item in items])
    places = torch.arange(len(items))
    words_VF = _support_of_words(model, texts, videos)
    sentence_VF = model.frame_relevance(texts, videos)[places, places].float()
    ways = {"sentence": sentence_VF, "words": words_VF, "sentence_and_words": 0.5 * (sentence_VF + words_VF)}
    found = {}
    for way, relevance in ways.items():
        relevance_VF = relevance.cpu().numpy()
        overlaps = [
            _overlap(relevance_VF[v : v + 1], times_s, (float(start), float(stop)))
            for v, (start, stop) in enumerate(flashes)
        ]
        inside = shows[places, relevance_VF.argmax(1)]
        found[way] = {"best_s_inside": float(inside.mean()), "overlap": float(np.mean(overlaps))}
    return {
        "model": model.spec.name,
        "fingerprint": model.spec.fingerprint,
        "num_clips": len(items),
        "chance": float(shows.mean()),
        "support": found,
        "machine": describe_machine(),
    }


@torch.inference_mode()
def _support_of_words(model: ServedModel, texts: TextFeatures, videos: VideoFeatures) -> torch.Tensor:
    """(V, F): each frame of clip v with the words of sentence v, AOSM over the words as in the finest grain."""
    mixing = model.network.mixing()
    words = texts.words if mixing.local_DD is None else texts.words @ mixing.local_DD
    fine_VFW = torch.einsum("vwd,vfd->vfw", words, videos.frames)
    return attend(fine_VFW, mixing.words_first_WW, texts.mask[:, None]).float()


def _overlap(relevance_1F: np.ndarray, times_s: np.ndarray, flash_s: tuple[float, float]) -> float:
    """Intersection over union of a clip's first moment and its flash, both in fractions of the clip."""
    moments = find_moments(np.zeros(1), np.ones(1), times_s[None], relevance_1F, 1)
    if not moments:
        return 0.0
    start, stop = moments[0].start_s, moments[0].end_s
    common = max(0.0, min(stop, flash_s[1]) - max(start, flash_s[0]))
    return common / (max(stop, flash_s[1]) - min(start, flash_s[0]) if common else 1.0)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--json", action="store_true", help="print JSON")
    chosen = parser.parse_args()
    result = measure(chosen.model)
    if chosen.json:
        json.dump(result, sys.stdout, indent=2)
        print()
        return
    print(f"{result['num_clips']} clips, chance {result['chance']:.3f}")
    for way, figures in result["support"].items():  # type: ignore[attr-defined]
        print(f"{way:18} best second inside {figures['best_s_inside']:.3f}   overlap {figures['overlap']:.3f}")


if __name__ == "__main__":
    main()
