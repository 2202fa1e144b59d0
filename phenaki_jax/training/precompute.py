"""What a frozen tokenizer and text encoder make of mixtures, computed once: see `data.precomputed`."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from tqdm import tqdm

from phenaki_jax.data.feed import FeedSettings, examples_of, told_damage
from phenaki_jax.data.precomputed import encode_example, shard_file
from phenaki_jax.data.precomputed_metadata import METADATA_FILE, Precomputed
from phenaki_jax.data.sources import rates_of, source_shards
from phenaki_jax.data.tensorflow_stack import seqio, tf
from phenaki_jax.errors import UserError, check_at_least, check_process, check_types, counted
from phenaki_jax.files import locked, make_folder, remove_leftovers, told_unwritable, whole_file, write_text
from phenaki_jax.inference.fingerprint import fingerprint
from phenaki_jax.inference.window import encode_text
from phenaki_jax.layers import pixels
from phenaki_jax.layers.module import apply
from phenaki_jax.text.sentencepiece_tokenizer import fingerprint_of
from phenaki_jax.tokenizer.cvivit import CViViT
from phenaki_jax.training.data_config import DataConfig
from phenaki_jax.training.sharding import MeshConfig
from phenaki_jax.training.state import frozen_spec
from phenaki_jax.training.transformer_learner import TransformerLearner


@dataclasses.dataclass(frozen=True)
class PrecomputeConfig:
    """How a mixture is precomputed.

    Attributes:
      batch_size: examples that are computed at once by this process.
      shards: files of each task's split and pass, if its source has as many files or can be divided at will; processes
        take turns, and what an interruption loses is one file of each process.
      passes: how often each example is read, with other windows and wordings each time.
      seed: of windows and wordings.
      process: which of the processes this one is, from 0; they need not know of each other.
      processes: how many there are, which write to one folder.

    Raises:
      UserError: a value that it cannot have.
    """

    batch_size: int = 16
    shards: int = 64
    passes: int = 1
    seed: int = 0
    process: int = 0
    processes: int = 1

    def __post_init__(self) -> None:
        check_types(self)
        check_at_least(self, 1, "batch_size", "shards", "passes", "processes")
        check_at_least(self, 0, "seed", "process")
        check_process(self.process, self.processes)


class Done(NamedTuple):
    """What a process did.

    Attributes:
      files: that it wrote.
      found: that were there already.
      examples: in those that it wrote.
    """

    files: int
    found: int
    examples: int


def precompute(learner: TransformerLearner, data: DataConfig, folder: Path, config: PrecomputeConfig) -> Done:
    """Writes what a training reads of its mixtures; files that are there are left as they are.

    Args:
      learner: whose tokenizer and frozen text encoder are used.
      data: the mixtures, of which the train splits are computed, and the eval mixtures with their test splits.
      folder: where to; made where it is not there. One that holds a part of the same is completed.
      config: how.

    Raises:
      UserError: the folder holds something else; files, datasets or parameters are not what is expected; or an
        embedding is not finite.
    """
    if learner.precomputed:
        raise UserError(f"found precomputed {learner.precomputed}, expected frames and texts: leave it empty")
    shares = list(_shares(learner, data, folder, config))
    computer = _Computer(learner, config.batch_size)
    with locked(folder):
        _claim(folder, _describe(learner, computer.tokenizer_fingerprint, shares, config))
    own = shares[config.process :: config.processes]
    missing = [share for share in own if not share.path.exists()]
    examples = 0
    with tqdm(missing, unit="file", disable=None) as progress:
        for share in progress:
            progress.set_postfix_str(f"{share.task.name} {share.settings.split}, {counted(examples, 'example')}")
            examples += _write(share, computer, data.data_dir)
    return Done(len(missing), len(own) - len(missing), examples)


class _Share(NamedTuple):
    """What one file is of."""

    path: Path
    mixture: str
    rate: float
    task: seqio.Task
    frame_size: int
    settings: FeedSettings
    shard: seqio.ShardInfo


def _shares(learner: TransformerLearner, data: DataConfig, folder: Path, config: PrecomputeConfig) -> Iterator[_Share]:
    for size in data.sizes(learner):
        for split, mixture in (("train", size.mixture), ("test", size.eval_mixture)):
            for task, rate in rates_of(mixture, data.data_dir).items() if mixture else ():
                parts = min(config.shards, source_shards(task, split, data.data_dir))
                passes = config.passes if split == "train" else 1
                for index in range(passes * parts):
                    settings = FeedSettings(
                        task.name,
                        split,
                        config.batch_size,
                        learner.frames,
                        learner.temporal_patch,
                        learner.text_length,
                        learner.converter,
                        config.seed + index // parts,
                        shuffle=False,
                        repeat=False,
                        vocabulary=learner.vocabulary,
                    )
                    path = shard_file(folder, task.name, split, index, passes * parts)
                    shard = seqio.ShardInfo(index % parts, parts)
                    yield _Share(path, mixture, rate, task, size.frame_size, settings, shard)


def _describe(
    learner: TransformerLearner, tokenizer: str, shares: Sequence[_Share], config: PrecomputeConfig
) -> Precomputed:
    text = learner.model.text if learner.model.has_frozen_text else None
    mixtures: dict[str, dict[str, float]] = {}
    grids: dict[str, list[int]] = {}
    splits: dict[str, list[str]] = {}
    for share in shares:
        mixtures.setdefault(share.mixture, {})[share.task.name] = share.rate
        grids[share.task.name] = [share.frame_size // learner.model.tokenizer.patch] * 2
        found = splits.setdefault(share.task.name, [])
        found += [] if share.settings.split in found else [share.settings.split]
    return Precomputed(
        mixtures=mixtures,
        grids=grids,
        splits=splits,
        frames=learner.frames,
        temporal_patch=learner.temporal_patch,
        codebook_size=learner.model.transformer.codebook_size,
        text_length=learner.text_length,
        text_width=0 if text is None else text.width,
        tokenizer=tokenizer,
        text_encoder=learner.describe().get("text_encoder", ""),
        vocabulary=fingerprint_of(learner.vocabulary),
        shards=config.shards,
        passes=config.passes,
        seed=config.seed,
    )


def _claim(folder: Path, info: Precomputed) -> None:
    """Says what a folder will hold, or refuses one that holds something else."""
    if not (folder / METADATA_FILE).exists():
        write_text(folder / METADATA_FILE, info.text())
        return
    found, wanted = (json.loads(each.text()) for each in (Precomputed.read(folder), info))
    if differing := [name for name in wanted if found[name] != wanted[name]]:
        name = differing[0]
        raise UserError(
            f"{folder} holds what was precomputed with {name} {found[name]}, expected {wanted[name]}: go on with the "
            "settings and networks that it was begun with, or name another folder"
        )


def _write(share: _Share, computer: _Computer, data_dir: str) -> int:
    """Writes a file, which appears complete or not at all; returns how many examples it holds."""
    make_folder(share.path.parent)
    remove_leftovers(share.path)
    count = 0
    with (
        whole_file(share.path) as unfinished,
        told_unwritable(share.path, errors=tf.errors.OpError),
        tf.io.TFRecordWriter(str(unfinished)) as writer,
    ):
        for record in computer.records(share, data_dir):
            writer.write(record)
            count += 1
    return count


class _Computer:
    """The frozen networks on the devices of this process, which large ones are divided over."""

    def __init__(self, learner: TransformerLearner, batch_size: int) -> None:
        self._learner, self._batch_size = learner, batch_size
        self._layout = MeshConfig(rules="fully_sharded").over(jax.local_devices())
        if batch_size % (ways := self._layout.batch_parts):
            raise UserError(f"found batch_size {batch_size}, expected a multiple of {ways}, the devices there are")
        self._frozen = learner.load_frozen(frozen_spec(learner, self._layout))
        self.tokenizer_fingerprint = fingerprint(self._frozen["tokenizer"])
        self._compute = jax.jit(functools.partial(_compute, learner))

    def records(self, share: _Share, data_dir: str) -> Iterator[bytes]:
        """What a file holds.

        Raises:
          UserError: examples cannot be read, are not what the learner takes, or have embeddings that are not finite.
        """
        examples = examples_of(share.task, share.settings, share.shard, data_dir)
        batches = examples.batch(self._batch_size).prefetch(1)
        with self._layout.applied():
            for batch in told_damage(batches, share.settings):
                # The last batch is filled up, so that all are of one shape.
                rows = np.minimum(np.arange(self._batch_size), len(batch["video"]) - 1)
                full = {name: jax.device_put(array[rows], self._layout.batch) for name, array in batch.items()}
                tokens, embeddings = self._compute(self._frozen, full)
                yield from self._encoded(
                    batch, np.asarray(tokens), None if embeddings is None else np.asarray(embeddings)
                )

    def _encoded(
        self, batch: dict[str, np.ndarray], tokens: np.ndarray, embeddings: np.ndarray | None
    ) -> Iterator[bytes]:
        for row, given in enumerate(batch["prefix_frames"]):
            times = self._learner.model.tokenizer.times(int(batch["frame_mask"][row].sum()))
            ids = batch["text_tokens"][row][batch["text_mask"][row]]
            embedded = None if embeddings is None else embeddings[row, : len(ids)]
            if embedded is not None and not np.isfinite(embedded.astype(np.float32)).all():
                raise UserError(
                    f"found NaN or infinity in the embedding of a text with the tokens {ids[:8].tolist()}..., expected "
                    "numbers: see whether the checkpoint is whole, or compute in float32"
                )
            yield encode_example(tokens[row, :times], int(given), ids, embedded)


def _compute(learner: TransformerLearner, frozen: Any, batch: dict[str, Array]) -> tuple[Array, Array | None]:
    video = batch["video"]
    sizes = dataclasses.replace(learner.model.tokenizer, frame_size=video.shape[2])
    tokens = apply(CViViT(sizes), frozen["tokenizer"], pixels.to_float(video), method="encode")
    if not learner.model.has_frozen_text:
        return tokens, None
    texts = batch["text_tokens"], batch["text_mask"]
    return tokens, encode_text(learner.model, frozen["text"], *texts, jnp.dtype(learner.dtype))
