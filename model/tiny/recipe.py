"""The recipe of the bundled tiny model: its configuration, its training, and where it is kept.

An ordinary X-CLIP: open_clip towers, CLIP2Video's difference block as temporal encoder (see docs/experiments.md), and
the multi-grained head. It is trained from random weights on endless drawn clips, with the masked scores that are
served. Everything follows from the seed.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.backbone import build_backbone
from model.checkpoints.folder import save_checkpoint
from model.datasets.shapes import training_batches
from model.families.xclip import XClipNetwork
from model.files import write_atomic
from model.losses import symmetric_cross_entropy
from model.network import NetworkConfig
from model.registry import find_device
from model.temporal import DifferenceTemporal, TemporalConfig
from model.tiny.scenes import grammar_words
from model.tiny.vocabulary import learn_merges
from model.training.optim import warmup_cosine
from model.training.precision import attention_for, towers_in
from model.types import Pixels

NUM_FRAMES, NUM_WORDS, EMBED_DIM = 8, 32, 128
TEMPORAL_LAYERS, TEMPORAL_HEADS = 2, 4
MAX_LOGIT_SCALE = float(np.log(100.0))
LOG_EVERY_STEPS = 25


@dataclass(frozen=True, slots=True)
class TinyTraining:
    """The knobs of the training; the defaults made the bundled weights.

    max_minutes ends the training early where the machine is slow, with the schedule fitted to the time.
    """

    steps: int = 2200
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup_steps: int = 100
    seed: int = 7
    device: str = "auto"
    max_minutes: float = 90.0


@dataclass(frozen=True, slots=True)
class StepReport:
    """Figures of a training step: loss, in-batch accuracy (fraction), elapsed seconds."""

    step: int
    total_steps: int
    loss: float
    accuracy: float
    elapsed_s: float


def model_config(num_merges: int) -> dict[str, Any]:
    """The towers, in open_clip's format; the vocabulary is 512 byte symbols, the merges, start and end."""
    return {
        "embed_dim": EMBED_DIM,
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 20, "head_width": 64},
        "text_cfg": {
            "context_length": NUM_WORDS,
            "vocab_size": 512 + num_merges + 2,
            "width": 128,
            "heads": 4,
            "layers": 3,
        },
    }


def build_network(merges_path: Path) -> XClipNetwork:
    """The network with random weights and the tokenizer of a merges file."""
    num_merges = len(merges_path.read_text(encoding="utf-8").split("\n")) - 1
    backbone = build_backbone(model_config(num_merges), merges=merges_path)
    temporal = TemporalConfig("TDB", TEMPORAL_LAYERS, TEMPORAL_HEADS)
    network = XClipNetwork(backbone, NetworkConfig("xclip", NUM_WORDS, NUM_FRAMES, temporal), num_positions=NUM_WORDS)
    assert isinstance(network.temporal, DifferenceTemporal)
    for embeddings in (network.temporal.frame_position_embeddings, network.temporal.type_position_embeddings):
        torch.nn.init.normal_(embeddings.weight, std=0.05)
    return network


def train(
    out: Path, settings: TinyTraining | None = None, on_step: Callable[[StepReport], None] | None = None
) -> StepReport:
    """Train a tiny model and write its folder (config.json, model.safetensors, merges.txt); the last step's report.

    Raises: DeviceUnavailable; OSError where `out` can't be written.
    """
    chosen = settings or TinyTraining()
    device = find_device(chosen.device)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:  # a training that is killed leaves what was in `out` as it was
        merges_path = Path(folder) / "merges.txt"
        merges = learn_merges(grammar_words())
        merges_path.write_text("".join(f"{a} {b}\n" for a, b in merges), encoding="utf-8")
        torch.manual_seed(chosen.seed)
        network = build_network(merges_path).to(device)
        report = _fit(network, chosen, device, on_step)
        save_checkpoint(out, network.eval().cpu(), dtype=torch.float16)
    about = {"settings": asdict(chosen), "last_step": asdict(report)}
    write_atomic(out / "training.json", (json.dumps(about, indent=2) + "\n").encode())
    return report


def _fit(
    network: XClipNetwork,
    chosen: TinyTraining,
    device: torch.device,
    on_step: Callable[[StepReport], None] | None,
) -> StepReport:
    network.train().to(memory_format=torch.channels_last)
    decayed = [p for p in network.parameters() if p.ndim >= 2]
    others = [p for p in network.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": chosen.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=chosen.learning_rate,
        betas=(0.9, 0.98),
    )
    batches = training_batches(chosen.batch_size, NUM_FRAMES, network.backbone.image_size, chosen.seed)
    total, started, step = chosen.steps, time.monotonic(), 0
    report = StepReport(0, total, float("nan"), 0.0, 0.0)
    while step < total:
        factor = warmup_cosine(step, total, chosen.warmup_steps)
        for group in optimizer.param_groups:
            group["lr"] = chosen.learning_rate * factor
        clips, sentences = next(batches)
        scores_BB = _scores(network, clips, sentences, device)
        loss = symmetric_cross_entropy(scores_BB)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            network.backbone.logit_scale.clamp_(max=MAX_LOGIT_SCALE)
        step += 1
        elapsed_s = time.monotonic() - started
        if step % LOG_EVERY_STEPS == 0 or step == total:
            right = scores_BB.argmax(1).cpu() == torch.arange(len(scores_BB))
            report = StepReport(step, total, loss.item(), right.float().mean().item(), elapsed_s)
            if on_step:
                on_step(report)
            affordable = int(step * chosen.max_minutes * 60.0 / elapsed_s)
            total = min(total, max(step, affordable))
    return report


def _scores(network: XClipNetwork, clips: list[Pixels], sentences: list[str], device: torch.device) -> Tensor:
    """Scores (B, B) of a batch, the logit scale inside; the towers run in bfloat16, the head in float32."""
    prepare = network.backbone.preprocess
    pixels = torch.stack([prepare(clip) for clip in clips]).to(device)
    ids, mask_TW, *_ = network.backbone.tokenize(sentences, NUM_WORDS)
    mask_VF = torch.ones(pixels.shape[:2], dtype=torch.bool, device=device)
    with towers_in("bf16", device), attention_for(device):
        raw_VFD = network.raw_frames(pixels, mask_VF)
        sentence, words = network.raw_text(ids.to(device))
    videos = network.video_from_frames(raw_VFD, mask_VF)
    texts = network.text_from_words(sentence, words, network.word_mask(ids, mask_TW).to(device))
    return network.scale * network.similarity(texts, videos)
