"""Means over clips weigh every valid clip alike and lose none."""

import jax.numpy as jnp
import numpy as np

from phenaki_jax.evaluation.means import Mean


def test_batches_of_unequal_size_weigh_by_their_clips() -> None:
    metric = Mean.from_output("ssim")
    first = metric.from_model_output(ssim=jnp.array([1.0, 2.0, 3.0]))
    second = metric.from_model_output(ssim=jnp.array([10.0, jnp.nan]), mask=jnp.array([True, False]))
    assert metric.empty().merge(first).merge(second).compute() == 4.0
    assert np.isnan(metric.empty().compute())


def test_a_million_clips_lose_nothing() -> None:
    """Added up in float32, 2^24 and then ones stays 2^24."""
    large, one = (Mean.from_model_output(jnp.array([value])) for value in (2.0**24, 1.0))
    total = large
    for _ in range(100):
        total = total.merge(one)
    assert total.compute() == (2.0**24 + 100) / 101
