"""What a dry run tells of memory is what the devices then hold."""

import jax
import optax
import pytest

from phenaki_jax.errors import UserError
from phenaki_jax.inference.testing import tiny_config
from phenaki_jax.training import size
from phenaki_jax.training import state as state_lib
from phenaki_jax.training.data_config import DataConfig
from phenaki_jax.training.optimizers import OptimizerConfig
from phenaki_jax.training.sharding import MeshConfig
from phenaki_jax.training.tokenizer_learner import TokenizerLearner

LEARNER = TokenizerLearner(tiny_config().tokenizer)
STEP = state_lib.StepConfig(average_decay=0.9)


@pytest.mark.parametrize("rules", ["data_parallel", "fully_sharded"])
def test_bytes_are_those_that_a_device_holds(rules: str) -> None:
    transform = optax.adam(1e-3)
    spec = state_lib.state_spec(LEARNER, transform, MeshConfig(model=2, rules=rules).make(), STEP)
    state = state_lib.initial_state(LEARNER, transform, 0, spec)
    held = sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(state))
    assert size.bytes_per_device(spec) == held


def test_lines_tell_how_parameters_lie_and_what_a_device_holds() -> None:
    settings = {
        "learner": LEARNER,
        "optimizer": OptimizerConfig(),
        "step_config": STEP,
        "data": DataConfig("clips", "clips", "data", batch_size=8),
        "mesh_config": MeshConfig(model=2, rules="fully_sharded"),
    }
    told = {" ".join(line.split()) for line in size.lines(settings)}
    assert "mesh replica 1 x data 2 x model 2, fully_sharded, of all devices of 1 processes" in told
    assert "first_stem 192 x 16 16 over data" in told
    # Float32.
    count = next(line for line in told if line.startswith("tokenizer")).split()[1].replace(",", "")
    whole = next(line for line in told if line.startswith("parameters")).split()[1]
    assert float(whole) == pytest.approx(4 * int(count) / 1024, abs=0.005)
    with pytest.raises(UserError, match=r"found 4 devices, expected a mesh of replica . x "):
        list(size.lines({**settings, "mesh_config": MeshConfig(model=3)}))
