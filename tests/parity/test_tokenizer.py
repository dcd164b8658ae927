"""Caption -> token ids and mask, exactly as the official loaders do it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from model.backbone import bpe_tokenizer
from tests.parity.golden import golden_folder

# The official code reads this spelling as the end token and ends the sentence there; to us it is text.
SPELT_END = "<|endoftext|>"


@pytest.fixture(scope="module")
def cases() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((golden_folder() / "tokenizer" / "tokenizer.json").read_text())["cases"]
    assert found
    return found


def test_ids_and_masks_are_the_official_ones(cases: list[dict[str, Any]]) -> None:
    tokenizer = bpe_tokenizer()
    compared = 0
    for case in cases:
        if SPELT_END in case["text"]:
            continue
        ids, mask, pieces, _ = tokenizer([case["text"]], case["max_words"])
        assert ids[0].tolist() == case["input_ids"], case["text"]
        assert mask[0].long().tolist() == case["input_mask"], case["text"]
        assert len(pieces[0]) == int(mask.sum()) - 2
        compared += 1
    assert compared >= len(cases) - 3


def test_a_spelt_end_token_does_not_end_the_sentence(cases: list[dict[str, Any]]) -> None:
    tokenizer = bpe_tokenizer()
    for text in (f"a dog {SPELT_END} runs", "a dog <end_of_text> runs <start_of_text>"):
        ids, mask, pieces, _ = tokenizer([text], 32)
        assert pieces[0][:2] == ("a", "dog") and "runs" in pieces[0]
        assert int(ids[0].argmax()) == int(mask.sum()) - 1
        assert int(torch.sum(ids == 49407)) == 1 and int(torch.sum(ids == 49406)) == 1
