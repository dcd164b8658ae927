"""Builds networks whose weights come from a file, without drawing random ones first: CLIP's take a second.

It knows no network. Whoever uses it must set every parameter afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.overrides import TorchFunctionMode

_DRAWING = frozenset({"uniform_", "normal_", "kaiming_uniform_", "kaiming_normal_"})
"""What random weights are made by: methods of tensors, and functions of torch.nn.init that aren't made of these."""


class unset_weights(TorchFunctionMode):  # noqa: N801  a context, used as `with unset_weights():`
    """In this block, parameters that would be drawn at random keep what lies in their memory: any number, even NaN."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """The tensor as it is for functions that draw; any other function is called."""
        given = kwargs or {}
        if getattr(func, "__name__", "") in _DRAWING:
            return args[0] if args else given["tensor"]
        return func(*args, **given)
