"""What is told of splits that are not there, or too small for a batch."""

from __future__ import annotations

from collections.abc import Sequence

from phenaki_jax.data.tensorflow_stack import seqio
from phenaki_jax.errors import UserError, counted

_WAYS_TO_SPLITS = {
    "train": ": train on another MIXTURE, or make one with it, as phenaki prepare does with a --test_share below 1",
    "test": ": evaluate on another EVAL_MIXTURE, or make one with it, as phenaki prepare does of two files and more "
    "with a --test_share above 0",
}


def check_split(provider: seqio.Mixture | seqio.Task, split: str) -> None:
    """Refuses a split that is not there.

    Raises:
      UserError: says which are, and how to have it.
    """
    if split not in provider.splits:
        raise UserError(
            f"found split {split!r}, expected one of {', '.join(sorted(provider.splits))}, of {provider.name}"
            + _WAYS_TO_SPLITS.get(split, "")
        )


def smaller_than_a_batch(
    mixture: str, split: str, parts: Sequence[str], batch_size: int, found: Sequence[int], multiple: int
) -> UserError:
    """What is told of a split that is read once and fills no batch.

    Args:
      mixture: whose.
      split: of it.
      parts: tasks that it is a mixture of.
      batch_size: that was asked for.
      found: how many examples each share of the split has; of several parts before the smallest ends.
      multiple: what batch sizes are a multiple of, for devices and shares.
    """
    equal = min(found) * len(found)
    fitting = min(equal, batch_size - 1) // multiple * multiple
    count = counted(sum(found), "example")
    if equal < sum(found):
        count += f", of which equal shares of {len(found)} readers have {equal}"
    ways = [f"set --gin.EVAL_BATCH_SIZE={fitting} (BATCH_SIZE, if the run file has no EVAL_BATCH_SIZE)"]
    if parts[1:]:
        count += f", as it ends with the smallest of {', '.join(parts)}"
        ways.append("name one of these alone")
    ways.append(
        "read more examples, as phenaki prepare makes of more videos, or with a larger --test_share, under another "
        "--name or --version"
    )
    told = "; or ".join(ways if fitting else ways[1:])
    return UserError(f"the {split} split of {mixture} is smaller than one batch of {batch_size}: found {count}; {told}")


def fewer_than_shares(mixture: str, split: str, found: int, shares: int) -> UserError:
    """What is told of a split that is read again and again, of which a share has nothing.

    Args:
      mixture: whose.
      split: of it.
      found: how many examples it has.
      shares: in which they are read.
    """
    return UserError(
        f"found {counted(found, 'example')} in the {split} split of {mixture}, expected at least {shares}, one for "
        "each share that is read: train in fewer processes, or on more examples"
    )
