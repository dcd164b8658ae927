"""The four grains and AOSM: masks, mixing and the facts that recall relies on."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from model.heads.multi_grained import MultiGrainedHead
from model.kernels.aosm_reference import Mixing, attend, four_grains

T, V, W, F, D = 3, 4, 6, 5, 16


def features(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(seed)
    shapes = ((T, D), (T, W, D), (V, D), (V, F, D))
    sentence, words, pooled, frames = (normalize(torch.randn(shape), dim=-1) for shape in shapes)
    return sentence, words, pooled, frames


def masks() -> tuple[Tensor, Tensor]:
    words = torch.arange(W)[None] < torch.tensor([6, 2, 1])[:, None]
    frames = torch.arange(F)[None] < torch.tensor([5, 1, 3, 2])[:, None]
    return words, frames


def test_attention_leans_on_the_largest_and_keeps_constants() -> None:
    sim = torch.tensor([[0.9, 0.1, 0.0]])
    assert torch.isclose(attend(sim, None, None), torch.tensor([0.9]), atol=1e-6)
    assert torch.isclose(attend(torch.full((1, 4), 0.3), None, None), torch.tensor([0.3]))


def test_attention_mixes_from_the_left() -> None:
    mix = torch.tensor([[0.0, 1.0], [0.0, 0.0]])  # weight of place 0 moves to place 1
    assert torch.isclose(attend(torch.tensor([[0.9, 0.1]]), mix, None), torch.tensor([0.1]), atol=1e-6)


def test_padding_has_no_say_in_masked_scores_even_where_mixing_moves_weight_to_it() -> None:
    sentence, words, pooled, frames = features()
    word_mask, frame_mask = masks()
    torch.manual_seed(1)
    head = MultiGrainedHead(D, W, F)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    before = head(sentence, words, pooled, frames, word_mask, frame_mask)
    other_words = torch.where(word_mask[..., None], words, torch.full_like(words, 7.0))
    other_frames = torch.where(frame_mask[..., None], frames, torch.full_like(frames, -3.0))
    after = head(sentence, other_words, pooled, other_frames, word_mask, frame_mask)
    torch.testing.assert_close(before.grains_TV4, after.grains_TV4)
    assert not torch.allclose(
        head(sentence, words, pooled, frames).grains_TV4, head(sentence, other_words, pooled, frames).grains_TV4
    )


def test_full_masks_are_the_unmasked_arithmetic() -> None:
    given = features()
    everything = torch.ones(T, W, dtype=torch.bool), torch.ones(V, F, dtype=torch.bool)
    torch.testing.assert_close(
        four_grains(*given, Mixing(), *everything).grains_TV4, four_grains(*given, Mixing()).grains_TV4
    )


def test_batched_scores_are_the_scores_one_by_one() -> None:
    sentence, words, pooled, frames = features()
    word_mask, frame_mask = masks()
    together = four_grains(sentence, words, pooled, frames, Mixing(), word_mask, frame_mask)
    for t in range(T):
        for v in range(V):
            alone = four_grains(
                sentence[t : t + 1],
                words[t : t + 1],
                pooled[v : v + 1],
                frames[v : v + 1],
                Mixing(),
                word_mask[t : t + 1],
                frame_mask[v : v + 1],
            )
            torch.testing.assert_close(alone.grains_TV4[0, 0], together.grains_TV4[t, v])


def test_head_starts_at_the_identity() -> None:
    given = features()
    with torch.no_grad():
        torch.testing.assert_close(
            MultiGrainedHead(D, W, F)(*given).grains_TV4, four_grains(*given, Mixing()).grains_TV4
        )
