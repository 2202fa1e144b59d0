"""How processes find each other and agree; and what is told where they do not."""

import json
import signal
import subprocess
import sys
from typing import Any

import jax
import pytest

from phenaki_jax.errors import TEMPORARY, Stopped, TemporaryError, UserError
from phenaki_jax.training import hosts, stopping
from phenaki_jax.training.hosts import Hosts


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (Hosts("localhost:1"), "found some of --coordinator, --processes and --process, expected all three"),
        (Hosts(processes=2, process=0), "found some of --coordinator, --processes and --process"),
        (Hosts("8476", 2, 0), "found coordinator '8476', expected host:port"),
        (Hosts(":8476", 2, 0), "found coordinator ':8476', expected host:port"),
        (Hosts("localhost:99999", 2, 0), "found coordinator 'localhost:99999', expected host:port"),
        (Hosts("localhost:1", 0, 0), "found 0 processes, expected at least 1"),
        (Hosts("localhost:1", 2, 2), "found process 2 of 2, expected 0 to 1"),
        (Hosts("localhost:1", 2, 0, timeout=0), "found a time limit of 0 s, expected at least 1 s"),
    ],
)
def test_what_cannot_be_is_refused(found: Hosts, told: str) -> None:
    with pytest.raises(UserError) as raised:
        found.check()
    assert told in str(raised.value)


def test_a_coordinator_that_never_comes_is_told_within_the_time_limit() -> None:
    code = (
        "from phenaki_jax.training.hosts import Hosts, connect\n"
        "connect(Hosts('localhost:1', processes=2, process=1, timeout=2))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == TEMPORARY
    told = [line for line in done.stderr.splitlines() if line.startswith("phenaki: error:")]
    assert len(told) == 1
    assert "process 1 of 2 has found no coordinator at localhost:1 in 2 s (Connection refused)" in told[0]


def _several(monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]) -> None:
    """Two processes, of which the other has found something else."""

    def gathered(text: str) -> list[str]:
        return [text, json.dumps({**json.loads(text), **change})]

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(hosts, "gathered", gathered)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"source code": "0123"}, "process 1 has source code = 0123, process 0 has "),
        ({"STEPS": "20"}, "process 1 has STEPS = 20, process 0 has 10: start all processes with the same code"),
        ({"MORE": "1"}, "process 1 has MORE = 1, process 0 has nothing"),
    ],
)
def test_processes_that_would_do_something_else_are_refused(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], told: str
) -> None:
    _several(monkeypatch, {})
    hosts.check_agreement("# Macros\nSTEPS = 10\n")
    _several(monkeypatch, change)
    with pytest.raises(UserError) as raised:
        hosts.check_agreement("# Macros\nSTEPS = 10\n")
    assert told in str(raised.value)


def test_others_that_are_gone_are_told_as_that_and_mistakes_as_mistakes(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = RuntimeError("Gloo all-reduce failed: Connection closed by peer")
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(TemporaryError, match="process 0 of 2 has lost the others"), hosts.told_lost():
        raise gone
    with pytest.raises(UserError, match="lower clip") as raised, hosts.told_lost():
        raise UserError("lower clip: Gloo")
    assert raised.value.exit_code == 2
    monkeypatch.setattr(jax, "process_count", lambda: 1)
    with pytest.raises(RuntimeError, match="Gloo"), hosts.told_lost():
        raise gone


def test_a_request_is_heeded_once_and_a_second_one_at_once() -> None:
    with stopping.stop_requests() as stop:
        assert not stop.requested()
        signal.raise_signal(signal.SIGTERM)
        assert stop.requested()
        assert stop.kind is Stopped
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)


def test_processes_ask_with_counts_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """From 1 in every run, whatever step it goes on from."""
    asked: list[int] = []
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(
        stopping.multihost_utils, "reached_preemption_sync_point", lambda count: asked.append(count) or count == 3
    )
    stop = stopping.StopRequests()
    assert [stop.requested() for _ in range(3)] == [False, False, True]
    assert asked == [1, 2, 3]
    assert stop.kind is Stopped
