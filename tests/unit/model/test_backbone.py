"""Every family of open_clip gives one projected embedding per word, and fails with our words."""

from __future__ import annotations

import logging
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import sleep
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from model import backbone as door
from model import hub
from model.activation import warn_of_activation
from model.backbone import Backbone, architectures, build_backbone, weight_tags
from model.errors import CheckpointMismatch, ShapeError, TokenizerUnavailable, UnknownModel, WeightsUnavailable
from model.tokenizer import TransformersTokenizer
from tests.unit.model.small import VOCAB_SIZE, named_config, small_backbone, small_config, write_merges

TEXTS = ["a dog runs on the beach", "red cat"]

# SigLIP's towers with CLIP's vocabulary: no causal mask, the last position pooled, a projection with bias
SIGLIP_LIKE = small_config(no_causal_mask=True, pool_type="last", proj_bias=True, norm_kwargs={"eps": 1e-6})
SIGLIP_LIKE |= {"custom_text": True, "init_logit_bias": -10, "quick_gelu": False}
SIGLIP_LIKE["vision_cfg"] |= {"attentional_pool": True, "attn_pooler_heads": 2, "attn_pooler_queries": 4}

FAMILIES: dict[str, dict[str, Any]] = {
    "CLIP": named_config("ViT-B-32"),
    "CLIP quickgelu": named_config("ViT-B-32-quickgelu"),
    "PE-Core": named_config("PE-Core-T-16-384"),
    "MobileCLIP2": named_config("MobileCLIP2-S0"),
    "CoCa": named_config("coca_ViT-B-32"),
    "SigLIP": SIGLIP_LIKE,
    "no projection": small_config(proj_type="none") | {"custom_text": True},
}


def every_token(backbone: Backbone, ids: Tensor) -> Tensor:
    """open_clip's own way to all projected tokens: no pooling, the full context."""
    clip: Any = backbone.clip
    tower, name = (clip.text, "pool_type") if hasattr(clip, "text") else (clip, "text_pool_type")
    pooling = getattr(tower, name)
    setattr(tower, name, "none")
    tokens: Tensor = clip.encode_text(padded(backbone, ids), normalize=False)
    setattr(tower, name, pooling)
    return tokens[:, : ids.shape[1]]


def padded(backbone: Backbone, ids: Tensor) -> Tensor:
    return nn.functional.pad(ids, (0, backbone.context_length - ids.shape[1]))


