"""What the loop knows of a model: how to begin, how to take a step, how to judge, what to show."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import optax
from clu import metrics
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

from phenaki_jax.errors import UserError
from phenaki_jax.training.optimizers import OptimizerConfig

Batch = dict[str, Array]


class Given(NamedTuple):
    """What a step finds, besides the parameters it trains and the batch.

    Attributes:
      frozen: parameters of frozen parts.
      statistics: running ones, see `Learner.initial_statistics`.
      step: steps taken before, int32 [].
      rng: of this step, or of this part of its batch.
    """

    frozen: Any
    statistics: Any
    step: Int[Array, ""]
    rng: PRNGKeyArray


class Learned(NamedTuple):
    """What a batch, or a part of one, teaches.

    Attributes:
      gradients: one for each parameter, of means over what `weight` counts.
      weight: how much it counts beside other parts of its batch, float32 []: valid frames, or masked tokens.
      outputs: what the metrics are made of: sums, so that those of parts of a batch add up.
      observed: what the running statistics are brought forward with: sums too.
    """

    gradients: Any
    weight: Float[Array, ""]
    outputs: dict[str, Any]
    observed: Any


class Settled(NamedTuple):
    """What a step ends with.

    Attributes:
      params: parameters.
      statistics: running ones.
      outputs: what the metrics are made of besides those of `Learned`.
      anew: a tree of masks, of those of the parameters that have some, True where they began anew as something that has
        nothing to do with what they were.
    """

    params: Any
    statistics: Any
    outputs: dict[str, Any]
    anew: Any


def placed(spec: Any, arrays: Any) -> Any:
    """The arrays of a spec's names, laid out as its shardings say."""
    wanted = {name: arrays[name] for name in spec}
    return jax.tree.map(lambda leaf, array: jax.device_put(array, leaf.sharding), spec, wanted)


def check_dtype(dtype: str) -> None:
    """Refuses types that nothing is trained in.

    Raises:
      UserError: names the type found and those expected.
    """
    if dtype not in ("float32", "bfloat16"):
        raise UserError(f"found dtype {dtype!r}, expected 'float32', or 'bfloat16' on accelerators")


@runtime_checkable
class Learner(Protocol):
    """Pure functions of one kind of training; all that take no files are jittable."""

    @property
    def converter(self) -> str:
        """Which batches it wants of a feed, see `data.feed.CONVERTERS`."""

    @property
    def progress_metrics(self) -> tuple[str, ...]:
        """The metrics that a person watches while it trains."""

    @property
    def averaged(self) -> tuple[str, ...]:
        """The top names of parameters used after training, where averages over the steps may stand in for them."""

    @property
    def kept_frozen(self) -> tuple[str, ...]:
        """The top names of frozen parameters that checkpoints hold; each run reads the others anew."""

    @property
    def precomputed(self) -> str:
        """The folder of tokens and embeddings that stand in for the frames and texts of mixtures; empty for none."""

    @property
    def frames(self) -> int:
        """Frames of a training clip."""

    @property
    def temporal_patch(self) -> int:
        """Frames of a token time step after the first frame."""

    @property
    def sequence_length(self) -> int:
        """Tokens of the longest sequences that attention sees, which devices may share."""

    @property
    def frame_size(self) -> int:
        """Side of a frame in pixels."""

    @property
    def text_length(self) -> int:
        """Tokens of a text."""

    @property
    def vocabulary(self) -> str:
        """The file of the text encoder's vocabulary; empty for bytes."""

    def check_steps(self, steps: int) -> None:
        """Raises a UserError where a training of so many steps would never come to what it is set to do."""

    def describe(self) -> dict[str, Any]:
        """What it is and the configurations of its models, as JSON."""

    def batch_spec(self, rows: int, images: int = 1) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and types of what a feed gives it.

        Args:
          rows: of a batch.
          images: that share a row, see `data.packing`; 1 where none do.
        """

    def init_params(self, rng: PRNGKeyArray) -> Any:
        """Parameters at step 0, boxed with their logical axis names."""

    def initial_statistics(self) -> dict[str, Any]:
        """What runs along with the parameters without a gradient, at step 0, by the top name it belongs to."""

    def frozen_spec(self) -> Any:
        """Shapes of the frozen parameters, boxed with logical axis names where they may be divided over devices."""

    def load_frozen(self, spec: Any) -> Any:
        """The frozen parameters of a spec, read from where they were trained.

        Args:
          spec: shapes, with shardings, of some top names of the unboxed `frozen_spec`.
        """

    def check_files(self) -> None:
        """Raises a UserError where `load_frozen` would not find what it reads."""

    def check_data(self, mixture: str, frame_size: int) -> None:
        """Raises a UserError where precomputed data of a mixture is not what it can be trained on."""

    def check_frozen(self, frozen: Any) -> None:
        """Raises a UserError where the data was precomputed with other frozen parameters."""

    def note_on_frozen(self, frozen: Any) -> str:
        """What is to be known of frozen parameters that a checkpoint held; empty where that is nothing."""

    def optimizer_kinds(self, optimizer: OptimizerConfig) -> dict[str, str]:
        """The kind of the optimizer of each network, which the state of `transform` depends on."""

    def transform(self, optimizer: OptimizerConfig, boxed_params: Any) -> optax.GradientTransformation:
        """The optimizer of all parameters; a part of them may have one of its own."""

    def learn(self, params: Any, batch: Batch, given: Given) -> Learned:
        """Gradients and outputs of a training batch."""

    def settle(self, before: Any, after: Any, observed: Any, given: Given) -> Settled:
        """What is left to do after the optimizer's step.

        Args:
          before: parameters before the step.
          after: as the optimizer has left them.
          observed: of the whole batch, see `Learned`.
          given: what the step found.
        """

    def gradient_outputs(self, gradients: Any, given: Given) -> dict[str, Any]:
        """Outputs that the whole batch's gradients give, "gradient_norm" among them."""

    def evaluate(self, params: Any, frozen: Any, batch: Batch, rng: PRNGKeyArray) -> dict[str, Any]:
        """The outputs for a batch that is not trained on."""

    def metrics(self) -> type[metrics.Collection]:
        """The collection that outputs are collected in; what an evaluation has no output for counts as nothing seen.

        "loss" and all whose name begins with "gradient_norm" are of `evaluation.metrics.Ratio`.
        """

    def advice(self, values: dict[str, float]) -> list[str]:
        """What metrics of some steps say of the health of the training: a line for each thing that is not well."""

    def summary(self, values: dict[str, float], expected: dict[str, float]) -> list[str]:
        """What a person looks at now and then, of the metrics of some steps: a line for each part of the model.

        Args:
          values: metrics by name.
          expected: what some of them were at the same step of a training that went well.
        """

    def images(self, params: Any, frozen: Any, batch: Batch, rng: PRNGKeyArray) -> dict[str, UInt8[Array, "..."]]:
        """Videos to look at, by name: [rows, frames, height, width, 3]."""
