"""Trains on meshes of eight simulated devices; prints how far each is from what it should equal, a line of JSON a mesh.

python -m tests.training.eight_devices meshes|restored tokenizer|transformer DATA_DIR FOLDER
"""

import contextlib
import dataclasses
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from phenaki_jax.inference.testing import random_params, tiny_config
from phenaki_jax.tokenizer.adversarial import AdversarialConfig
from phenaki_jax.tokenizer.discriminator import DiscriminatorConfig
from phenaki_jax.training import state as state_lib
from phenaki_jax.training.checkpoints import Checkpoints, read_description, read_params
from phenaki_jax.training.data_config import DataConfig
from phenaki_jax.training.learner import placed
from phenaki_jax.training.log import read_metrics
from phenaki_jax.training.loop import Schedule, train
from phenaki_jax.training.optimizers import OptimizerConfig
from phenaki_jax.training.sharding import Layout, MeshConfig
from phenaki_jax.training.state import StepConfig
from phenaki_jax.training.tokenizer_learner import TokenizerLearner
from phenaki_jax.training.transformer_learner import TransformerLearner


class Devices(MeshConfig):
    """A mesh of the first devices alone."""

    def make(self) -> Layout:
        return self.over(jax.devices()[: self.data * self.model])


STEPS = 20
STEP = StepConfig(average_decay=0.9)
OPTIMIZER = OptimizerConfig("adamw", learning_rate=1e-3, warmup_steps=5, decay_steps=STEPS, clip=1.0)
MESHES = {
    "8x1": MeshConfig(),
    "8x1 fully sharded": MeshConfig(rules="fully_sharded"),
    "4x2 heads": MeshConfig(model=2, rules="tensor_parallel"),
    "4x2 heads, fully sharded": MeshConfig(model=2, rules="fully_sharded_tensor_parallel"),
    "4x2 sequence": MeshConfig(model=2, rules="sequence_parallel"),
    "4x2 sequence, fully sharded": MeshConfig(model=2, rules="fully_sharded_sequence_parallel"),
    "2x4 heads": MeshConfig(model=4, rules="tensor_parallel"),
    "2x4 heads, fully sharded": MeshConfig(model=4, rules="fully_sharded_tensor_parallel"),
    "2x4 sequence": MeshConfig(model=4, rules="sequence_parallel"),
    "2x4 sequence, fully sharded": MeshConfig(model=4, rules="fully_sharded_sequence_parallel"),
    "2x2x2 heads": MeshConfig(replica=2, model=2, rules="tensor_parallel"),
    "2x2x2 heads, fully sharded": MeshConfig(replica=2, model=2, rules="fully_sharded_tensor_parallel"),
    "2x2x2 sequence": MeshConfig(replica=2, model=2, rules="sequence_parallel"),
    "2x2x2 sequence, fully sharded": MeshConfig(replica=2, model=2, rules="fully_sharded_sequence_parallel"),
}
RESTORED = {
    "1": Devices(data=1),
    "2": Devices(data=2, rules="fully_sharded"),
    "4": Devices(data=2, model=2, rules="fully_sharded_sequence_parallel"),
    "2x4": MeshConfig(model=4, rules="fully_sharded_tensor_parallel"),
    "8": MeshConfig(),
}


class OverRandomTokenizer(TransformerLearner):
    """Needs no training of a tokenizer before it."""

    def load_frozen(self, spec: dict) -> dict:
        return placed(spec, random_params(self.model))


def learner_of(kind: str) -> TokenizerLearner | TransformerLearner:
    """Of four heads, which meshes divide by up to four, on clips with two frames more than are ever given."""
    small = tiny_config(heads=4)
    model = dataclasses.replace(small, tokenizer=dataclasses.replace(small.tokenizer, frames=7))
    game = AdversarialConfig(DiscriminatorConfig(most_channels=8), start=3, discriminator_start=2)
    return (
        TokenizerLearner(model.tokenizer, adversarial=game) if kind == "tokenizer" else OverRandomTokenizer(model, "")
    )


def run(kind: str, data_dir: str, workdir: Path, mesh: MeshConfig, steps: int = STEPS) -> np.ndarray:
    """Trains; the losses of all steps so far."""
    data = DataConfig("moving_shapes_joint", "moving_shapes_video_text", data_dir, batch_size=8)
    schedule = Schedule(
        steps, log_every=1, checkpoint_every=STEPS, eval_every=STEPS, images_every=STEPS, eval_batches=1
    )
    train(learner_of(kind), OPTIMIZER, data, schedule, workdir, mesh_config=mesh, step_config=STEP)
    jax.clear_caches()
    return np.array([entry["loss"] for entry in read_metrics(workdir) if entry["kind"] == "train"])


def compare_meshes(kind: str, data_dir: str, folder: Path) -> None:
    """How far losses and parameters of each mesh are from those of one device."""
    alone = folder / "alone"
    expected = run(kind, data_dir, alone, Devices(data=1))
    for name, mesh in MESHES.items():
        losses = run(kind, data_dir, folder / name, mesh)
        params = [read_params(workdir, average=False)["params"] for workdir in (folder / name, alone)]
        apart = jax.tree.map(lambda one, other: np.max(np.abs(one - other)), *params)
        tell(mesh=name, losses=np.max(np.abs(losses / expected - 1)), parameters=max(jax.tree.leaves(apart)))


def compare_restored(kind: str, data_dir: str, folder: Path) -> None:
    """What eight devices have saved, on other meshes: whether it is the same, and how far later losses are."""
    saved, half = folder / "saved", STEPS // 2
    run(kind, data_dir, saved, MeshConfig(model=2, rules="fully_sharded_tensor_parallel"), half)
    kept = read_params(saved, average=False)["params"]
    shutil.copytree(saved, folder / "whole")
    expected = run(kind, data_dir, folder / "whole", MeshConfig(model=2, rules="fully_sharded_tensor_parallel"))
    for name, mesh in RESTORED.items():
        shutil.copytree(saved, folder / name)
        restored = restored_params(kind, folder / name, mesh)
        equal = jax.tree.map(np.array_equal, restored, kept)
        losses = run(kind, data_dir, folder / name, mesh)
        tell(mesh=name, losses=np.max(np.abs(losses / expected - 1)), equal=all(jax.tree.leaves(equal)))


def restored_params(kind: str, workdir: Path, mesh: MeshConfig) -> Any:
    """Parameters of a checkpoint as a training on this mesh would begin with them."""
    learner = learner_of(kind)
    transform = state_lib.transform_of(learner, OPTIMIZER)
    spec = state_lib.without_frozen(learner, state_lib.state_spec(learner, transform, mesh.make(), STEP))
    with contextlib.closing(Checkpoints(workdir)) as checkpoints:
        state, _ = checkpoints.restore(spec, None, read_description(workdir), STEPS // 2)
    jax.tree.map(lambda leaf, wanted: check(leaf.sharding == wanted.sharding), state.params, spec.params)
    return state.params


def check(holds: bool) -> None:
    """Asserts, also under python -O."""
    if not holds:
        raise AssertionError


def tell(**found: Any) -> None:
    """A line of JSON."""
    print(json.dumps({name: value if name == "mesh" else float(value) for name, value in found.items()}), flush=True)


if __name__ == "__main__":
    what, kind, data_dir, folder = sys.argv[1:]
    {"meshes": compare_meshes, "restored": compare_restored}[what](kind, data_dir, Path(folder))
