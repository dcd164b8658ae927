"""What the claims' runs compare: each model of the papers, parts of X-CLIP, and variants of it, by name.

All start from the same towers by `start_from_clip`, with temporal encoders of two layers. A variant changes one thing
of X-CLIP as it is served (masks, temperature, what the fine grains read, the temporal encoder, what stands in a batch,
or F); those that begin with "tdb-" change several that paid, or seemed to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

from benchmarks.claims_data import NUM_WORDS, BatchKind
from model.backbone import Backbone
from model.families import family_of
from model.heads.clip2video import Clip2VideoConfig
from model.heads.multi_grained import GrainOptions
from model.network import MaskReading, Network, NetworkConfig
from model.temporal import TemporalConfig, TemporalKind

TEMPORAL_LAYERS, TEMPORAL_HEADS = 2, 4
NUM_FRAMES = 8


@dataclass(frozen=True, slots=True)
class Contestant:
    """A network and how it is fed. `title` stands in the table; `table` says in which."""

    title: str
    kind: Literal["xclip", "clip4clip", "clip2video"]
    temporal: TemporalKind = "seqTransf"
    options: GrainOptions = field(default_factory=GrainOptions)
    masks: MaskReading = "masked"
    batches: BatchKind = "twins_and_shapes"
    num_frames: int = NUM_FRAMES
    table: Literal["models", "variants"] = "models"

    def build(self, backbone: Backbone) -> Network:
        """The network around the given towers, started from them."""
        heads: dict[str, Any] = {
            "xclip": self.options,
            "clip2video": Clip2VideoConfig(
                backbone.embed_dim, layers=TEMPORAL_LAYERS, heads=TEMPORAL_HEADS, num_positions=backbone.context_length
            ),
        }
        temporal = TemporalConfig(self.temporal, TEMPORAL_LAYERS, TEMPORAL_HEADS)
        config = NetworkConfig(self.kind, NUM_WORDS, self.num_frames, temporal, heads.get(self.kind), masks=self.masks)
        network = family_of(self.kind)(backbone, config, num_positions=backbone.context_length)
        network.start_from_clip()
        return network


_XCLIP = Contestant("X-CLIP", "xclip")
_VARIANT = replace(_XCLIP, table="variants")
_FINE = GrainOptions(fine_grains_use_temporal=True)
_TDB_FINE = replace(_VARIANT, temporal="TDB")


def _grain(name: str, title: str) -> Contestant:
    return replace(_XCLIP, title=f"X-CLIP, {title} alone", options=GrainOptions(grains=(name,)))


CONTESTANTS: Mapping[str, Contestant] = MappingProxyType(
    {
        "clip4clip-mean": Contestant("CLIP4Clip meanP", "clip4clip", temporal="mean"),
        "clip4clip-transf": Contestant("CLIP4Clip seqTransf", "clip4clip"),
        "clip2video": Contestant("CLIP2Video (TDB, TAB_TDB)", "clip2video"),
        "xclip": _XCLIP,
        "xclip-mean-max": replace(
            _XCLIP, title="X-CLIP without AOSM (mean-max)", options=GrainOptions(aggregation="mean_max")
        ),
        "xclip-video-sentence": _grain("video_sentence", "video-sentence"),
        "xclip-video-word": _grain("video_word", "video-word"),
        "xclip-frame-sentence": _grain("frame_sentence", "frame-sentence"),
        "xclip-frame-word": _grain("frame_word", "frame-word"),
        "fine": replace(_VARIANT, title="temporal features in the fine grains", options=_FINE),
        "unmasked": replace(_VARIANT, title="AOSM without masks, as the papers have it", masks="reference"),
        "learnt": replace(
            _VARIANT, title="learnt temperature, from 0.01", options=GrainOptions(is_temperature_learnt=True)
        ),
        "warm": replace(_VARIANT, title="temperature 0.1", options=GrainOptions(temperature=0.1)),
        "twins": replace(_VARIANT, title="batches of scenes with their twins only", batches="twins"),
        "random": replace(_VARIANT, title="batches of any clips", batches="random"),
        "tdb": replace(_VARIANT, title="CLIP2Video's differences as temporal encoder", temporal="TDB"),
        "tdb-fine": replace(_TDB_FINE, title="differences, temporal fine grains", options=_FINE),
        "tdb-fine-warm": replace(
            _TDB_FINE,
            title="differences, temporal fine grains, temperature 0.1",
            options=replace(_FINE, temperature=0.1),
        ),
        "tdb-fine-mean-max": replace(
            _TDB_FINE,
            title="differences, temporal fine grains, mean-max for AOSM",
            options=replace(_FINE, aggregation="mean_max"),
        ),
        "frames-4": replace(_VARIANT, title="F = 4", num_frames=4),
        "frames-12": replace(_VARIANT, title="F = 12", num_frames=12),
    }
)
"""By the names of their results, in the order in which they are run."""
