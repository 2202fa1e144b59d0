"""A side of the race within its process: trains on clips for so many seconds, and is judged on others."""

from __future__ import annotations

import importlib
import time
from pathlib import Path
from typing import Any

import numpy as np

from against import clips, process
from against.sizes import Sizes

_CLIPS_AT_ONCE = 4


class Runner:
    """A model, its clips, and what it has spent."""

    def __init__(
        self,
        side: str,
        sizes: Sizes,
        folder: Path,
        train_clips: int,
        test_clips: int,
        batch_size: int,
        seed: int,
        **settings: Any,
    ) -> None:
        """Makes the side that `side` ("module:class") names, with its own settings."""
        module, name = side.split(":")
        self._side = getattr(importlib.import_module(module), name)(sizes=sizes, seed=seed, **settings)
        self._train = clips.Clips(folder, "train", train_clips, sizes)
        self._test = clips.Clips(folder, "test", test_clips, sizes).first_windows()
        self._batch_size = batch_size
        self._rng = np.random.default_rng(seed)

    def seconds_of_step(self) -> float:
        """Median of five steps after two; compiles what is compiled. What was learned is to be thrown away."""
        batch = self._train.batch(np.random.default_rng(0), self._batch_size)
        self._side.timed_steps(batch, 2)
        return float(np.median(self._side.timed_steps(batch, 5)["seconds"]))

    def begin(self, *arguments: Any) -> None:
        """Begins anew from step 0, compiled; see the side."""
        self._side.begin(*arguments)
        self._side.compile(self._train.batch(np.random.default_rng(0), self._batch_size))

    def warm_up(self) -> None:
        """Compiles evaluation, so that nothing but steps is left to be timed."""
        self.psnr()

    def train(self, seconds: float) -> dict[str, float]:
        """Steps until the time is over; drawing a batch counts for neither side."""
        spent, steps, loss = 0.0, 0, float("nan")
        with process.Others() as others:
            while spent < seconds:
                batch = self._train.batch(self._rng, self._batch_size)
                begun = time.perf_counter()
                loss = self._side.step(batch)
                spent += time.perf_counter() - begun
                steps += 1
        # Of a turn without steps nothing can be said.
        return {"seconds": spent, "steps": steps, "loss": loss, "others_share": others.share if steps else 0.0}

    def psnr(self) -> dict[str, float]:
        """PSNR on the test clips in dB, by the parameters and, where there is one, by their average."""
        return {name: self._psnr(name) for name in self._side.judged}

    def versions(self) -> dict[str, str]:
        """Of what computes."""
        return self._side.versions()

    def _psnr(self, name: str) -> float:
        parts = range(0, len(self._test), _CLIPS_AT_ONCE)
        shown = [self._side.reconstruct(self._test[start : start + _CLIPS_AT_ONCE], name) for start in parts]
        return clips.psnr(self._test, np.concatenate(shown))
