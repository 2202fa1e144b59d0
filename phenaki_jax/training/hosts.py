"""Several processes as one training: how they find each other, make sure that they do the same, and stop together."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from phenaki_jax import __version__
from phenaki_jax.errors import TEMPORARY, TemporaryError, UserError

_LONGEST_VALUE = 120
# What the runtime says of others that are gone.
_SIGNS_OF_LOSS = (
    "Gloo",
    "Connection closed by peer",
    "Connection reset",
    "heartbeat",
    "coordination service",
    "Barrier",
)
_LATER = 60


class Hosts(NamedTuple):
    """How the processes of a training find each other.

    Attributes:
      coordinator: "host:port" at which process 0 is to be reached; empty for what the cluster tells (TPU pods, SLURM,
        Kubernetes, Open MPI).
      processes: how many there are; None for what the cluster tells.
      process: which this one is, from 0; None for what the cluster tells.
      timeout: seconds that all have to come.
      heartbeat: seconds without a sign of life after which a process counts as lost.
    """

    coordinator: str = ""
    processes: int | None = None
    process: int | None = None
    timeout: int = 300
    heartbeat: int = 100

    def check(self) -> None:
        """Refuses what cannot be.

        Raises:
          UserError: half of what is needed, or a process that is none of them.
        """
        named = (bool(self.coordinator), self.processes is not None, self.process is not None)
        if any(named) and not all(named):
            raise UserError(
                "found some of --coordinator, --processes and --process, expected all three, or --distributed where "
                "the cluster tells them"
            )
        host, _, port = self.coordinator.rpartition(":")
        if self.coordinator and not (host and port.isdigit() and 0 < int(port) < 2**16):
            raise UserError(f"found coordinator {self.coordinator!r}, expected host:port, as localhost:8476")
        if self.processes is not None and self.processes < 1:
            raise UserError(f"found {self.processes} processes, expected at least 1")
        if self.processes is not None and self.process is not None and not 0 <= self.process < self.processes:
            raise UserError(f"found process {self.process} of {self.processes}, expected 0 to {self.processes - 1}")
        if min(self.timeout, self.heartbeat) < 1:
            raise UserError(f"found a time limit of {min(self.timeout, self.heartbeat)} s, expected at least 1 s")


def connect(hosts: Hosts) -> None:
    """Joins this process to the others; before anything else of JAX is used.

    Where they do not come in time, a line tells it and the process ends with 75: the runtime itself would abort.

    Raises:
      UserError: the cluster does not tell what is needed.
    """
    hosts.check()

    def give_up() -> None:
        os.write(2, f"phenaki: error: {_absent(hosts)}\n".encode())
        os._exit(TEMPORARY)

    watch = threading.Timer(hosts.timeout, give_up)
    watch.daemon = True
    watch.start()
    try:
        with _default_signals() as before:
            jax.distributed.initialize(
                hosts.coordinator or None,
                hosts.processes,
                hosts.process,
                initialization_timeout=hosts.timeout + _LATER,
                heartbeat_timeout_seconds=hosts.heartbeat,
                cluster_detection_method="deactivate" if hosts.coordinator else None,
            )
        if jax.process_count() == 1:
            # Nobody asks the runtime, which has nobody to tell.
            signal.signal(signal.SIGTERM, before[signal.SIGTERM])
    except (ValueError, RuntimeError) as error:
        advice = (
            f"is {hosts.coordinator} an address of process 0 whose port is free?"
            if hosts.coordinator
            else "name --coordinator, --processes and --process where no cluster tells them"
        )
        raise UserError(f"the processes cannot be joined ({' '.join(str(error).split())}): {advice}") from error
    finally:
        watch.cancel()


def _absent(hosts: Hosts) -> str:
    who = "this process" if hosts.process is None else f"process {hosts.process} of {hosts.processes}"
    host, _, port = hosts.coordinator.rpartition(":")
    try:
        if hosts.coordinator:
            socket.create_connection((host.strip("[]"), int(port)), timeout=1).close()
    except OSError as error:
        return (
            f"{who} has found no coordinator at {hosts.coordinator} in {hosts.timeout} s ({error.strerror or error}); "
            "start process 0 there, or name its address and a port that no firewall closes with --coordinator"
        )
    return (
        f"{who} has waited {hosts.timeout} s for the others; start all of them within that time, with the same "
        "--coordinator and --processes, or allow more with --join_timeout"
    )


@contextlib.contextmanager
def _default_signals() -> Iterator[Mapping[signal.Signals, Any]]:
    """While all wait in C++, where no handler of Python's runs, signals end the process; gives those of before."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, signal.SIG_DFL) for number in numbers}
    try:
        yield before
    finally:
        # That of SIGTERM is the runtime's own from here on, see `StopRequests`.
        signal.signal(signal.SIGINT, before[signal.SIGINT])


