"""Stalls are told while they last, and processes that others wait for are named."""

import contextlib
import json
import time

import pytest

from phenaki_jax.training import pace
from phenaki_jax.training.pace import Pace


def _step(timed: Pace, step: int, *, feeding: float = 0.0, computing: float = 0.0) -> None:
    with timed.step(step):
        with timed.feeding():
            time.sleep(feeding)
        time.sleep(computing)


def test_a_step_that_does_not_end_is_told_with_what_it_waits_for() -> None:
    told: list[str] = []
    with contextlib.closing(Pace(0.2, told.append)) as timed:
        _step(timed, 1, computing=0.5)  # compiles
        _step(timed, 2)
        assert told == []
        _step(timed, 3, computing=0.9)
        assert len(told) >= 2
        waits = "process 0 of 1 waits for its devices, or other processes"
        assert all(line.startswith("step 3 has not ended in ") and line.endswith(waits) for line in told)
        told.clear()
        _step(timed, 4, feeding=0.9)
        assert all(line.startswith("step 4") and line.endswith("waits for its data") for line in told)
        assert told


def test_seconds_of_a_step_and_what_of_them_was_waiting_for_data() -> None:
    with contextlib.closing(Pace(60, print)) as timed:
        _step(timed, 1, computing=0.5)
        assert timed.since_last() == ({}, [])
        for step in (2, 3):
            _step(timed, step, feeding=0.06, computing=0.02)
        seen, slow = timed.since_last()
    assert slow == []
    assert seen["seconds_per_step"] >= 0.08
    assert 0.06 / seen["seconds_per_step"] <= seen["feed_share"] <= 1


def test_the_process_that_others_wait_for_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    others = [json.dumps([1, seconds]) for seconds in (0.0, 0.01, 0.5)]
    monkeypatch.setattr(pace, "gathered", lambda own: [own, *others])
    with contextlib.closing(Pace(60, print)) as timed:
        for step in (1, 2):
            _step(timed, step, computing=0.6)
        seen, slow = timed.since_last()
    assert len(slow) == 1
    assert slow[0].startswith("process 3 takes 0.50 s to have its data for a step of ")
    assert seen["feed_share"] == pytest.approx(0.5 / seen["seconds_per_step"])
