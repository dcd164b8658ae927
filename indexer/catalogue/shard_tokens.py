"""Tokens that tie files made of the catalogue to this very catalogue. Every function takes an open transaction.

A file that carries a token was made of a catalogue whose history has the transaction that wrote the token. A catalogue
that was restored from an older copy hasn't, nor has another folder's; one restored from a newer copy has, and then what
the file says of changes up to that transaction holds. Some tokens are kept, since a process may be killed after it
wrote the token and before the file that carries it. An upgrade of the catalogue's format ends them all: everything is
read from the new tables once.
"""

from __future__ import annotations

import json
import secrets

from indexer.catalogue.migrations import LATEST
from indexer.catalogue.rows import Transaction

KEPT = 8
"""Tokens that are kept."""


def known(tx: Transaction) -> tuple[str, ...]:
    """The tokens that this catalogue wrote last, oldest first."""
    row = tx.row("SELECT value FROM state WHERE key = 'shards'")
    if row is None:
        return ()
    stored = json.loads(row["value"])
    return tuple(stored["tokens"]) if stored["format"] == LATEST else ()


def renew(tx: Transaction) -> str:
    """Write another token and return it."""
    token = secrets.token_hex(16)
    value = json.dumps({"format": LATEST, "tokens": [*known(tx), token][-KEPT:]})
    tx.change(
        "INSERT INTO state (key, value) VALUES ('shards', ?) ON CONFLICT (key) DO UPDATE SET value = ?", value, value
    )
    return token
