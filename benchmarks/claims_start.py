"""The common start of the claims' runs: a small CLIP trained on still frames, and its frozen trunk.

It is trained as CLIP is: single frames, whole sentences, one cosine, both cross entropies. That favours no paper's
head, and it leaves to the heads what no still frame shows: direction, order, and which frame matters.
Afterwards the convolutions are frozen (the papers freeze the stem; this takes it further) and their last feature maps
are all that is kept of a frame. The attention pool over them still trains; `pool_maps` is that pool with its products
in another order, for a quarter of the work.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import linear, normalize

from benchmarks.claims_data import NUM_WORDS, FeatureMaps
from model.backbone import Backbone, build_backbone
from model.datasets.shapes import TRAIN_LOOKS
from model.losses import symmetric_cross_entropy
from model.registry import TINY_FOLDER
from model.tiny.recipe import model_config
from model.tiny.scenes import Scene, describe, reshape, sample_scene
from model.tiny.shapes import draw_clip
from model.training.optim import warmup_cosine
from model.types import Pixels

MERGES = TINY_FOLDER / "merges.txt"
MAX_LOGIT_SCALE = float(np.log(100.0))
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class StartTraining:
    """The knobs of the start."""

    steps: int = 2000
    batch_size: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup_steps: int = 100
    seed: int = 1


def new_backbone() -> Backbone:
    """The tiny model's towers with random weights, CLIP's activation, and the bundled vocabulary."""
    num_merges = len(MERGES.read_text(encoding="utf-8").split("\n")) - 1
    return build_backbone({**model_config(num_merges), "quick_gelu": True}, merges=MERGES)


def load_start(file: Path) -> Backbone:
    """The trained towers, in eval mode, the trunk frozen."""
    backbone = new_backbone()
    backbone.clip.load_state_dict(load_file(file))
    for parameter in trunk_parameters(backbone):
        parameter.requires_grad_(False)
    return backbone


def train_start(file: Path, chosen: StartTraining, tell: Tell) -> None:
    """Train the towers on stills and write them as safetensors."""
    torch.manual_seed(chosen.seed)
    rng = np.random.default_rng(chosen.seed)
    backbone = new_backbone().train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(decayed(backbone, chosen.weight_decay), lr=chosen.learning_rate, betas=(0.9, 0.98))
    started = time.monotonic()
    for step in range(chosen.steps):
        for group in optimizer.param_groups:
            group["lr"] = chosen.learning_rate * warmup_cosine(step, chosen.steps, chosen.warmup_steps)
        pixels, sentences = _stills(rng, chosen.batch_size, backbone.image_size)
        ids, _, _ = backbone.tokenize(sentences, NUM_WORDS)
        images = backbone.preprocess(pixels).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            frames_BD = backbone.encode_frames(images).float()
            sentences_BD = backbone.encode_words(ids)[0].float()
        cosines_BB = normalize(sentences_BD, dim=-1) @ normalize(frames_BD, dim=-1).T
        loss = symmetric_cross_entropy(backbone.logit_scale.exp() * cosines_BB)
        take_step(optimizer, loss, backbone)
        if (step + 1) % 50 == 0 or step + 1 == chosen.steps:
            right = (cosines_BB.argmax(1) == torch.arange(len(cosines_BB))).float().mean()
            tell(
                f"start: step {step + 1} of {chosen.steps}, loss {loss.item():.3f}, right {right.item():.2f}, "
                f"{time.monotonic() - started:.0f} s"
            )
    file.parent.mkdir(parents=True, exist_ok=True)
    state = {name: value.contiguous() for name, value in backbone.clip.state_dict().items()}
    partial = file.with_suffix(".partial")
    save_file(state, partial)
    partial.rename(file)


def take_step(optimizer: torch.optim.Optimizer, loss: Tensor, backbone: Backbone) -> None:
    """Backward, clip the gradients' norm to 1, step, hold the logit scale at or below ln 100."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    moved = [p for group in optimizer.param_groups for p in group["params"]]
    torch.nn.utils.clip_grad_norm_(moved, 1.0)
    optimizer.step()
    with torch.no_grad():
        backbone.logit_scale.clamp_(max=MAX_LOGIT_SCALE)


def decayed(module: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """What trains, in two groups: matrices, which decay, and the rest, which doesn't."""
    trained = [p for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]


def trunk_parameters(backbone: Backbone) -> list[torch.nn.Parameter]:
    """All of the image tower but its attention pool."""
    visual: Any = backbone.clip.visual
    return [p for name, p in visual.named_parameters() if not name.startswith("attnpool.")]


def feature_maps(backbone: Backbone) -> FeatureMaps:
    """The frozen trunk as a function of clips: the maps that the attention pool reads."""
    visual: Any = backbone.clip.visual
    visual.to(memory_format=torch.channels_last)

    def maps_of(clips: Sequence[Pixels]) -> NDArray[np.float16]:
        pixels = torch.cat([backbone.preprocess(clip) for clip in clips]).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            x = visual.stem(pixels)
            for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
                x = layer(x)
        maps_NLC = x.flatten(2).transpose(1, 2).to(torch.float16)
        return np.asarray(maps_NLC.reshape(len(clips), -1, *maps_NLC.shape[1:]).numpy())

    return maps_of


def pool_maps(attention: Any, maps_NLC: Tensor) -> Tensor:
    """open_clip's attention pool of maps (N, L, C) -> (N, D); its keys' bias adds the same to all places, so it is out.

    Only the mean asks; its query goes through the key matrix first, and the places are summed before the value matrix.
    """
    x_NLC = torch.cat([maps_NLC.mean(1, keepdim=True), maps_NLC], dim=1)
    x_NLC = x_NLC + attention.positional_embedding.to(x_NLC.dtype)
    heads, width = attention.num_heads, x_NLC.shape[-1]
    query_NHd = linear(x_NLC[:, 0], attention.q_proj.weight, attention.q_proj.bias).reshape(-1, heads, width // heads)
    key_HdC, value_HdC = (p.weight.reshape(heads, width // heads, width) for p in (attention.k_proj, attention.v_proj))
    asked_NHC = torch.einsum("nhd,hdc->nhc", query_NHd * (width // heads) ** -0.5, key_HdC)
    weights_NHL = torch.softmax(torch.einsum("nhc,nlc->nhl", asked_NHC, x_NLC), dim=-1)
    seen_NHC = torch.einsum("nhl,nlc->nhc", weights_NHL.to(x_NLC.dtype), x_NLC)
    values_NC = torch.einsum("nhc,hdc->nhd", seen_NHC, value_HdC).flatten(1) + attention.v_proj.bias
    return linear(values_NC, attention.c_proj.weight, attention.c_proj.bias)


def _stills(rng: np.random.Generator, batch_size: int, size: int) -> tuple[Pixels, list[str]]:
    """Frames (B, S, S, 3) and their clips' sentences; no meaning twice, beside every second scene a reshaped one."""
    scenes: list[Scene] = []
    seen: set[tuple[object, ...]] = set()
    while len(scenes) < batch_size:
        scene = sample_scene(rng, TRAIN_LOOKS)
        group = [scene] if rng.random() < 0.5 else [scene, reshape(scene, rng, TRAIN_LOOKS)]
        if seen.isdisjoint(one.meaning for one in group):
            seen.update(one.meaning for one in group)
            scenes += group
    scenes = scenes[:batch_size]
    frames = [draw_clip(scene, [float(rng.random())], size)[0] for scene in scenes]
    return np.stack(frames), [describe(scene, rng) for scene in scenes]
