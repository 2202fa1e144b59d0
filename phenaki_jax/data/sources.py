"""Mixtures and tasks by name, and the files that they are read from."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator

from phenaki_jax.data.moving_shapes.builder import MovingShapes
from phenaki_jax.data.prepare.metadata import prepared_datasets, told_of_one_dataset
from phenaki_jax.data.prepared import prepared_names, prepared_provider
from phenaki_jax.data.published.provider import published_names, published_provider
from phenaki_jax.data.tasks import register
from phenaki_jax.data.tensorflow_stack import seqio
from phenaki_jax.errors import UserError, near, nearest

# Also of endings that are misspelt.
_KIND = re.compile(r"_[a-z]{4,6}_text(_\d+)?$")


def provider_of(
    mixture: str | seqio.Mixture | seqio.Task, data_dir: str | os.PathLike[str] | None = None
) -> seqio.Mixture | seqio.Task:
    """The mixture or task of a name: one that seqio knows, or one of a published or a prepared dataset.

    Args:
      mixture: its name, or itself.
      data_dir: the folder in which datasets are looked for, see `data.published.provider` and `data.prepared`.

    Raises:
      UserError: there is none.
    """
    if not isinstance(mixture, str):
        return mixture
    register()
    mixtures, tasks = (sorted(registry.names()) for registry in (seqio.MixtureRegistry, seqio.TaskRegistry))
    known = [*mixtures, *tasks]
    if mixture in known:
        return seqio.get_mixture_or_task(mixture)
    if (known_by_all := published_provider(mixture, data_dir)) is not None:
        return known_by_all
    if data_dir is not None and (prepared := prepared_provider(mixture, data_dir)) is not None:
        return prepared
    raise UserError(_unknown(mixture, known, data_dir))


def _unknown(mixture: str, known: list[str], data_dir: str | os.PathLike[str] | None) -> str:
    there = [] if data_dir is None else prepared_names(data_dir)
    meant = _meant(mixture, [*there, *known, *published_names()])
    if data_dir is not None and not meant and not os.path.isdir(data_dir):
        mounted = ", as a bucket is once it is mounted (docs/pods.md)" if "://" in os.fspath(data_dir) else ""
        return (
            f"found no folder {os.fspath(data_dir)!r}, expected that of the datasets, {mixture} among them: set "
            f"DATA_DIR to a folder of this machine{mounted}"
        )
    own = f"{_some(list(prepared_datasets(data_dir)), 4)} (prepared in {data_dir}), " if data_dir and there else ""
    imported = [name for name in known if not name.startswith(f"{MovingShapes.name}_")]
    others = f"{_some(imported, 3)}, " if imported else ""
    drawn = _some([name for name in known if name not in imported], 2)
    return (
        f"found mixture {mixture!r}{f': {meant}' if meant else ', '}expected one of {own}{others}{drawn}, or a "
        f"published one; docs/data.md has all{_where_to_look(data_dir, there)}; one of your own is known once phenaki "
        "prepare made it, or its module is imported"
    )


def _some(names: list[str], most: int) -> str:
    """Names in a sentence, of many the first ones."""
    told = ", ".join(names[:most])
    return f"{told} and {len(names) - most} more" if len(names) > most else told


def _where_to_look(data_dir: str | os.PathLike[str] | None, there: list[str]) -> str:
    if data_dir is None or there:
        return ""
    return told_of_one_dataset(data_dir) or f"; nothing is prepared in {data_dir}"


def _meant(mixture: str, known: list[str]) -> str:
    """Asks whether the nearest was meant: the dataset first, as names of one kind all end alike."""
    dataset = nearest(_KIND.sub("", mixture), (_KIND.sub("", each) for each in known))
    named = [each for each in known if _KIND.sub("", each) == dataset]
    return near(mixture, named, 0.0)


def rates_of(mixture: str, data_dir: str | os.PathLike[str] | None = None) -> dict[seqio.Task, float]:
    """The tasks of a mixture with their rates, or a task alone; the arguments are those of `provider_of`.

    Raises:
      UserError: there is none of this name.
    """
    provider = provider_of(mixture, data_dir)
    if isinstance(provider, seqio.Task):
        return {provider: 1.0}
    return {task: float(provider.get_rate(task)) for task in provider.tasks}


def source_shards(task: seqio.Task, split: str, data_dir: str | os.PathLike[str]) -> int:
    """In how many parts a task's split can be read.

    Raises:
      UserError: the dataset is not there.
    """
    with data_dir_of_seqio(data_dir):
        files = len(task.source.list_shards(split))
    return 2**31 if task.source.supports_arbitrary_sharding else files


@contextlib.contextmanager
def data_dir_of_seqio(data_dir: str | os.PathLike[str]) -> Iterator[None]:
    """Where seqio looks for datasets of TFDS while this lasts."""
    before = seqio.LazyTfdsLoader().data_dir
    seqio.set_tfds_data_dir_override(os.fspath(data_dir))
    try:
        yield
    finally:
        seqio.set_tfds_data_dir_override(before)
