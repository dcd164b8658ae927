"""What a network's numbers mean, as the rest of Vidgrain knows it: its ModelSpec, fingerprint included."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from typing import Any

from model.fingerprint import fingerprint
from model.network import Network
from model.types import ModelSpec


def build_spec(name: str, network: Network) -> ModelSpec:
    """The spec of a network as it is now, in float32; model/precision.py has the others."""
    backbone, config = network.backbone, network.config
    return ModelSpec(
        name=name,
        fingerprint=fingerprint(network.state_dict(), hashed_values(network)),
        embed_dim=backbone.embed_dim,
        num_frames=network.num_frames,
        num_words=network.num_words,
        image_size=backbone.image_size,
        temporal=network.temporal_name(config),
        kind=network.kind,
        pooled_dim=network.pooled_dim,
        has_frame_recall=network.has_frame_recall,
        scorers=network.scorers,
    )


def hashed_values(network: Network) -> dict[str, Any]:
    """Every configuration value that affects numbers, in the form that stored fingerprints were made of."""
    backbone, config = network.backbone, network.config
    values: dict[str, Any] = {
        "model_cfg": config.model_cfg,
        "num_words": config.num_words,
        "num_frames": config.num_frames,
        "temporal": asdict(config.temporal),
        "preprocess": config.preprocess,
        "merges": hashlib.sha256(backbone.merges_path.read_bytes()).hexdigest() if backbone.merges_path else "clip",
    }
    head = network.hashed_head(config.head)
    return values if head is None else values | {"head": head}
