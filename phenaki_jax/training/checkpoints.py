"""Checkpoints: state, data position and what the run is, complete or not there (orbax CheckpointManager).

workdir/checkpoints/<step>/{state,description}    written by orbax, renamed when complete
workdir/checksums/<step>.json                     of both, written before the state has its name, see `checksums`
workdir/data_position/<step>/                     written before it, so that it is there whenever the state is
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from phenaki_jax import __version__
from phenaki_jax.errors import UserError, reason_of
from phenaki_jax.files import locked, make_folder, told_unwritable
from phenaki_jax.training.checksums import first_damage, write_checksums
from phenaki_jax.training.hosts import gathered, told_lost

if TYPE_CHECKING:
    from phenaki_jax.data.feed import Feed
    from phenaki_jax.training.state import TrainState


# Raised when what is written, or what its tensors mean, changes, but for arrays that are more or fewer than they were.
FORMAT = 3
# Settings that no parameter depends on: a run may go on, or begin, with others.
_WITHOUT_PARAMETERS = (
    *("remat", "unroll", "dropout", "sampling", "loss", "text_files"),
    *("commitment", "entropy", "diversity", "temperature", "entropy_group", "decay", "restart"),
)
# Networks that only judge others: who begins with a run's parameters may have none, or another one.
_OPTIONAL = ("discriminator", "critic")
_LONGEST_REASON = 100
# As nice(1) counts.
_BEHIND_STEPS = 19


class _Manager(ocp.CheckpointManager):
    """Leaves SIGTERM to the loop: the runtime keeps one count of how far processes are, that of `StopRequests`."""

    def reached_preemption(self, step: int) -> bool:
        return False


class Checkpoints:
    """The checkpoints of one run.

    Args:
      workdir: the run's folder.
      keep: how many of the last ones stay.
    """

    def __init__(self, workdir: str | Path, keep: int = 2) -> None:
        self._workdir = Path(workdir).absolute()
        self._held = contextlib.ExitStack()
        if jax.process_index() == 0:
            refusal = f"another training is writing to {workdir}: wait for it, or name another workdir"
            self._held.enter_context(locked(self._workdir, refusal))
        self._step = 0
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            create=True,
            cleanup_tmp_directories=True,
            async_options=ocp.AsyncOptions(post_finalization_callback=self._write_checksums),
        )
        handlers = {
            # Numbers like these shrink by less than a tenth, and steps need the cores that compress them.
            "state": ocp.PyTreeCheckpointHandler(use_compression=False),
            "description": ocp.JsonCheckpointHandler(),
        }
        self._manager = _Manager(self._workdir / "checkpoints", options=options, item_handlers=handlers)

    def save(self, state: TrainState, feed: Feed, description: dict[str, Any]) -> None:
        """Writes a checkpoint of everything a run continues from, in the background."""
        step = int(state.step)
        if step == self._manager.latest_step():
            return
        position = position_of(self._workdir, step)
        with self._writing():
            # Before the callback's step becomes this one.
            self._manager.wait_until_finished()
            if jax.process_index() == 0:
                self._prune_positions()
            if jax.process_count() > 1:
                multihost_utils.sync_global_devices("positions without a checkpoint are removed")
            feed.save(position)
            self._step = step
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeSave(state),
                    description=ocp.args.JsonSave({**description, "format": FORMAT, "phenaki_jax": __version__}),
                ),
            )

    @property
    def is_saving(self) -> bool:
        """Whether a checkpoint is being written."""
        return bool(self._manager.is_saving_in_progress())

    def _prune_positions(self) -> None:
        """Of checkpoints that are gone, or that were never complete."""
        kept = {str(step) for step in self._manager.all_steps()}
        for each in position_of(self._workdir, 0).parent.glob("*"):
            if each.name not in kept:
                shutil.rmtree(each, ignore_errors=True)

    def _write_checksums(self) -> None:
        """Of a checkpoint whose files are all written, but that has not its name yet."""
        root, step = self._workdir / "checkpoints", self._step
        if jax.process_index() == 0:
            _let_steps_go_first()
            unfinished = next(root.glob(f"{step}.orbax-checkpoint-tmp*"), root / str(step))
            position = position_of(self._workdir, step)
            places = {f"checkpoints/{step}": unfinished, str(position.relative_to(self._workdir)): position}
            write_checksums(self._workdir, step, places)

    def restore(
        self,
        spec: TrainState,
        feed: Feed | None,
        description: dict[str, Any],
        step: int,
        damaged: Sequence[int] = (),
    ) -> tuple[TrainState, list[str]]:
        """The state of a checkpoint, and the feed, where there is one, moved to where it was then.

        Args:
          spec: of the state.
          feed: whose position is restored.
          description: what the checkpoint is to be of.
          step: of the checkpoint.
          damaged: steps of those that are moved to `workdir/damaged`; the same in all processes.

        Returns:
          The state; and, a line each, settings that it was not trained with so far, which no parameter depends on.

        Raises:
          UserError: the checkpoint is of another configuration, or damaged.
        """
        folder = self._workdir / "checkpoints" / str(step)
        found = read_description(self._workdir, step)
        check_description(found, description, self._workdir, ignored=_WITHOUT_PARAMETERS)
        try:
            _check_arrays(folder, spec)
            with told_lost():
                wanted = ocp.args.PyTreeRestore(
                    item=spec, restore_args=ocp.checkpoint_utils.construct_restore_args(spec)
                )
                restored = self._manager.restore(step, args=ocp.args.Composite(state=wanted))
        except UserError:
            raise
        except Exception as error:
            raise _damaged(folder, error) from error
        position = position_of(self._workdir, step)
        try:
            if feed is not None:
                feed.restore(position)
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"the data position {position} cannot be read ({reason_of(error)}); "
                f"restore it, or move {folder} away to go on from the checkpoint before"
            ) from error
        if damaged:
            self._set_aside(damaged)
        return restored["state"], _differences(description, found, (), was="was")

    def _set_aside(self, steps: Sequence[int]) -> None:
        with self._writing():
            multihost_utils.sync_global_devices("all have restored")
            if jax.process_index() == 0:
                aside = make_folder(self._workdir / "damaged")
                for step in steps:
                    shutil.rmtree(aside / str(step), ignore_errors=True)
                    (self._workdir / "checkpoints" / str(step)).rename(aside / str(step))
            multihost_utils.sync_global_devices("damaged checkpoints are set aside")
        self._manager.reload()

    def close(self) -> None:
        """Waits and lets go of the folder."""
        with self._held, self._writing():
            self._manager.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        advice = "make room, or give the right to write there; the same command goes on from the last complete one"
        # Orbax waits for all processes, and fails where one is gone.
        with told_unwritable(f"the checkpoint in {self._workdir}", advice, Exception), told_lost():
            yield


def _let_steps_go_first() -> None:
    """Of this thread, which is of one checkpoint alone: where cores are short, those of a step have them first."""
    if sys.platform == "linux" and threading.current_thread() is not threading.main_thread():
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _BEHIND_STEPS)


def checkpoint_steps(workdir: str | Path) -> list[int]:
    """The steps of the checkpoints that a run has left, in order."""
    return sorted(int(path.name) for path in (Path(workdir) / "checkpoints").glob("*") if path.name.isdigit())


def first_whole_step(workdir: Path, steps: list[int], tell: Callable[[str], None]) -> int:
    """The last of these steps whose checkpoint is as it was written; every process looks at a part of its files.

    Args:
      workdir: of the run.
      steps: of its checkpoints, in order.
      tell: is told of each that is damaged.

    Raises:
      UserError: all of them are damaged.
    """
    found = []
    for step in reversed(steps):
        damage = first_damage(workdir, step, jax.process_index(), jax.process_count())
        damages = [each for each in gathered(damage) if each]
        if not damages:
            return step
        found.append(f"the checkpoint of step {step} in {workdir} is damaged ({damages[0]})")
        if step != steps[0]:
            tell(f"{found[-1]}: going on from the one before; it is kept in {workdir}/damaged")
    raise UserError(f"{found[0]}, and so are all before it: restore it, or begin in another workdir")


def position_of(workdir: Path, step: int) -> Path:
    """The folder of the data position that belongs to a checkpoint."""
    return workdir / "data_position" / str(step)


def latest_checkpoint(workdir: str | Path, step: int | None = None) -> Path:
    """The folder of a run's checkpoint of this step, or of its last one.

    Raises:
      UserError: there is none; says what was looked for and how a checkpoint comes about.
    """
    root, steps = Path(workdir).absolute() / "checkpoints", checkpoint_steps(workdir)
    if not steps:
        is_model = ", but an exported model" if (root.parent / "model.json").is_file() else ""
        raise UserError(
            f"found no checkpoint in {root}{is_model}, expected that of a training: name the "
            f"workdir of one, or train first with phenaki train --gin_file FILE --workdir {workdir}"
        )
    if step is not None and step not in steps:
        raise UserError(f"found no checkpoint of step {step} in {root}, expected one of {', '.join(map(str, steps))}")
    return root / str(steps[-1] if step is None else step)


def read_description(workdir: str | Path, step: int | None = None) -> dict[str, Any]:
    """What the run of a checkpoint is: its kind, configurations and package version.

    Raises:
      UserError: there is no checkpoint, or it is damaged, or of a phenaki_jax that wrote other ones.
    """
    folder = latest_checkpoint(workdir, step)
    try:
        with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as checkpointer:
            description = checkpointer.restore(folder / "description")
    except Exception as error:
        raise _damaged(folder, error) from error
    if description.get("format") != FORMAT:
        raise UserError(
            f"the checkpoint {folder} has format {description.get('format')!r}, expected {FORMAT}: go on with the "
            "phenaki_jax that wrote it, or train anew in another workdir"
        )
    return description


def read_params(workdir: str | Path, step: int | None = None, *, average: bool = True) -> dict[str, Any]:
    """All parameters of a checkpoint, "params", "statistics" and "frozen", as NumPy arrays in host memory.

    Args:
      workdir: folder of the run.
      step: of the checkpoint; None for the last one.
      average: whether averages over the steps stand in for the parameters, where the run made them.

    Raises:
      UserError: there is no checkpoint, or it is damaged.
    """
    folder = latest_checkpoint(workdir, step)
    if damage := first_damage(Path(workdir).absolute(), int(folder.name)):
        raise UserError(
            f"the checkpoint {folder} is damaged ({damage}); restore it, or move it away to take the one before"
        )
    try:
        with ocp.PyTreeCheckpointer() as checkpointer:
            tree = _arrays(folder)
            parts = ("params", "statistics", "frozen", *(["average"] if average else []))
            wanted = {name: tree[name] for name in parts if tree.get(name)}
            as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
            read = checkpointer.restore(
                folder / "state", args=ocp.args.PyTreeRestore(item=wanted, restore_args=as_numpy, partial_restore=True)
            )
        used = {**read["params"], **read.pop("average", {})}
        return {"statistics": {}, "frozen": {}, **read, "params": used}
    except Exception as error:
        raise _damaged(folder, error) from error


def read_parameters_that_fit(
    workdir: str | Path, description: dict[str, Any], *, average: bool = True
) -> dict[str, Any]:
    """What `read_params` reads of a run's last checkpoint, for another run to begin with or stand on.

    Args:
      workdir: folder of the run.
      description: what the parameters are to fit; no parameter depends on how long clips and texts are, so that these
        may differ.
      average: see `read_params`.

    Raises:
      UserError: there is no checkpoint, or it is damaged, or of another configuration.
    """
    found = read_description(workdir)
    ignored = ("frames", "length", *_OPTIONAL, *_WITHOUT_PARAMETERS)
    check_description(found, description, workdir, ignored=ignored)
    read = read_params(workdir, average=average)
    for name in _OPTIONAL:
        if _differences(found.get(name), description.get(name), _WITHOUT_PARAMETERS):
            for part in ("params", "statistics"):
                read[part].pop(name, None)
    return read


def check_description(
    found: dict[str, Any], wanted: dict[str, Any], workdir: str | Path, *, ignored: tuple[str, ...] = ()
) -> None:
    """Refuses a checkpoint of another configuration; settings with an ignored name may differ.

    Raises:
      UserError: names the first settings that differ, with both values.
    """
    if (kind := found.get("kind")) != wanted.get("kind"):
        raise UserError(
            f"the checkpoint in {workdir} is of a {kind}, expected one of a {wanted.get('kind')}: name another workdir"
        )
    differences = _differences(found, wanted, ignored)
    if differences:
        raise UserError(
            f"the checkpoint in {workdir} has {'; '.join(differences[:3])}: "
            "use the configuration it was trained with, or another workdir"
        )


def _check_arrays(folder: Path, spec: TrainState) -> None:
    """Refuses a checkpoint that has not the arrays of a state, which its description need not tell."""
    found, wanted = (
        {"/".join(map(_name, path)) for path, _ in jax.tree_util.tree_leaves_with_path(tree)}
        for tree in (_arrays(folder), spec)
    )
    if found != wanted:
        missing, more = sorted(wanted - found), sorted(found - wanted)
        has_not = f"has no {missing[0]}" if missing else f"has {more[0]}, which this training has not"
        raise UserError(
            f"the checkpoint {folder} {has_not}: go on with the configuration and the phenaki_jax that wrote it, or "
            "begin another workdir with its parameters (initial_workdir)"
        )


def _arrays(folder: Path) -> dict[str, Any]:
    """What is known of each array of a checkpoint's state."""
    handler = ocp.PyTreeCheckpointHandler()
    try:
        described = handler.metadata(folder / "state")
    finally:
        handler.close()
    tree: dict[str, Any] = described.tree
    return tree


def _name(key: Any) -> str:
    return str(next(getattr(key, kind) for kind in ("key", "name", "idx") if hasattr(key, kind)))


def _differences(found: Any, wanted: Any, ignored: tuple[str, ...], name: str = "", *, was: str = "not") -> list[str]:
    if isinstance(wanted, dict) and isinstance(found, dict):
        return [
            line
            for key in wanted
            if key not in ignored and (key in found or was == "not")
            for line in _differences(found.get(key), wanted[key], ignored, f"{name}.{key}" if name else key, was=was)
        ]
    same = found is not None and list(found) == list(wanted) if isinstance(wanted, tuple | list) else found == wanted
    return [] if same else [f"{name} = {found!r}, {was} {wanted!r}"]


def _damaged(folder: Path, error: Exception) -> UserError:
    # Behind a bracket tensorstore shows its settings as JSON.
    reason = (str(error).strip() or type(error).__name__).splitlines()[0].partition(" [")[0][:_LONGEST_REASON]
    return UserError(
        f"the checkpoint {folder} cannot be read, as files are missing or cut ({reason}); "
        "restore it, or move it away to go on from the one before"
    )
