"""What a training is trained and evaluated on."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from phenaki_jax.data.alternation import AlternatingFeed
from phenaki_jax.data.feed import Feed, MixtureFeed, make_feed
from phenaki_jax.data.position import Order
from phenaki_jax.data.precomputed import precomputed_mixture
from phenaki_jax.errors import UserError, check_at_least, check_types
from phenaki_jax.training.learner import Learner
from phenaki_jax.training.sharding import Layout


@dataclasses.dataclass(frozen=True)
class ResolutionConfig:
    """Batches of one frame size, of which a training may have several.

    Attributes:
      mixture: name of a seqio mixture or task to train on, whose frames have this size.
      frame_size: their side in pixels, a multiple of the model's patch.
      rate: share of the steps that take such a batch, above 0 and at most 1.
      batch_size: examples of such a step, over all devices.
      eval_mixture: the one whose test split is evaluated on; none where empty.
    """

    mixture: str
    frame_size: int
    rate: float
    batch_size: int
    eval_mixture: str = ""

    def __post_init__(self) -> None:
        check_types(self)
        check_at_least(self, 1, "batch_size")
        if not 0 < self.rate <= 1:
            raise UserError(f"found rate {self.rate} of {self.mixture}, expected a share of the steps, above 0")

    def feed(
        self,
        learner: Learner,
        layout: Layout,
        data: DataConfig,
        seed: int,
        *,
        train: bool,
        order: Order | None = None,
    ) -> MixtureFeed:
        """The feed of training examples, endless and shuffled, or of test examples, in order and once.

        Raises:
          UserError: there is no such mixture, or its videos have other frames.
        """
        mixture, split = (self.mixture, "train") if train else (self.eval_mixture, "test")
        if learner.precomputed:
            learner.check_data(mixture, self.frame_size)
        feed = make_feed(
            mixture=precomputed_mixture(learner.precomputed, mixture, split) if learner.precomputed else mixture,
            split=split,
            batch_size=self.batch_size if train else self._test_batch_size(data.eval_batch_size, layout, order),
            frames=learner.frames,
            temporal_patch=learner.temporal_patch,
            text_length=learner.text_length,
            converter=learner.converter,
            seed=seed,
            sharding=layout.batch,
            data_dir=data.data_dir,
            shuffle=train,
            repeat=train,
            vocabulary=learner.vocabulary,
            pack_images=data.pack_images,
            order=order,
        )
        _check_videos(feed, (learner.frames, self.frame_size, self.frame_size, 3))
        return feed

    def _test_batch_size(self, wanted: int, layout: Layout, order: Order | None) -> int:
        """As many as are wanted, or the next more that devices and shares divide, but no more than a step has."""
        multiple = math.lcm(layout.batch_parts, order.shares if order else 1)
        return min(self.batch_size, math.ceil((wanted or self.batch_size) / multiple) * multiple)


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """What is trained and evaluated on.

    Attributes:
      mixture: name of a seqio mixture or task to train on, whose frames have the learner's size.
      eval_mixture: the one whose test split is evaluated on.
      data_dir: folder of the TFDS datasets.
      batch_size: examples of a step, over all devices.
      resolutions: what else is trained on, at other frame sizes. Each takes its rate of the steps, and `mixture` the
        rest. Metrics of their evaluations end in the size, as in "loss_64px".
      pack_images: whether as many images share a row of a batch as a video has time steps, each seen by itself alone.
        Rows are counted then, not examples.
      shares: parts that examples are read in, each in an order of its own, a multiple of the processes that read them;
        0 for as many as these. A run goes on exactly in any number of processes that divides them.
      eval_batch_size: test examples that are evaluated at once, of which a split needs at least so many, or the next
        more that devices and shares divide; no more than a step has, and 0 for as many.
    """

    mixture: str
    eval_mixture: str
    data_dir: str
    batch_size: int
    resolutions: tuple[ResolutionConfig, ...] = ()
    pack_images: bool = False
    shares: int = 0
    eval_batch_size: int = 0

    def __post_init__(self) -> None:
        check_types(self)
        check_at_least(self, 1, "batch_size")
        check_at_least(self, 0, "shares", "eval_batch_size")
        taken = sum(each.rate for each in self.resolutions)
        if taken >= 1:
            raise UserError(
                f"found resolutions that take {taken:g} of the steps, expected less than 1, so that some are left for "
                f"{self.mixture}: lower their rates"
            )

    def train_feed(self, learner: Learner, layout: Layout, seed: int, order: Order | None = None) -> Feed:
        """The feed of training examples, endless and shuffled, of one frame size in each batch.

        Args:
          learner: what is trained.
          layout: of the devices.
          seed: of the order.
          order: that of a run that goes on; where it is None, one begins.

        Raises:
          UserError: a mixture that is not there, or whose videos are not what is said of it.
        """
        sizes = self.sizes(learner)
        if order is None and self.shares:
            order = Order(self.shares)
        if self.pack_images and learner.converter == "tokenizer":
            raise UserError("found pack_images in a tokenizer's training, expected it with a transformer: leave it out")
        # Each with a seed of its own: what is drawn at several sizes would come in the same order at each.
        feeds = [
            size.feed(learner, layout, self, (seed + index) % 2**31, train=True, order=order)
            for index, size in enumerate(sizes)
        ]
        return feeds[0] if len(feeds) == 1 else AlternatingFeed(feeds, [size.rate for size in sizes], seed)

    def check_parts(self, microbatches: int, layout: Layout) -> None:
        """Refuses batches that cannot be taken in equal parts by all devices that they are divided over.

        Raises:
          UserError: the multiple that a batch size must be.
        """
        ways = layout.batch_parts
        for found in (self.batch_size, *(size.batch_size for size in self.resolutions)):
            if microbatches > 1 and found % (microbatches * ways):
                raise UserError(
                    f"found batch_size {found}, expected a multiple of {microbatches * ways}, for {microbatches} "
                    f"microbatches on {ways} devices: change batch_size or StepConfig.microbatches"
                )

    def eval_feeds(self, learner: Learner, layout: Layout, seed: int) -> dict[str, MixtureFeed]:
        """Feeds of test examples, in order and once, by what the names of their metrics end in.

        Raises:
          UserError: as `train_feed`.
        """
        first, *others = self.sizes(learner)
        named = {"": first, **{f"_{size.frame_size}px": size for size in others if size.eval_mixture}}
        order = Order(self.shares) if self.shares else None
        return {
            ending: size.feed(learner, layout, self, seed, train=False, order=order) for ending, size in named.items()
        }

    def sizes(self, learner: Learner) -> list[ResolutionConfig]:
        """All that is trained on, that of the learner's own frame size first.

        Raises:
          UserError: two of them have one frame size.
        """
        rate = 1.0 - sum(each.rate for each in self.resolutions)
        own = ResolutionConfig(self.mixture, learner.frame_size, rate, self.batch_size, self.eval_mixture)
        sizes = [own, *self.resolutions]
        seen = [size.frame_size for size in sizes]
        if twice := [size for size in seen if seen.count(size) > 1]:
            raise UserError(
                f"found two resolutions of {twice[0]} pixels, expected sizes that differ, the model's "
                f"{learner.frame_size} among them: put mixtures of one size into one mixture"
            )
        return sizes


def _check_videos(feed: MixtureFeed, wanted: tuple[int, int, int, int]) -> None:
    if "video" not in feed.batch_spec:
        return
    found = feed.batch_spec["video"]
    if found.shape[1:] != wanted or found.dtype != np.uint8:
        raise UserError(
            f"the videos of {feed.settings.mixture} are {found.dtype} {list(found.shape[1:])}, expected uint8 "
            f"{list(wanted)} [frames, height, width, colours]: name a mixture of that size, such as one of a dataset "
            f"that is prepared with --size {wanted[1]}, or change frames or frame_size"
        )
