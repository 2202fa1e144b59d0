"""Which names a dataset may have, so that a training finds it by them."""

from __future__ import annotations

import re

from phenaki_jax.data.prepare.settings import PrepareSettings
from phenaki_jax.data.published.catalog import IMAGE_TEXT, MIXTURES, VIDEO_TEXT, published
from phenaki_jax.data.tasks import register
from phenaki_jax.data.tensorflow_stack import seqio
from phenaki_jax.errors import UserError

_ENDS_AS_A_TASK = re.compile(rf"\w+({VIDEO_TEXT}|{IMAGE_TEXT})(_\d+)?")


def check_name(settings: PrepareSettings) -> None:
    """Refuses a name by which another dataset is read, or of a published one at another rate than its own.

    Raises:
      UserError: says which.
    """
    name = settings.name
    register()
    known = {*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names(), *MIXTURES}
    if taken := sorted({name, name + VIDEO_TEXT, name + IMAGE_TEXT} & known):
        raise UserError(
            f"found name {name!r}, expected one by which nothing is read yet: {taken[0]} is of this package; choose "
            f"another --name, such as my_{name}"
        )
    if _ENDS_AS_A_TASK.fullmatch(name):
        raise UserError(
            f"found name {name!r}, expected one that does not end as those of tasks do ({VIDEO_TEXT}, {IMAGE_TEXT}), "
            "which are made of it: choose another --name"
        )
    dataset = published(name)
    if dataset is not None and dataset.fps and settings.fps != dataset.fps:
        raise UserError(
            f"found fps {settings.fps:g} of {name}, expected {dataset.fps:g}, the rate of the published "
            f"{dataset.name}, as which it would be read: set --fps {dataset.fps:g}, or choose another --name"
        )
