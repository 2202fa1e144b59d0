"""The Inception score (arXiv 1606.03498): how sure a classifier is of each sample, and how even classes are."""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from clu import metrics
from jaxtyping import Array, Bool, Float, Int

from phenaki_jax.errors import UserError
from phenaki_jax.evaluation.frechet import refuse_flawed
from phenaki_jax.evaluation.masks import mask_of, valid_rows
from phenaki_jax.evaluation.pairs import Pair

SPLITS = 10
"""Parts that published scores are the mean of."""


class OfSplits(NamedTuple):
    """The scores of parts.

    Attributes:
      mean: what is reported.
      deviation: from part to part.
    """

    mean: float
    deviation: float


def inception_score(logits: Float[np.ndarray, "samples classes"], splits: int = SPLITS) -> OfSplits:
    """exp of the mean divergence of a sample's classes from those of all samples of its part, in float64.

    Args:
      logits: of a classifier; samples are parted in the order that they have.
      splits: parts; 1 for the score of all samples at once.

    Raises:
      UserError: fewer samples than parts, or logits that are no finite numbers.
    """
    if not 1 <= splits <= len(logits):
        raise UserError(f"found {splits} splits of {len(logits)} samples, expected 1 to as many as there are samples")
    refuse_flawed(len(logits) - int(np.isfinite(logits).all(axis=1).sum()), len(logits))
    scores = []
    for part in range(splits):
        begin, end = (len(logits) * place // splits for place in (part, part + 1))
        shifted = logits[begin:end].astype(np.float64)
        shifted -= shifted.max(axis=1, keepdims=True)
        logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        classes = np.exp(logs)
        scores.append(_score(classes.sum(axis=0), float((classes * logs).sum()), end - begin))
    return OfSplits(mean=float(np.mean(scores)), deviation=float(np.std(scores)))


@flax.struct.dataclass
class InceptionScore(metrics.Metric):
    """The Inception score of logits that stream by.

    Attributes:
      count: samples of each part.
      classes: sums of their probabilities.
      certainty: sums over samples of p log p.
    """

    count: Int[Array, "*splits"]
    classes: Pair
    certainty: Pair

    @classmethod
    def empty(cls) -> "InceptionScore":
        """Nothing added."""
        return cls(count=jnp.zeros((), jnp.int32), classes=Pair.zeros(), certainty=Pair.zeros())

    @classmethod
    def from_outputs(cls, logits: str = "logits", splits: int = 1, samples: int = 0) -> type["InceptionScore"]:
        """A metric that reads the output of this name [batch, classes] and, where there is one, `mask`.

        Args:
          logits: the name.
          splits: parts, by the output `index` [batch], the place of a sample among all.
          samples: how many there are in all; not needed for one part.
        """
        if splits > 1 and samples < splits:
            raise UserError(f"found {samples} samples for {splits} splits, expected how many samples there are in all")

        @flax.struct.dataclass
        class FromOutputs(cls):  # type: ignore[misc, valid-type]
            @classmethod
            def from_model_output(cls, **outputs: Any) -> "InceptionScore":
                values = jnp.asarray(outputs[logits])
                valid = valid_rows(mask_of(outputs, logits), len(values))
                part = (
                    ((outputs["index"] + 1) * splits - 1) // samples
                    if splits > 1
                    else jnp.zeros(len(values), jnp.int32)
                )
                return cls(*_sums(values, (part[:, None] == jnp.arange(splits)) & valid[:, None]))

        return FromOutputs

    def merge(self, other: "InceptionScore") -> "InceptionScore":
        """Adds what another has added up."""
        return type(self)(
            count=self.count + other.count,
            classes=self.classes.merge(other.classes),
            certainty=self.certainty.merge(other.certainty),
        )

    def scores(self) -> OfSplits:
        """Mean and deviation of the parts' scores, on the host; parts without a sample do not count.

        Raises:
          UserError: nothing was added, or logits were no finite numbers.
        """
        counts = np.atleast_1d(np.asarray(self.count))
        if not counts.any():
            raise UserError("found no logits, expected those of at least one sample")
        classes, certainty = self.classes.to_float64(), self.certainty.to_float64()
        if not (np.isfinite(classes).all() and np.isfinite(certainty).all()):
            raise UserError(
                "found NaN or infinity in logits, expected numbers alone: look at the samples they are of, and at the "
                "network's weights"
            )
        found = [
            _score(*of_part) for of_part in zip(classes, certainty.tolist(), counts.tolist(), strict=True) if of_part[2]
        ]
        return OfSplits(mean=float(np.mean(found)), deviation=float(np.std(found)))

    def compute(self) -> float:
        """The mean of the parts' scores, see `scores`."""
        return self.scores().mean


def _sums(
    logits: Float[Array, "batch classes"], part: Bool[Array, "batch splits"]
) -> tuple[Int[Array, " splits"], Pair, Pair]:
    """Counts, sums of probabilities and of p log p of each part of a batch."""
    logits = jnp.where(part.any(axis=1, keepdims=True), logits.astype(jnp.float32), 0.0)
    logs = jax.nn.log_softmax(logits)
    probabilities, weights = jnp.exp(logs), part.astype(jnp.float32)
    classes = jnp.einsum("bs,bc->sc", weights, probabilities, precision=jax.lax.Precision.HIGHEST)
    certainty = jnp.einsum(
        "bs,b->s", weights, jnp.sum(probabilities * logs, axis=1), precision=jax.lax.Precision.HIGHEST
    )
    return (
        jnp.sum(part, axis=0, dtype=jnp.int32),
        Pair.zeros(classes.shape).add(classes),
        Pair.zeros(certainty.shape).add(certainty),
    )


def _score(classes: np.ndarray, certainty: float, count: int) -> float:
    """Of the sums of probabilities and of p log p over so many samples."""
    mean = classes / count
    positive = mean[mean > 0]
    return float(np.exp(certainty / count - (positive * np.log(positive)).sum()))
