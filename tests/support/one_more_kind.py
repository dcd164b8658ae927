"""A kind of model that Vidgrain doesn't have, in one file, as CONTRIBUTING.md says a new one is made.

Run as a program it adds the kind to the list of families before anything else reads that list, and takes a model of it
all the way: built, saved, described, loaded, fingerprinted, converted, trained from, encoded and scored.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from model import families
from model.backbone import Backbone
from model.network import Network, NetworkConfig
from model.shared_scorers import ScorerInfo, parts_of, shared_score
from model.types import Query, Scores, TextFeatures, VideoFeatures


@dataclass(frozen=True)
class LastFrameConfig:
    """The one switch."""

    sharpness: float = 2.0


class LastFrameHead(nn.Module):
    """A learnt gain on the last real frame."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.last_frame_gain = nn.Parameter(torch.ones(embed_dim))


class LastFrameNetwork(Network):
    """The last frame of a segment is what it is about."""

    kind = "last_frame"
    scorers = ("last", "mean", "max_frame")
    own_scorer = ScorerInfo("last", "The sentence with the last frame.", ("last",), cost="frames")
    switches = LastFrameConfig
    tensor_names = r"last_frame_gain"

    def __init__(self, backbone: Backbone, config: NetworkConfig, num_positions: int | None = None) -> None:
        super().__init__(backbone, config, num_positions)
        self.head = LastFrameHead(backbone.embed_dim)

    @classmethod
    def is_in(cls, state: Mapping[str, Any]) -> bool:
        return "last_frame_gain" in state

    def video_from_frames(self, raw_VFD: Tensor, mask_VF: Tensor) -> VideoFeatures:
        last_VD = raw_VFD[torch.arange(len(raw_VFD)), mask_VF.sum(1) - 1] * self.head.last_frame_gain
        return VideoFeatures(normalize(last_VD, dim=-1), normalize(raw_VFD, dim=-1), mask_VF)

    def similarity(self, texts: TextFeatures, videos: VideoFeatures) -> Tensor:
        return (texts.sentence @ videos.pooled.T).sign() * (texts.sentence @ videos.pooled.T).abs().pow(
            self.config.head.sharpness
        )

    def _own_score(self, query: Query, videos: VideoFeatures) -> Scores:
        found = shared_score("mean", parts_of(query, videos), self.mixing())
        return Scores(found.total, found.grains, ("last",))


def main(folder: Path) -> dict[str, Any]:
    """Raises whatever doesn't work."""
    families.FAMILIES = (LastFrameNetwork, *families.FAMILIES)  # the one line

    from model.checkpoints.export import export_state
    from model.checkpoints.folder import save_checkpoint
    from model.checkpoints.names import is_head
    from model.checkpoints.official import config_of_state
    from model.datasets.shapes import held_out
    from model.evaluation.run import evaluate
    from model.evaluation.sets import set_of_shapes
    from model.installed import described
    from model.registry import load_model
    from model.scorers import SCORERS, choose_scorer
    from model.training.config import ModelPart
    from model.training.start import start_network

    part = ModelPart("tiny", kind="last_frame", temporal="mean", head={"sharpness": 3})
    network, _ = start_network(replace(part, temporal=None), None, None, 1)
    with torch.no_grad():
        network.head.last_frame_gain.add_(torch.arange(network.backbone.embed_dim) / 100)
    save_checkpoint(folder, network)
    model = load_model(str(folder), device="cpu")
    assert isinstance(model.network, LastFrameNetwork) and model.network.config.head == LastFrameConfig(3.0)
    again, told = start_network(ModelPart(str(folder)), None, None, 1)
    assert torch.equal(again.head.last_frame_gain, network.head.last_frame_gain)
    state = export_state(model.network, "open_clip") if model.network.is_towers_only else network.state_dict()
    assert is_head("last_frame_gain") and not is_head("first_frame_gain")
    official = {name.removeprefix("backbone.").removeprefix("head."): value for name, value in state.items()}
    shape = described(str(folder))
    return {
        "kind": model.spec.kind,
        "of_state": config_of_state(official, model.network.backbone.model_cfg, num_words=8, num_frames=4).kind,
        "described": [shape.kind, list(shape.scorers), shape.temporal],
        "scorers": [choose_scorer(model.spec.scorers, None, query_is_clip=False), SCORERS["last"].about],
        "stored": json.loads((folder / "config.json").read_text())["head"],
        "start": told,
        "figures": sorted(evaluate(model, set_of_shapes(held_out(4, 2, 1)))["text_to_video"]),
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
