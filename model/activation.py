"""Whether weights were trained with the activation that their architecture names. It knows configurations only."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)


def warn_of_activation(
    model_cfg: Mapping[str, Any],
    architecture: str,
    weights: Path | str | None,
    published: Mapping[str, Any],
) -> None:
    """Weights load just as well under the wrong activation and give embeddings that are quietly off: log a warning."""
    is_quick = bool(model_cfg.get("quick_gelu", False))
    wants_quick = bool(published.get("quick_gelu", False)) if published else is_quick or "openai" in str(weights)
    if wants_quick and not is_quick:
        log.warning("weights %s expect QuickGELU, use the architecture %s-quickgelu", weights, architecture)
    elif is_quick and not wants_quick:
        log.warning("weights %s expect GELU, use the architecture %s without -quickgelu", weights, architecture)
