"""A worker's exit code tells a launcher whether to begin again."""

import os
import signal
import subprocess
import time
from typing import Any

import pytest


@pytest.mark.parametrize("code", [0, 1, 2, 75, 137, 143])
def test_codes_are_those_of_the_training(machine: Any, code: int) -> None:
    done = machine.run("worker.sh", "bash", "-c", 'echo told; echo why >&2; exit "$1"', "bash", str(code))
    assert (done.returncode, done.stdout, done.stderr) == (code, "told\n", "why\n")


@pytest.mark.parametrize(("code", "expected"), [(2, 200), (75, 75), (0, 0)])
def test_a_mistake_is_told_as_a_launcher_wants_it(machine: Any, code: int, expected: int) -> None:
    done = machine.run("worker.sh", "--mistake", "200", "--restarts", "0", "bash", "-c", f"exit {code}")
    assert done.returncode == expected


@pytest.mark.parametrize(("code", "times"), [(1, 3), (75, 3), (2, 1), (143, 1), (0, 1)])
def test_only_what_may_go_well_is_begun_again(machine: Any, code: int, times: int) -> None:
    machine.fake("phenaki", f"exit {code}")
    machine.run("worker.sh", "--restarts", "2", "phenaki", "train", "a b")
    assert machine.calls() == [["phenaki", "train", "a b", "--stopped_code", "143"]] * times


@pytest.mark.parametrize("end", ["sleep 0.3; echo saved >&2; exit 143", "echo saved >&2; exit 130"])
def test_a_signal_to_all_processes_is_waited_for_and_nothing_begins_again(machine: Any, launch: Any, end: str) -> None:
    saving = f"trap '{end}' TERM; echo >begun; while :; do sleep 0.05; done"
    worker = subprocess.Popen(
        [launch / "worker.sh", "--restarts", "5", "bash", "-c", saving],
        cwd=machine.home,
        env=machine.environment({}),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not (machine.home / "begun").exists():
        time.sleep(0.02)
    os.killpg(worker.pid, signal.SIGTERM)
    _, told = worker.communicate(timeout=30)
    assert worker.returncode == 143
    # Before it bash may tell what has become of the sleep.
    assert told.splitlines()[-1] == "saved"
    assert "attempt" not in told
