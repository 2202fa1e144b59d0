"""Training of the masked transformer, with its text encoder, over the tokens of a frozen C-ViViT."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import optax
from clu import metrics
from jaxtyping import Array, Bool, PRNGKeyArray, UInt8

from phenaki_jax.errors import UserError, check_types
from phenaki_jax.evaluation.metrics import Ratio
from phenaki_jax.inference.decoding import SamplingConfig
from phenaki_jax.inference.parameters import init_params, parameter_shapes
from phenaki_jax.inference.window import PhenakiConfig, all_logits, generate_window
from phenaki_jax.layers import pixels
from phenaki_jax.layers.module import apply
from phenaki_jax.text.encoder import TextEncoder
from phenaki_jax.tokenizer.cvivit import CViViT
from phenaki_jax.training import checkpoints
from phenaki_jax.training.learner import Batch, Given, Learned, Settled, check_dtype
from phenaki_jax.training.optimizers import OptimizerConfig
from phenaki_jax.training.tokenizer_learner import TokenizerLearner
from phenaki_jax.transformer.masking import random_mask
from phenaki_jax.transformer.objective import masked_loss

_MEANS = (
    "loss",
    "accuracy",
    "loss_video",
    "loss_image",
    "loss_prefixed",
    "loss_null_text",
    "null_text_rate",
    "gradient_norm",
)
# What is watched while a masked transformer trains; losses in nats for each masked token.
TransformerMetrics = metrics.Collection.create(**{name: Ratio.from_output(name) for name in _MEANS})


@dataclasses.dataclass(frozen=True)
class TransformerLearner:
    """Masked modelling of video tokens given text; images, videos and clips with a given prefix in one batch.

    Attributes:
      model: the tokenizer (frozen), the text encoder and the transformer.
      tokenizer_workdir: folder of the tokenizer's training.
      null_text_rate: share of examples whose text is replaced by the null text (Phenaki drops 10 %).
      tube_share: share of examples masked in the same places at all times, see `random_mask`; Phenaki names none.
      sampling: how the samples that one looks at are drawn.
      dtype: type of the computation.
    """

    model: PhenakiConfig
    tokenizer_workdir: str
    null_text_rate: float = 0.1
    tube_share: float = 0.0
    sampling: SamplingConfig = dataclasses.field(default_factory=SamplingConfig)
    dtype: str = "float32"

    converter = "transformer"
    keeps_frozen = True
    averaged = ("text", "transformer")
    progress_metrics = ("loss", "accuracy")

    def __post_init__(self) -> None:
        check_types(self)
        if not 0 <= self.null_text_rate < 1:
            raise UserError(
                f"null_text_rate {self.null_text_rate} must be at least 0 and below 1; the paper drops 0.1 of the texts"
            )
        if not 0 <= self.tube_share <= 1:
            raise UserError(f"tube_share {self.tube_share} must be a share of the examples, from 0 to 1")
        check_dtype(self.dtype)

    @property
    def frames(self) -> int:
        """Frames of a training clip."""
        return self.model.tokenizer.frames

    @property
    def temporal_patch(self) -> int:
        """Frames of a token time step after the first frame."""
        return self.model.tokenizer.temporal_patch

    @property
    def frame_size(self) -> int:
        """Side of a frame in pixels."""
        return self.model.tokenizer.frame_size

    @property
    def text_length(self) -> int:
        """Tokens of a text."""
        return self.model.text.length

    def check_steps(self, steps: int) -> None:
        """Any number will do."""

    def describe(self) -> dict[str, Any]:
        """The configurations of the three models, and how one samples from them, as JSON."""
        sampling = dataclasses.asdict(self.sampling)
        return {"kind": "transformer", **dataclasses.asdict(self.model), "sampling": sampling}

    def init_params(self, rng: PRNGKeyArray) -> Any:
        """Parameters at step 0, boxed with their logical axis names."""
        params = init_params(self.model, rng)
        return {name: params[name] for name in ("text", "transformer")}

    def frozen_spec(self) -> Any:
        """Shapes of the tokenizer's parameters."""
        return parameter_shapes(self.model.tokenizer)

    def load_frozen(self) -> Any:
        """The tokenizer's parameters, from the last checkpoint of its training.

        Raises:
          UserError: there is no checkpoint, or it is of a tokenizer with another configuration.
        """
        wanted = TokenizerLearner(self.model.tokenizer).describe()
        read = checkpoints.read_parameters_that_fit(self.tokenizer_workdir, wanted)
        trained = checkpoints.read_description(self.tokenizer_workdir)["tokenizer"]["frames"]
        if trained < self.frames:
            raise UserError(
                f"the tokenizer in {self.tokenizer_workdir} was trained on clips of {trained} frames, expected at "
                f"least {self.frames}, as this training's; name another tokenizer or set frames"
            )
        return {"tokenizer": read["params"]["tokenizer"]}

    def initial_statistics(self) -> dict[str, Any]:
        """There are none."""
        return {}

    def optimizer_kinds(self, optimizer: OptimizerConfig) -> dict[str, str]:
        """One for text encoder and transformer."""
        return {"transformer": optimizer.kind}

    def transform(self, optimizer: OptimizerConfig, boxed_params: Any) -> optax.GradientTransformation:
        """One optimizer for all parameters."""
        return optimizer.make(boxed_params)

    def learn(self, params: Any, batch: Batch, given: Given) -> Learned:
        """Gradients and outputs of a training batch."""
        gradients, outputs = jax.grad(self.loss, has_aux=True)(params, given.frozen, batch, given.rng)
        _, masked = outputs["loss"]
        return Learned(gradients, masked.astype(jnp.float32), outputs, {})

    def settle(self, before: Any, after: Any, observed: Any, given: Given) -> Settled:
        """Nothing is left to do after the optimizer."""
        del before, observed
        return Settled(after, given.statistics, {}, {})

    def gradient_outputs(self, gradients: Any, given: Given) -> dict[str, Any]:
        """The global norm."""
        del given
        return {"gradient_norm": (optax.tree.norm(gradients), jnp.ones(()))}

    def advice(self, values: dict[str, float]) -> list[str]:
        """Nothing is told of a masked transformer yet."""
        del values
        return []

    def summary(self, values: dict[str, float]) -> list[str]:
        """What `progress_metrics` show is all there is yet."""
        del values
        return []

    def loss(self, params: Any, frozen: Any, batch: Batch, rng: PRNGKeyArray) -> tuple[Array, dict[str, Any]]:
        """The loss of a batch and the outputs that the metrics are made of.

        Args:
          params: of "text" and "transformer".
          frozen: parameters of "tokenizer".
          batch: `video`, `frame_mask`, `prefix_frames`, `text_tokens` and `text_mask`.
          rng: randomness of masks, dropped texts and dropout.
        """
        return self._loss(params, frozen, batch, rng, deterministic=False)

    def evaluate(self, params: Any, frozen: Any, batch: Batch, rng: PRNGKeyArray) -> dict[str, Any]:
        """The outputs for a batch that is not trained on: as in training, without dropout."""
        return self._loss(params, frozen, batch, rng, deterministic=True)[1]

    def metrics(self) -> type[metrics.Collection]:
        """What is watched."""
        return TransformerMetrics

    def images(self, params: Any, frozen: Any, batch: Batch, rng: PRNGKeyArray) -> dict[str, UInt8[Array, "..."]]:
        """Clips of the batch's captions, drawn from nothing."""
        texts, mask = batch["text_tokens"][:8], batch["text_mask"][:8]
        side = self.model.tokenizer.frame_size
        nothing = jnp.zeros((texts.shape[0], 0, side, side, 3), jnp.uint8)
        return {"sample": generate_window(self.model, self.sampling, params | frozen, texts, mask, nothing, rng)}

    def _loss(
        self, params: Any, frozen: Any, batch: Batch, rng: PRNGKeyArray, *, deterministic: bool
    ) -> tuple[Array, dict[str, Any]]:
        # Frames of any size that the tokenizer takes: the model's own is that of what it draws.
        tokenizer_config = dataclasses.replace(self.model.tokenizer, frame_size=batch["video"].shape[2])
        config, dtype = dataclasses.replace(self.model, tokenizer=tokenizer_config), jnp.dtype(self.dtype)
        mask_rng, drop_rng, dropout_rng = jax.random.split(rng, 3)
        tokenizer = CViViT(config.tokenizer)
        tokens = apply(tokenizer, frozen["tokenizer"], pixels.to_float(batch["video"]), method="encode")
        tokens = jax.lax.stop_gradient(tokens).reshape(tokens.shape[0], -1)
        places = math.prod(config.tokenizer.grid())
        token_mask = jnp.repeat(config.tokenizer.time_mask(batch["frame_mask"]), places, axis=1)
        candidates = token_mask & ~config.known_tokens(batch["prefix_frames"])
        masked, _ = random_mask(mask_rng, candidates, places=places, tube_share=self.tube_share)
        drop_text = jax.random.uniform(drop_rng, (tokens.shape[0],)) < self.null_text_rate
        text_encoder = TextEncoder(config.text, dtype)
        embeddings = apply(text_encoder, params["text"], batch["text_tokens"], batch["text_mask"])
        logits = all_logits(
            config,
            params["transformer"],
            jnp.where(masked, config.transformer.mask_token, tokens),
            token_mask,
            embeddings,
            batch["text_mask"],
            drop_text,
            dtype,
            deterministic=deterministic,
            rngs={"dropout": dropout_rng},
        )
        sums = masked_loss(logits, tokens, masked)
        loss = jnp.sum(sums.cross_entropy) / jnp.sum(sums.masked)
        image = jnp.sum(batch["frame_mask"], axis=1) == 1
        prefixed = batch["prefix_frames"] > 0

        def loss_of(which: Bool[Array, " batch"]) -> tuple[Array, Array]:
            return jnp.sum(sums.cross_entropy * which), jnp.sum(sums.masked * which)

        outputs = {
            "loss": (jnp.sum(sums.cross_entropy), jnp.sum(sums.masked)),
            "accuracy": (jnp.sum(sums.correct), jnp.sum(sums.masked)),
            "loss_video": loss_of(~image & ~prefixed & ~drop_text),
            "loss_image": loss_of(image & ~drop_text),
            "loss_prefixed": loss_of(prefixed & ~drop_text),
            "loss_null_text": loss_of(drop_text),
            "null_text_rate": (jnp.sum(drop_text), jnp.float32(drop_text.shape[0])),
        }
        return loss, outputs
