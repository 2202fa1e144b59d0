"""Where arrays lie: kernels as the rules say, an optimizer's moments where their parameters do."""

import dataclasses

import jax
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from phenaki_jax.errors import UserError
from phenaki_jax.inference.testing import tiny_config
from phenaki_jax.tokenizer.adversarial import AdversarialConfig
from phenaki_jax.tokenizer.discriminator import DiscriminatorConfig
from phenaki_jax.training import state as state_lib
from phenaki_jax.training.learner import Learner
from phenaki_jax.training.optimizers import OptimizerConfig
from phenaki_jax.training.sharding import RULES, MeshConfig
from phenaki_jax.training.tokenizer_learner import TokenizerLearner
from tests.training.eight_devices import OverRandomTokenizer

GAME = AdversarialConfig(DiscriminatorConfig(most_channels=8), lecam=0.1, adaptive=True, start=1, discriminator_start=1)
LEARNER = TokenizerLearner(tiny_config().tokenizer, adversarial=GAME)
LEARNERS = {"tokenizer": LEARNER, "transformer": OverRandomTokenizer(tiny_config(), "")}
# Both learners, and what is divided by heads and by places.
QUICK = ("tokenizer", "fully_sharded_tensor_parallel")
STEP = state_lib.StepConfig(microbatches=2, average_decay=0.9)


def test_a_mesh_takes_all_devices_there_are() -> None:
    assert dict(MeshConfig().make().mesh.shape) == {"replica": 1, "data": 4, "model": 1}
    assert dict(MeshConfig(replica=2, model=2).make().mesh.shape) == {"replica": 2, "data": 1, "model": 2}


@pytest.mark.parametrize("axes", [{"replica": 0}, {"model": -1}, {"data": 0}, {"data": -2}])
def test_axes_without_a_device_are_refused(axes: dict[str, int]) -> None:
    with pytest.raises(UserError, match="of at least 1"):
        MeshConfig(**axes)


@pytest.mark.parametrize("mesh", [MeshConfig(data=3), MeshConfig(replica=3)])
def test_a_mesh_of_other_devices_is_refused(mesh: MeshConfig) -> None:
    with pytest.raises(UserError, match=r"found 4 devices, expected a mesh of replica . x "):
        mesh.make()


def test_sequences_that_devices_cannot_share_are_refused() -> None:
    layout = MeshConfig(model=4, rules="sequence_parallel").make()
    layout.check_sequence(64)
    with pytest.raises(
        UserError, match=r"found model 4 with sequence_parallel, expected a divisor of the 62 .*, as 2:"
    ):
        layout.check_sequence(62)
    MeshConfig(model=4, rules="tensor_parallel").make().check_sequence(62)


def test_parameters_lie_as_the_rules_say() -> None:
    boxed = jax.eval_shape(LEARNER.init_params, jax.random.key(0))
    layout = MeshConfig(data=2, model=2).make()
    whole = jax.tree.leaves(layout.parameters(boxed))
    assert all(place.is_fully_replicated for place in whole)
    cut = dataclasses.replace(layout, rules="fully_sharded").parameters(boxed)
    kernels = [place.spec for path, place in jax.tree_util.tree_leaves_with_path(cut) if "mlp" in str(path)]
    assert set(kernels) == {PartitionSpec(None, "data", "model"), PartitionSpec(None, "data")}


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_moments_lie_where_their_parameters_do(kind: str) -> None:
    layout = MeshConfig(data=2, model=2, rules="fully_sharded").make()
    boxed = jax.eval_shape(LEARNER.init_params, jax.random.key(0))
    spec = state_lib.state_spec(LEARNER, LEARNER.transform(OptimizerConfig(kind), boxed), layout, STEP)
    places = {str(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(spec.params)}
    found = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(spec.optimizer):
        mirrored = [place for name, place in places.items() if str(path).endswith(name[1:])]
        if mirrored and leaf.ndim:
            assert leaf.shape == mirrored[0].shape
            assert leaf.sharding == mirrored[0].sharding
            found += 1
    assert found >= len(places)


@pytest.mark.parametrize(
    ("learner", "rules"),
    [
        pytest.param(learner, rules, marks=() if (kind, rules) == QUICK else pytest.mark.slow, id=f"{rules}-{kind}")
        for kind, learner in LEARNERS.items()
        for rules in RULES
    ],
)
def test_sharded_steps_are_those_of_one_device(learner: Learner, rules: str) -> None:
    """Two steps over a 2 x 2 mesh of sharded parameters and batches give the parameters that one device gives."""
    rng = np.random.default_rng(0)
    batch = {
        "video": rng.integers(0, 256, (4, 5, 32, 32, 3), dtype=np.uint8),
        "frame_mask": np.arange(5) < np.array([5, 5, 1, 5])[:, None],
        "prefix_frames": np.array([0, 3, 0, 0], np.int32),
        "text_tokens": rng.integers(3, 200, (4, 24), dtype=np.int32),
        "text_mask": np.arange(24) < np.array([24, 3, 7, 9])[:, None],
    }
    transform, found = optax.sgd(0.1), []
    for layout in (MeshConfig().over(jax.devices()[:1]), MeshConfig(data=2, model=2, rules=rules).make()):
        spec = state_lib.state_spec(learner, transform, layout, STEP)
        state = state_lib.initial_state(learner, transform, 0, spec)
        divided = jax.device_put(batch, layout.batch)
        with layout.applied():
            step = jax.jit(lambda state, batch: state_lib.train_step(learner, transform, STEP, state, batch)[0])
            for _ in range(2):
                state = step(state, divided)
        found.append(jax.tree.map(np.asarray, (state.params, state.average, state.statistics)))
    assert len(divided["video"].addressable_shards[0].data) == 4 // layout.batch_parts
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5), *found)


def test_a_step_of_many_devices_with_tables_of_odd_rows_can_begin() -> None:
    """A table has a row more than there are codes, and 259 for bytes; the head, a column for each code, is cut."""
    learner = OverRandomTokenizer(tiny_config(), "")
    boxed = jax.eval_shape(learner.init_params, jax.random.key(0))
    places = MeshConfig(data=2, model=2, rules="fully_sharded").make().parameters(boxed)["transformer"]
    assert places["embedding"].spec == PartitionSpec(None, "data")
    assert places["head"].spec == PartitionSpec("data", "model")
