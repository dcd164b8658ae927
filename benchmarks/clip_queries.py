"""Whether a clip cut out of a video finds it again, by each scorer that takes clips: drawn clips, and videos of yours.

    python -m benchmarks.clip_queries [--model tiny] [--videos DIR] [--json]

Drawn: of each of 400 held-out clips the stretch from 20 % to 75 % is the query, encoded anew at its own instants, and
all 400 whole clips are ranked; half of them are twins, which differ from another only in a direction or an order.
Videos: each file of DIR is indexed; stretches of at most 10 s, from 10 %, 30 % and 50 % on, are written as files of
8 frames a second and searched for. Files that don't decode are left out; files of equal name but for a codec count as
one if --same names them. All figures are R@1.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.machine import describe_machine
from indexer.index import VideoIndex
from indexer.media.reading import probe, read_frames
from indexer.media.write import write_video
from indexer.records import SearchOptions
from model.datasets.shapes import held_out
from model.registry import load_model
from model.scorers import SCORERS
from model.served_model import ServedModel
from model.tiny.shapes import draw_clip
from model.types import ScorerName

CUT = (0.2, 0.75)
STARTS = (0.1, 0.3, 0.5)
CUT_FPS, LONGEST_S = 8.0, 10.0


def drawn(model: ServedModel, scorers: list[ScorerName]) -> dict[str, dict[str, float]]:
    """R@1 by scorer of cut drawn clips: all, the half without twins, and the half of twins."""
    items, slots = held_out(200, 100), model.spec.num_frames
    middles = (np.arange(slots) + 0.5) / slots
    cuts = [draw_clip(item.scene, CUT[0] + (CUT[1] - CUT[0]) * middles, 96) for item in items]
    queries, videos = model.encode_video(cuts), model.encode_video([item.pixels(slots) for item in items])
    is_twin = np.array([item.is_twin for item in items])
    found = {}
    for scorer in scorers:
        best = model.score(queries, videos, scorer).total.argmax(1).cpu().numpy()
        right = best == np.arange(len(items))
        found[scorer] = {
            "all": float(right.mean()),
            "mixed": float(right[~is_twin].mean()),
            "twins": float(right[is_twin].mean()),
        }
    return found


def of_videos(model: ServedModel, scorers: list[ScorerName], folder: Path, same: set[str]) -> dict[str, float]:
    """R@1 by scorer of stretches cut out of real videos; `num` is how many queries there were."""
    with tempfile.TemporaryDirectory() as place, VideoIndex.open(Path(place) / "index", model) as index:
        for path in sorted(path for path in folder.iterdir() if path.is_file()):
            index.add(path, title=path.name)
        worker = index.worker()
        while worker.run_once() is not None:
            pass
        right, num = dict.fromkeys(scorers, 0), 0
        for name in (video.title for video in index.list(limit=1000)[0] if video.status == "ready"):
            duration_s = probe(folder / name).duration_s
            for share in STARTS:
                start_s = share * duration_s
                stop_s = min(start_s + LONGEST_S, (share + 0.45) * duration_s)
                cut = Path(place) / "cut.mp4"
                instants_s = np.arange(start_s, stop_s, 1.0 / CUT_FPS).tolist()
                write_video(cut, read_frames(folder / name, instants_s).pixels, CUT_FPS)
                num += 1
                for scorer in scorers:
                    first = index.search_video(cut, SearchOptions(top_k=1, scorer=scorer)).hits[0].video.title
                    right[scorer] += first == name or {first, name} <= same
    return {"num": num, **{scorer: count / max(1, num) for scorer, count in right.items()}}


def measure(name: str, folder: Path | None = None, same: set[str] | None = None) -> dict[str, object]:
    """All figures of a model, the default scorer of clips first."""
    model = load_model(name, device="cpu")
    scorers = [scorer for scorer in model.spec.scorers if SCORERS[scorer].takes_clips]
    with torch.inference_mode():
        found: dict[str, object] = {
            "model": name,
            "fingerprint": model.spec.fingerprint,
            "drawn": drawn(model, scorers),
        }
    if folder is not None:
        found["videos"] = of_videos(model, scorers, folder, same or set())
    return found | {"machine": describe_machine()}


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--videos", type=Path, help="a folder of videos")
    parser.add_argument("--same", nargs="*", default=[], help="files of DIR that hold the same pictures")
    parser.add_argument("--json", action="store_true", help="print JSON")
    chosen = parser.parse_args()
    result = measure(chosen.model, chosen.videos, set(chosen.same))
    if chosen.json:
        json.dump(result, sys.stdout, indent=2)
        print()
        return
    videos = result.get("videos", {})
    for scorer, figures in result["drawn"].items():  # type: ignore[attr-defined]
        shown = "".join(f"  {key} {value:.3f}" for key, value in figures.items())
        print(f"{scorer:14}{shown}" + (f"  videos {videos[scorer]:.3f}" if videos else ""))  # type: ignore[index]


if __name__ == "__main__":
    main()
