"""Optimizers: the paper's AdamW, and Muon where time is short."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import optax
from optax.contrib import MuonDimensionNumbers, muon

from phenaki_jax.errors import UserError, check_at_least, check_types

# Logical axes of the kernels that Muon orthogonalises (after "layers"): how many come in, then how many go out.
_KERNEL_AXES = {
    ("embed", "qkv", "heads", "kv"): (1, 3),
    ("heads", "kv", "embed"): (2, 1),
    ("embed", "mlp"): (1, 1),
}


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """An optimizer and its schedule: linear warm-up, then a cosine to `final_share` of the learning rate.

    Attributes:
      kind: "adamw" (Phenaki, appendix) or "muon" (orthogonalised momentum for the kernels of the layers, AdamW for the
        rest, at one learning rate; https://kellerjordan.github.io/posts/muon/ with the scale of arXiv 2502.16982).
      learning_rate: at the end of the warm-up.
      warmup_steps: steps of linear warm-up.
      decay_steps: step at which the cosine ends, warm-up included.
      final_share: share of the learning rate that is left then.
      b1: decay of the first moment.
      b2: decay of the second moment.
      weight_decay: decoupled weight decay.
      clip: largest global norm of the gradient, above 0.

    Raises:
      UserError: an unknown kind, or a value out of its range.
    """

    kind: str = "adamw"
    learning_rate: float = 1e-4
    warmup_steps: int = 100_000
    decay_steps: int = 1_000_000
    final_share: float = 0.0
    b1: float = 0.9
    b2: float = 0.99
    weight_decay: float = 1e-4
    clip: float = 10.0

    def __post_init__(self) -> None:
        check_types(self)
        if self.kind not in ("adamw", "muon"):
            raise UserError(f"optimizer {self.kind!r} is unknown; known are adamw and muon")
        if not 0 < self.learning_rate < math.inf:
            raise UserError(f"found learning_rate {self.learning_rate}, expected a number above 0, such as 1e-4")
        if not self.clip > 0:
            raise UserError(f"found clip {self.clip}, expected a number above 0, such as 10.0")
        if not 0 <= self.final_share <= 1:
            raise UserError(f"found final_share {self.final_share}, expected a share of learning_rate, from 0 to 1")
        for name in ("b1", "b2"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"found {name} {getattr(self, name)}, expected at least 0 and below 1")
        if not 0 <= self.weight_decay < math.inf:
            raise UserError(f"found weight_decay {self.weight_decay}, expected a number of at least 0")
        if self.decay_steps < 1:
            raise UserError(
                f"found decay_steps {self.decay_steps}, which run files set to STEPS, expected at least 1: set STEPS"
            )
        check_at_least(self, 0, "warmup_steps")
        if self.warmup_steps >= self.decay_steps:
            raise UserError(
                f"warmup_steps {self.warmup_steps} must be fewer than decay_steps {self.decay_steps}, which run files "
                "set to STEPS: train longer or set OptimizerConfig.warmup_steps"
            )

    def schedule(self) -> optax.Schedule:
        """Learning rate by step."""
        return optax.warmup_cosine_decay_schedule(
            0.0, self.learning_rate, self.warmup_steps, self.decay_steps, self.learning_rate * self.final_share
        )

    def make(self, boxed_params: Any) -> optax.GradientTransformation:
        """The optimizer for parameters that carry logical axis names."""
        rule = {"weight_decay": self.weight_decay}
        if self.kind == "adamw":
            transform = optax.adamw(self.schedule(), b1=self.b1, b2=self.b2, **rule)
        else:
            transform = muon(
                self.schedule(),
                adam_b1=self.b1,
                adam_b2=self.b2,
                consistent_rms=0.2,
                muon_weight_dimension_numbers=_muon_dimensions(boxed_params),
                **rule,
            )
        return optax.chain(optax.clip_by_global_norm(self.clip), transform)


def _muon_dimensions(boxed_params: Any) -> Any:
    """Which kernels are matrices from which axes to which, None for what AdamW trains."""

    def dimensions(leaf: Any) -> MuonDimensionNumbers | None:
        names = tuple(map(str, leaf.names)) if isinstance(leaf, nn.LogicallyPartitioned) else ()
        if names[:1] != ("layers",) or names[1:] not in _KERNEL_AXES:
            return None
        into, out = _KERNEL_AXES[names[1:]]
        return MuonDimensionNumbers(tuple(range(1, 1 + into)), tuple(range(1 + into, 1 + into + out)))

    return jax.tree.map(dimensions, boxed_params, is_leaf=lambda leaf: isinstance(leaf, nn.LogicallyPartitioned))
