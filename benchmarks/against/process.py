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
          RuntimeError: what the method raised, with its traceback.
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
            raise RuntimeError(f"a side ended with exit code {self._process.exitcode}, maybe for memory") from None
        if failed:
            raise RuntimeError(answer)
        return answer


def peak_memory_mib() -> float:
    """The most memory that this process ever held (VmHWM, Linux)."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def forget_peak() -> None:
    """Lets `peak_memory_mib` begin anew with what is held now."""
    Path("/proc/self/clear_refs").write_text("5")


def busy_seconds() -> float:
    """CPU seconds of all processes of this machine since it began (Linux)."""
    user, nice, system, _, _, *rest = map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:])
    return (user + nice + system + sum(rest[:3])) / os.sysconf("SC_CLK_TCK")


def timed_steps(step: Any, count: int) -> dict[str, Any]:
    """Calls `step` so often.

    Returns:
      `seconds` of each call, `cpu_seconds` of this process in all of them, and `others_share`: which share of the
      machine's cores other processes took meanwhile.
    """
    seconds = []
    cpu, busy, begun = time.process_time(), busy_seconds(), time.perf_counter()
    for _ in range(count):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    cpu, busy, wall = (time.process_time() - cpu, busy_seconds() - busy, time.perf_counter() - begun)
    others = max(0.0, busy - cpu) / (wall * (os.cpu_count() or 1))
    return {"seconds": seconds, "cpu_seconds": cpu, "others_share": others}


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
