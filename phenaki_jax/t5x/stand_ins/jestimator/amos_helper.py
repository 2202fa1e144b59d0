"""How the state of Amos is divided over devices, if there were one."""

from typing import NoReturn


def state_partition_rule(state: object, params_axes: object) -> NoReturn:
    """Is never asked, as nothing has a state of Amos."""
    raise NotImplementedError
