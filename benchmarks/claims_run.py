"""One run of the claims: a contestant trained from the common start on cached maps, then ranked on held-out clips.

What trains: attention pool, text tower, temporal encoder, head, logit scale; what doesn't: the trunk. Optimiser,
schedule, rate, steps, clips and start are the same for all. A seed moves the order of the batches, the sentences that
are drawn and what a head starts at random. The result is a JSON-ready dictionary.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.claims_data import Clips, batches, read_clips
from benchmarks.claims_models import Contestant
from benchmarks.claims_start import Tell, decayed, load_start, pool_maps, take_step
from model.datasets.shapes import SLICES, Item
from model.evaluation.metrics import ranks_of_diagonal, recall_figures
from model.network import Network
from model.training.optim import warmup_cosine
from model.types import TextFeatures, VideoFeatures

Floats = NDArray[np.float32]
TEXTS_PER_BLOCK = 4
RECALLED = (5, 10, 20)


@dataclass(frozen=True, slots=True)
class RunSettings:
    """The budget of every run."""

    steps: int = 500
    batch_size: int = 96
    learning_rate: float = 5e-4
    weight_decay: float = 0.05
    warmup_steps: int = 50


def run(
    contestant: Contestant,
    settings: RunSettings,
    seed: int,
    start: Path,
    pool: Path,
    exams: Mapping[str, tuple[Path, Sequence[Item]]],
    tell: Tell,
) -> dict[str, Any]:
    """Train and rank; exams: by name, the folder of the held-out maps and what they show."""
    torch.manual_seed(seed)
    started = time.monotonic()
    network = contestant.build(load_start(start))
    losses = _train(network, contestant, settings, seed, read_clips(pool), tell)
    trained_s = time.monotonic() - started
    network.eval()
    return {
        "title": contestant.title,
        "seed": seed,
        "settings": asdict(settings),
        "last_losses": float(np.mean(losses[-20:])),
        "logit_scale": float(network.scale.detach()),
        "temperature": float(torch.as_tensor(network.temperature).detach()),
        "trained_parameters": sum(p.numel() for p in network.parameters() if p.requires_grad),
        "train_s": trained_s,
        "exams": {name: _examine(network, read_clips(folder), items) for name, (folder, items) in exams.items()},
    }


def _train(
    network: Network, contestant: Contestant, settings: RunSettings, seed: int, pool: Clips, tell: Tell
) -> list[float]:
    network.train()
    rng = np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(decayed(network, settings.weight_decay), lr=settings.learning_rate, betas=(0.9, 0.98))
    order = batches(pool, contestant.batches, settings.batch_size, seed)
    losses = []
    started = time.monotonic()
    for step in range(settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * warmup_cosine(step, settings.steps, settings.warmup_steps)
        batch = next(order)
        said = rng.integers(pool.ids.shape[1], size=len(batch))
        texts = _texts(network, pool.ids[batch, said], pool.mask[batch, said])
        loss = network.loss(texts, _videos(network, pool.maps[batch]))
        take_step(optimizer, loss, network.backbone)
        losses.append(loss.item())
        if (step + 1) % 50 == 0 or step + 1 == settings.steps:
            took_s = time.monotonic() - started
            tell(f"{contestant.title}, seed {seed}: step {step + 1}, loss {np.mean(losses[-50:]):.3f}, {took_s:.0f} s")
    return losses


@torch.inference_mode()
def _examine(network: Network, clips: Clips, items: Sequence[Item]) -> dict[str, Any]:
    """Figures overall and by slice, both ways; of an X-CLIP also what recall finds (see `_recall`)."""
    videos = _joined([_videos(network, clips.maps[at : at + 64]) for at in range(0, len(items), 64)])
    texts = _texts(network, clips.ids[:, 0], clips.mask[:, 0])
    rows = []
    for at in range(0, len(items), TEXTS_PER_BLOCK):
        part = slice(at, at + TEXTS_PER_BLOCK)
        rows.append(network.similarity(TextFeatures(texts.sentence[part], texts.words[part], texts.mask[part]), videos))
    scores_TV = torch.cat(rows).float().numpy()
    ranks = {"text_to_video": ranks_of_diagonal(scores_TV), "video_to_text": ranks_of_diagonal(scores_TV.T)}
    found: dict[str, Any] = {"all": {way: dict(recall_figures(rank)) for way, rank in ranks.items()}}
    for name, belongs in SLICES.items():
        members = np.array([belongs(item) for item in items])
        if members.any():
            found[name] = {way: dict(recall_figures(rank[members])) for way, rank in ranks.items()}
    if network.kind == "xclip":
        found["recall"] = _recall(network, texts, videos, scores_TV, items)
    return found


def _recall(
    network: Network, texts: TextFeatures, videos: VideoFeatures, scores_TV: Floats, items: Sequence[Item]
) -> dict[str, Any]:
    """What candidates a search would rerank, with and without the channel of single frames.

    For K: `pooled` the K best by the pooled vectors; `both` the K best of either channel together, `num` how many those
    are on average; `pooled_as_many` as many as `both` has, by the pooled vectors alone. `found`: how often the right
    clip is among them; `r1`: how often it is first after reranking.
    """
    pooled_TV = (network.recall_vectors(texts) @ videos.pooled.T).numpy()
    frames_TV = torch.einsum("td,vfd->tvf", texts.sentence, videos.frames).amax(-1).numpy()
    by_pooled, by_frame = (np.argsort(np.argsort(-sim, axis=1), axis=1) for sim in (pooled_TV, frames_TV))
    right = np.arange(len(items))
    few_frames = np.array([SLICES["few_frames"](item) for item in items])
    out: dict[str, Any] = {}
    for count in RECALLED:
        both = (by_pooled < count) | (by_frame < count)
        ways = {"pooled": by_pooled < count, "both": both, "pooled_as_many": by_pooled < both.sum(1, keepdims=True)}
        for way, is_candidate in ways.items():
            best = np.where(is_candidate, scores_TV, -np.inf).argmax(1)
            found = is_candidate[right, right]
            out[f"{way}@{count}"] = {
                "num": float(is_candidate.sum(1).mean()),
                "found": float(found.mean()),
                "found_few_frames": float(found[few_frames].mean()) if few_frames.any() else None,
                "r1": float((best == right).mean()),
            }
    return out


def _texts(network: Network, ids: NDArray[np.int64], mask: NDArray[np.bool_]) -> TextFeatures:
    ids_TW, mask_TW = torch.from_numpy(np.ascontiguousarray(ids)), torch.from_numpy(np.ascontiguousarray(mask))
    with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
        sentence_TD, words_TWD = network.raw_text(ids_TW)
    return network.text_from_words(sentence_TD, words_TWD, network.word_mask(ids_TW, mask_TW))


def _videos(network: Network, maps_VFLC: NDArray[np.float16]) -> VideoFeatures:
    maps = torch.from_numpy(np.array(maps_VFLC))
    visual: Any = network.backbone.clip.visual
    with torch.autocast("cpu", torch.bfloat16):
        raw: Tensor = pool_maps(visual.attnpool, maps.flatten(0, 1).bfloat16()).float()
    raw_VFD = raw.reshape(*maps.shape[:2], -1)
    return network.video_from_frames(raw_VFD, torch.ones(maps.shape[:2], dtype=torch.bool))


def _joined(parts: Sequence[VideoFeatures]) -> VideoFeatures:
    return VideoFeatures(
        torch.cat([p.pooled for p in parts]), torch.cat([p.frames for p in parts]), torch.cat([p.mask for p in parts])
    )
