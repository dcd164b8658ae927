"""Hugging Face's hub as far as we look at it ourselves: what lies in its local cache, and whether a host answers.

It fetches nothing and knows no model; it is the only file that imports huggingface_hub.
"""

from __future__ import annotations

import socket
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import huggingface_hub

REACH_TIMEOUT_S = 3.0


def endpoint() -> str:
    """The hub's address, as its library is configured."""
    return str(huggingface_hub.constants.ENDPOINT)


def cached_file(hub_name: str) -> Path | None:
    """The file of 'org/model/' or 'org/model/file' in the hub's local cache, safetensors first, as open_clip asks."""
    repo, _, file = hub_name.rpartition("/")
    if not repo:
        return None
    files = [file] if file else ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]
    if file.endswith((".bin", ".pth")):
        files.insert(0, file[:-4] + ".safetensors")
    for name in files:
        found = huggingface_hub.try_to_load_from_cache(repo, name)
        if isinstance(found, str):
            return Path(found)
    return None


def is_reachable(url: str) -> bool:
    """Whether the host answers within seconds. Behind a proxy that can't be tested, and the answer is yes."""
    if urllib.request.getproxies():
        return True
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname or "", parts.port or 443), timeout=REACH_TIMEOUT_S).close()
    except OSError:
        return False
    return True
