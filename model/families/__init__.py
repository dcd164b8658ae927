"""The kinds of models. A new kind is one file beside these, which holds its Network, and one line here."""

from __future__ import annotations

from model.checked import BadValue
from model.families.clip2video import Clip2VideoNetwork
from model.families.clip4clip import PooledNetwork
from model.families.tight import TightNetwork
from model.families.xclip import XClipNetwork
from model.network import Network
from model.types import HeadKind

FAMILIES: tuple[type[Network], ...] = (XClipNetwork, Clip2VideoNetwork, TightNetwork, PooledNetwork)
"""In the order in which a state dict is offered to them; the last one takes any."""

ZERO_SHOT: type[Network] = XClipNetwork
"""What plain CLIP towers are served as: with nothing learnt on top, it allows every shared scorer."""

KINDS: tuple[HeadKind, ...] = tuple(family.kind for family in FAMILIES)


def family_of(kind: HeadKind) -> type[Network]:
    """The family of this name. Raises: BadValue."""
    for family in FAMILIES:
        if family.kind == kind:
            return family
    raise BadValue(f"the kind {kind!r} is unknown.", f"There are {', '.join(KINDS)}.")
