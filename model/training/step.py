"""One step: a batch through the network, the loss of the whole batch over all ranks, gradients, and the optimiser.

Letters: N rows of one rank, B of the global batch, F frame slots, W words, S image side. It knows no data, no schedule
beyond the optimiser's own, and no file.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from model.errors import TrainingDiverged
from model.network import Network
from model.training.batches import Batch
from model.training.distributed import Ranks, average_gradients, gather
from model.training.optim import clip_and_step
from model.training.optimiser import Optimisation
from model.training.precision import Precision, attention_for, towers_in
from model.types import TextFeatures, VideoFeatures


@dataclass(frozen=True, slots=True)
class Inputs:
    """N pairs of a clip and a text, on the network's device."""

    pixels: Tensor
    """(N, F, 3, S, S) normalised, zeros where `frame_mask` is False."""
    frame_mask: Tensor
    """(N, F) bool."""
    ids: Tensor
    """(N, W) tokens."""
    word_mask: Tensor
    """(N, W) bool, as the tokenizer made it."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """Figures of a step."""

    loss: float

    grad_norm: float
    """L2 of all gradients before clipping."""

    logit_scale: float
    """exp of the parameter, after the step."""

    learning_rates: dict[str, float]
    """By group."""


def inputs_of(batch: Batch, network: Network, device: torch.device) -> Inputs:
    """A batch moved to the device, as bytes, and normalised there. Padded frames are zeros after normalisation."""
    frames = batch.frames.to(device, non_blocking=True)
    mask = batch.frame_mask.to(device, non_blocking=True)
    pixels = network.backbone.preprocess.normalise(frames.flatten(0, 1)).reshape(*mask.shape, 3, *frames.shape[2:4])
    pixels = pixels.masked_fill(~mask[..., None, None, None], 0.0)
    return Inputs(pixels, mask, batch.ids.to(device, non_blocking=True), batch.word_mask.to(device, non_blocking=True))


def batch_loss(network: Network, inputs: Inputs, ranks: Ranks, precision: Precision) -> Tensor:
    """The network's loss of the global batch, with gradients to this rank's rows -> scalar, float32.

    The towers run in `precision`; temporal encoder, head and loss in float32. Every rank computes the whole loss.
    """
    device = inputs.pixels.device
    with towers_in(precision, device):
        raw_NFD = network.raw_frames(inputs.pixels, inputs.frame_mask)
        sentence_ND, words_NWD = network.raw_text(inputs.ids)
    videos = network.video_from_frames(raw_NFD, inputs.frame_mask)
    texts = network.text_from_words(sentence_ND, words_NWD, network.word_mask(inputs.ids, inputs.word_mask))
    return network.loss(*_of_all_ranks(ranks, texts, videos))


def take_step(
    network: Network,
    optimisation: Optimisation,
    inputs: Inputs,
    step: int,
    *,
    ranks: Ranks | None = None,
    precision: Precision = "fp32",
    max_grad_norm: float = 1.0,
) -> StepResult:
    """Loss, gradients averaged over the ranks, clip, move. `step` counts from 0.

    Raises: TrainingDiverged, with no weight moved, where loss or gradients aren't finite.
    """
    alone = ranks or Ranks()
    rates = optimisation.begin(step)
    with attention_for(inputs.pixels.device):  # also around the backward pass: see there
        loss = batch_loss(network, inputs, alone, precision)
        loss.backward()  # type: ignore[no-untyped-call]
    average_gradients(alone, optimisation.parameters)
    value = float(loss.detach())
    if value != value or value in (float("inf"), float("-inf")):
        raise _diverged(f"the loss of step {step} is {value}")
    try:
        norm = clip_and_step(optimisation.optimiser, network.backbone.logit_scale, max_grad_norm)
    except FloatingPointError as error:
        raise _diverged(f"at step {step} {error}") from error
    return StepResult(value, norm, float(network.scale.detach()), rates)


def _of_all_ranks(ranks: Ranks, texts: TextFeatures, videos: VideoFeatures) -> tuple[TextFeatures, VideoFeatures]:
    """(N, ...) features of this rank -> (B, ...) of all."""
    if ranks.world == 1:
        return texts, videos
    masks = texts.mask.to(torch.uint8), videos.mask.to(torch.uint8)
    sentence, words, pooled, frames, word_mask, frame_mask = gather(
        ranks, (texts.sentence, texts.words, videos.pooled, videos.frames, *masks)
    )
    return TextFeatures(sentence, words, word_mask.bool()), VideoFeatures(pooled, frames, frame_mask.bool())


def _diverged(what: str) -> TrainingDiverged:
    return TrainingDiverged(
        f"The training has diverged: {what}.",
        'Lower [optimiser] learning_rate, or try [run] precision = "fp32".',
    )
