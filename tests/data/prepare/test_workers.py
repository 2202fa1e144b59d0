"""A source that crashes, hangs or eats up its process costs itself alone."""

import contextlib
import os
import pathlib
import signal
import threading
import time

import pytest
from PIL import Image

from phenaki_jax.data.prepare.clips import Task
from phenaki_jax.data.prepare.settings import PrepareSettings
from phenaki_jax.data.prepare.sources import Place
from phenaki_jax.data.prepare.workers import Outcome, Workers, WorkerSettings
from tests.data.prepare.files import make_image

SETTINGS = PrepareSettings(size=16, frames=5)


def outcomes(places: list[Place], how: WorkerSettings, folder: pathlib.Path) -> list[Outcome]:
    tasks = [Task(number, place, 0.0, -1.0) for number, place in enumerate(places)]
    with contextlib.closing(Workers(SETTINGS, how, folder)) as workers:
        found = list(workers.in_order(iter(tasks)))
    assert [task for task, _ in found] == tasks
    return [outcome for _, outcome in found]


@pytest.fixture
def images(tmp_path: pathlib.Path) -> list[Place]:
    return [Place.whole(make_image(tmp_path / f"{index}.png", seed=index)) for index in range(4)]


@pytest.fixture
def endless(tmp_path: pathlib.Path) -> Place:
    """A pipe that nobody writes to: reading it takes forever."""
    os.mkfifo(tmp_path / "endless")
    return Place(str(tmp_path / "endless"), 0, 10, ".mp4")


def test_a_source_that_hangs_is_given_up(tmp_path: pathlib.Path, images: list[Place], endless: Place) -> None:
    how = WorkerSettings(workers=2, time_limit=1.0, memory_limit=2**32)
    first, hung, *others = outcomes([images[0], endless, *images[1:]], how, tmp_path)
    assert (hung.clips, hung.reason) == (None, "hung: no new frame came for 1 s")
    for each in (first, *others):
        assert each.clips.is_image
        assert Image.open(each.file).size == (16, 16)


def test_an_interruption_is_not_for_workers_that_are_still_loading(tmp_path: pathlib.Path, images: list[Place]) -> None:
    how = WorkerSettings(workers=1, time_limit=60.0, memory_limit=2**32)
    with contextlib.closing(Workers(SETTINGS, how, tmp_path)) as workers:
        os.kill(workers._workers[0]._process.pid, signal.SIGINT)
        ((_, outcome),) = workers.in_order(iter([Task(0, images[0], 0.0, -1.0)]))
    assert outcome.reason == ""
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_the_memory_limit_is_beside_what_libraries_have_taken(tmp_path: pathlib.Path, images: list[Place]) -> None:
    how = WorkerSettings(workers=1, time_limit=60.0, memory_limit=2**32)
    with contextlib.closing(Workers(SETTINGS, how, tmp_path)) as workers:
        list(workers.in_order(iter([Task(0, images[0], 0.0, -1.0)])))
        limits = pathlib.Path(f"/proc/{workers._workers[0]._process.pid}/limits").read_text().splitlines()
        limit = next(int(line.split()[3]) for line in limits if line.startswith("Max data size"))
    assert 2**20 < limit - how.memory_limit < 2**33


def test_a_source_that_ends_its_process_is_told(tmp_path: pathlib.Path, images: list[Place], endless: Place) -> None:
    how = WorkerSettings(workers=1, time_limit=60.0, memory_limit=2**32)
    with contextlib.closing(Workers(SETTINGS, how, tmp_path)) as workers:
        process = workers._workers[0]._process
        found = workers.in_order(iter([Task(0, endless, 0.0, -1.0), Task(1, images[0], 0.0, -1.0)]))

        def crash() -> None:
            while not workers._workers[0]._alive.value:
                time.sleep(0.05)
            time.sleep(0.3)
            os.kill(process.pid, signal.SIGSEGV)

        threading.Thread(target=crash).start()
        (_, crashed), (_, good) = found
    assert crashed.reason == "the process that decoded it was ended (SIGSEGV)"
    assert good.clips is not None


@pytest.mark.slow
def test_a_source_that_takes_too_much_memory_is_told(tmp_path: pathlib.Path, images: list[Place]) -> None:
    Image.new("RGB", (9000, 9000)).save(tmp_path / "huge.png", compress_level=1)
    how = WorkerSettings(workers=1, time_limit=60.0, memory_limit=200 * 2**20)
    huge, good = outcomes([Place.whole(tmp_path / "huge.png"), images[0]], how, tmp_path)
    assert huge.clips is None
    assert "memory" in huge.reason
    assert good.clips is not None


def test_frames_that_cannot_be_written_end_the_work(tmp_path: pathlib.Path, images: list[Place]) -> None:
    how = WorkerSettings(workers=1, time_limit=60.0, memory_limit=2**32)
    with pytest.raises(ValueError, match=r"cannot be written .*: free some space; the same command goes on"):
        outcomes(images, how, tmp_path / "gone")