def check_agreement(configuration: str) -> None:
    """Refuses processes that would not do the same; all of them learn of it.

    Args:
      configuration: of the training, a setting on each line.

    Raises:
      UserError: what differs, and in which process.
    """
    if jax.process_count() == 1:
        return
    own = {
        "phenaki_jax": __version__,
        "jax": jax.__version__,
        "Python": sys.version.split()[0],
        "source code": _source_fingerprint(),
        **_settings_of(configuration),
    }
    told = gathered(json.dumps(own))
    first = json.loads(told[0])
    for process, text in enumerate(told):
        other = json.loads(text)
        if names := [name for name in {**first, **other} if first.get(name) != other.get(name)]:
            name = names[0]
            values = [str(each.get(name, "nothing"))[:_LONGEST_VALUE] for each in (other, first)]
            raise UserError(
                f"process {process} has {name} = {values[0]}, process 0 has {values[1]}: start all processes with the "
                "same code, run files and settings"
            )


def _settings_of(configuration: str) -> Mapping[str, str]:
    """Each setting by its name, as gin writes them: long values go on in lines that are indented."""
    found: dict[str, str] = {}
    name = ""
    for line in configuration.splitlines():
        if line[:1].isspace() and name:
            found[name] += f" {line.strip()}"
        elif " = " in line and not line.startswith("#"):
            name, _, found[name] = line.partition(" = ")
        elif line.endswith(" = \\"):
            name = line.removesuffix(" = \\")
            found[name] = ""
        else:
            name = ""
    return found


def _source_fingerprint() -> str:
    """Of all code of this package."""
    root = Path(__file__).parents[1]
    told = hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        told.update(str(file.relative_to(root)).encode() + file.read_bytes())
    return told.hexdigest()[:12]


def gathered(text: str) -> list[str]:
    """A text of every process, in their order."""
    if jax.process_count() == 1:
        return [text]
    data = np.frombuffer(text.encode(), np.uint8)
    lengths = np.asarray(multihost_utils.process_allgather(np.asarray(data.size, np.int32))).reshape(-1)
    padded = np.pad(data, (0, int(lengths.max()) - data.size))
    rows = np.asarray(multihost_utils.process_allgather(padded)).reshape(len(lengths), -1)
    return [bytes(row[:length]).decode() for row, length in zip(rows, lengths, strict=True)]


def agreed(value: Any) -> Any:
    """What process 0 has found, of what is JSON: others may see a folder that it writes to later than it does."""
    return json.loads(gathered(json.dumps(value))[0])


@contextlib.contextmanager
def told_lost() -> Iterator[None]:
    """Tells in one line that other processes are gone, where that ends a program that runs on all of them.

    Raises:
      TemporaryError: they are.
    """
    try:
        yield
    except (ValueError, RuntimeError) as error:
        text = str(error)
        if isinstance(error, UserError) or jax.process_count() == 1 or not any(sign in text for sign in _SIGNS_OF_LOSS):
            raise
        raise TemporaryError(
            f"process {jax.process_index()} of {jax.process_count()} has lost the others "
            f"({' '.join(text.split())[:_LONGEST_VALUE]}): see what the first that ended has told; the same command in "
            "all of them goes on from the last checkpoint"
        ) from error
