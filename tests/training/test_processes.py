"""Several real processes as one training: the same numbers, stopped and killed at any instant."""

import os
import pathlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import jax
import numpy as np
import pytest

from phenaki_jax.data.moving_shapes.builder import prepare
from phenaki_jax.training.checkpoints import checkpoint_steps, read_params
from phenaki_jax.training.log import read_metrics

pytestmark = pytest.mark.slow

LAUNCH = pathlib.Path(__file__).parents[2] / "launch" / "local.sh"
PHENAKI = pathlib.Path(sys.executable).parent / "phenaki"
PROCESSES = 4
STEPS = 240
SECONDS_TO_STOP = 60
ENVIRONMENT = {**os.environ, "PHENAKI": str(PHENAKI), "DEVICES": "1"}
TINY = [
    "--gin.FRAMES=7",
    "--gin.BATCH_SIZE=8",
    "--gin.DataConfig.shares=4",
    "--gin.RULES='fully_sharded'",
    "--gin.CViViTConfig.width=16",
    "--gin.CViViTConfig.mlp_width=16",
    "--gin.WIDTH=16",
    "--gin.TransformerConfig.layers=1",
    "--gin.LEARNING_RATE=0.001",
    "--gin.OptimizerConfig.kind='adamw'",
    "--gin.OptimizerConfig.warmup_steps=1",
    "--gin.OptimizerConfig.decay_steps=1000",
    "--gin.Schedule.log_every=1",
    "--gin.Schedule.images_every=1000",
    "--gin.Schedule.eval_every=1000",
    "--gin.Schedule.eval_batches=1",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("data")
    prepare(folder, size=32, train_videos=32, test_videos=8, train_images=32, test_images=8)
    return folder


def _command(
    processes: int,
    data: pathlib.Path,
    workdir: pathlib.Path,
    steps: int,
    *,
    restarts: int = 0,
    tokenizer: pathlib.Path | None = None,
) -> list[str]:
    run = "shapes_transformer" if tokenizer else "shapes_tokenizer"
    over = [f"--gin.TOKENIZER_WORKDIR={str(tokenizer)!r}"] if tokenizer else []
    return [
        *(str(LAUNCH), "--restarts", str(restarts), str(processes)),
        *("--gin_file", f"gin_configs/runs/{run}.gin", "--workdir", str(workdir)),
        *(f"--gin.DATA_DIR={str(data)!r}", f"--gin.STEPS={steps}", "--gin.Schedule.checkpoint_every=5", *TINY, *over),
    ]


def _losses(workdir: pathlib.Path) -> dict[int, float]:
    return {entry["step"]: entry["loss"] for entry in read_metrics(workdir) if entry["kind"] == "train"}


def _children(process: int) -> list[int]:
    return [int(word) for word in pathlib.Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def _trainings(launched: "subprocess.Popen[bytes]") -> list[int]:
    """The processes that train, in their order, once all are there."""
    while True:
        trainings = [
            child
            for child in _children(launched.pid)
            if b"--coordinator" in pathlib.Path(f"/proc/{child}/cmdline").read_bytes()
        ]
        if len(trainings) == PROCESSES:
            return trainings
        assert launched.poll() is None
        time.sleep(0.05)


def _wait_for(condition: Callable[[], bool], launched: "subprocess.Popen[bytes]") -> None:
    while not condition():
        assert launched.poll() is None, "it ended before it was meant to be stopped"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def undisturbed(data: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A training of four processes that nothing happened to."""
    workdir = tmp_path_factory.mktemp("runs") / "undisturbed"
    subprocess.run(_command(PROCESSES, data, workdir, STEPS), env=ENVIRONMENT, check=True)
    return workdir


def _assert_ended_as(undisturbed: pathlib.Path, workdir: pathlib.Path) -> None:
    assert _losses(workdir) == _losses(undisturbed)
    assert len(_losses(workdir)) == STEPS
    jax.tree.map(np.testing.assert_array_equal, read_params(workdir), read_params(undisturbed))


@pytest.mark.parametrize("kind", ["tokenizer", "transformer"])
def test_two_and_four_processes_train_as_one(
    kind: str, data: pathlib.Path, undisturbed: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    losses = []
    for processes in (1, 2, 4):
        workdir = tmp_path / str(processes)
        command = _command(processes, data, workdir, 20, tokenizer=undisturbed if kind == "transformer" else None)
        subprocess.run(command, env=ENVIRONMENT, check=True)
        losses.append(list(_losses(workdir).values()))
    assert len(losses[0]) == 20
    for others in losses[1:]:
        np.testing.assert_allclose(others, losses[0], rtol=1e-5)


def test_fewer_processes_go_on_with_what_more_have_saved(data: pathlib.Path, tmp_path: pathlib.Path) -> None:
    together, apart = tmp_path / "together", tmp_path / "apart"
    subprocess.run(_command(1, data, together, 15), env=ENVIRONMENT, check=True)
    for processes, steps in ((4, 5), (2, 10), (1, 15)):
        subprocess.run(_command(processes, data, apart, steps), env=ENVIRONMENT, check=True)
    assert len(_losses(apart)) == 15
    np.testing.assert_allclose(list(_losses(apart).values()), list(_losses(together).values()), rtol=1e-5)


def test_a_training_whose_processes_are_killed_ends_as_one_that_was_left_alone(
    data: pathlib.Path, undisturbed: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """One of four is killed at twenty instants: some while they come together, most some steps later, at any moment."""
    rng, workdir = random.Random(0), tmp_path / "killed"
    with subprocess.Popen(_command(PROCESSES, data, workdir, STEPS, restarts=20), env=ENVIRONMENT) as launched:
        for kill in range(20):
            trainings, reached = _trainings(launched), len(_losses(workdir))
            if kill % 4:
                steps = rng.randint(1, 9)
                _wait_for(lambda: len(_losses(workdir)) >= reached + steps, launched)  # noqa: B023
                time.sleep(rng.uniform(0, 0.5))
            else:
                time.sleep(rng.uniform(0, 8))
            chosen = trainings[rng.randrange(PROCESSES)]
            os.kill(chosen, signal.SIGKILL)
            _wait_for(lambda: not set(_children(launched.pid)) & set(trainings), launched)  # noqa: B023
        assert launched.wait() == 0
    _assert_ended_as(undisturbed, workdir)


def test_a_training_that_is_stopped_saves_and_goes_on_exactly(
    data: pathlib.Path, undisturbed: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """At ten instants all four, or one of them alone, are sent SIGTERM."""
    rng, workdir = random.Random(1), tmp_path / "stopped"
    command = _command(PROCESSES, data, workdir, STEPS)
    for stop in range(10):
        with subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE) as launched:
            trainings, reached, steps = _trainings(launched), len(_losses(workdir)), rng.randint(1, 15)
            _wait_for(lambda: len(_losses(workdir)) >= reached + steps, launched)  # noqa: B023
            time.sleep(rng.uniform(0, 0.5))
            begun, before = time.monotonic(), max(_losses(workdir))
            os.kill(rng.choice(trainings) if stop % 2 else launched.pid, signal.SIGTERM)
            _, told = launched.communicate(timeout=SECONDS_TO_STOP)
            assert launched.returncode == 0
            assert time.monotonic() - begun < SECONDS_TO_STOP
        last = max(_losses(workdir))
        # As many as processes may be ahead of the log, and of the signal.
        assert last - before <= 10
        assert checkpoint_steps(workdir)[-1] == last
        assert told.decode().count(f"stopped after step {last}, which is saved") == PROCESSES
        assert not list(workdir.rglob("*tmp*"))
    assert subprocess.run(command, env=ENVIRONMENT).returncode == 0
    _assert_ended_as(undisturbed, workdir)
