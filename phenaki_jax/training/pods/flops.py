"""Products that a program asks for, counted before any compiler has seen it."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from jax.extend import core


def with_remat(config: Any, policy: str) -> Any:
    """The same dataclass, in which all stacks have this policy; "none" for nothing that is computed a second time."""
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name == "remat":
            # Convolutions have one way only.
            changes[field.name] = policy != "none" if isinstance(value, bool) else policy
        elif dataclasses.is_dataclass(value):
            changes[field.name] = with_remat(value, policy)
    return dataclasses.replace(config, **changes) if changes else config


def count_flops(jaxpr: core.Jaxpr) -> float:
    """Of all matrix products and convolutions, a multiplication and an addition each; the dearest branch of several."""
    return sum((_flops_of(equation) for equation in jaxpr.eqns), start=0.0)


def _flops_of(equation: core.JaxprEqn) -> float:
    name, params = equation.primitive.name, equation.params
    shapes = [getattr(variable.aval, "shape", ()) for variable in equation.invars]
    out = getattr(equation.outvars[0].aval, "shape", ()) if equation.outvars else ()
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        return 2.0 * math.prod(out) * math.prod(shapes[0][axis] for axis in contracted)
    if name == "conv_general_dilated":
        numbers = params["dimension_numbers"]
        taps = [shapes[1][axis] for axis in numbers.rhs_spec[1:]]
        total = 2.0 * math.prod(out) * math.prod(taps)
        # A dilated input is zeros in between, which no product is needed for.
        return total / math.prod(params["lhs_dilation"])
    if name == "cond":
        return max(count_flops(branch.jaxpr) for branch in params["branches"])
    times = params["length"] if name == "scan" else 1
    return times * sum((count_flops(inner) for inner in _inner(params)), start=0.0)


def _inner(params: dict[str, Any]) -> list[core.Jaxpr]:
    found = []
    for value in params.values():
        for each in value if isinstance(value, tuple | list) else [value]:
            if isinstance(each, core.ClosedJaxpr):
                found.append(each.jaxpr)
            elif isinstance(each, core.Jaxpr):
                found.append(each)
    return found
