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
    # Too little in all to be worth a word.
    assert slow == []
    assert seen["seconds_per_step"] >= 0.08
    assert 0.06 / seen["seconds_per_step"] <= seen["data_wait_share"] <= 1


def test_waiting_for_data_is_told_once_it_is_more_than_a_twentieth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "_TOLD_SECONDS", 0.04)
    for feeding, computing, told in ((0.05, 0.1, True), (0.05, 1.5, False)):
        with contextlib.closing(Pace(60, print)) as timed:
            for step in (1, 2):
                _step(timed, step, feeding=feeding, computing=computing)
            _, slow = timed.since_last()
        assert bool(slow) == told
        assert all("% of a step of 0." in line and "is waiting for data" in line for line in slow)


def test_the_process_that_others_wait_for_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    others = [json.dumps([1, seconds]) for seconds in (0.0, 0.01, 0.5)]
    monkeypatch.setattr(pace, "gathered", lambda own: [own, *others])
    with contextlib.closing(Pace(60, print)) as timed:
        for step in (1, 2):
            _step(timed, step, computing=0.6)
        seen, slow = timed.since_last()
    assert len(slow) == 1
    assert slow[0].startswith("process 3 takes 0.50 s to have its data for a step of ")
    assert seen["data_wait_share"] == pytest.approx(0.5 / seen["seconds_per_step"])
