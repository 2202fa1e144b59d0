"""Training of the C-ViViT tokenizer, with its discriminator where it has one."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from clu import metrics
from jaxtyping import Array, Bool, Float, PRNGKeyArray, UInt8

from phenaki_jax.errors import UserError, check_types
from phenaki_jax.evaluation.metrics import count_codes, psnr
from phenaki_jax.inference.parameters import init_params
from phenaki_jax.layers import pixels
from phenaki_jax.layers.module import apply
from phenaki_jax.tokenizer import adversarial as adversarial_lib
from phenaki_jax.tokenizer import perceptual as perceptual_lib
from phenaki_jax.tokenizer import quantizers
from phenaki_jax.tokenizer.adversarial import AdversarialConfig
from phenaki_jax.tokenizer.config import CViViTConfig
from phenaki_jax.tokenizer.cvivit import CViViT, stem_gradients
from phenaki_jax.tokenizer.discriminator import Discriminator, Logits
from phenaki_jax.tokenizer.objective import ObjectiveConfig, pixel_errors
from phenaki_jax.tokenizer.perceptual import PerceptualConfig
from phenaki_jax.tokenizer.quantizers import Quantized
from phenaki_jax.training import tokenizer_health
from phenaki_jax.training.learner import Batch, Given, Learned, Settled, check_dtype, placed
from phenaki_jax.training.optimizers import OptimizerConfig

_Video = Float[Array, "batch frames height width 3"]


@dataclasses.dataclass(frozen=True)
class TokenizerLearner:
    """C-ViViT on videos and images alike.

    Attributes:
      model: sizes of the tokenizer.
      objective: weights of the pixels' and the quantizer's terms.
      perceptual: weights of the perceptual terms, and where their networks are.
      adversarial: the discriminator and what it is for; None for a training without.
      discriminator_optimizer: the discriminator's; None for the same as the tokenizer's (Phenaki, appendix).
      dtype: type of the computation of all networks; losses are in float32.
    """

    model: CViViTConfig
    objective: ObjectiveConfig = dataclasses.field(default_factory=ObjectiveConfig)
    perceptual: PerceptualConfig = dataclasses.field(default_factory=PerceptualConfig)
    adversarial: AdversarialConfig | None = None
    discriminator_optimizer: OptimizerConfig | None = None
    dtype: str = "float32"

    converter = "tokenizer"
    kept_frozen = ()
    precomputed = ""
    vocabulary = ""
    progress_metrics = ("loss", "psnr", "codebook_usage")
    averaged = ("tokenizer",)

    def __post_init__(self) -> None:
        check_types(self)
        if self.discriminator_optimizer is not None and self.adversarial is None:
            raise UserError(
                "found a discriminator_optimizer without a discriminator: set TokenizerLearner.adversarial too"
            )
        check_dtype(self.dtype)

    @property
    def frames(self) -> int:
        """Frames of a training clip."""
        return self.model.frames

    @property
    def temporal_patch(self) -> int:
        """Frames of a token time step after the first frame."""
        return self.model.temporal_patch

    @property
    def sequence_length(self) -> int:
        """Tokens of a time step."""
        return math.prod(self.model.grid())

    @property
    def frame_size(self) -> int:
        """Side of a frame in pixels."""
        return self.model.frame_size

    @property
    def text_length(self) -> int:
        """Texts are not read; one token is the least that a feed can hold."""
        return 1

    def batch_spec(self, rows: int, images: int = 1) -> dict[str, jax.ShapeDtypeStruct]:
        """Frames, and which of them are there; images never share a row."""
        del images
        video = (rows, self.frames, self.frame_size, self.frame_size, 3)
        return {
            "video": jax.ShapeDtypeStruct(video, jnp.uint8),
            "frame_mask": jax.ShapeDtypeStruct(video[:2], jnp.bool_),
        }

    def check_steps(self, steps: int) -> None:
        """Refuses a discriminator that would not act on the tokenizer in so many steps.

        Raises:
          UserError: names its first step and the last one.
        """
        if self.adversarial is not None and (start := self.adversarial.start) >= steps:
            raise UserError(
                f"found AdversarialConfig.start {start}, expected less than the {steps} steps of the training, in "
                "which the discriminator would never act: set it to an earlier step, or train longer"
            )

    @property
    def module(self) -> CViViT:
        """The Flax module."""
        return CViViT(self.model, jnp.dtype(self.dtype))

    def describe(self) -> dict[str, Any]:
        """The configurations of the models, as JSON."""
        perceptual = dataclasses.asdict(self.perceptual)
        adversarial = None if self.adversarial is None else dataclasses.asdict(self.adversarial)
        return {
            "kind": "tokenizer",
            "tokenizer": dataclasses.asdict(self.model),
            "discriminator": None if adversarial is None else adversarial.pop("discriminator"),
            "loss": {
                "objective": dataclasses.asdict(self.objective),
                # Where files lie is nobody else's matter.
                "perceptual": {name: value for name, value in perceptual.items() if not name.endswith("_file")},
                "adversarial": adversarial,
            },
        }

    def init_params(self, rng: PRNGKeyArray) -> Any:
        """Parameters of "tokenizer" and, where there is one, "discriminator", boxed with their logical axis names."""
        params = init_params(self.model, rng)
        if self.adversarial is not None:
            video = jnp.zeros((1, self.frames, self.frame_size, self.frame_size, 3))
            mask = jnp.ones(video.shape[:2], bool)
            module = Discriminator(self.adversarial.discriminator)
            params["discriminator"] = module.init(jax.random.fold_in(rng, 1), video, mask)["params"]
        return params

    def initial_statistics(self) -> dict[str, Any]:
        """Averages of a codebook ("tokenizer") and of logits ("discriminator"), where they are asked for."""
        statistics: dict[str, Any] = {}
        if self.model.quantizer.has_codebook:
            statistics["tokenizer"] = quantizers.initial_averages(self.model.quantizer)
        if self.adversarial is not None:
            statistics["discriminator"] = adversarial_lib.initial_lecam()
        return statistics

    def frozen_spec(self) -> Any:
        """Shapes of the perceptual networks."""
        return perceptual_lib.network_shapes(self.perceptual)

    def load_frozen(self, spec: Any) -> Any:
        """The perceptual networks.

        Raises:
          UserError: a file is missing or not what is expected.
        """
        return placed(spec, perceptual_lib.load_networks(self.perceptual))

    def check_files(self) -> None:
        """Refuses files that are missing or not what is expected."""
        perceptual_lib.load_networks(self.perceptual)

    def check_data(self, mixture: str, frame_size: int) -> None:
        """Nothing is precomputed."""

    def check_frozen(self, frozen: Any) -> None:
        """Nothing is precomputed."""

    def note_on_frozen(self, frozen: Any) -> str:
        """Checkpoints hold none."""
        return ""

    def optimizer_kinds(self, optimizer: OptimizerConfig) -> dict[str, str]:
        """That of the tokenizer and, where there is one, of the discriminator."""
        return {name: config.kind for name, config in self._optimizers(optimizer).items()}

    def transform(self, optimizer: OptimizerConfig, boxed_params: Any) -> optax.GradientTransformation:
        """An optimizer for each network, with a clip of its own."""
        chosen = self._optimizers(optimizer)
        if len(chosen) == 1:
            return optimizer.make(boxed_params)
        transforms = {
            name: config.make(
                {each: tree if each == name else optax.MaskedNode() for each, tree in boxed_params.items()}
            )
            for name, config in chosen.items()
        }
        return optax.partition(transforms, {name: name for name in chosen})

    def learn(self, params: Any, batch: Batch, given: Given) -> Learned:
        """Gradients of both networks, each for its own loss, on the same reconstructions.

        Args:
          params: of "tokenizer" and, where there is one, "discriminator".
          batch: `video` and `frame_mask`.
          given: frozen parameters, running statistics, step and rng.
        """
        video, frame_mask = pixels.to_float(batch["video"]), batch["frame_mask"]
        time_mask = self.model.time_mask(frame_mask)

        def reconstruct(tokenizer: Any) -> tuple[tuple[_Video, Array], Quantized]:
            rngs = {"restart": given.rng}
            reconstruction, quantized = apply(self.module, tokenizer, video, time_mask, rngs=rngs)
            return (reconstruction, quantized.loss), quantized

        (reconstruction, _), pull, quantized = jax.vjp(reconstruct, params["tokenizer"], has_aux=True)
        looks = jax.grad(self._looks, has_aux=True)
        slope, (means, sums) = looks(reconstruction, video, frame_mask, given.frozen)
        weight = jnp.sum(frame_mask, dtype=jnp.float32)
        outputs = self._outputs(means, sums, quantized, frame_mask)
        gradients, observed = {}, {}
        if self.adversarial is not None:
            network = params["discriminator"]
            play = self._game(
                given.step,
                functools.partial(self._play, network, video, reconstruction, frame_mask, slope, given),
            )
            slope += play.slope
            gradients["discriminator"] = play.gradient
            observed["discriminator"] = play.lecam
            outputs |= play.outputs
            outputs["loss"] = (outputs["loss"][0] + outputs["adversarial_loss"][0], weight)
        if self.model.quantizer.has_codebook:
            observed["tokenizer"] = quantized.statistics
        (gradients["tokenizer"],) = pull((slope, jnp.asarray(self.objective.quantizer, jnp.float32)))
        return Learned({name: gradients[name] for name in params}, weight, outputs, observed)

    def settle(self, before: Any, after: Any, observed: Any, given: Given) -> Settled:
        """Brings a codebook of moving averages forward, restarts codes, and brings the averages of logits forward."""
        statistics, outputs, anew = dict(given.statistics), {}, {}
        if "tokenizer" in observed:
            by_averages = self.model.quantizer.kind == "cosine_vq_ema"
            codebook, statistics["tokenizer"], restarts = quantizers.update_codebook(
                self.model.quantizer,
                (before if by_averages else after)["tokenizer"]["quantizer"]["codebook"],
                statistics["tokenizer"],
                observed["tokenizer"],
                given.rng,
            )
            quantizer = {**after["tokenizer"]["quantizer"], "codebook": codebook}
            after = {**after, "tokenizer": {**after["tokenizer"], "quantizer": quantizer}}
            outputs["codebook_restarts"] = (jnp.sum(restarts, dtype=jnp.float32), jnp.ones(()))
            anew = {"tokenizer": {"quantizer": {"codebook": restarts[:, None]}}}
        if "discriminator" in observed:
            change, weight = observed["discriminator"]
            statistics["discriminator"] = jax.tree.map(
                lambda old, by: old + by / jnp.maximum(weight, 1.0), statistics["discriminator"], change
            )
        return Settled(after, statistics, outputs, anew)

    def gradient_outputs(self, gradients: Any, given: Given) -> dict[str, Any]:
        """Norms of the tokenizer's gradient, of `stem_gradients`, and of the discriminator's once it trains."""
        tokenizer = gradients["tokenizer"]
        stems = {f"gradient_norm_{name}": tree for name, tree in stem_gradients(self.model, tokenizer).items()}
        trees = {"gradient_norm": tokenizer, **stems}
        outputs = {name: (optax.tree.norm(tree), jnp.ones(())) for name, tree in trees.items()}
        if self.adversarial is not None:
            trains = adversarial_lib.started(given.step, self.adversarial.discriminator_start)
            outputs["gradient_norm_discriminator"] = (trains * optax.tree.norm(gradients["discriminator"]), trains)
        return outputs

    def evaluate(self, params: Any, frozen: Any, batch: Batch, rng: PRNGKeyArray) -> dict[str, Any]:
        """The outputs for a batch that is not trained on: as in training, without those of the discriminator."""
        del rng
        video, frame_mask = pixels.to_float(batch["video"]), batch["frame_mask"]
        time_mask = self.model.time_mask(frame_mask)
        reconstruction, quantized = apply(self.module, params["tokenizer"], video, time_mask)
        _, (means, sums) = self._looks(reconstruction, video, frame_mask, frozen)
        return self._outputs(means, sums, quantized, frame_mask)

    def metrics(self) -> type[metrics.Collection]:
        """What is watched."""
        return tokenizer_health.collection(adversarial=self.adversarial is not None)

    def advice(self, values: dict[str, float]) -> list[str]:
        """What the metrics say of the health of the training."""
        return tokenizer_health.advice(values, self.model.quantizer)

    def summary(self, values: dict[str, float], expected: dict[str, float]) -> list[str]:
        """Codes, frames, gradients and the game, in words and numbers."""
        del expected
        return tokenizer_health.summary(values, self.model.quantizer.codebook_size)

    def images(self, params: Any, frozen: Any, batch: Batch, rng: PRNGKeyArray) -> dict[str, UInt8[Array, "..."]]:
        """Clips, each above its reconstruction."""
        del frozen, rng
        video = batch["video"][:8]
        reconstruction, _ = apply(self.module, params["tokenizer"], pixels.to_float(video))
        pairs = jnp.stack([video, pixels.to_uint8(reconstruction)], axis=1)
        return {"reconstruction": pairs.reshape(-1, *video.shape[1:])}

    def _optimizers(self, optimizer: OptimizerConfig) -> dict[str, OptimizerConfig]:
        if self.adversarial is None:
            return {"tokenizer": optimizer}
        return {"tokenizer": optimizer, "discriminator": self.discriminator_optimizer or optimizer}

    def _looks(
        self, reconstruction: _Video, video: _Video, frame_mask: Bool[Array, "batch frames"], frozen: Any
    ) -> tuple[Float[Array, ""], tuple[dict[str, Any], dict[str, Any]]]:
        """How far a reconstruction is from its video, in pixels and for the perceptual networks; means and sums."""
        errors = pixel_errors(video, reconstruction, frame_mask)
        terms = perceptual_lib.perceptual_terms(
            self.perceptual, frozen, video, reconstruction, frame_mask, jnp.dtype(self.dtype)
        )
        loss = errors.loss(self.objective)
        loss += self.perceptual.image * terms.get("image_perceptual", 0.0)
        loss += self.perceptual.video * terms.get("video_perceptual", 0.0)
        clips = jnp.float32(video.shape[0])
        sums = {
            "psnr": (jnp.sum(psnr(video, reconstruction, frame_mask)), clips),
            "psnr_first_frame": (jnp.sum(psnr(video[:, :1], reconstruction[:, :1], frame_mask[:, :1])), clips),
            "frame_error": (errors.squares, errors.frames),
        }
        return loss, ({"reconstruction_loss": loss, **terms}, sums)

    def _outputs(
        self, means: dict[str, Any], sums: dict[str, Any], quantized: Quantized, frame_mask: Bool[Array, "batch frames"]
    ) -> dict[str, Any]:
        """What metrics are made of, with "loss", the sum of all that the tokenizer minimizes without a game."""
        quantizer_loss = self.objective.quantizer * quantized.loss
        loss = means["reconstruction_loss"] + quantizer_loss
        means = {**means, **quantized.terms, "quantizer_loss": quantizer_loss, "loss": loss}
        time_mask = self.model.time_mask(frame_mask)
        code_counts = count_codes(quantized.indices, time_mask, self.model.quantizer.codebook_size)
        weight = jnp.sum(frame_mask, dtype=jnp.float32)
        return {**_weighted(means, weight), **sums, "code_counts": code_counts}

    def _game(self, step: Array, play: Callable[[], "_Play"]) -> "_Play":
        """A play from the step on at which the discriminator starts; before that nothing, which costs nothing."""
        config: Any = self.adversarial
        if not config.discriminator_start:
            return play()
        nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(play))
        return jax.lax.cond(step >= config.discriminator_start, play, lambda: nothing)

    def _play(
        self,
        discriminator: Any,
        video: _Video,
        reconstruction: _Video,
        frame_mask: Bool[Array, "batch frames"],
        slope: _Video,
        given: Given,
    ) -> "_Play":
        """The game of tokenizer and discriminator; `slope` is the gradient of the other terms at the reconstruction."""
        config: Any = self.adversarial
        module = Discriminator(config.discriminator, jnp.dtype(self.dtype))
        real, fake = (_resized(pixels, self.frame_size) for pixels in (video, jax.lax.stop_gradient(reconstruction)))

        def fools(reconstruction: _Video) -> Array:
            logits = apply(module, discriminator, _resized(reconstruction, self.frame_size), frame_mask)
            return adversarial_lib.generator_loss(config.kind, logits)

        def tells_apart(discriminator: Any) -> tuple[Array, Any]:
            def logits_of(video: _Video) -> Logits:
                logits: Any = apply(module, discriminator, video, frame_mask)
                return logits

            terms, lecam, seen = adversarial_lib.discriminator_terms(
                config, logits_of, real, fake, given.statistics["discriminator"], given.step
            )
            return terms.total, (terms, lecam, seen)

        fooling, adversarial_slope = jax.value_and_grad(fools)(reconstruction)
        weight = adversarial_lib.generator_weight(config, given.step)
        if config.adaptive:
            weight *= adversarial_lib.adaptive_weight(slope, adversarial_slope)
        gradient, (terms, lecam, seen) = jax.grad(tells_apart, has_aux=True)(discriminator)
        means = {
            "adversarial_loss": weight * fooling,
            "adversarial_weight": weight,
            "discriminator_loss": terms.adversarial,
            "discriminator_lecam": terms.lecam,
            "discriminator_accuracy": seen.accuracy,
            "logits_real": seen.real_mean,
            "logits_fake": seen.fake_mean,
        }
        frames = jnp.sum(frame_mask, dtype=jnp.float32)
        outputs = _weighted(means, frames)
        # Seen on the steps that have it alone.
        due = frames * (given.step % config.r1_every == 0)
        outputs["discriminator_r1"] = (due * terms.r1 / config.r1_every, due)
        change = jax.tree.map(lambda new, old: frames * (new - old), lecam, given.statistics["discriminator"])
        return _Play(weight * adversarial_slope, gradient, outputs, (change, frames))


class _Play(NamedTuple):
    """What a step of the game gives: to the tokenizer, to the discriminator, to the metrics and to LeCAM's averages."""

    slope: _Video
    gradient: Any
    outputs: dict[str, Any]
    lecam: Any


def _weighted(means: dict[str, Any], weight: Float[Array, ""]) -> dict[str, Any]:
    """Means as sums with their weight, which those of other batches, and of parts of one, add up with."""
    return {name: (weight * mean, weight) for name, mean in means.items()}


def _resized(video: _Video, side: int) -> Float[Array, "batch frames {side} {side} 3"]:
    """Videos at the one size that a discriminator knows; those of other resolutions are scaled to it."""
    if video.shape[2:4] == (side, side):
        return video
    return jax.image.resize(video, (*video.shape[:2], side, side, 3), "linear")