@pytest.mark.parametrize("family", FAMILIES)
def test_words_of_every_family_are_projected_tokens(family: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    config = FAMILIES[family]
    is_small = config["text_cfg"]["vocab_size"] < 1000
    backbone = build_backbone(config, merges=write_merges(tmp_path) if is_small else None)
    ids, mask, pieces, _ = backbone.tokenize(TEXTS, 12)
    with torch.inference_mode():
        sentence, words = backbone.encode_words(ids)
        frames = backbone.encode_frames(torch.randn(2, 3, backbone.image_size, backbone.image_size))
        theirs: Tensor = backbone.clip.encode_text(padded(backbone, ids), normalize=False)  # type: ignore[operator]
        if family != "CoCa":  # open_clip projects the tokens of CoCa nowhere
            torch.testing.assert_close(words, every_token(backbone, ids), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(sentence, theirs, atol=1e-5, rtol=1e-5)
    width = backbone.embed_dim
    assert (frames.shape, sentence.shape, words.shape) == ((2, width), (2, width), (2, 12, width))
    assert mask.sum(-1).tolist() == [len(p) + 2 for p in pieces]
    assert not torch.allclose(words[0, 1], words[0, 2], atol=1e-4)


def test_a_causal_tower_gives_the_same_at_any_width(tmp_path: Path) -> None:
    backbone = small_backbone(tmp_path)
    short, long = (backbone.encode_words(backbone.tokenize(["dog"], w)[0]) for w in (6, 16))
    torch.testing.assert_close(short[0], long[0], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(short[1], long[1][:, :6], atol=1e-6, rtol=1e-6)


def test_too_many_words_are_refused(tmp_path: Path) -> None:
    backbone = small_backbone(tmp_path)
    with pytest.raises(ShapeError, match="W <= 16"):
        backbone.encode_words(torch.zeros(1, 17, dtype=torch.long))
    with pytest.raises(ShapeError, match="3 to 16"):
        backbone.tokenize(["dog"], 17)


def test_an_own_vocabulary_reads_plain_merges(tmp_path: Path) -> None:
    backbone = small_backbone(tmp_path)
    ids, mask, pieces, _ = backbone.tokenize(["red dog", "the dog"], 8)
    assert pieces == (("red", "dog"), ("t", "h", "e", "dog"))
    end = backbone.tokenizer.vocab_size - 1
    assert ids[0].tolist() == [end - 1, 512 + 3, 512 + 1, end, 0, 0, 0, 0]
    assert mask[0].tolist() == [True] * 4 + [False] * 4
    cut, *_ = backbone.tokenize(["the dog the dog"], 4)
    assert cut[0, -1] == end


def test_a_broken_vocabulary_is_named(tmp_path: Path) -> None:
    path = tmp_path / "merges.txt"
    path.write_text("d o\nnot a pair\n", encoding="utf-8")
    with pytest.raises(TokenizerUnavailable, match="not a pair"):
        build_backbone(small_config(), merges=path)
    with pytest.raises(TokenizerUnavailable, match="room for"):
        build_backbone(small_config())


def test_names_of_architectures_and_tags() -> None:
    assert "ViT-B-32-quickgelu" in architectures()
    assert "openai" in weight_tags("ViT-B-32-quickgelu")
    with pytest.raises(UnknownModel, match="no architecture"):
        build_backbone("ViT-B-33")
    with pytest.raises(UnknownModel, match=r"It has: .*openai"):
        build_backbone("ViT-B-32", weights="opennai")


def test_a_tokenizer_that_cannot_be_had_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    config = small_config(hf_tokenizer_name="vidgrain-nowhere/none")
    monkeypatch.setattr(hub, "is_reachable", lambda url: False)
    with pytest.raises(TokenizerUnavailable, match="VIDGRAIN_MODEL=tiny"):
        build_backbone(config)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"trust_remote_code": True}, "trust_remote_code"),
        ({"clean": "lower", "cache_dir": "/"}, "cache_dir"),
        ({"clean": {"a": 1}}, "clean"),
        (["clean"], "a table is needed"),
    ],
)
@pytest.mark.parametrize("tokenizer", [{}, {"hf_tokenizer_name": "some/tokenizer"}])
def test_a_configuration_cannot_hand_options_to_other_libraries(
    options: object, named: str, tokenizer: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A configuration comes with the weights: one that lets a tokenizer's code run would be code that is downloaded."""
    monkeypatch.setattr(door.tokenizers, "HFTokenizer", lambda *args, **options: pytest.fail("it was built"))
    config = small_config(tokenizer_kwargs=options, **tokenizer)
    with pytest.raises(TokenizerUnavailable, match=named):
        build_backbone(config, merges=None if tokenizer else write_merges(tmp_path))


def test_a_tokenizer_of_the_transformers_library_is_built_without_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[dict[str, Any]] = []

    def built(name: str, **options: Any) -> None:
        given.append(options)
        raise ValueError("seen")

    monkeypatch.setattr(door.tokenizers, "HFTokenizer", built)
    monkeypatch.setattr(hub, "is_reachable", lambda url: True)
    with pytest.raises(TokenizerUnavailable, match="seen"):
        build_backbone(small_config(hf_tokenizer_name="some/tokenizer", tokenizer_kwargs={"clean": "canonicalize"}))
    assert given == [{"context_length": 16, "clean": "canonicalize", "trust_remote_code": False}]


def test_weights_that_cannot_be_fetched_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "is_reachable", lambda url: False)
    with pytest.raises(WeightsUnavailable, match="can't be reached") as caught:
        door._fetch("ViT-B-32", "nowhere", {"hf_hub": "vidgrain-nowhere/none/"})
    assert "ARCH/path" in caught.value.hint


def test_reach_is_tried_with_a_real_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("urllib.request.getproxies", dict)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert hub.is_reachable(url)
    assert not hub.is_reachable(url)


def test_weights_from_a_file(tmp_path: Path) -> None:
    source = small_backbone(tmp_path, seed=5)
    state = source.clip.state_dict()
    save_file(state, tmp_path / "clip.safetensors")
    torch.save({"state_dict": state}, tmp_path / "clip.pt")
    for name in ("clip.safetensors", "clip.pt"):
        loaded = build_backbone(small_config(), weights=tmp_path / name, merges=write_merges(tmp_path))
        assert all(torch.equal(value, state[key]) for key, value in loaded.clip.state_dict().items())


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    merges, state = write_merges(tmp_path), small_backbone(tmp_path).clip.state_dict()
    del state["ln_final.weight"]
    save_file(state, tmp_path / "short.safetensors")
    with pytest.raises(CheckpointMismatch, match=r"ln_final\.weight"):
        build_backbone(small_config(), weights=tmp_path / "short.safetensors", merges=merges)
    save_file(small_backbone(tmp_path, width=64).clip.state_dict(), tmp_path / "wide.safetensors")
    with pytest.raises(CheckpointMismatch, match="doesn't fit"):
        build_backbone(small_config(), weights=tmp_path / "wide.safetensors", merges=merges)
    (tmp_path / "junk.safetensors").write_bytes(b"junk")
    with pytest.raises(WeightsUnavailable, match="can't be read"):
        build_backbone(small_config(), weights=tmp_path / "junk.safetensors", merges=merges)
    with pytest.raises(WeightsUnavailable):
        build_backbone(small_config(), weights=tmp_path / "absent.pt", merges=merges)


