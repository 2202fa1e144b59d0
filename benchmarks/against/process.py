"""Sides of a comparison as processes that sleep until they are asked, so that they can take turns."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import time
import traceback
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

_STATUS = Path("/proc/self/status")


class SideError(Exception):
    """What became of a side that cannot answer."""


class Side:
    """An object in a process of its own; between calls the process waits for the next one and computes nothing."""

    def __init__(self, made_by: str, environment: Mapping[str, str], **arguments: Any) -> None:
        """Begins the process and makes the object.

        Args:
          made_by: "module:class" of the object.
          environment: variables that the process begins with besides those of this one.
          arguments: of the class.
        """
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, made_by, arguments), daemon=True)
        before = dict(os.environ)
        os.environ.update(environment)
        try:
            self._process.start()
        finally:
            os.environ.clear()
            os.environ.update(before)
        theirs.close()
        self._answer()

    def ask(self, method: str, *arguments: Any, **named: Any) -> Any:
        """What a method of the object returns.

        Raises:
          SideError: what the method raised, with its traceback.
        """
        self._connection.send((method, arguments, named))
        return self._answer()

    def close(self) -> None:
        """Ends the process."""
        self._connection.close()
        self._process.join()

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answer(self) -> Any:
        try:
            failed, answer = self._connection.recv()
        except EOFError:
            self._process.join()
            raise SideError(f"a side ended with exit code {self._process.exitcode}, maybe for memory") from None
        if failed:
            raise SideError(answer)
        return answer


def take_two_cores() -> int:
    """Keeps this process, and those it begins, on two cores, so that all have the same; how many there were to take."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    os.sched_setaffinity(0, cores)
    return len(cores)


def peak_memory_mib() -> float:
    """The most memory that this process ever held (VmHWM, Linux)."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def forget_peak() -> None:
    """Lets `peak_memory_mib` begin anew with what is held now."""
    Path("/proc/self/clear_refs").write_text("5")


def busy_seconds() -> float:
    """CPU seconds of all processes, on the cores that this one may use, since the machine began (Linux)."""
    ours = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    lines = [line.split() for line in Path("/proc/stat").read_text().splitlines() if line.split()[0] in ours]
    # User, nice and system time; then idle and waiting, which is not busy; then interrupts, and time stolen.
    ticks = (sum(map(int, [*numbers[:3], *numbers[5:8]])) for _, *numbers in lines)
    return sum(ticks) / os.sysconf("SC_CLK_TCK")


class Others:
    """Which share of the cores that this process may use others took while the block ran."""

    share = 0.0

    def __enter__(self) -> "Others":
        self._begun = time.process_time(), busy_seconds(), time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        cpu, busy, wall = self._begun
        taken = busy_seconds() - busy - (time.process_time() - cpu)
        self.share = max(0.0, taken) / ((time.perf_counter() - wall) * len(os.sched_getaffinity(0)))


def timed_steps(step: Any, count: int) -> dict[str, Any]:
    """Calls `step` so often.

    Returns:
      `seconds` of each call, and `others_share`, see `Others`.
    """
    seconds = []
    with Others() as others:
        for _ in range(count):
            start = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - start)
    return {"seconds": seconds, "others_share": others.share}


def _serve(connection: Connection, made_by: str, arguments: dict[str, Any]) -> None:
    module, name = made_by.split(":")
    try:
        answer = getattr(importlib.import_module(module), name)(**arguments)
        connection.send((False, None))
        while True:
            method, positional, named = connection.recv()
            connection.send((False, getattr(answer, method)(*positional, **named)))
    except (EOFError, KeyboardInterrupt):
        return
    except Exception:
        connection.send((True, traceback.format_exc()))
