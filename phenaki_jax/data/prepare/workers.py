"""Processes that decode, each of which may crash, hang or eat up its memory without harm to the others."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import resource
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import av

from phenaki_jax.data.prepare.clips import Clips, Task, cut_source
from phenaki_jax.data.prepare.settings import PrepareSettings
from phenaki_jax.errors import UserError, reason_of

# Sources that are decoded and not yet written, where one before them takes long.
_AHEAD_OF_EACH = 16
_SECONDS_BETWEEN_LOOKS = 1.0


class WorkerSettings(NamedTuple):
    """How the work is shared, on which the result does not depend.

    Attributes:
      workers: processes.
      time_limit: seconds without a new frame after which a source is given up.
      memory_limit: bytes that a process may take for a source.
    """

    workers: int
    time_limit: float
    memory_limit: int


class Outcome(NamedTuple):
    """What became of a task.

    Attributes:
      clips: what was made; None where it failed.
      reason: why it failed.
      file: of the frames.
    """

    clips: Clips | None
    reason: str
    file: Path


class Workers:
    """Decodes sources in processes of its own, from when it is made until it is closed.

    Args:
      settings: how sources are cut.
      how: how the work is shared.
      folder: where frames go, a file for each source, which whoever takes them removes.
    """

    def __init__(self, settings: PrepareSettings, how: WorkerSettings, folder: Path) -> None:
        self._settings, self._how, self._folder = settings, how, folder
        self._workers = [_Worker(settings, how) for _ in range(how.workers)]

    def in_order(self, tasks: Iterator[Task]) -> Iterator[tuple[Task, Outcome]]:
        """The outcomes of tasks in the order of the tasks, however long each takes.

        Raises:
          UserError: frames cannot be written.
        """
        begun: deque[Task] = deque()
        done: dict[int, Outcome] = {}
        most = _AHEAD_OF_EACH * len(self._workers)
        ended = False
        while True:
            for worker in self._workers:
                if worker.task is None and len(begun) < most and not ended:
                    task = next(tasks, None)
                    if task is None:
                        ended = True
                        break
                    begun.append(task)
                    worker.begin(task, self._folder / f"{task.number}.frames")
            while begun and begun[0].number in done:
                task = begun.popleft()
                yield task, done.pop(task.number)
            if ended and not begun:
                return
            self._wait(done)

    def _wait(self, done: dict[int, Outcome]) -> None:
        """Until a task is done, or it is time to look who hangs."""
        busy = {each: worker for worker in self._workers if worker.task for each in worker.signs}
        multiprocessing.connection.wait(list(busy), _SECONDS_BETWEEN_LOOKS)
        for worker in self._workers:
            if worker.task and (outcome := worker.look()):
                done[worker.task.number] = outcome
                worker.task = None

    def close(self) -> None:
        """Ends the processes, whatever they do."""
        for worker in self._workers:
            worker.end()


class _Worker:
    """A process and what it does now; begun anew where it was lost."""

    def __init__(self, settings: PrepareSettings, how: WorkerSettings) -> None:
        self._settings, self._how = settings, how
        self.task: Task | None = None
        self._file = Path()
        self._begin_process()

    def _begin_process(self) -> None:
        # TensorFlow has started threads in this process, which a forked one would inherit half: spawn.
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._alive = context.RawValue("d", 0.0)
        self._process = context.Process(
            target=_work, args=(other, self._settings, self._how, self._alive), name="phenaki prepare", daemon=True
        )
        # An interruption is this process's: another that is still loading would tell it with a traceback.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        other.close()

    @property
    def signs(self) -> list[Any]:
        """What there is to wait for: word of it, or its end."""
        return [self._connection, self._process.sentinel]

    def begin(self, task: Task, file: Path) -> None:
        """Gives it a task."""
        self.task, self._file = task, file
        if not self._process.is_alive():
            self._begin_anew()
        self._begun = time.monotonic()
        self._connection.send((task, file))

    def look(self) -> Outcome | None:
        """What became of the task; None where it is at work on it.

        Raises:
          UserError: frames cannot be written.
        """
        with contextlib.suppress(EOFError, ConnectionError):
            if self._connection.poll():
                kind, value = self._connection.recv()
                if kind == "unwritable":
                    raise UserError(value)
                return Outcome(value, "", self._file) if kind == "clips" else self._failed(value)
        if not self._process.is_alive():
            self._process.join()
            if not self._alive.value:
                raise UserError(
                    f"a process to decode with {_end_of(self._process.exitcode)} before it began: see whether memory "
                    "is short, and whether a script that calls this does so under if __name__ == '__main__'"
                )
            return self._lost(f"the process that decoded it {_end_of(self._process.exitcode)}")
        # A process that loads its libraries has not begun.
        alive, limit = self._alive.value, self._how.time_limit
        if alive and time.monotonic() - max(alive, self._begun) > limit:
            self._process.kill()
            self._process.join()
            return self._lost(f"hung: no new frame came for {limit:g} s")
        return None

    def _failed(self, reason: str) -> Outcome:
        self._file.unlink(missing_ok=True)
        return Outcome(None, reason, self._file)

    def _lost(self, reason: str) -> Outcome:
        self._begin_anew()
        return self._failed(reason)

    def _begin_anew(self) -> None:
        self._connection.close()
        self._begin_process()

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self._connection.close()


def _end_of(exit_code: int | None) -> str:
    if exit_code is None or exit_code >= 0:
        return f"ended by itself (exit code {exit_code})"
    with contextlib.suppress(ValueError):
        name = signal.Signals(-exit_code).name
        return f"was ended ({name}{', perhaps out of memory' if name == 'SIGKILL' else ''})"
    return f"was ended (signal {-exit_code})"


def _work(connection: Any, settings: PrepareSettings, how: WorkerSettings, alive: Any) -> None:
    """The process: takes tasks until there are no more."""
    # An interruption is the parent's, with which this ends even if that is killed.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_after_parent, daemon=True).start()
    with contextlib.suppress(ValueError, OSError):
        # Libraries begin threads on each core, whose memory is none that a source takes.
        limit = _data_bytes() + how.memory_limit
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    av.logging.set_level(av.logging.PANIC)

    def show_alive() -> None:
        alive.value = time.monotonic()

    while True:
        show_alive()
        try:
            task, file = connection.recv()
        except EOFError:
            return
        show_alive()
        connection.send(_result_of(task, settings, file, how, show_alive))


def _data_bytes() -> int:
    """What this process has of the memory that RLIMIT_DATA is of; 0 where the system does not tell."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmData:"):
                return int(line.split()[1]) * 1024
    return 0


def _result_of(task: Task, settings: PrepareSettings, file: Path, how: WorkerSettings, alive: Any) -> tuple[str, Any]:
    try:
        return "clips", cut_source(task, settings, file, alive=alive)
    except UserError as error:
        return "reason", " ".join(str(error).split())
    except MemoryError:
        return "reason", f"takes more than {how.memory_limit / 2**30:.3g} GiB of memory"
    except OSError as error:
        return "unwritable", (
            f"{file.parent} cannot be written ({reason_of(error)}): free some space; the same command goes on where it "
            "stopped"
        )
    except Exception as error:
        # Whatever a file brings up in a library costs that file alone.
        return "reason", f"cannot be decoded ({type(error).__name__}: {reason_of(error)})"


def _exit_after_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
