"""How batches are divided over the devices of a mesh, and which part of them a process reads."""

from __future__ import annotations

from collections.abc import Mapping

import jax
from jax.sharding import NamedSharding

from phenaki_jax.data.tensorflow_stack import seqio
from phenaki_jax.errors import UserError


def ways_of(sharding: NamedSharding) -> int:
    """In how many parts a batch is divided."""
    return len(set(map(str, sharding.devices_indices_map((sharding.num_devices,)).values())))


def parts_held(sharding: NamedSharding) -> tuple[int, dict[int, tuple[int, ...]]]:
    """In how many parts a batch is divided, and which of them each process holds."""
    ways = ways_of(sharding)
    parts: dict[int, set[int]] = {}
    pieces: Mapping[jax.Device, tuple[slice, ...]] = sharding.devices_indices_map((ways,))
    for device, (piece,) in pieces.items():
        parts.setdefault(device.process_index, set()).update(range(ways)[piece])
    return ways, {process: tuple(sorted(each)) for process, each in parts.items()}


def readers_of(sharding: NamedSharding) -> int:
    """How many processes read different rows of a batch."""
    return len(set(parts_held(sharding)[1].values()))


def shares_of_process(
    sharding: NamedSharding, mixture: str, batch_size: int, shares: int | None
) -> tuple[list[seqio.ShardInfo], bool]:
    """Which of how many equal shares of a batch this process reads, and whether it is the first that reads them.

    Args:
      sharding: of a batch.
      mixture: that batches are of, for errors.
      batch_size: examples of a batch over all processes.
      shares: how many; where None, as many as there are processes that read different rows.

    Raises:
      UserError: a batch cannot be divided so.
    """
    if batch_size < 1:
        raise UserError(f"found batch_size {batch_size} of {mixture}, expected at least 1")
    ways, held = parts_held(sharding)
    if batch_size % ways:
        raise UserError(
            f"found batch_size {batch_size}, expected a multiple of {ways}, the devices that batches are divided over: "
            f"set that of {mixture} to {max(1, round(batch_size / ways)) * ways}"
        )
    readers = sorted(set(held.values()))
    if sum(map(len, readers)) != ways:
        raise UserError("found a mesh whose hosts hold overlapping parts of a batch, expected equal or separate ones")
    shares = shares or len(readers)
    if shares % len(readers) or batch_size % shares:
        raise UserError(
            f"found {shares} shares of batches of {batch_size}, expected a multiple of {len(readers)}, the processes "
            "that read different rows, that divides them"
        )
    own, each = held[jax.process_index()], shares // len(readers)
    first = readers.index(own) * each
    writes = jax.process_index() == min(process for process, its in held.items() if its == own)
    return [seqio.ShardInfo(index, shares) for index in range(first, first + each)], writes
