"""The training loop: knows the learner's protocol and nothing of any model."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import sys
import typing
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from phenaki_jax.data.alternation import AlternatingFeed
from phenaki_jax.data.feed import Feed
from phenaki_jax.data.position import Order, saved_order
from phenaki_jax.data.shares import readers_of
from phenaki_jax.errors import UserError, check_at_least, check_types, check_values
from phenaki_jax.training import state as state_lib
from phenaki_jax.training.checkpoints import (
    Checkpoints,
    checkpoint_steps,
    first_whole_step,
    position_of,
    read_parameters_that_fit,
)
from phenaki_jax.training.compiled import CompiledStep
from phenaki_jax.training.data_config import DataConfig
from phenaki_jax.training.hosts import agreed
from phenaki_jax.training.learner import Learner
from phenaki_jax.training.log import RunLog
from phenaki_jax.training.optimizers import OptimizerConfig
from phenaki_jax.training.pace import Pace
from phenaki_jax.training.reference import Reference
from phenaki_jax.training.sharding import Layout, MeshConfig
from phenaki_jax.training.state import StepConfig
from phenaki_jax.training.stopping import stop_requests


@dataclasses.dataclass(frozen=True)
class Schedule:
    """What happens when, in steps but for the last.

    Attributes:
      steps: length of the training.
      log_every: metrics to the terminal and the log.
      checkpoint_every: state and data position to disk.
      eval_every: metrics of test examples.
      images_every: videos to look at.
      eval_batches: test batches of an evaluation.
      stall_seconds: a step that takes longer is told.
    """

    steps: int
    log_every: int = 50
    checkpoint_every: int = 500
    eval_every: int = 500
    images_every: int = 500
    eval_batches: int = 10
    stall_seconds: int = 300

    def __post_init__(self) -> None:
        check_types(self)
        check_at_least(self, 1, *(field.name for field in dataclasses.fields(self)))


def train(
    learner: Learner,
    optimizer: OptimizerConfig,
    data: DataConfig,
    schedule: Schedule,
    workdir: str | Path,
    *,
    seed: int = 0,
    step_config: StepConfig | None = None,
    mesh_config: MeshConfig | None = None,
    initial_workdir: str = "",
    reference: str = "",
    configuration: str = "",
) -> dict[str, float]:
    """Trains until `schedule.steps`, from the last checkpoint in `workdir` where there is one.

    What a run begins with, in this order: the last complete checkpoint in `workdir` (state, data position); else the
    parameters that the run in `initial_workdir` trained, with the statistics that run along with them; else the
    learner's initial ones. Frozen ones are read from where they were trained.

    Args:
      learner: what is trained.
      optimizer: how.
      data: on what.
      schedule: for how long, and what happens in between.
      workdir: where checkpoints, metrics and pictures go.
      seed: of initialisation, data order and all randomness of the steps.
      step_config: how batches become new parameters; each at once, without averages, by default.
      mesh_config: how devices are laid out; all of them in one row by default.
      initial_workdir: folder of a training of the same model, maybe on other data or clips of another length, whose
        parameters this one begins with; none where empty.
      reference: metrics of a training that went well, which this one's are shown beside, see `Reference.read`.
      configuration: the text of the configuration, kept in checkpoints for people to read.

    Returns:
      The metrics of the last evaluation.

    Raises:
      UserError: settings that do not fit, or a loss that is not finite.
      KeyboardInterrupt: interrupted, `Stopped` by SIGTERM; a checkpoint of the last step has been written.
    """
    mesh_config, step_config = mesh_config or MeshConfig(), step_config or StepConfig()
    check_settings(
        learner=learner,
        schedule=schedule,
        optimizer=optimizer,
        data=data,
        step_config=step_config,
        mesh_config=mesh_config,
        initial_workdir=initial_workdir,
        seed=seed,
    )
    curves = Reference.read(reference)
    layout = mesh_config.make()
    data.check_parts(step_config.microbatches, layout)
    layout.check_sequence(learner.sequence_length)
    steps_there = agreed(checkpoint_steps(workdir))
    last_step = first_whole_step(Path(workdir).absolute(), steps_there, _warn) if steps_there else 0
    order, is_new = _order(Path(workdir), last_step, data, layout)
    feed = data.train_feed(learner, layout, seed, order)
    _check_evaluation(data, learner, layout, seed)

    transform = state_lib.transform_of(learner, optimizer)
    spec = state_lib.state_spec(learner, transform, layout, step_config)
    _check_frame_sizes(feed, learner, spec)
    average_decay = "above 0" if step_config.average_decay else "0"
    description = {
        **learner.describe(),
        "optimizer": learner.optimizer_kinds(optimizer),
        "average_decay": average_decay,
    }
    changed: list[str] = []
    # Nothing is written before everything that could be refused has been read.
    if last_step:
        checkpoints = Checkpoints(workdir)
        with contextlib.ExitStack() as refused:
            refused.callback(checkpoints.close)
            state, changed = checkpoints.restore(
                state_lib.without_frozen(learner, spec),
                None if is_new else feed,
                description,
                last_step,
                [step for step in steps_there if step > last_step],
            )
            state = state_lib.with_frozen(learner, state, spec)
            learner.check_frozen(state.frozen)
            if (found := int(state.step)) > schedule.steps:
                raise UserError(
                    f"the checkpoint in {workdir} is of step {found}, expected at most {schedule.steps}, the steps of "
                    "this training: set more steps, or name another workdir"
                )
            refused.pop_all()
    else:
        begin = functools.partial(read_parameters_that_fit, initial_workdir, learner.describe(), average=False)
        begun = begin() if initial_workdir else None
        state = state_lib.initial_state(learner, transform, seed, spec, begun)
        learner.check_frozen(state.frozen)
        checkpoints = Checkpoints(workdir)

    options = layout.compiler_options
    step_function = CompiledStep(learner, transform, step_config, spec, layout)
    eval_function = jax.jit(functools.partial(state_lib.eval_step, learner), compiler_options=options)
    # Whole on every process, the first of which shows them.
    image_function = jax.jit(learner.images, out_shardings=layout.whole, compiler_options=options)
    merge = jax.jit(lambda first, second: first.merge(second))

    first_step = int(state.step)
    if first_step and jax.process_index() == 0:
        settings = f" with {', '.join(changed)}" if changed else ""
        rest = ": all its steps are done, more of them is a longer training" if first_step == schedule.steps else ""
        print(f"going on from step {first_step}{settings}{rest}", flush=True)
        if is_new:
            print("the examples begin a new order: that of before is for another number of processes", flush=True)
        # Several processes may hold parts of it.
        if jax.process_count() == 1 and (note := learner.note_on_frozen(state.frozen)):
            print(note, flush=True)
    log = RunLog(Path(workdir), first_step)
    seen: Any = None
    before: Any = None
    values: dict[str, float] = {}
    stopping = False
    health = _Health()
    evaluated = log.last_evaluation()
    with (
        stop_requests() as stop,
        contextlib.closing(checkpoints),
        contextlib.closing(log),
        layout.applied(),
        contextlib.closing(_Progress(first_step, schedule.steps)) as progress,
        contextlib.closing(Pace(schedule.stall_seconds, _warn_of_own)) as pace,
    ):
        for step in range(first_step + 1, schedule.steps + 1):
            with pace.step(step):
                with pace.feeding():
                    batch = next(feed)
                state, metrics = step_function(state, batch)
                # One step ahead of the devices, which never wait for the next batch to be put on them: further ahead
                # batches would fill their memory, and waiting for data would be counted where nobody waits.
                jax.block_until_ready(before)
                before = metrics
                seen = metrics if seen is None else merge(seen, metrics)
                # Asked once: a request that comes while this step is told and shown is heeded after the next one.
                stopping = stop.requested()
                last = step == schedule.steps or stopping
                evaluates = step % schedule.eval_every == 0 or step == schedule.steps
                periods = (schedule.log_every, schedule.checkpoint_every, schedule.eval_every)
                logs = any(step % period == 0 for period in periods) or last
                if logs:
                    values = _finite(seen, step, workdir)
            if logs:
                speed, slow = pace.since_last()
                log.write_speed(step, speed)
                progress.tell(step, slow, warning=True)
                log.write("train", step, values, curves.expected("train", step))
                shown = {name: f"{values[name]:.3g}" for name in learner.progress_metrics}
                progress.show(step, shown)
                if new := health.new(learner.advice(values), again=evaluates):
                    log.write_advice(step, new)
                    progress.tell(step, new, warning=True)
                seen = None
            progress.advance()
            is_cut_short = stopping and step < schedule.steps
            if not is_cut_short and (step % schedule.images_every == 0 or step == schedule.steps):
                rng = state_lib.rng_of(seed, state_lib.Stream.PICTURES, step)
                log.write_videos(step, image_function(state.used, state.frozen, batch, rng))
            # Who asked to stop may not wait for more than what must be saved.
            if evaluates and not is_cut_short:
                progress.tell(step, learner.summary(values, curves.expected("train", step)))
                evaluated = {}
                for ending, held_out in data.eval_feeds(learner, layout, seed).items():
                    judged = _evaluate(eval_function, merge, state, held_out, schedule)
                    evaluated |= {name + ending: value for name, value in judged.items()}
                log.write("eval", step, evaluated, curves.expected("eval", step))
            if step % schedule.checkpoint_every == 0 or last:
                kept = state_lib.without_frozen(learner, state)
                checkpoints.save(kept, feed, {**description, "configuration": configuration})
            if stopping:
                break

    if stopping and int(state.step) < schedule.steps:
        raise stop.kind(f"stopped after step {int(state.step)}, which is saved; the same command goes on from it")
    return evaluated


def check_settings(**settings: Any) -> None:
    """Refuses what can be seen to be wrong in arguments of `train` before any data is read.

    Raises:
      UserError: a value of a wrong type or out of its range, or parts of a training that do not fit each other.
    """
    check_values(train.__name__, typing.get_type_hints(train), settings)
    if not 0 <= settings.get("seed", 0) < 2**31:
        raise UserError(f"found seed {settings['seed']}, expected 0 to {2**31 - 1}")
    settings["learner"].check_steps(settings["schedule"].steps)


def _warn(line: str) -> None:
    if jax.process_index() == 0:
        _warn_of_own(line)


def _warn_of_own(line: str) -> None:
    """Of what other processes may not know."""
    print(f"phenaki: {line}", file=sys.stderr, flush=True)


def _order(workdir: Path, last_step: int, data: DataConfig, layout: Layout) -> tuple[Order | None, bool]:
    """The order of the examples that a run in this folder goes on with, and whether it begins only now.

    Shares that the processes cannot divide among themselves have no position that they could go on from.
    """
    saved = agreed(saved_order(position_of(workdir, last_step))) if last_step else None
    found = Order(*saved) if saved else None
    readers = readers_of(layout.batch)
    if found is None or found.shares % readers == 0:
        return found, False
    return Order(data.shares or readers, last_step), True


def _check_frame_sizes(feed: Feed, learner: Learner, spec: state_lib.TrainState) -> None:
    """Refuses frames that the model cannot take, which it would only say when their turn comes."""
    for each in feed.feeds if isinstance(feed, AlternatingFeed) else ():
        try:
            jax.eval_shape(learner.evaluate, spec.params, spec.frozen, each.batch_spec, jax.random.key(0))
        except UserError as error:
            raise UserError(f"{each.settings.mixture}: {error}") from error


def _check_evaluation(data: DataConfig, learner: Learner, layout: Layout, seed: int) -> None:
    """Reads what an evaluation would stumble over hours later."""
    for feed in data.eval_feeds(learner, layout, seed).values():
        next(feed)


def _evaluate(eval_function: Any, merge: Any, state: Any, feed: Feed, schedule: Schedule) -> dict[str, float]:
    seen: Any = None
    for index, batch in zip(range(schedule.eval_batches), feed, strict=False):
        metrics = eval_function(state, batch, np.int32(index))
        seen = metrics if seen is None else merge(seen, metrics)
    values = seen.compute()
    if not np.isfinite(values["loss"]):
        raise UserError(f"loss is {values['loss']} on test examples; lower learning_rate or clip")
    return _numbers(values)


def _finite(seen: Any, step: int, workdir: str | Path) -> dict[str, float]:
    """The metrics as numbers; a loss or gradient that is not finite ends the training."""
    values = seen.compute()
    watched = [name for name in values if name == "loss" or name.startswith("gradient_norm")]
    # Of what has not begun nothing is counted, which is no number either.
    counted = [name for name in watched if name == "loss" or getattr(seen, name).weight]
    broken = [name for name in counted if not np.isfinite(values[name])]
    if broken:
        kept = checkpoint_steps(workdir)
        stays = f"the checkpoint of step {kept[-1]} stays in {workdir}: go on from it" if kept else "begin anew"
        if values.get("skipped_steps", 0):
            raise UserError(
                f"every step since the last log was skipped, at step {step}, as no gradient was finite; {stays} "
                "with a lower learning_rate or a smaller clip"
            )
        raise UserError(
            f"{broken[0]} is {values[broken[0]]} at step {step}; {stays} with a lower learning_rate or a smaller clip"
        )
    return _numbers(values)


def _numbers(values: dict[str, Any]) -> dict[str, float]:
    """Scalars, of vectors each entry, without what nothing was seen of, such as the loss of images without images."""
    scalars: dict[str, Any] = {}
    for name, value in values.items():
        entries = np.asarray(value)
        scalars |= {name: entries} if not entries.ndim else {f"{name}_{i:02}": x for i, x in enumerate(entries)}
    return {name: float(value) for name, value in scalars.items() if np.isfinite(value)}


class _Health:
    """What has been told of a training's health, so that nothing is told at every log while it lasts."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def new(self, lines: list[str], *, again: bool) -> list[str]:
        """The lines whose subject, their first word, was not among those told last; all of them again where asked."""
        subjects = {line.partition(" ")[0]: line for line in lines}
        new = [line for subject, line in subjects.items() if again or subject not in self._told]
        self._told = set(subjects)
        return new


class _Progress:
    """A bar on a terminal, a line now and then elsewhere."""

    def __init__(self, first_step: int, steps: int) -> None:
        self._steps = steps
        self._bar = tqdm(initial=first_step, total=steps, unit="step", disable=not sys.stderr.isatty(), leave=True)

    def show(self, step: int, values: dict[str, str]) -> None:
        """Tells the metrics that matter."""
        self._bar.set_postfix(values)
        if self._bar.disable and jax.process_index() == 0:
            print(f"step {step}/{self._steps}", *(f"{name} {value}" for name, value in values.items()), flush=True)

    def tell(self, step: int, lines: list[str], *, warning: bool = False) -> None:
        """Tells lines above the bar; what is not well goes where errors go."""
        if jax.process_index() == 0:
            for line in lines:
                self._bar.write(f"step {step}: {line}", file=sys.stderr if warning else sys.stdout)

    def advance(self) -> None:
        """One step is done."""
        self._bar.update()

    def close(self) -> None:
        """Leaves the bar as it is."""
        self._bar.close()
