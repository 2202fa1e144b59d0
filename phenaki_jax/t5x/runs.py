"""What gin files of t5x name besides the model: what is written beside a training, no second evaluator, videos."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from t5x import gin_utils

from phenaki_jax import __version__
from phenaki_jax.data.sources import provider_of, rates_of
from phenaki_jax.data.tensorflow_stack import seqio
from phenaki_jax.inference.video_files import write_video
from phenaki_jax.t5x.convert import DESCRIPTION
from phenaki_jax.training.checkpoints import FORMAT
from phenaki_jax.training.learner import Learner
from phenaki_jax.training.optimizers import OptimizerConfig


def summarize(model_dir: str, summary_writer: Any, step: int, *, learner: Learner, optimizer: OptimizerConfig) -> None:
    """Writes what is trained beside its checkpoints, as `convert` reads it, and the gin configuration as t5x does."""
    gin_utils.summarize_gin_config(model_dir, summary_writer, step)
    if jax.process_index() == 0:
        description = {
            **learner.describe(),
            "optimizer": learner.optimizer_kinds(optimizer),
            "average_decay": "0",
            "format": FORMAT,
            "phenaki_jax": __version__,
        }
        (Path(model_dir) / DESCRIPTION).write_text(json.dumps(description, indent=2))


def known(name: str) -> str:
    """The name of a mixture or task, which seqio has from now on, as t5x looks for it there.

    Args:
      name: see `data.sources.provider_of`; datasets are looked for in the folder that `--tfds_data_dir` names.

    Raises:
      UserError: there is none of this name.
    """
    provider = provider_of(name, seqio.LazyTfdsLoader().data_dir)
    registry = seqio.MixtureRegistry if isinstance(provider, seqio.Mixture) else seqio.TaskRegistry
    if name not in registry.names():
        registry.add_provider(name, provider)
    return name


class NoEvaluator:
    """In the place of the evaluator of seqio, which `t5x.eval` wants beside a trainer's: does nothing.

    Args:
      mixture_or_task_name: what is evaluated on.
      feature_converter: of its examples.
      sequence_length: of its features.
      eval_split: of it.
      options: as t5x passes them.
    """

    def __init__(
        self,
        mixture_or_task_name: str,
        feature_converter: Any,
        sequence_length: dict[str, int],
        eval_split: str,
        **options: Any,
    ) -> None:
        del options
        self.eval_tasks: Sequence[Any] = [task for task in rates_of(mixture_or_task_name) if eval_split in task.splits]
        dataset = self.eval_tasks[0].get_dataset(sequence_length, eval_split, shuffle=False, trim_output_features=False)
        spec = feature_converter(dataset, sequence_length).element_spec
        self.model_feature_shapes = {name: tuple(each.shape) for name, each in spec.items()}

    def evaluate(self, **options: Any) -> tuple[Any, Any]:
        """No metrics."""
        del options
        return self, None

    def result(self) -> dict[str, Any]:
        """Of what `evaluate` promises: nothing."""
        return {}

    def close(self) -> None:
        """Nothing is open."""


def write_videos(
    path: str, inferences: Any, task_ds: Any, mode: str, vocabulary: Any = None, *, fps: float = 8.0
) -> None:
    """Writes what `t5x.infer` has made of a part of a task: a line of JSON for each example, and its video.

    Args:
      path: of the lines; videos go into `videos/` of the folder above, which t5x keeps.
      inferences: what t5x has of them: videos, or scores in the mode "score".
      task_ds: the examples.
      mode: "predict", "predict_with_aux" or "score".
      vocabulary: is not needed.
      fps: frames per second.
    """
    del vocabulary
    found, lines, file = inferences[0], [], Path(path)
    for index, (example, made) in enumerate(zip(task_ds.as_numpy_iterator(), found, strict=True)):
        line: dict[str, Any] = {"text": example["text"].decode()} if "text" in example else {}
        if mode == "score":
            line["score"] = float(made)
        else:
            line["video"] = f"videos/{file.name}-{index:04}.gif"
            video = file.parents[1] / line["video"]
            video.parent.mkdir(exist_ok=True)
            write_video(video, np.asarray(made, np.uint8), fps)
        lines.append(json.dumps(line))
    file.write_text("".join(f"{line}\n" for line in lines))
