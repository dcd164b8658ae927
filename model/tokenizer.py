"""Sentences -> token ids, the mask of the real ones, their readable pieces, and whether anything was cut.

Letters: T texts, W words (tokens; the start and end tokens count). Two kinds, one verb: CLIP's byte-pair encoding, and
a tokenizer of the transformers library wrapped by open_clip. Both are handed in; this file imports neither library.
"""

from __future__ import annotations

import gzip
import io
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from model.errors import TokenizerUnavailable, reason_of

Pieces = tuple[tuple[str, ...], ...]


class Tokens(NamedTuple):
    """T sentences as W tokens each."""

    ids: Tensor
    """(T, W) int64."""

    mask: Tensor
    """(T, W) bool, True for real tokens, the start and end tokens included."""

    pieces: Pieces
    """Per sentence the readable tokens, without start and end."""

    is_cut: tuple[bool, ...]
    """Per sentence whether it has more than W tokens, so that its end is missing."""


class Tokenizer(Protocol):
    """What a backbone asks of its tokenizer; may be called by several threads at once.

    `pad_id` fills a sentence up; `start_id` may come first in it.
    """

    @property
    def pad_id(self) -> int: ...

    @property
    def start_id(self) -> int | None: ...

    @property
    def vocab_size(self) -> int: ...

    def __call__(self, texts: Sequence[str], num_words: int) -> Tokens:
        """T sentences, cut to W tokens where they are longer."""
        ...


@dataclass(frozen=True)
class BpeTokenizer:
    """CLIP's tokens: start, lower-cased byte pairs cut to W - 2, end, then id 0. Masks hold from start to end.

    A special token that a text spells out means nothing and is dropped: only the last token may end a sentence.
    """

    encode: Callable[[str], list[int]]
    piece: Callable[[int], str]
    start_id: int
    end_id: int
    vocab_size: int
    pad_id: int = 0

    def __call__(self, texts: Sequence[str], num_words: int) -> Tokens:
        """See `Tokenizer`."""
        ids = torch.full((len(texts), num_words), self.pad_id, dtype=torch.long)
        mask = torch.zeros(len(texts), num_words, dtype=torch.bool)
        pieces: list[tuple[str, ...]] = []
        is_cut: list[bool] = []
        for row, text in enumerate(texts):
            whole = [i for i in self.encode(text) if i not in (self.start_id, self.end_id)]
            inner = whole[: num_words - 2]
            is_cut.append(len(inner) < len(whole))
            tokens = [self.start_id, *inner, self.end_id]
            ids[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = True
            pieces.append(tuple(self.piece(i) for i in inner))
        return Tokens(ids, mask, tuple(pieces), tuple(is_cut))


@dataclass(frozen=True)
class TransformersTokenizer:
    """A tokenizer of the transformers library behind open_clip's wrapper.

    The library keeps padding and truncation as state of its tokenizer, and a second thread that sets them meanwhile
    fails ("Already borrowed"): one thread at a time. CLIP's byte-pair encoding needs no lock.
    """

    wrapper: Callable[..., Tensor]
    """texts, context_length -> ids (T, context_length)."""

    inner: Any
    """The library's own object."""

    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @property
    def pad_id(self) -> int:
        """The library's padding id; 0 where it has none."""
        pad = self.inner.pad_token_id
        return 0 if pad is None else int(pad)

    @property
    def start_id(self) -> int | None:
        """The library's first token of a sentence; None, or simply never seen, where it puts none (SigLIP)."""
        start = self.inner.bos_token_id if self.inner.cls_token_id is None else self.inner.cls_token_id
        return None if start is None else int(start)

    @property
    def vocab_size(self) -> int:
        """The number of ids, added tokens included."""
        return len(self.inner)

    def __call__(self, texts: Sequence[str], num_words: int) -> Tokens:
        """See `Tokenizer`. Where the end token is also the padding (SigLIP), its first one counts as real."""
        ids, mask = self._ids_and_mask(texts, num_words)
        special = set(self.inner.all_special_ids)
        pieces = []
        for row_ids, row_mask in zip(ids.tolist(), mask.tolist(), strict=True):
            real = [i for i, is_real in zip(row_ids, row_mask, strict=True) if is_real and i not in special]
            pieces.append(tuple(str(p).strip("▁Ġ") for p in self.inner.convert_ids_to_tokens(real)))
        return Tokens(ids, mask, tuple(pieces), self._is_cut(texts, mask))

    def _ids_and_mask(self, texts: Sequence[str], num_words: int) -> tuple[Tensor, Tensor]:
        with self._lock:
            ids = self.wrapper(list(texts), context_length=num_words).long()
        mask = ids != self.pad_id
        if self.inner.eos_token_id == self.pad_id:
            ends = mask.long().cumprod(-1).sum(-1)
            mask = mask | (torch.arange(num_words)[None, :] == ends[:, None])
        return ids, mask

    def _is_cut(self, texts: Sequence[str], mask: Tensor) -> tuple[bool, ...]:
        """Whether room for one more token would hold one. Asked only for sentences that nearly fill theirs."""
        num_words = mask.shape[-1]
        is_cut = [False] * len(texts)
        # the last place may be empty although the text was cut: open_clip can blank the separator that ends it
        nearly_full = mask[:, -2].nonzero()[:, 0].tolist()
        if nearly_full:
            _, wider = self._ids_and_mask([texts[row] for row in nearly_full], num_words + 1)
            for row, count in zip(nearly_full, wider.sum(-1).tolist(), strict=True):
                is_cut[row] = count > int(mask[row].sum())
        return tuple(is_cut)


def tokenizer_options(text_cfg: Mapping[str, Any], read: Collection[str]) -> dict[str, str | bool]:
    """The tokenizer's options in an open_clip configuration; `read` lists those that are supported.

    A configuration may come from anywhere and the options go to other libraries, where some let code run, so no others
    pass. Raises: TokenizerUnavailable naming them.
    """
    options = text_cfg.get("tokenizer_kwargs") or {}
    if not isinstance(options, Mapping):
        raise TokenizerUnavailable(f"tokenizer_kwargs is {options!r}; a table is needed.")
    # a reduction mask drops words of long texts at random, which only training in open_clip's way uses
    chosen = {name: value for name, value in options.items() if name != "reduction_mask"}
    others = [name for name, value in chosen.items() if name not in read or not isinstance(value, str | bool)]
    if others:
        raise TokenizerUnavailable(
            f"tokenizer_kwargs has {', '.join(sorted(others))}, which isn't supported; it may have {', '.join(read)}."
        )
    return chosen


def merges_archive(path: Path) -> io.BytesIO:
    """A plain merges file ('a b' per line, a '#version' line allowed) as the archive that CLIP's tokenizer reads.

    Raises: TokenizerUnavailable if the file can't be read or a line isn't a pair.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise TokenizerUnavailable(f"This merges file can't be read: {reason_of(error)}.", path=path) from error
    merges = [line.strip() for line in lines if line.strip() and "#version" not in line]
    broken = [line for line in merges if len(line.split()) != 2]
    if broken:
        raise TokenizerUnavailable(f"This merges file has the line {broken[0]!r}, which isn't a pair.", path=path)
    return io.BytesIO(gzip.compress("\n".join(["#version: 1", *merges]).encode("utf-8")))
