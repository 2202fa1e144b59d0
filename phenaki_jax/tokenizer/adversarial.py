"""What tokenizer and discriminator want of the discriminator's logits, and when."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from phenaki_jax.errors import UserError, check_types
from phenaki_jax.tokenizer.discriminator import DiscriminatorConfig, Logits

# From a video to the logits of a discriminator whose parameters, and whose mask of valid frames, are fixed.
LogitsOf = Callable[[Float[Array, "batch frames height width 3"]], Logits]


@dataclasses.dataclass(frozen=True)
class AdversarialConfig:
    """The adversarial terms (Phenaki, equation 1; the form is that of MAGVIT's code).

    A discriminator warms up alone from step `discriminator_start` to step `start`; where both are the same, it and the
    tokenizer begin to play against each other at once.

    Attributes:
      discriminator: which discriminator.
      kind: "non_saturating" (arXiv 1406.2661, section 3) or "hinge" (arXiv 1705.02894).
      weight: of the term that the tokenizer minimizes.
      r1: cost of `r1_penalty`, gamma of arXiv 1801.04406; StyleGAN's usual 10; 0 for none.
      r1_every: steps from one penalty to the next, each then weighing as many times more (arXiv 1912.04958, section
        3.1: 16); 1 for all steps.
      lecam: weight of LeCAM regularisation (MAGVIT-v2: .001); 0 for none.
      lecam_decay: decay of its running averages.
      adaptive: whether `adaptive_weight` multiplies the weight.
      start: first step at which the term acts on the tokenizer.
      discriminator_start: first step at which the discriminator trains; before it, it is not even run. Its optimizer's
        schedule, and the decay of its weights, begin with step 0 all the same.

    Raises:
      UserError: an unknown kind, a weight, decay or step out of its range, or a tokenizer that would follow a
        discriminator which does not train yet.
    """

    discriminator: DiscriminatorConfig = dataclasses.field(default_factory=DiscriminatorConfig)
    kind: str = "non_saturating"
    weight: float = 0.1
    r1: float = 10.0
    r1_every: int = 1
    lecam: float = 0.0
    lecam_decay: float = 0.999
    adaptive: bool = False
    start: int = 0
    discriminator_start: int = 0

    def __post_init__(self) -> None:
        check_types(self)
        if self.kind not in ("non_saturating", "hinge"):
            raise UserError(f"adversarial loss {self.kind!r} is unknown; known are non_saturating and hinge")
        for name in ("weight", "r1", "lecam"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"adversarial {name} {getattr(self, name)} must be a number of at least 0")
        if not 0 <= self.lecam_decay < 1:
            raise UserError(f"lecam_decay {self.lecam_decay} must be at least 0 and below 1")
        if self.r1_every < 1:
            raise UserError(f"r1_every {self.r1_every} must be at least 1; set r1 to 0 for no penalty")
        if self.discriminator_start < 0:
            raise UserError(f"discriminator_start {self.discriminator_start} must be a step, 0 or later")
        if self.start < self.discriminator_start:
            raise UserError(
                f"the adversarial term starts at step {self.start}, before the discriminator trains, from step "
                f"{self.discriminator_start}: set AdversarialConfig.start to {self.discriminator_start} or later"
            )


class LecamState(NamedTuple):
    """Running averages of the logits."""

    real: Float[Array, ""]
    fake: Float[Array, ""]


class DiscriminatorTerms(NamedTuple):
    """What the discriminator minimizes, and its terms before they are weighted.

    Attributes:
      total: adversarial + r1 cost * r1 + lecam weight * lecam.
      adversarial: the loss on real and reconstructed videos.
      r1: `lazy_r1_penalty`: on steps that are due `r1_every` times `r1_penalty`, on others 0.
      lecam: `lecam_penalty`.
    """

    total: Float[Array, ""]
    adversarial: Float[Array, ""]
    r1: Float[Array, ""]
    lecam: Float[Array, ""]


class LogitStatistics(NamedTuple):
    """What tells how the game stands.

    Attributes:
      accuracy: mean of the share of real logits above 0 and that of fake ones below 0; near .5 the tokenizer wins,
        near 1 the discriminator.
      real_mean: mean of the real logits.
      fake_mean: mean of the fake logits.
    """

    accuracy: Float[Array, ""]
    real_mean: Float[Array, ""]
    fake_mean: Float[Array, ""]


def started(step: Int[Array, ""] | int, start: int) -> Float[Array, ""]:
    """1 from the step `start` on, 0 before."""
    return (jnp.asarray(step) >= start).astype(jnp.float32)


def generator_loss(kind: str, fake: Logits) -> Float[Array, ""]:
    """What reconstructions should minimize, a mean over valid logits D.

    Non-saturating: log(1 + exp(-D)). Hinge: -D.
    """
    return _mean(fake, -fake.values if kind == "hinge" else jax.nn.softplus(-fake.values))


def generator_weight(config: AdversarialConfig, step: Int[Array, ""] | int) -> Float[Array, ""]:
    """What `generator_loss` is multiplied by at a step, besides `adaptive_weight` where configured."""
    return config.weight * started(step, config.start)


def adaptive_weight(
    reconstruction_slope: Float[Array, "batch frames height width 3"],
    adversarial_slope: Float[Array, "batch frames height width 3"],
) -> Float[Array, ""]:
    """How many times the adversarial slope fits into that of the other terms (VQGAN, arXiv 2012.09841, equation 7).

    Slopes are gradients at the reconstruction, where VQGAN takes gradients of the weights of the decoder's last layer:
    slopes are at hand before the tokenizer's one backward pass, which takes their sum; those of weights would need a
    second pass.

    Args:
      reconstruction_slope: of all other terms that look at the reconstruction.
      adversarial_slope: of `generator_loss`, unweighted.

    Returns:
      |reconstruction slope| / (|adversarial slope| + 1e-6), at most 1e4, a constant to all gradients.
    """
    ratio = jnp.linalg.norm(reconstruction_slope) / (jnp.linalg.norm(adversarial_slope) + 1e-6)
    return jax.lax.stop_gradient(jnp.minimum(ratio, 1e4))


def discriminator_loss(kind: str, real: Logits, fake: Logits) -> Float[Array, ""]:
    """What the discriminator should minimize: the mean over valid real logits plus that over fake ones.

    Non-saturating: log(1 + exp(-real)) and log(1 + exp(fake)). Hinge: max(0, 1 - real) and max(0, 1 + fake).
    """
    if kind == "hinge":
        return _mean(real, jax.nn.relu(1.0 - real.values)) + _mean(fake, jax.nn.relu(1.0 + fake.values))
    return _mean(real, jax.nn.softplus(-real.values)) + _mean(fake, jax.nn.softplus(fake.values))


def r1_penalty(logits_of: LogitsOf, video: Float[Array, "batch frames height width 3"]) -> Float[Array, ""]:
    """Half of the mean squared norm of the gradient of a real logit (R1, arXiv 1801.04406, equation 9).

    1/2 * sum over videos of |d(sum of the video's valid logits) / d(its pixels)|^2 / (number of valid logits)

    Times the cost, this is the paper's regularizer for what a logit judges, a frame or a clip, in the form of StyleGAN
    (arXiv 1812.04948) and StyleGAN 2, whose usual cost is 10: with the half, pixels in [-1, 1]. MAGVIT's code has a
    cost of 10 without the half, for pixels in [0, 1], by which gradients are twice as large: here that would be
    10 * 2 * 4 = 80.
    """

    def valid_sum(video: Array) -> tuple[Array, Array]:
        logits = logits_of(video)
        return jnp.sum(logits.values * logits.weights), jnp.sum(logits.weights)

    gradient, count = jax.grad(valid_sum, has_aux=True)(video)
    return jnp.sum(gradient.astype(jnp.float32) ** 2) / (2 * jnp.maximum(count, 1.0))


def lazy_r1_penalty(
    logits_of: LogitsOf,
    video: Float[Array, "batch frames height width 3"],
    step: Int[Array, ""] | int,
    every: int,
) -> Float[Array, ""]:
    """`every` times `r1_penalty` where it divides the step, and 0, at no cost, on all other steps.

    StyleGAN 2 also adjusts the optimizer to steps without the penalty (arXiv 1912.04958, appendix B); this does not.
    """
    if every == 1:
        return r1_penalty(logits_of, video)
    due = jnp.asarray(step) % every == 0
    return jax.lax.cond(due, lambda: every * r1_penalty(logits_of, video), lambda: jnp.zeros(()))


def initial_lecam() -> LecamState:
    """Averages before any logit was seen."""
    return LecamState(jnp.zeros(()), jnp.zeros(()))


def lecam_penalty(state: LecamState, real: Logits, fake: Logits) -> Float[Array, ""]:
    """Mean squares of how far real logits are above the average fake one, and fake ones below the average real one.

    LeCAM regularisation (arXiv 2104.03310), one-sided as its authors' code has it.
    """
    above, below = jax.nn.relu(real.values - state.fake), jax.nn.relu(state.real - fake.values)
    return _mean(real, above**2) + _mean(fake, below**2)


def update_lecam(state: LecamState, real: Logits, fake: Logits, decay: float) -> LecamState:
    """Averages with a step's logits taken in: decay * old + (1 - decay) * mean, a constant to all gradients."""
    now = LecamState(_mean(real, real.values), _mean(fake, fake.values))
    return jax.tree.map(lambda old, mean: decay * old + (1 - decay) * jax.lax.stop_gradient(mean), state, now)


def logit_statistics(real: Logits, fake: Logits) -> LogitStatistics:
    """Accuracy and means over valid logits."""
    right = _mean(real, (real.values > 0).astype(jnp.float32)) + _mean(fake, (fake.values < 0).astype(jnp.float32))
    return LogitStatistics(right / 2, _mean(real, real.values), _mean(fake, fake.values))


def discriminator_terms(
    config: AdversarialConfig,
    logits_of: LogitsOf,
    real: Float[Array, "batch frames height width 3"],
    fake: Float[Array, "batch frames height width 3"],
    lecam: LecamState,
    step: Int[Array, ""] | int,
) -> tuple[DiscriminatorTerms, LecamState, LogitStatistics]:
    """All that a step of the discriminator needs.

    Args:
      config: kind and weights of the terms.
      logits_of: the discriminator, through whose parameters the loss is differentiated.
      real: videos in [-1, 1].
      fake: their reconstructions, which are constants here.
      lecam: averages before this step.
      step: index of the step.

    Returns:
      The loss with its terms, the averages after this step, and statistics of its logits.
    """
    real_logits, fake_logits = logits_of(real), logits_of(jax.lax.stop_gradient(fake))
    adversarial = discriminator_loss(config.kind, real_logits, fake_logits)
    r1 = lazy_r1_penalty(logits_of, real, step, config.r1_every) if config.r1 else jnp.zeros(())
    penalty = lecam_penalty(lecam, real_logits, fake_logits)
    total = adversarial + config.r1 * r1 + config.lecam * penalty
    updated = update_lecam(lecam, real_logits, fake_logits, config.lecam_decay)
    terms = DiscriminatorTerms(total, adversarial, r1, penalty)
    return terms, updated, jax.lax.stop_gradient(logit_statistics(real_logits, fake_logits))


def _mean(logits: Logits, values: Float[Array, "batch judged"]) -> Float[Array, ""]:
    return jnp.sum(values * logits.weights) / jnp.maximum(jnp.sum(logits.weights), 1.0)
