"""Several feeds as one: batches of several frame sizes, each batch of one size alone."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from phenaki_jax.data.feed import Feed, MixtureFeed
from phenaki_jax.data.position import restore_position, save_position

# Points a golden section of a circle apart come to lie evenly on it, soon and without a period.
_GOLDEN_SHARE = (5**0.5 - 1) / 2


class AlternatingFeed(Feed):
    """Batches of several feeds, which take turns as often as their rates say.

    Whose turn it is depends on the seed and on how many batches there were before, and on nothing else, so that all
    processes agree without a word. After any number of batches each feed has had its share of them within a few.

    Args:
      feeds: what takes turns; feeds that repeat, since this one ends with the first that ends.
      rates: of the batches, the share of each feed; they add up to 1.
      seed: of the order.
    """

    def __init__(self, feeds: Sequence[MixtureFeed], rates: Sequence[float], seed: int) -> None:
        self.feeds, self._rates, self._seed = tuple(feeds), tuple(rates), seed
        self._first_point = np.random.default_rng(seed).random()
        self._batches = 0

    def __next__(self) -> dict[str, jax.Array]:
        """The next batch of the feed whose turn it is."""
        point = (self._first_point + self._batches * _GOLDEN_SHARE) % 1
        ends = list(itertools.accumulate(self._rates[:-1]))
        batch = next(self.feeds[int(np.searchsorted(ends, point, side="right"))])
        self._batches += 1
        return batch

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes the positions of all feeds and whose turn it is; see `Feed.save`."""
        for index in self.feeds[0].written:
            iterators = [feed.iterators[index] for feed in self.feeds]
            save_position(
                folder, self.feeds[0].shares[index], iterators, {**self._identity(), "batches": self._batches}
            )

    def restore(self, folder: str | os.PathLike[str]) -> None:
        """Continues from a position that `save` wrote; see `Feed.restore`."""
        for feed in self.feeds:
            feed.resumed()
        for index, share in enumerate(self.feeds[0].shares):
            iterators = [feed.iterators[index] for feed in self.feeds]
            self._batches = restore_position(folder, share, iterators, self._identity())["batches"]

    def _identity(self) -> dict[str, Any]:
        feeds = [feed.identity for feed in self.feeds]
        return {"rates": list(self._rates), "seed": self._seed, "begun": feeds[0]["begun"], "feeds": feeds}
