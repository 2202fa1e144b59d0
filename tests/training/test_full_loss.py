"""Every term of the loss at once: a hundred steps stay finite, and eight devices give what one gives."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from phenaki_jax.tokenizer.adversarial import AdversarialConfig
from phenaki_jax.tokenizer.config import CViViTConfig, QuantizerConfig
from phenaki_jax.tokenizer.discriminator import DiscriminatorConfig
from phenaki_jax.tokenizer.perceptual import PerceptualConfig
from phenaki_jax.training import sharding, state
from phenaki_jax.training.optimizers import OptimizerConfig
from phenaki_jax.training.tokenizer_learner import TokenizerLearner

# Terms of other quantizers than the paper's.
NOT_COUNTED = ("token_entropy", "code_entropy")
ALL_TERMS = PerceptualConfig(0.1, 1.0, "random", "random", "random")


def _clips(batch: int, frames: int, side: int) -> dict[str, np.ndarray]:
    """Smooth colours that drift, of all lengths."""
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 255, (batch, frames, 2, 2, 3))
    weights = np.linspace(0, 1, side)
    rows = corners[:, :, :1] * (1 - weights)[:, None, None] + corners[:, :, 1:] * weights[:, None, None]
    video = rows[:, :, :, :1] * (1 - weights)[:, None] + rows[:, :, :, 1:] * weights[:, None]
    lengths = frames - 2 * (np.arange(batch) % ((frames + 1) // 2))
    return {"video": video.astype(np.uint8), "frame_mask": np.arange(frames) < lengths[:, None]}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_hundred_steps_with_all_losses_stay_finite_and_teach_both_networks(dtype: str) -> None:
    model = CViViTConfig(
        frames=5,
        frame_size=32,
        width=64,
        heads=2,
        mlp_width=128,
        spatial_layers=1,
        temporal_layers=1,
        quantizer=QuantizerConfig(codes=64, code_width=8),
    )
    adversarial = AdversarialConfig(DiscriminatorConfig(most_channels=32), lecam=0.001, adaptive=True)
    learner = TokenizerLearner(model, perceptual=ALL_TERMS, adversarial=adversarial, dtype=dtype)
    optimizer = OptimizerConfig(learning_rate=1e-3, warmup_steps=10, decay_steps=100)
    config = state.StepConfig(average_decay=0.999)
    transform = state.transform_of(learner, optimizer)
    layout = sharding.MeshConfig().make()
    now = state.initial_state(learner, transform, 0, state.state_spec(learner, transform, layout, config))
    step = jax.jit(functools.partial(state.train_step, learner, transform, config), donate_argnums=0)
    batch = jax.device_put(_clips(4, 5, 32), layout.batch)
    psnrs = []
    with layout.applied():
        for _ in range(100):
            now, metrics = step(now, batch)
            values = {name: value for name, value in metrics.compute().items() if name not in NOT_COUNTED}
            assert all(np.isfinite(value).all() for value in jax.tree.leaves(values))
            assert values["gradient_norm"] > 0
            assert values["gradient_norm_discriminator"] > 0
            assert 0 <= values["discriminator_accuracy"] <= 1
            psnrs.append(float(values["psnr"]))
    assert psnrs[-1] > psnrs[0] + 3
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((now.params, now.average)))


_PAPER_STEP = """
import sys
from tests.training.test_full_loss import paper_step
paper_step(int(sys.argv[1]), sys.argv[2])
"""


def paper_step(devices: int, out: str) -> None:
    """A step of the paper's tokenizer, with all terms, on so many devices: metrics and gradients go to a file.

    Clips of 3 frames take 11 GB with what compiling needs, those of 5 take 18 and the paper's 11 over 23.
    """
    model = CViViTConfig(remat="full")
    adversarial = AdversarialConfig(DiscriminatorConfig(remat=True))
    learner = TokenizerLearner(model, perceptual=ALL_TERMS, adversarial=adversarial)
    optimizer = OptimizerConfig(warmup_steps=0, decay_steps=10)
    config = state.StepConfig()
    transform = state.transform_of(learner, optimizer)
    layout = sharding.MeshConfig(rules="fully_sharded").make()
    assert layout.mesh.size == devices
    now = state.initial_state(learner, transform, 0, state.state_spec(learner, transform, layout, config))
    batch = jax.device_put(_clips(8, 3, 128), layout.batch)
    with layout.applied():
        step = jax.jit(functools.partial(state.train_step, learner, transform, config), donate_argnums=0)
        now, metrics = step(now, batch)
    found = {name: np.asarray(value) for name, value in metrics.compute().items() if name not in NOT_COUNTED}
    # The parameters after a step of AdamW tell little but signs; its first moments are a tenth of the gradients.
    leaves = {
        jax.tree_util.keystr(path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(now.optimizer)
    }
    np.savez(out, **found, **{name: leaf for name, leaf in leaves.items() if ".mu" in name})


@pytest.mark.slow
def test_a_full_step_at_the_papers_size_is_the_same_on_eight_devices_as_on_one(tmp_path: Path) -> None:
    found = []
    for devices in (1, 8):
        out = tmp_path / f"{devices}.npz"
        # Devices that share a core come to where they meet minutes apart; and unless all take their steps in one
        # order, those that wait at one meeting keep the core from those that are to come to it, for ever.
        flags = (
            f"--xla_force_host_platform_device_count={devices}",
            "--xla_cpu_enable_concurrency_optimized_scheduler=false",
            "--xla_cpu_collective_call_terminate_timeout_seconds=900",
        )
        environment = {**os.environ, "XLA_FLAGS": " ".join(flags), "JAX_PLATFORMS": "cpu"}
        done = subprocess.run(
            [sys.executable, "-c", _PAPER_STEP, str(devices), str(out)], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-2000:]
        found.append(dict(np.load(out)))
    assert found[0].keys() == found[1].keys()
    assert sum(".mu" in name for name in found[0]) > 50
    for name, one in found[0].items():
        assert np.isfinite(one).all(), name
        assert np.abs(one).max() > 0 or name == "discriminator_lecam", name
        # As a whole: a rectifier or a pool of the losses' networks that rounding turns moves single elements by more.
        assert np.linalg.norm(found[1][name] - one) <= 1e-4 * np.linalg.norm(one), name
