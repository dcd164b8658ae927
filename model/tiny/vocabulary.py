"""A small BPE vocabulary learnt from a list of words, in the format of CLIP's tokenizer: one merge `a b` per line.

Source of the algorithm: Sennrich et al., arXiv:1508.07909 (the most frequent pair is merged, again and again).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

END_OF_WORD = "</w>"


def learn_merges(words: Iterable[str]) -> list[tuple[str, str]]:
    """The merges, in order, that make one token of every word. Ties go to the pair first in the alphabet."""
    split = [[*word[:-1], word[-1] + END_OF_WORD] for word in words if word]
    merges: list[tuple[str, str]] = []
    while pairs := Counter(pair for pieces in split for pair in pairwise(pieces)):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        split = [_merge(pieces, best) for pieces in split]
    return merges


def _merge(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for piece in pieces:
        if merged and (merged[-1], piece) == pair:
            merged[-1] += piece
        else:
            merged.append(piece)
    return merged
