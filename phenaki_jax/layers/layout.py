"""Which axis of an activation lies on which axis of the mesh, by the logical names that sharding rules speak of."""

from __future__ import annotations

import contextlib
import contextvars
import math
from collections.abc import Iterator
from typing import NamedTuple

import flax.linen as nn
import jax
from jax.sharding import PartitionSpec
from jaxtyping import Array

_on_any: contextvars.ContextVar[bool] = contextvars.ContextVar("on_any_platform", default=False)


class Axes(NamedTuple):
    """Logical names of the axes of sequences: rows, what attends, and what is attended to."""

    rows: str = "batch"
    queries: str = "length"
    keys: str = "keys"


ROWS = Axes()
"""Of the tokens of whole examples."""

OVER_TIME = Axes("sites", "times", "times")
"""Of sequences of time steps, one for each site of each video; a site's times are never divided."""


def constrain(array: Array, *names: str | None) -> Array:
    """The same array, laid out on the mesh of the context by the rules of the context; as it is where there are none.

    Args:
      array: an activation.
      names: logical ones, of all its axes: those of `Axes`, "embed", "heads", "mlp", "codes"; None, or any other, for
        an axis that is never divided.
    """
    spec = spec_of(array.shape, names)
    return array if spec is None else jax.lax.with_sharding_constraint(array, spec)


def spec_of(shape: tuple[int, ...], names: tuple[str | None, ...]) -> PartitionSpec | None:
    """How an array of this shape is laid out; None without a mesh of several devices, or without rules.

    An axis that the mesh does not divide stays whole, as of the few videos that are drawn to be looked at.
    """
    mesh, rules = jax.sharding.get_abstract_mesh(), nn.get_logical_axis_rules()
    if mesh.size <= 1 or not rules:
        return None
    places = tuple(nn.logical_to_mesh_axes(names, rules) or ())
    kept = []
    for size, place in zip(shape, places, strict=True):
        axes = (place,) if isinstance(place, str) else tuple(place or ())
        kept.append(place if size % math.prod(mesh.shape[axis] for axis in axes) == 0 else None)
    return PartitionSpec(*kept)


@contextlib.contextmanager
def any_platform() -> Iterator[None]:
    """Within it programs are traced that run wherever they are taken: what is quick on one platform alone stays out."""
    token = _on_any.set(True)
    try:
        yield
    finally:
        _on_any.reset(token)


def platform() -> str:
    """What is compiled for: "cpu", "gpu" or "tpu", of the mesh of the context, which may be a pod that is not there.

    It is "any" within `any_platform`.
    """
    if _on_any.get():
        return "any"
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else str(device.platform)
