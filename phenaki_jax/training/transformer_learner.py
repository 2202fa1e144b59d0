"""Training of the masked transformer, with its text encoder, over the tokens of a frozen C-ViViT."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from clu import metrics
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt8

from phenaki_jax.data.precomputed_metadata import Precomputed
from phenaki_jax.errors import UserError, check_at_least, check_types
from phenaki_jax.inference.decoding import SamplingConfig
from phenaki_jax.inference.fingerprint import fingerprint
from phenaki_jax.inference.parameters import init_params, parameter_shapes
from phenaki_jax.inference.window import PhenakiConfig, generate_window, single_texts
from phenaki_jax.layers.module import apply
from phenaki_jax.text.sentencepiece_tokenizer import SentencePieceTokenizer, fingerprint_of
from phenaki_jax.text.t5 import T5Config, t5_shapes
from phenaki_jax.text.t5_checkpoints import check_t5, load_t5
from phenaki_jax.training import checkpoints
from phenaki_jax.training.learner import Batch, Given, Learned, Settled, check_dtype, placed
from phenaki_jax.training.optimizers import OptimizerConfig
from phenaki_jax.training.rows import Rows, of_segment, rows_of, texts_of
from phenaki_jax.training.tokenizer_learner import TokenizerLearner
from phenaki_jax.training.transformer_metrics import TransformerMetrics, advice, outputs_by_kind, summary
from phenaki_jax.transformer.factors import join_codes
from phenaki_jax.transformer.masking import check_schedule, random_mask
from phenaki_jax.transformer.model import Logits, MaskedTransformer, Text
from phenaki_jax.transformer.objective import TokenLoss, critic_loss, in_parts, token_loss


@dataclasses.dataclass(frozen=True)
class TransformerLearner:
    """Masked modelling of video tokens given text; images, videos and clips with a given prefix in one batch.

    Attributes:
      model: the tokenizer (frozen), the text encoder and the transformer.
      tokenizer_workdir: folder of the tokenizer's training.
      text_checkpoint: of a frozen text encoder, what `load_t5` reads; empty for one that is trained, or none.
      text_vocabulary: its `sentencepiece.model` or `spiece.model`; empty for bytes.
      precomputed: folder that `phenaki precompute` wrote, whose tokens stand in for the frames of the mixtures and, of
        a frozen text encoder, whose embeddings for texts; empty for none.
      null_text_rate: share of examples whose text is replaced by the null text (Phenaki drops 10 %).
      schedule: how many tokens are masked, see `transformer.masking.masked_share`.
      tube_share: share of examples masked in the same places at all times, see `random_mask`; Phenaki names none.
      prefix_noise: up to this share of an example's given tokens are any other codes, so that stories do not follow the
        mistakes of its last window (after GameNGen's noise on given frames, arXiv 2408.14837).
      label_smoothing: see `token_loss` (MaskGIT: 0.1).
      z_loss: see `token_loss`.
      critic_weight: of a token critic's loss beside the transformer's.
      loss_parts: parts of every row's tokens whose logits are there one after the other, see `in_parts`.
      sampling: how the samples that one looks at are drawn.
      dtype: type of the computation.
    """

    model: PhenakiConfig
    tokenizer_workdir: str
    text_checkpoint: str = ""
    text_vocabulary: str = ""
    precomputed: str = ""
    null_text_rate: float = 0.1
    schedule: str = "cosine"
    tube_share: float = 0.0
    prefix_noise: float = 0.0
    label_smoothing: float = 0.0
    z_loss: float = 0.0
    critic_weight: float = 1.0
    loss_parts: int = 1
    sampling: SamplingConfig = dataclasses.field(default_factory=SamplingConfig)
    dtype: str = "float32"

    kept_frozen = ("tokenizer",)
    progress_metrics = ("loss", "accuracy")

    def __post_init__(self) -> None:
        check_types(self)
        if not 0 <= self.null_text_rate < 1:
            raise UserError(
                f"null_text_rate {self.null_text_rate} must be at least 0 and below 1; the paper drops 0.1 of the texts"
            )
        if not 0 <= self.tube_share <= 1:
            raise UserError(f"tube_share {self.tube_share} must be a share of the examples, from 0 to 1")
        if not 0 <= self.prefix_noise <= 1:
            raise UserError(f"prefix_noise {self.prefix_noise} must be a share of the given tokens, from 0 to 1")
        if not 0 <= self.label_smoothing < 1:
            raise UserError(f"label_smoothing {self.label_smoothing} must be at least 0 and below 1, such as 0.1")
        for name in ("z_loss", "critic_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"the weight {name} {getattr(self, name)} must be at least 0")
        check_at_least(self, 1, "loss_parts")
        self._check_parts(math.prod(self.model.token_shape))
        check_schedule(self.schedule)
        check_dtype(self.dtype)
        self._check_text()

    def _check_parts(self, length: int) -> None:
        if length % self.loss_parts:
            most = max(parts for parts in range(1, self.loss_parts) if length % parts == 0)
            raise UserError(
                f"found loss_parts {self.loss_parts}, expected a divisor of the {length} tokens of a row, as {most}"
            )

    def _check_text(self) -> None:
        files = {"text_checkpoint": self.text_checkpoint, "text_vocabulary": self.text_vocabulary}
        if not self.model.has_frozen_text:
            if found := [name for name, file in files.items() if file]:
                raise UserError(
                    f"found {found[0]} {files[found[0]]} without a T5: set PhenakiConfig.text to a T5Config, or leave "
                    f"{found[0]} empty"
                )
        elif not self.precomputed and (absent := [name for name, file in files.items() if not file]):
            raise UserError(
                f"found a T5 without {absent[0]}: set it to a file or folder of the released encoder, as docs/text.md "
                "tells, or train from precomputed embeddings"
            )

    @property
    def converter(self) -> str:
        """Frames and texts, or what was computed of them."""
        return "precomputed" if self.precomputed else "transformer"

    @property
    def vocabulary(self) -> str:
        """The file of the text encoder's vocabulary; empty for bytes."""
        return self.text_vocabulary

    @property
    def averaged(self) -> tuple[str, ...]:
        """All networks that are trained."""
        there = {
            "text": self.model.text is not None and not self.model.has_frozen_text,
            "transformer": True,
            "critic": self.model.critic is not None,
        }
        return tuple(name for name, is_trained in there.items() if is_trained)

    @property
    def frames(self) -> int:
        """Frames of a training clip."""
        return self.model.tokenizer.frames

    @property
    def temporal_patch(self) -> int:
        """Frames of a token time step after the first frame."""
        return self.model.tokenizer.temporal_patch

    @property
    def sequence_length(self) -> int:
        """Tokens of a row."""
        return math.prod(self.model.token_shape)

    @property
    def frame_size(self) -> int:
        """Side of a frame in pixels."""
        return self.model.tokenizer.frame_size

    @property
    def text_length(self) -> int:
        """Tokens of a text."""
        return max(1, self.model.text_length)

    def batch_spec(self, rows: int, images: int = 1) -> dict[str, jax.ShapeDtypeStruct]:
        """Frames and texts, or what was computed of them."""
        if not self.precomputed:
            texts = (rows, images, self.text_length) if images > 1 else (rows, self.text_length)
            kinds = {**_raw_texts(texts), "prefix_frames": ((rows,), jnp.int32)}
            if images > 1:
                kinds["packed_images"] = ((rows,), jnp.int32)
            frames = TokenizerLearner(self.model.tokenizer).batch_spec(rows)
            return {**frames, **{name: jax.ShapeDtypeStruct(*kind) for name, kind in kinds.items()}}
        length = math.prod(self.model.token_shape)
        kinds = {
            "video_tokens": ((rows, length), jnp.int32),
            "token_positions": ((rows, length, 3), jnp.int32),
            "segment_ids": ((rows, length), jnp.int32),
            "known": ((rows, length), jnp.bool_),
            "filled": ((rows, images), jnp.bool_),
        }
        if self.model.has_frozen_text:
            texts = (rows, images * self.text_length)
            width = self.model.transformer.text_width
            kinds |= {"text_embeddings": ((*texts, width), jnp.bfloat16), "text_segment_ids": (texts, jnp.int32)}
        else:
            kinds |= _raw_texts((rows, images, self.text_length))
        return {name: jax.ShapeDtypeStruct(*kind) for name, kind in kinds.items()}

    def check_steps(self, steps: int) -> None:
        """Any number will do."""

    def describe(self) -> dict[str, Any]:
        """The configurations of the three models, and how one samples from them, as JSON.

        Raises:
          UserError: the files of a frozen text encoder are not what is expected.
        """
        sampling = dataclasses.asdict(self.sampling)
        found = {"kind": "transformer", **dataclasses.asdict(self.model), "sampling": sampling}
        if isinstance(self.model.text, T5Config):
            info = Precomputed.read(self.precomputed) if self.precomputed else None
            found["text_encoder"] = info.text_encoder if info else check_t5(self.text_checkpoint, self.model.text)
            files = {"checkpoint": self.text_checkpoint, "vocabulary": self.text_vocabulary}
            found["text_files"] = {name: str(Path(file).absolute()) if file else "" for name, file in files.items()}
        return found

    def init_params(self, rng: PRNGKeyArray) -> Any:
        """Parameters at step 0, boxed with their logical axis names."""
        params = init_params(self.model, rng)
        return {name: params[name] for name in self.averaged}

    def frozen_spec(self) -> Any:
        """Shapes of the tokenizer's parameters, and of a frozen text encoder's where texts are not precomputed."""
        spec = parameter_shapes(self.model.tokenizer)
        if isinstance(self.model.text, T5Config) and not self.precomputed:
            spec["text"] = t5_shapes(self.model.text, jnp.dtype(self.dtype))
        return spec

    def load_frozen(self, spec: Any) -> Any:
        """The tokenizer's parameters, from the last checkpoint of its training, and a released text encoder's.

        Raises:
          UserError: there is no checkpoint, or it is of another configuration.
        """
        found = {}
        if "tokenizer" in spec:
            found = placed({"tokenizer": spec["tokenizer"]}, self._read_tokenizer())
        if "text" in spec and isinstance(self.model.text, T5Config):
            places = jax.tree.map(lambda leaf: leaf.sharding, spec["text"])
            found["text"] = load_t5(self.text_checkpoint, self.model.text, places, jnp.dtype(self.dtype))
        return found

    def check_files(self) -> None:
        """Refuses a tokenizer's training and a text encoder's files that are not what is expected."""
        frozen = self._read_tokenizer()
        self.describe()
        if self.text_vocabulary and isinstance(self.model.text, T5Config):
            SentencePieceTokenizer(self.text_vocabulary, self.model.text.vocabulary_size)
        self.check_frozen(frozen)

    def check_data(self, mixture: str, frame_size: int) -> None:
        """Refuses precomputed data of other sizes than the models'.

        Raises:
          UserError: names the first that differs.
        """
        info = Precomputed.read(self.precomputed)
        side = frame_size // self.model.tokenizer.patch
        width = self.model.text.width if self.model.has_frozen_text and self.model.text is not None else 0
        vocabulary = fingerprint_of(self.text_vocabulary) if self.text_vocabulary or not width else info.vocabulary
        wanted = {
            "frames": self.frames,
            "temporal_patch": self.temporal_patch,
            "codebook_size": self.model.transformer.codebook_size,
            "text_length": self.text_length,
            "text_width": width,
            "vocabulary": vocabulary,
        }
        found = {name: getattr(info, name) for name in wanted}
        for task in info.mixtures.get(mixture, {}):
            wanted[f"grid of {task}"], found[f"grid of {task}"] = [side, side], list(info.grids[task])
        if differing := [name for name in wanted if found[name] != wanted[name]]:
            name = differing[0]
            raise UserError(
                f"the precomputed data in {self.precomputed} has {name} {found[name]}, expected {wanted[name]}, this "
                "training's: precompute with its run file, or train as it was precomputed"
            )

    def check_frozen(self, frozen: Any) -> None:
        """Refuses data that was precomputed with another tokenizer.

        Raises:
          UserError: the fingerprints of both.
        """
        if not self.precomputed:
            return
        found, wanted = Precomputed.read(self.precomputed).tokenizer, fingerprint(frozen["tokenizer"])
        if found != wanted:
            raise UserError(
                f"the precomputed tokens in {self.precomputed} are of tokenizer {found}, expected {wanted}, that of "
                f"{self.tokenizer_workdir}: precompute again into another folder, or name the tokenizer that made them"
            )

    def note_on_frozen(self, frozen: Any) -> str:
        """Says where the tokenizer of a checkpoint is not the one that is named now, which is not taken then."""
        kept = "goes on with the tokenizer that it began with"
        try:
            named = self._read_tokenizer()
        except UserError as error:
            return f"{kept}, as none that fits is in {self.tokenizer_workdir}: {error}"
        if fingerprint(named["tokenizer"]) == fingerprint(frozen["tokenizer"]):
            return ""
        return f"{kept}, and not with the one that is now in {self.tokenizer_workdir}: that takes another workdir"

    def _read_tokenizer(self) -> dict[str, Any]:
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
        """What may be wrong with the captions."""
        return advice(values, self.text_length)

    def summary(self, values: dict[str, float], expected: dict[str, float]) -> list[str]:
        """Losses and accuracies by kind of example and by how much is masked, beside what is to be expected."""
        return summary(values, expected)

    def loss(self, params: Any, frozen: Any, batch: Batch, rng: PRNGKeyArray) -> tuple[Array, dict[str, Any]]:
        """The loss of a batch and the outputs that the metrics are made of.

        Args:
          params: of "text", "transformer" and, where it is a network of its own, "critic".
          frozen: parameters of "tokenizer".
          batch: `video`, `frame_mask` and `prefix_frames`, and `packed_images` where images share rows; or tokens, as
            `video_tokens`, `token_positions`, `segment_ids`, `known` and `filled`. And `text_tokens` and `text_mask`,
            with an axis for the texts of a row where images share it; or `text_embeddings` and `text_segment_ids`.
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
        side, rows = self.model.tokenizer.frame_size, min(8, len(next(iter(batch.values()))))
        nothing = jnp.zeros((rows, 0, side, side, 3), jnp.uint8)
        shown = None
        if self.model.text is not None:
            few = {name: array[:rows] for name, array in batch.items()}
            # Of a row of several texts the first, which its first tokens are.
            embeddings, segment_ids = (
                array[:, : self.text_length]
                for array in texts_of(self.model, params | frozen, few, jnp.dtype(self.dtype))
            )
            shown = single_texts(embeddings, segment_ids == 1)
        rngs = jax.random.split(rng, rows)
        return {"sample": generate_window(self.model, self.sampling, params | frozen, shown, nothing, rngs)}

    def _loss(
        self, params: Any, frozen: Any, batch: Batch, rng: PRNGKeyArray, *, deterministic: bool
    ) -> tuple[Array, dict[str, Any]]:
        mask_rng, drop_rng, dropout_rng, critic_rng, noise_rng = jax.random.split(rng, 5)
        rows = rows_of(self.model, params | frozen, batch, jnp.dtype(self.dtype))
        config, segments = self.model.transformer, rows.segments
        masked, share = random_mask(
            mask_rng,
            rows.candidates,
            rows.segment_ids,
            segments=segments,
            schedule=self.schedule,
            places=rows.places,
            tube_share=self.tube_share,
        )
        drop = jax.random.uniform(drop_rng, share.shape) < self.null_text_rate
        text = None
        if rows.embeddings is not None and rows.text_segment_ids is not None:
            text = Text(rows.embeddings, rows.text_segment_ids, of_segment(drop, rows.text_segment_ids))
        options = {"deterministic": deterministic, "rngs": {"dropout": dropout_rng}}
        network = MaskedTransformer(config, jnp.dtype(self.dtype))
        hidden = jnp.where(masked, config.mask_token, self._with_noise(noise_rng, rows))
        place = (rows.positions, rows.segment_ids, text)
        features = apply(network, params["transformer"], hidden, *place, **options, method="features")
        has_critic = self.model.critic is not None or config.predicts_scores
        found, codes = self._judge(network, params["transformer"], features, rows.tokens, critic_rng, draws=has_critic)
        loss = _mean(found.objective, masked)
        outputs = outputs_by_kind(
            found, masked, rows, of_segment(drop, rows.segment_ids), of_segment(share, rows.segment_ids)
        )
        outputs["loss"] = (jnp.sum(found.cross_entropy * masked), jnp.sum(masked))
        outputs["null_text_rate"] = (jnp.sum(drop & rows.filled), jnp.sum(rows.filled))
        if rows.text_segment_ids is not None:
            there = rows.text_segment_ids.reshape(len(rows.tokens), -1, self.text_length) > 0
            outputs["full_text_rate"] = (jnp.sum(there[..., -1]), jnp.sum(there[..., 0]))
        outputs["padding"] = (jnp.sum(rows.segment_ids == 0), jnp.float32(rows.segment_ids.size))
        if has_critic:
            drawn = jnp.where(masked, codes, rows.tokens)
            sizes, name = (self.model.critic, "critic") if self.model.critic is not None else (config, "transformer")
            critic = MaskedTransformer(sizes, jnp.dtype(self.dtype))
            scores = apply(critic, params[name], drawn, *place, **options).scores
            wrong = critic_loss(scores, ~masked)
            loss += self.critic_weight * _mean(wrong, rows.candidates)
            right = (scores > 0) == ~masked
            outputs["critic_loss"] = (jnp.sum(wrong * rows.candidates), jnp.sum(rows.candidates))
            outputs["critic_accuracy"] = (jnp.sum(right * rows.candidates), jnp.sum(rows.candidates))
        return loss, outputs

    def _judge(
        self,
        network: MaskedTransformer,
        params: Any,
        features: Float[Array, "batch length embed"],
        tokens: Int[Array, "batch length"],
        rng: PRNGKeyArray,
        *,
        draws: bool,
    ) -> tuple[TokenLoss, Int[Array, "batch length"]]:
        """The losses of all tokens and, if they are drawn, codes in their places."""

        def judge(features: Array, tokens: Array, rng: PRNGKeyArray) -> tuple[TokenLoss, Array]:
            logits = apply(network, params, features, method="logits")
            found = token_loss(logits, tokens, label_smoothing=self.label_smoothing, z_loss=self.z_loss)
            return found, _draw_codes(rng, logits) if draws else tokens

        if self.loss_parts == 1:
            return judge(features, tokens, rng)
        self._check_parts(tokens.shape[1])
        return in_parts(judge, self.loss_parts, features, tokens, rng=rng)

    def _with_noise(self, rng: PRNGKeyArray, rows: Rows) -> Int[Array, "batch length"]:
        """The tokens, some of those that are given replaced by any codes."""
        if not self.prefix_noise:
            return rows.tokens
        share_rng, which_rng, code_rng = jax.random.split(rng, 3)
        share = self.prefix_noise * jax.random.uniform(share_rng, (len(rows.tokens), 1))
        given = (rows.segment_ids > 0) & ~rows.candidates
        replaced = given & (jax.random.uniform(which_rng, rows.tokens.shape) < share)
        codes = jax.random.randint(code_rng, rows.tokens.shape, 0, self.model.transformer.codebook_size)
        return jnp.where(replaced, codes, rows.tokens)


def _raw_texts(shape: tuple[int, ...]) -> dict[str, Any]:
    return {"text_tokens": (shape, jnp.int32), "text_mask": (shape, jnp.bool_)}


def _draw_codes(rng: PRNGKeyArray, logits: Logits) -> Int[Array, "batch length"]:
    digits = [
        jax.random.categorical(jax.random.fold_in(rng, index), jax.lax.stop_gradient(part))
        for index, part in enumerate(logits)
    ]
    return join_codes(digits, [part.shape[-1] for part in logits])


def _mean(values: Float[Array, "batch length"], which: Bool[Array, "batch length"]) -> Float[Array, ""]:
    return jnp.sum(values * which) / jnp.maximum(jnp.sum(which), 1)
