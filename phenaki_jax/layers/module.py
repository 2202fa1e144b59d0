"""How Flax modules are called here, and how they hold parameters."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
from jaxtyping import Array


def apply(module: nn.Module, params: Any, *inputs: Any, **options: Any) -> Any:
    """What a module, or the `method` named in the options, makes of inputs with these parameters and no other state."""
    return module.apply({"params": params}, *inputs, **options)


def parameter(
    module: nn.Module, name: str, init: nn.initializers.Initializer, axes: tuple[str, ...], shape: tuple[int, ...]
) -> Array:
    """A float32 parameter of a module whose axes have these logical names."""
    value: Any = module.param(name, nn.with_logical_partitioning(init, axes), shape)
    return value
