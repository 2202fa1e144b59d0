"""Losses: cross-entropy by hand, of codes whole and in factors, and of the token critic."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr

from phenaki_jax.transformer.objective import critic_loss, in_parts, token_loss

PROBABILITIES = jnp.array([[[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]]])
TOKENS = jnp.array([[0, 1]])


def test_loss_of_a_case_worked_out_by_hand() -> None:
    found = token_loss((jnp.log(PROBABILITIES),), TOKENS)
    np.testing.assert_allclose(found.cross_entropy, [[-np.log(0.5), -np.log(0.8)]], rtol=1e-6)
    np.testing.assert_array_equal(found.objective, found.cross_entropy)
    np.testing.assert_array_equal(found.correct, [[1.0, 1.0]])
    np.testing.assert_array_equal(token_loss((jnp.log(PROBABILITIES),), jnp.array([[1, 1]])).correct, [[0.0, 1.0]])


def test_smoothed_labels_are_shared_with_all_codes() -> None:
    found = token_loss((jnp.log(PROBABILITIES),), TOKENS, label_smoothing=0.3)
    labels = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]])
    np.testing.assert_allclose(found.objective[0], -np.sum(labels * np.log(PROBABILITIES[0]), axis=-1), rtol=1e-6)
    np.testing.assert_allclose(found.cross_entropy[0], [-np.log(0.5), -np.log(0.8)], rtol=1e-6)


def test_the_z_loss_is_that_of_the_denominator() -> None:
    logits = jnp.log(PROBABILITIES) + jnp.array([[[2.0], [-3.0]]])
    found = token_loss((logits,), TOKENS, z_loss=0.1)
    np.testing.assert_allclose(found.objective - found.cross_entropy, [[0.4, 0.9]], rtol=1e-5)


def test_factors_of_a_code_are_as_one_head_of_independent_digits() -> None:
    first, second = (jax.random.normal(jax.random.key(size), (2, 7, size)) for size in (4, 5))
    tokens = jax.random.randint(jax.random.key(0), (2, 7), 0, 20)
    joint = (second[..., :, None] + first[..., None, :]).reshape(2, 7, 20)
    whole, factored = token_loss((joint,), tokens), token_loss((first, second), tokens)
    for one, other in zip(whole, factored, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-5)


def test_a_critic_is_told_what_was_drawn() -> None:
    scores = jnp.log(jnp.array([[3.0, 3.0]]))  # three to one for the video's own
    np.testing.assert_allclose(
        critic_loss(scores, jnp.array([[True, False]])), [[-np.log(0.75), -np.log(0.25)]], rtol=1e-6
    )


def test_logits_of_all_tokens_are_never_there_where_the_loss_is_taken_in_parts() -> None:
    tokens = jax.random.randint(jax.random.key(0), (2, 12), 0, 500)
    features, head = (
        jax.random.normal(jax.random.key(size), (*axes, size)) for size, axes in ((8, (2, 12)), (500, (8,)))
    )

    def loss(parts: int, features: jax.Array, head: jax.Array) -> jax.Array:
        judge = lambda features, tokens, rng: token_loss((features @ head,), tokens)  # noqa: E731
        found = in_parts(judge, parts, features, tokens, rng=jax.random.key(0))
        assert found.correct.shape == tokens.shape
        return jnp.sum(found.objective * jnp.arange(12.0))

    gradients = {parts: jax.grad(loss, argnums=(1, 2)) for parts in (1, 4)}
    largest = {
        parts: max(_sizes(jax.make_jaxpr(g, static_argnums=0)(parts, features, head))) for parts, g in gradients.items()
    }
    assert largest == {1: 2 * 12 * 500, 4: 8 * 500}
    whole, in_four = (jax.jit(g, static_argnums=0)(parts, features, head) for parts, g in gradients.items())
    for one, other in zip(in_four, whole, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def _sizes(jaxpr: ClosedJaxpr | Jaxpr) -> Iterator[int]:
    """Of all arrays that a program makes."""
    for equation in jaxpr.eqns:
        yield from (variable.aval.size for variable in equation.outvars if hasattr(variable.aval, "size"))
        for inner in equation.params.values():
            if isinstance(inner, ClosedJaxpr | Jaxpr):
                yield from _sizes(inner)
