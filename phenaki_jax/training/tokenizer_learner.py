"""Training of the C-ViViT tokenizer."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from clu import metrics
from jaxtyping import Array, PRNGKeyArray, UInt8

from phenaki_jax.evaluation.metrics import CodeCounts, CodePerplexity, Ratio, count_codes, psnr
from phenaki_jax.inference.parameters import init_params
from phenaki_jax.layers import pixels
from phenaki_jax.layers.module import apply
from phenaki_jax.tokenizer.config import CViViTConfig
from phenaki_jax.tokenizer.cvivit import CViViT
from phenaki_jax.tokenizer.objective import ObjectiveConfig, tokenizer_loss
from phenaki_jax.training.learner import Batch

_MEANS = ("loss", "psnr", "psnr_first_frame", "quantizer_loss", "gradient_norm")
# What is watched while a tokenizer trains.
TokenizerMetrics = metrics.Collection.create(
    codebook_usage=CodeCounts,
    codebook_perplexity=CodePerplexity,
    **{name: Ratio.from_output(name) for name in _MEANS},
)


@dataclasses.dataclass(frozen=True)
class TokenizerLearner:
    """C-ViViT on videos and images alike.

    Attributes:
      model: sizes of the tokenizer.
      objective: weights of the loss.
      dtype: type of the computation.
    """

    model: CViViTConfig
    objective: ObjectiveConfig = dataclasses.field(default_factory=ObjectiveConfig)
    dtype: str = "float32"

    converter = "tokenizer"
    progress_metrics = ("loss", "psnr", "codebook_usage")

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
        """The model's configuration, as JSON."""
        return {"kind": "tokenizer", "tokenizer": dataclasses.asdict(self.model)}

    def init_params(self, rng: PRNGKeyArray) -> Any:
        """Parameters at step 0, boxed with their logical axis names."""
        return init_params(self.model, rng)["tokenizer"]

    def frozen_spec(self) -> Any:
        """Nothing is frozen."""
        return {}

    def load_frozen(self) -> Any:
        """Nothing is frozen."""
        return {}

    def loss(self, params: Any, frozen: Any, batch: Batch, rng: PRNGKeyArray) -> tuple[Array, dict[str, Any]]:
        """The loss of a batch `video`, `frame_mask`, and the outputs that the metrics are made of."""
        del frozen, rng
        video, frame_mask = pixels.to_float(batch["video"]), batch["frame_mask"]
        reconstruction, quantized = apply(self.module, params, video)
        time_mask = self.model.time_mask(frame_mask)
        terms = tokenizer_loss(self.objective, video, reconstruction, quantized, frame_mask, time_mask)
        ones = jnp.ones(())
        clips = jnp.float32(video.shape[0])
        counts = count_codes(quantized.indices, time_mask, self.model.quantizer.codebook_size)
        first = psnr(video[:, :1], reconstruction[:, :1], frame_mask[:, :1])
        outputs = {
            "loss": (terms.total, ones),
            "quantizer_loss": (terms.quantizer, ones),
            "psnr": (jnp.sum(psnr(video, reconstruction, frame_mask)), clips),
            "psnr_first_frame": (jnp.sum(first), clips),
            "code_counts": counts,
        }
        return terms.total, outputs

    def evaluate(self, params: Any, frozen: Any, batch: Batch, rng: PRNGKeyArray) -> dict[str, Any]:
        """The outputs for a batch that is not trained on: the same as in training."""
        return self.loss(params, frozen, batch, rng)[1]

    def metrics(self) -> type[metrics.Collection]:
        """What is watched."""
        return TokenizerMetrics

    def images(self, params: Any, frozen: Any, batch: Batch, rng: PRNGKeyArray) -> dict[str, UInt8[Array, "..."]]:
        """Clips, each above its reconstruction."""
        del frozen, rng
        video = batch["video"][:8]
        reconstruction, _ = apply(self.module, params, pixels.to_float(video))
        pairs = jnp.stack([video, pixels.to_uint8(reconstruction)], axis=1)
        return {"reconstruction": pairs.reshape(-1, *video.shape[1:])}
