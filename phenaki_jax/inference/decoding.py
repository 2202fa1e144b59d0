"""Parallel decoding of masked video tokens with classifier-free guidance (MaskGIT; Phenaki, section 2.2)."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from phenaki_jax.errors import UserError, check_at_least, check_types
from phenaki_jax.transformer.factors import join_codes
from phenaki_jax.transformer.masking import check_schedule, masked_share
from phenaki_jax.transformer.model import Logits

SAMPLERS = ("confidence", "halton", "critic", "random")
GUIDANCE_SCHEDULES = ("constant", "linear")
_MOST_STEPS = 10_000


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
    """How tokens are drawn.

    Attributes:
      steps: rounds of prediction, in each of which some more tokens become known.
      sampler: which ones: "confidence" for the likeliest (MaskGIT); "halton" for an order that spreads them evenly
        (arXiv 2503.17076); "critic" for those that a token critic takes for a video's own (arXiv 2209.04439), which may
        also forget some again; "random" for any.
      schedule: how many, see `transformer.masking.masked_share`.
      guidance: s of (1 + s) conditional - s unconditional logits; 0 is none.
      guidance_schedule: "constant", or "linear" from little in the first round to `guidance` in the last (Muse).
      temperature: scale of the Gumbel noise on the log-confidence, or the critic's scores, in the first round, annealed
        to 0 in the last.
      code_temperature: what the logits are divided by before codes are drawn; 0 takes the likeliest code.
      top_k: codes are drawn among so many likeliest; 0 for all.
      top_p: codes are drawn among the likeliest that have this share of the probability together; 1 for all.

    Raises:
      UserError: a value that it cannot have.
    """

    steps: int = 24
    sampler: str = "confidence"
    schedule: str = "cosine"
    guidance: float = 2.0
    guidance_schedule: str = "constant"
    temperature: float = 1.5
    code_temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        check_types(self)
        check_at_least(self, 1, "steps")
        # Hours for a window, in one program that no signal stops.
        if self.steps > _MOST_STEPS:
            raise UserError(f"found steps {self.steps}, expected at most {_MOST_STEPS}, such as 24")
        check_at_least(self, 0, "top_k")
        for name, known in (("sampler", SAMPLERS), ("guidance_schedule", GUIDANCE_SCHEDULES)):
            if getattr(self, name) not in known:
                raise UserError(f"{name} {getattr(self, name)!r} is unknown; known are {', '.join(known)}")
        check_schedule(self.schedule)
        for name in ("guidance", "temperature", "code_temperature"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"found {name} {getattr(self, name):g}, expected a finite number of at least 0")
        if not 0 < self.top_p <= 1:
            raise UserError(f"found top_p {self.top_p:g}, expected above 0 and at most 1")


class TokenModel(NamedTuple):
    """What decoding needs of a masked transformer, texts and all.

    Attributes:
      features: of tokens, some of which are `mask_token`, under each of several conditions at once: texts and, where
        there is guidance, what is to be moved away from (no text, or a negative one) as the last.
      logits: of features of any shape but for their last axis.
      shares: of each text but for the last condition of guidance; they add up to 1 in each row.
      scores: of tokens, see `transformer.model.Predictions`; None without a critic.
      factors: of the codes.
      mask_token: the id of what is not known yet.
      guidance: its scale, where a program is given it when it runs; None for that of the settings.
    """

    features: Callable[[Int[Array, "batch length"]], Float[Array, "conditions batch length embed"]]
    logits: Callable[[Float[Array, "*batch embed"]], Logits]
    shares: Float[Array, "texts batch"]
    scores: Callable[[Int[Array, "batch length"]], Float[Array, "batch length"]] | None
    factors: tuple[int, ...]
    mask_token: int
    guidance: Float[Array, ""] | None = None


def decode_tokens(
    model: TokenModel,
    config: SamplingConfig,
    rngs: Key[Array, " batch"],
    known_tokens: Int[Array, "batch length"],
    known: Bool[Array, "batch length"],
    order: Int[Array, " length"],
) -> Int[Array, "batch length"]:
    """Fills in all tokens that are not known.

    Args:
      model: what predicts them.
      config: how they are drawn.
      rngs: randomness of each row, which depends on no other row; the same gives the same tokens.
      known_tokens: tokens that are given, anything elsewhere.
      known: where they are given.
      order: of all places, by which "halton" goes; see `orders.halton_order`.

    Raises:
      UserError: the sampler needs a critic that is not there.
    """
    if config.sampler == "critic" and model.scores is None:
        raise UserError(
            "found sampler 'critic' with a model that has no critic; take another sampler, or train one: set "
            "TransformerConfig.predicts to 'codes_and_scores', or PhenakiConfig.critic"
        )
    left = _tokens_left(config, known.shape[1] - jnp.sum(known, axis=1))
    if config.sampler in ("halton", "random"):
        take_round = functools.partial(_fixed_order_round, model, config, _queue(config, rngs, known, order))
    else:
        take_round = functools.partial(_any_order_round, model, config, known)

    def one_round(tokens: Array, step: Array) -> tuple[Array, None]:
        moment = _Moment(step, jax.vmap(jax.random.fold_in, (0, None))(rngs, step), left[0], left[step], left[step + 1])
        return take_round(moment, tokens), None

    start = jnp.where(known, known_tokens, model.mask_token)
    tokens, _ = jax.lax.scan(one_round, start, jnp.arange(config.steps))
    return tokens


class _Moment(NamedTuple):
    """One of the rounds: its number, its keys, and how many tokens are unknown at first, before it and after it."""

    step: Int[Array, ""]
    rngs: Key[Array, " batch"]
    at_first: Int[Array, " batch"]
    before: Int[Array, " batch"]
    after: Int[Array, " batch"]


def _tokens_left(config: SamplingConfig, to_fill: Int[Array, " batch"]) -> Int[Array, "rounds batch"]:
    """How many tokens are unknown before each round and after the last: at least one less after each."""
    rounds = jnp.arange(config.steps + 1)
    share = masked_share(config.schedule, rounds / config.steps)
    share = share.at[-1].set(0.0)
    scheduled = jnp.floor(share[:, None] * to_fill.astype(jnp.float32)).astype(jnp.int32)
    return jnp.maximum(jax.lax.cummin(scheduled + rounds[:, None]) - rounds[:, None], 0)


def _queue(
    config: SamplingConfig, rngs: Key[Array, " batch"], known: Bool[Array, "batch length"], order: Int[Array, " length"]
) -> Int[Array, "batch length"]:
    """The places of each row in the order in which they become known, those that are known already last."""
    if config.sampler == "random":
        draw = lambda rng: jax.random.uniform(jax.random.fold_in(rng, config.steps), known.shape[1:])  # noqa: E731
        priority = jax.vmap(draw)(rngs)
    else:
        priority = jnp.broadcast_to(jnp.argsort(order), known.shape).astype(jnp.float32)
    return jnp.argsort(jnp.where(known, jnp.inf, priority), axis=1)


def _fixed_order_round(
    model: TokenModel,
    config: SamplingConfig,
    queue: Int[Array, "batch length"],
    moment: _Moment,
    tokens: Int[Array, "batch length"],
) -> Int[Array, "batch length"]:
    """Draws codes where it is their turn, and nowhere else."""
    length = tokens.shape[1]
    turns = jnp.arange(_most_in_a_round(config, length))
    in_queue = (moment.at_first - moment.before)[:, None] + turns
    places = jnp.take_along_axis(queue, jnp.minimum(in_queue, length - 1), axis=1)
    features = jnp.take_along_axis(model.features(tokens), places[None, :, :, None], axis=2)
    drawn, _ = _draw(model, config, moment, features)
    # Where it is the turn of fewer, the others are set nowhere.
    places = jnp.where(turns < (moment.before - moment.after)[:, None], places, length)
    return jax.vmap(lambda row, where, codes: row.at[where].set(codes, mode="drop"))(tokens, places, drawn)


def _most_in_a_round(config: SamplingConfig, length: int) -> int:
    """At most so many tokens become known in a round, whatever is known at the beginning."""
    with jax.ensure_compile_time_eval():
        share = masked_share(config.schedule, jnp.arange(config.steps) / config.steps)
        largest = float(-jnp.min(jnp.diff(share, append=0.0)))
    # What is left is rounded down before a round and after it.
    return min(length, math.ceil(largest * length) + 1)


def _any_order_round(
    model: TokenModel,
    config: SamplingConfig,
    known: Bool[Array, "batch length"],
    moment: _Moment,
    tokens: Int[Array, "batch length"],
) -> Int[Array, "batch length"]:
    """Draws codes for all that is unknown, and forgets those again that are least to be trusted."""
    masked = tokens == model.mask_token
    codes, confidence = _draw(model, config, moment, model.features(tokens))
    drawn = jnp.where(masked, codes, tokens)
    if config.sampler == "critic" and model.scores is not None:
        trust, certain = model.scores(drawn), known
    else:
        trust, certain = confidence, ~masked
    annealed = config.temperature * (1 - _progress(config, moment))
    gumbel = jax.vmap(lambda rng: jax.random.gumbel(jax.random.fold_in(rng, 1), trust.shape[1:]))(moment.rngs)
    trust = jnp.where(certain, jnp.inf, trust + annealed * gumbel)
    rank = jnp.argsort(jnp.argsort(trust, axis=1), axis=1)
    return jnp.where(rank < moment.after[:, None], model.mask_token, drawn)


def _progress(config: SamplingConfig, moment: _Moment) -> Float[Array, ""]:
    return (moment.step + 1).astype(jnp.float32) / config.steps


def _draw(
    model: TokenModel, config: SamplingConfig, moment: _Moment, features: Float[Array, "conditions batch places embed"]
) -> tuple[Int[Array, "batch places"], Float[Array, "batch places"]]:
    """Codes drawn from the guided logits, and the logs of their probabilities."""
    weights = model.shares
    if len(features) > len(weights):
        guidance = config.guidance if model.guidance is None else model.guidance
        guidance *= _progress(config, moment) if config.guidance_schedule == "linear" else 1.0
        weights = jnp.concatenate([(1 + guidance) * weights, jnp.full((1, weights.shape[1]), -guidance)])
    digits, confidence = [], jnp.zeros(features.shape[1:3], jnp.float32)
    for index, part in enumerate(model.logits(features)):
        logits = _mixed(weights, part)
        rngs = jax.vmap(lambda rng, fold=index + 2: jax.random.fold_in(rng, fold))(moment.rngs)
        digit = _draw_digits(config, rngs, logits)
        confidence += jnp.take_along_axis(jax.nn.log_softmax(logits), digit[..., None], axis=-1)[..., 0]
        digits.append(digit)
    return join_codes(digits, model.factors), confidence


def _mixed(
    weights: Float[Array, "conditions batch"], logits: Float[Array, "conditions batch places codes"]
) -> Float[Array, "batch places codes"]:
    """A weighted sum over conditions, one by one: for a sum over an axis XLA on CPU takes a hundred times as long."""
    if len(logits) == 1:
        return logits[0]
    mixed = weights[0, :, None, None] * logits[0]
    for weight, each in zip(weights[1:], logits[1:], strict=True):
        mixed += weight[:, None, None] * each
    return mixed


def _draw_digits(
    config: SamplingConfig, rngs: Key[Array, " batch"], logits: Float[Array, "batch places codes"]
) -> Int[Array, "batch places"]:
    if config.top_k or config.top_p < 1:
        logits = jnp.where(_among_likeliest(config, logits), logits, -jnp.inf)
    if config.code_temperature:
        noise = jax.vmap(lambda rng: jax.random.gumbel(rng, logits.shape[1:]))(rngs)
        logits = logits / config.code_temperature + noise
    # A maximum and where it is: an argmax takes XLA on CPU ten times as long.
    best = jnp.max(logits, axis=-1, keepdims=True)
    places = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
    return jnp.min(jnp.where(logits >= best, places, logits.shape[-1] - 1), axis=-1)


def _among_likeliest(
    config: SamplingConfig, logits: Float[Array, "batch places codes"]
) -> Bool[Array, "batch places codes"]:
    """Which codes top_k and top_p leave."""
    descending = -jnp.sort(-logits, axis=-1)
    kept = jnp.ones(logits.shape, bool)
    if config.top_k:
        kept &= logits >= descending[..., min(config.top_k, logits.shape[-1]) - 1, None]
    if config.top_p < 1:
        scale = config.code_temperature or 1.0
        before = jnp.cumsum(jax.nn.softmax(descending / scale), axis=-1) - jax.nn.softmax(descending / scale)
        least = jnp.min(jnp.where(before < config.top_p, descending, jnp.inf), axis=-1, keepdims=True)
        kept &= logits >= least
    return kept
