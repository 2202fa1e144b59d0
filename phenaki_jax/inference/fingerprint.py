"""What tells parameters from others of the same shapes, in model.json, videos, evaluations and precomputed data."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict

DIGITS = 16


def fingerprint(params: Any) -> str:
    """Of a network's tree of arrays that this process holds all of: 16 hexadecimal digits, equal where all values are.

    `standalone.run` computes the same of a safetensors file.
    """
    told = hashlib.sha256()
    for name, array in sorted(flatten_dict(params, sep="/").items()):
        told.update(name.encode())
        told.update(np.ascontiguousarray(array, np.float32).data)
    return told.hexdigest()[:DIGITS]


def network_fingerprints(params: Mapping[str, Any]) -> dict[str, str]:
    """That of each network of a model, by its name."""
    return {name: fingerprint(tree) for name, tree in params.items()}


def model_fingerprint(networks: Mapping[str, str]) -> str:
    """Of a model whose networks have these."""
    told = "".join(f"{name} {each}\n" for name, each in sorted(networks.items()))
    return hashlib.sha256(told.encode()).hexdigest()[:DIGITS]
