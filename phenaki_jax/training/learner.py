"""What the loop knows of a model: how to begin, how to take a step, how to judge, what to show."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from clu import metrics
from jaxtyping import Array, PRNGKeyArray, UInt8

Batch = dict[str, Array]


@runtime_checkable
class Learner(Protocol):
    """Pure functions of one kind of training; all but `load_frozen` are jittable."""

    converter: str
    """Which batches it wants of a feed: "tokenizer" or "transformer"."""

    progress_metrics: tuple[str, ...]
    """The metrics that a person watches while it trains."""

    @property
    def frames(self) -> int:
        """Frames of a training clip."""

    @property
    def temporal_patch(self) -> int:
        """Frames of a token time step after the first frame."""

    @property
    def frame_size(self) -> int:
        """Side of a frame in pixels."""

    @property
    def text_length(self) -> int:
        """Tokens of a text."""

    def describe(self) -> dict[str, Any]:
        """What it is and the configurations of its models, as JSON."""

    def init_params(self, rng: PRNGKeyArray) -> Any:
        """Parameters at step 0, boxed with their logical axis names."""

    def frozen_spec(self) -> Any:
        """Shapes of the frozen parameters."""

    def load_frozen(self) -> Any:
        """The frozen parameters, read from where they were trained."""

    def loss(self, params: Any, frozen: Any, batch: Batch, rng: PRNGKeyArray) -> tuple[Array, dict[str, Any]]:
        """The loss of a training batch and the outputs that the metrics are made of."""

    def evaluate(self, params: Any, frozen: Any, batch: Batch, rng: PRNGKeyArray) -> dict[str, Any]:
        """The outputs for a batch that is not trained on."""

    def metrics(self) -> type[metrics.Collection]:
        """The collection that outputs are collected in."""

    def images(self, params: Any, frozen: Any, batch: Batch, rng: PRNGKeyArray) -> dict[str, UInt8[Array, "..."]]:
        """Videos to look at, by name: [rows, frames, height, width, 3]."""