def test_the_wrong_activation_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    openai = open_clip.get_pretrained_cfg("ViT-B-32", "openai")
    with caplog.at_level(logging.WARNING):
        warn_of_activation({"quick_gelu": True}, "ViT-B-32-quickgelu", "openai", openai)
        assert not caplog.records
        warn_of_activation({}, "ViT-B-32", "openai", openai)
        warn_of_activation({}, "ViT-B-32", Path("openai/ViT-B-32.pt"), {})
    assert len(caplog.records) == 2 and "ViT-B-32-quickgelu" in caplog.text


def test_weights_without_a_tag_take_the_pixels_of_their_family() -> None:
    assert door._agreed_preprocess("PE-Core-T-16-384")["mean"] == (0.5, 0.5, 0.5)
    assert door._agreed_preprocess("MobileCLIP2-S0")["interpolation"] == "bilinear"


class SentencePieces:
    """What Vidgrain uses of a tokenizer of transformers, over words; end and padding are one id, as in SigLIP."""

    pad_token_id, eos_token_id, all_special_ids = 1, 1, [1]
    words = ("<unk>", "</s>", "▁red", "▁dog")

    def __len__(self) -> int:
        return len(self.words)

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [self.words[i] for i in ids]

    def encode(self, texts: list[str], context_length: int) -> Tensor:
        rows = [[self.words.index("▁" + word) for word in text.split()][: context_length - 1] for text in texts]
        return torch.tensor([row + [1] * (context_length - len(row)) for row in rows])


def test_a_transformers_tokenizer_whose_end_is_its_padding() -> None:
    inner = SentencePieces()
    ids, mask, pieces, is_cut = TransformersTokenizer(inner.encode, inner)(["red dog", "dog dog dog", "dog " * 4], 4)
    assert ids.tolist() == [[2, 3, 1, 1], [3, 3, 3, 1], [3, 3, 3, 1]]
    assert mask.tolist() == [[True, True, True, False], [True] * 4, [True] * 4]
    assert pieces == (("red", "dog"), ("dog", "dog", "dog"), ("dog", "dog", "dog"))
    assert is_cut == (False, False, True)


def test_a_sentence_that_fills_its_words_exactly_is_not_cut(tmp_path: Path) -> None:
    backbone = small_backbone(tmp_path)
    assert backbone.tokenize(["red dog", "dog", "red dog red", "dog <end_of_text> red"], 4).is_cut == (
        False,
        False,
        True,
        False,
    )


def test_a_separator_that_is_blanked_does_not_hide_a_cut() -> None:
    inner = SentencePieces()

    def blanking(texts: list[str], context_length: int) -> Tensor:
        ids = inner.encode(texts, context_length)
        return torch.where(ids == 1, 0, ids)

    inner.pad_token_id, inner.eos_token_id = 0, 1
    tokenizer = TransformersTokenizer(blanking, inner)
    assert tokenizer(["red dog", "red dog dog", "red dog dog dog"], 4).is_cut == (False, False, True)


def test_a_tokenizer_of_transformers_is_called_by_one_thread_at_a_time() -> None:
    inner, in_use = SentencePieces(), threading.Lock()

    def borrowing(texts: list[str], context_length: int) -> Tensor:
        if not in_use.acquire(blocking=False):
            raise RuntimeError("Already borrowed")
        try:
            sleep(0.001)  # another thread gets its chance
            return inner.encode(texts, context_length)
        finally:
            in_use.release()

    tokenizer = TransformersTokenizer(borrowing, inner)
    texts = [" ".join(["dog"] * n) for n in range(1, 9)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda text: tokenizer([text], 4), texts))
    for text, tokens in zip(texts, together, strict=True):
        assert tokens.pieces == tokenizer([text], 4).pieces and tokens.is_cut == (len(text.split()) > 3,)


class TransformersTower(nn.Module):
    """A text tower as open_clip wraps those of transformers: pooled from its first token, which it then leaves out."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCAB_SIZE, 8)
        self.proj = nn.Linear(8, 32)
        self.output_tokens = False

    def forward(self, ids: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        hidden = self.embedding(ids)
        pooled: Tensor = self.proj(hidden[:, 0])
        return (pooled, hidden[:, 1:]) if self.output_tokens else pooled


def test_the_class_token_of_a_transformers_tower_is_the_first_word(tmp_path: Path) -> None:
    backbone, tower = small_backbone(tmp_path), TransformersTower()
    backbone.clip.text = tower
    ids, *_ = backbone.tokenize(["red dog", "cat"], 6)
    sentence, words = backbone.encode_words(ids)
    torch.testing.assert_close(words, tower.proj(tower.embedding(ids)))
    torch.testing.assert_close(sentence, words[:, 0])
