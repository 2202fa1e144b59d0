"""A worker's exit code tells a launcher whether to begin again, whatever words the training ends with."""

import os
import pathlib
import signal
import subprocess
import time
from typing import Any

import pytest

TRAINING = pathlib.Path(__file__).parents[2] / "phenaki_jax" / "training"
LOST = "phenaki: error: process 1 of 4 has lost the others (Gloo): see what the first that ended has told"
ABSENT = "phenaki: error: process 1 of 4 has waited 300 s for the others; start all of them within that time"
UNREACHED = "phenaki: error: process 1 of 4 has found no coordinator at a:1 in 300 s (refused); start process 0 there"
STOPPED = "phenaki: stopped after step 12, which is saved; the same command goes on from it"


@pytest.mark.parametrize(
    ("code", "words", "expected"),
    [
        (0, "", 0),
        (0, STOPPED, 143),
        (2, "phenaki: error: found no gin file", 2),
        (2, LOST, 75),
        (2, ABSENT, 75),
        (2, UNREACHED, 75),
        (1, f"Traceback\n{LOST}", 1),
        (137, "", 137),
    ],
)
def test_codes(machine: Any, code: int, words: str, expected: int) -> None:
    done = machine.run("worker.sh", "bash", "-c", 'echo told; printf %s "$1" >&2; exit "$2"', "bash", words, str(code))
    assert (done.returncode, done.stdout, done.stderr) == (expected, "told\n", words)


def test_the_words_are_those_of_the_training() -> None:
    """What launch/worker.sh looks for is what these modules say."""
    told = (TRAINING / "hosts.py").read_text()
    for words in ("has lost the others", "has found no coordinator", "has waited {hosts.timeout} s for the others"):
        assert words in told
    assert "stopped after step {int(state.step)}, which is saved" in (TRAINING / "loop.py").read_text()


@pytest.mark.parametrize(
    ("code", "words", "times"), [(1, "", 3), (2, LOST, 3), (2, "", 1), (0, STOPPED, 1), (0, "", 1)]
)
def test_only_what_may_go_well_is_begun_again(machine: Any, code: int, words: str, times: int) -> None:
    machine.fake("phenaki", f'echo "{words}" >&2; exit {code}')
    machine.run("worker.sh", "--restarts", "2", "phenaki", "train", "a b")
    assert machine.calls() == [["phenaki", "train", "a b"]] * times


@pytest.mark.parametrize("end", [f'sleep 0.3; echo "{STOPPED}" >&2; exit 0', "echo interrupted >&2; exit 130"])
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
    assert told.splitlines()[-1] == (STOPPED if STOPPED in end else "interrupted")
    assert "attempt" not in told
