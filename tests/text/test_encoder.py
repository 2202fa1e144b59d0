"""The small text encoder says which of its sizes cannot be."""

import pytest

from phenaki_jax.errors import UserError
from phenaki_jax.text.encoder import TextEncoderConfig


@pytest.mark.parametrize("size", ["length", "width", "heads", "window"])
def test_sizes_below_one_are_refused(size: str) -> None:
    with pytest.raises(UserError, match=f"^found {size} 0, expected at least 1$"):
        TextEncoderConfig(**{size: 0})
