"""Training of the C-ViViT tokenizer, with its discriminator where it has one."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from clu import metrics
from jaxtyping import Array, Bool, Float, PRNGKeyArray, UInt8

from phenaki_jax.errors import UserError
from phenaki_jax.evaluation.metrics import count_codes, psnr
from phenaki_jax.inference.parameters import init_params
from phenaki_jax.layers import pixels
from phenaki_jax.layers.module import apply
from phenaki_jax.tokenizer import adversarial as adversarial_lib
from phenaki_jax.tokenizer import perceptual as perceptual_lib
from phenaki_jax.tokenizer import quantizers
from phenaki_jax.tokenizer.adversarial import AdversarialConfig
from phenaki_jax.tokenizer.config import CViViTConfig
from phenaki_jax.tokenizer.cvivit import CViViT
from phenaki_jax.tokenizer.discriminator import Discriminator, Logits
from phenaki_jax.tokenizer.objective import ObjectiveConfig, pixel_errors
from phenaki_jax.tokenizer.perceptual import PerceptualConfig
from phenaki_jax.tokenizer.quantizers import Quantized
from phenaki_jax.training import tokenizer_health
from phenaki_jax.training.learner import Batch, Given, Learned
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
    progress_metrics = ("loss", "psnr", "codebook_usage")
    averaged = ("tokenizer",)

    def __post_init__(self) -> None:
        if self.discriminator_optimizer is not None and self.adversarial is None:
            raise UserError(
                "found a discriminator_optimizer without a discriminator: set TokenizerLearner.adversarial too"
            )

    @property
    def frames(self) -> int:
        """Frames of a training clip."""
        return self.model.frames

    @property
    def temporal_patch(self) -> int:
        """Frames of a token time step after the first frame."""
        return self.model.temporal_patch

    @property
    def frame_size(self) -> int:
        """Side of a frame in pixels."""
        return self.model.frame_size

    @property
    def text_length(self) -> int:
        """Texts are not read; one token is the least that a feed can hold."""
        return 1

    @property
    def module(self) -> CViViT:
        """The Flax module."""
        return CViViT(self.model, jnp.dtype(self.dtype))

    def describe(self) -> dict[str, Any]:
        """The configurations of the models, as JSON."""
        discriminator = None if self.adversarial is None else dataclasses.asdict(self.adversarial.discriminator)
        return {"kind": "tokenizer", "tokenizer": dataclasses.asdict(self.model), "discriminator": discriminator}

    def init_params(self, rng: PRNGKeyArray) -> Any:
        """Parameters of "tokenizer" and, where there is one, "discriminator", boxed with their logical axis names."""
        params = init_params(self.model, rng)
        if self.adversarial is not None:
            video = jnp.zeros((1, self.frames, self.frame_size, self.frame_size, 3))
            mask = jnp.ones(video.shape[:2], bool)
            module = Discriminator(self.adversarial.discriminator)
            params["discriminator"] = module.init(jax.random.fold_in(rng, 1), video, mask)["params"]
        return params

    def initial_statistics(self) -> Any:
        """Averages of a codebook, and of the discriminator's logits, where they are asked for."""
        statistics: dict[str, Any] = {}
        if self.model.quantizer.kind == "cosine_vq_ema":
            statistics["codebook"] = quantizers.initial_averages(self.model.quantizer)
        if self.adversarial is not None:
            statistics["lecam"] = adversarial_lib.initial_lecam()
        return statistics

    def frozen_spec(self) -> Any:
        """Shapes of the perceptual networks."""
        return perceptual_lib.network_shapes(self.perceptual)

    def load_frozen(self) -> Any:
        """The perceptual networks.

        Raises:
          UserError: a file is missing or not what is expected.
        """
        return perceptual_lib.load_networks(self.perceptual)

    def transform(self, optimizer: OptimizerConfig, boxed_params: Any) -> optax.GradientTransformation:
        """An optimizer for each network, with a clip of its own."""
        if self.adversarial is None:
            return optimizer.make(boxed_params)
        chosen = {"tokenizer": optimizer, "discriminator": self.discriminator_optimizer or optimizer}
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
        slope, outputs = looks(reconstruction, video, frame_mask, given.frozen)
        outputs |= self._code_outputs(quantized, time_mask)
        gradients, observed = {}, {}
        if self.adversarial is not None:
            play = self._play(params["discriminator"], video, reconstruction, frame_mask, slope, given)
            slope += play.slope
            gradients["discriminator"] = play.gradient
            observed["lecam"] = play.lecam
            outputs |= play.outputs
        if self.model.quantizer.kind == "cosine_vq_ema":
            observed["codebook"] = quantized.statistics
        (gradients["tokenizer"],) = pull((slope, jnp.asarray(self.objective.quantizer, jnp.float32)))
        return Learned({name: gradients[name] for name in params}, _with_loss(outputs), observed)

    def settle(self, before: Any, after: Any, observed: Any, given: Given) -> tuple[Any, Any]:
        """Brings a codebook of moving averages, and the averages of logits, forward."""
        statistics = dict(given.statistics)
        if "codebook" in observed:
            rng = jax.random.fold_in(given.rng, 1)
            codebook, statistics["codebook"] = quantizers.update_codebook(
                self.model.quantizer,
                before["tokenizer"]["quantizer"]["codebook"],
                statistics["codebook"],
                observed["codebook"],
                rng,
            )
            quantizer = {**after["tokenizer"]["quantizer"], "codebook": codebook}
            after = {**after, "tokenizer": {**after["tokenizer"], "quantizer": quantizer}}
        if "lecam" in observed:
            change, parts = observed["lecam"]
            statistics["lecam"] = jax.tree.map(lambda old, by: old + by / parts, statistics["lecam"], change)
        return after, statistics

    def gradient_outputs(self, gradients: Any) -> dict[str, Any]:
        """Norms of the tokenizer's gradient, of its stems' and heads', and of the discriminator's."""
        one = jnp.ones(())
        tokenizer = gradients["tokenizer"]
        norms = {f"gradient_norm_{name}": tokenizer[name] for name in tokenizer_health.STEMS}
        if "discriminator" in gradients:
            norms["gradient_norm_discriminator"] = gradients["discriminator"]
        return {name: (optax.tree.norm(tree), one) for name, tree in {"gradient_norm": tokenizer, **norms}.items()}

    def evaluate(self, params: Any, frozen: Any, batch: Batch, rng: PRNGKeyArray) -> dict[str, Any]:
        """The outputs for a batch that is not trained on: as in training, without those of the discriminator."""
        del rng
        video, frame_mask = pixels.to_float(batch["video"]), batch["frame_mask"]
        time_mask = self.model.time_mask(frame_mask)
        reconstruction, quantized = apply(self.module, params["tokenizer"], video, time_mask)
        _, outputs = self._looks(reconstruction, video, frame_mask, frozen)
        return _with_loss(outputs | self._code_outputs(quantized, time_mask))

    def metrics(self) -> type[metrics.Collection]:
        """What is watched."""
        return tokenizer_health.collection(adversarial=self.adversarial is not None)

    def advice(self, values: dict[str, float]) -> list[str]:
        """What the metrics say of the health of the training."""
        return tokenizer_health.advice(values, self.model.quantizer.codebook_size)

    def images(self, params: Any, frozen: Any, batch: Batch, rng: PRNGKeyArray) -> dict[str, UInt8[Array, "..."]]:
        """Clips, each above its reconstruction."""
        del frozen, rng
        video = batch["video"][:8]
        reconstruction, _ = apply(self.module, params["tokenizer"], pixels.to_float(video))
        pairs = jnp.stack([video, pixels.to_uint8(reconstruction)], axis=1)
        return {"reconstruction": pairs.reshape(-1, *video.shape[1:])}

    def _looks(
        self, reconstruction: _Video, video: _Video, frame_mask: Bool[Array, "batch frames"], frozen: Any
    ) -> tuple[Float[Array, ""], dict[str, Any]]:
        """How far a reconstruction is from its video, in pixels and for the perceptual networks, and the outputs."""
        errors = pixel_errors(video, reconstruction, frame_mask)
        terms = perceptual_lib.perceptual_terms(
            self.perceptual, frozen, video, reconstruction, frame_mask, jnp.dtype(self.dtype)
        )
        loss = errors.loss(self.objective)
        loss += self.perceptual.image * terms.get("image_perceptual", 0.0)
        loss += self.perceptual.video * terms.get("video_perceptual", 0.0)
        clips, one = jnp.float32(video.shape[0]), jnp.ones(())
        outputs = {
            "reconstruction_loss": (loss, one),
            "psnr": (jnp.sum(psnr(video, reconstruction, frame_mask)), clips),
            "psnr_first_frame": (jnp.sum(psnr(video[:, :1], reconstruction[:, :1], frame_mask[:, :1])), clips),
            "frame_error": (errors.squares, errors.frames),
            **{name: (term, one) for name, term in terms.items()},
        }
        return loss, outputs

    def _code_outputs(self, quantized: Quantized, time_mask: Bool[Array, "batch times"]) -> dict[str, Any]:
        one = jnp.ones(())
        return {
            "quantizer_loss": (self.objective.quantizer * quantized.loss, one),
            "code_counts": count_codes(quantized.indices, time_mask, self.model.quantizer.codebook_size),
            **{name: (term, one) for name, term in quantized.terms.items()},
        }

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
                config, logits_of, real, fake, given.statistics["lecam"], given.step
            )
            return terms.total, (terms, lecam, seen)

        fooling, adversarial_slope = jax.value_and_grad(fools)(reconstruction)
        weight = adversarial_lib.generator_weight(config, given.step)
        if config.adaptive:
            weight *= adversarial_lib.adaptive_weight(slope, adversarial_slope)
        gradient, (terms, lecam, seen) = jax.grad(tells_apart, has_aux=True)(discriminator)
        one = jnp.ones(())
        outputs = {
            "adversarial_loss": (weight * fooling, one),
            "adversarial_weight": (weight, one),
            "discriminator_loss": (terms.total, one),
            "discriminator_r1": (terms.r1, one),
            "discriminator_lecam": (terms.lecam, one),
            "discriminator_accuracy": (seen.accuracy, one),
            "logits_real": (seen.real_mean, one),
            "logits_fake": (seen.fake_mean, one),
        }
        change = jax.tree.map(jnp.subtract, lecam, given.statistics["lecam"])
        return _Play(weight * adversarial_slope, gradient, outputs, (change, one))


class _Play(NamedTuple):
    """What a step of the game gives: to the tokenizer, to the discriminator, to the metrics and to LeCAM's averages."""

    slope: _Video
    gradient: Any
    outputs: dict[str, Any]
    lecam: Any


def _with_loss(outputs: dict[str, Any]) -> dict[str, Any]:
    """The outputs with "loss", the sum of all that the tokenizer minimizes."""
    parts = [outputs[name] for name in ("reconstruction_loss", "quantizer_loss", "adversarial_loss") if name in outputs]
    return {**outputs, "loss": (sum(total for total, _ in parts), parts[0][1])}


def _resized(video: _Video, side: int) -> _Video:
    """Videos at the one size that a discriminator knows; those of other resolutions are scaled to it."""
    if video.shape[2:4] == (side, side):
        return video
    return jax.image.resize(video, (*video.shape[:2], side, side, 3), "linear")
