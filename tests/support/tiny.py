"""A model folder as `train-tiny` writes it, after one step: it runs like the bundled one and knows nothing."""

from __future__ import annotations

from pathlib import Path

from model.tiny.recipe import TinyTraining, train


def untrained_tiny(folder: Path) -> Path:
    """Write the folder of a tiny model with (nearly) random weights and return it; about a second."""
    train(folder, TinyTraining(steps=1, batch_size=2, device="cpu"))
    return folder
