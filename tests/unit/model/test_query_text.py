"""Queries are encoded without padding, and in bfloat16 only where that is as good; what is compared stays the same."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cosine_similarity

from model.families import KINDS, family_of
from model.network import MaskReading, Network, NetworkConfig
from model.packed_blocks import UnknownParts, is_native, is_supported
from model.packed_text import PackedText
from model.query_text import QueryPrecision, QueryText
from tests.unit.model.small import small_backbone, small_network_of
from tests.unit.model.test_backbone import FAMILIES

TEXTS = ("dog", "red dog cat", "the red cat and a dog that is black", "cat")

needs_packing = pytest.mark.skipif(not is_supported(), reason="this torch packs no bfloat16 weights")


def encoder(network: Network, asked: QueryPrecision = "fp32") -> QueryText:
    return QueryText(network, torch.device("cpu"), asked)


def with_tower(folder: Path, **changes: Any) -> Network:
    """An X-CLIP over a text tower with these changes."""
    return family_of("xclip")(small_backbone(folder, **changes), NetworkConfig("xclip", 8, 4)).eval()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_computed_without_padding_is_what_the_whole_tower_gives(kind: str, tmp_path: Path) -> None:
    network = small_network_of(kind, tmp_path, num_words=12)
    tokens = network.backbone.tokenize(TEXTS, 12)
    with torch.inference_mode():
        whole = network.text(tokens.ids, tokens.mask)
    found = encoder(network).encode(TEXTS)
    assert found.words.shape == whole.words.shape
    torch.testing.assert_close(found.sentence, whole.sentence, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(found.words[found.mask], whole.words[whole.mask], atol=1e-6, rtol=1e-6)
    assert torch.equal(found.mask, whole.mask)
    assert not found.words[~tokens.mask].any(), "slots past a sentence's end hold zeros"
    assert (found.pieces, found.is_cut) == (tokens.pieces, tokens.is_cut)


@pytest.mark.parametrize("masks", ["masked", "reference"])
def test_padding_is_kept_where_scores_read_it(masks: MaskReading, tmp_path: Path) -> None:
    network = small_network_of("xclip", tmp_path, num_words=12, masks=masks)
    found = encoder(network).encode(["dog"])
    assert bool(found.words[0, 6:].any()) is (masks == "reference")


def test_a_tower_that_is_not_causal_reads_its_padding(tmp_path: Path) -> None:
    network = with_tower(tmp_path, no_causal_mask=True)
    tokens = network.backbone.tokenize(["dog"], 8)
    assert not network.backbone.ends_text_at_its_last_token
    with torch.inference_mode():
        torch.testing.assert_close(encoder(network).encode(["dog"]).words, network.text(tokens.ids, tokens.mask).words)


@needs_packing
@pytest.mark.parametrize("quick_gelu", [True, False])
def test_bfloat16_keeps_the_direction(quick_gelu: bool, tmp_path: Path) -> None:
    network = small_network_of("xclip", tmp_path)
    if not quick_gelu:
        for block in network.backbone.text_tower.transformer.resblocks:
            block.mlp.gelu = nn.GELU()
    fast, exact = encoder(network, "bf16"), encoder(network)
    ours, theirs = fast.encode(TEXTS), exact.encode(TEXTS)
    assert (ours.precision, theirs.precision) == ("bf16", "fp32")
    assert float(cosine_similarity(ours.sentence, theirs.sentence).min()) > 0.999
    assert float(cosine_similarity(ours.words[ours.mask], theirs.words[theirs.mask]).min()) > 0.999
    assert ours.words.dtype == torch.float32 and torch.equal(ours.mask, theirs.mask)
    assert not torch.equal(ours.sentence, theirs.sentence), "it isn't float32 after all"


@needs_packing
def test_a_sentence_has_the_same_embedding_in_any_batch(tmp_path: Path) -> None:
    fast = encoder(small_network_of("xclip", tmp_path), "bf16")
    together = fast.encode(TEXTS * 5)
    for row, text in enumerate(TEXTS):
        alone = fast.encode([text])
        for one, many in ((alone.sentence[0], together.sentence[row]), (alone.words[0], together.words[row])):
            torch.testing.assert_close(one, many, atol=1e-3, rtol=1e-3)
            assert torch.equal(one, many) or not is_native()


def test_a_small_tower_stays_in_float32(tmp_path: Path) -> None:
    """The bundled model's is of this kind."""
    assert encoder(small_network_of("xclip", tmp_path), "auto").precision == "fp32"


@needs_packing
def test_a_tower_whose_direction_bfloat16_would_turn_stays_in_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = small_network_of("xclip", tmp_path)
    monkeypatch.setattr("model.query_text.MIN_WEIGHTS", 0)
    monkeypatch.setattr("model.query_text.is_native", lambda: True)
    assert encoder(network, "auto").precision == "bf16"
    tower = network.backbone.text_tower
    with torch.no_grad():  # a large constant that the projection takes away: bfloat16 keeps little beside it
        tower.ln_final.bias.fill_(1e4)
        tower.text_projection.sub_(tower.text_projection.mean(0, keepdim=True))
    assert encoder(network, "auto").precision == "fp32"


@needs_packing
@pytest.mark.parametrize("family", ["MobileCLIP2", "SigLIP", "CoCa"])
def test_towers_of_another_kind_are_served_in_float32(
    family: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from model.backbone import build_backbone
    from tests.unit.model.small import write_merges

    config = FAMILIES[family]
    merges = write_merges(tmp_path) if config["text_cfg"]["vocab_size"] < 1000 else None
    network = family_of("clip4clip")(build_backbone(config, merges=merges), NetworkConfig("clip4clip", 8, 4)).eval()
    with caplog.at_level(logging.WARNING):
        found = encoder(network, "bf16").encode(["a dog"])
    if found.precision == "fp32":
        assert caplog.records[0].getMessage() == "queries_in_fp32", "who asked for bfloat16 learns that there is none"
    exact = encoder(network).encode(["a dog"])
    assert float(cosine_similarity(found.sentence, exact.sentence).min()) > 0.999


@needs_packing
def test_parts_that_are_unknown_are_named(tmp_path: Path) -> None:
    tower = small_backbone(tmp_path).text_tower
    tower.transformer.resblocks[1].mlp.gelu = nn.ReLU()
    with pytest.raises(UnknownParts, match="ReLU"):
        PackedText(tower)
