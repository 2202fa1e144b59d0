"""Measures add up over batches of unequal weight to what they are of everything at once."""

import jax.numpy as jnp
import numpy as np
import pytest

from phenaki_jax.evaluation.metrics import CodeCounts, CodePerplexity, Ratio, count_codes, psnr


def test_a_ratio_weighs_batches_by_what_they_count() -> None:
    loss = Ratio.from_output("loss")
    merged = loss.from_model_output(loss=(6.0, 2.0)).merge(loss.from_model_output(loss=(1.0, 8.0)))
    assert float(merged.compute()) == pytest.approx(0.7)


def test_a_ratio_of_vectors_has_a_mean_for_each_entry() -> None:
    """As of errors at each frame index, which not every clip of a batch has."""
    error = Ratio.from_output("error")
    batches = [
        (jnp.array([6.0, 1.0, 0.0]), jnp.array([2.0, 1.0, 0.0])),
        (jnp.array([1.0, 3.0, 0.0]), jnp.array([8.0, 1.0, 0.0])),
    ]
    one, other = (error.from_model_output(error=batch) for batch in batches)
    np.testing.assert_allclose(one.merge(other).compute(), [0.7, 2.0, np.nan], rtol=1e-6)


def test_an_output_that_is_absent_counts_nothing() -> None:
    """As those of gradients are in evaluations."""
    loss = Ratio.from_output("loss")
    absent, counted = loss.from_model_output(psnr=(6.0, 2.0)), loss.from_model_output(loss=(6.0, 2.0))
    assert np.isnan(absent.compute())
    assert float(absent.merge(counted).compute()) == float(counted.merge(absent).compute()) == 3.0
    vectors = loss.from_model_output(loss=(jnp.array([6.0, 1.0]), jnp.array([2.0, 1.0])))
    np.testing.assert_array_equal(absent.merge(vectors).compute(), [3.0, 1.0])


def test_a_ratio_of_nothing_is_no_number() -> None:
    assert np.isnan(Ratio.empty().compute())


def test_codes_are_counted_where_frames_are_valid() -> None:
    tokens = jnp.array([[[[0, 1]], [[1, 1]]], [[[3, 3]], [[2, 2]]]])
    valid = jnp.array([[True, True], [True, False]])
    np.testing.assert_array_equal(count_codes(tokens, valid, 5), [1, 3, 0, 2, 0])


def test_usage_and_perplexity_of_codes() -> None:
    first, second = jnp.array([4.0, 0.0, 0.0, 0.0]), jnp.array([0.0, 4.0, 0.0, 0.0])
    for metric, alone, both in ((CodeCounts, 0.25, 0.5), (CodePerplexity, 1.0, 2.0)):
        one, other = (metric.from_model_output(code_counts=counts) for counts in (first, second))
        assert float(one.compute()) == pytest.approx(alone)
        assert float(one.merge(other).compute()) == pytest.approx(both)


def test_psnr_is_that_of_a_known_error_over_valid_frames() -> None:
    video = jnp.zeros((2, 3, 4, 4, 3))
    off_by_a_tenth = video + 0.2  # pixels are in [-1, 1], a range of 2
    spoiled = off_by_a_tenth.at[:, 2].set(1.0)
    mask = jnp.array([[True, True, False], [True, False, False]])
    np.testing.assert_allclose(psnr(video, spoiled, mask), 20.0, rtol=1e-5)


def test_psnr_clips_what_no_pixel_can_be() -> None:
    white = jnp.ones((1, 1, 4, 4, 3))
    assert float(psnr(white, white * 3, jnp.ones((1, 1), bool))[0]) == pytest.approx(100.0)
