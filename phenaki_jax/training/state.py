"""All that training changes, in one place."""

from __future__ import annotations

from typing import Any

import flax.struct
from jaxtyping import Array, Int, PRNGKeyArray


@flax.struct.dataclass
class TrainState:
    """What a checkpoint holds and a step replaces.

    Attributes:
      step: steps taken.
      params: what is trained.
      frozen: parameters of frozen parts (the tokenizer of the transformer), so that a checkpoint is complete.
      optimizer: state of the optimizer.
      seed: of all randomness; step `i` uses it folded with `i`.
    """

    step: Int[Array, ""]
    params: Any
    frozen: Any
    optimizer: Any
    seed: PRNGKeyArray
