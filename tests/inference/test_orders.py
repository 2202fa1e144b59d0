"""Orders: every place once, and evenly spread from the start."""

import numpy as np
import pytest

from phenaki_jax.inference.orders import halton_order


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 16, 16), (6, 4, 4), (6, 16, 16), (2, 3, 5)])
def test_every_place_comes_once(shape: tuple[int, int, int]) -> None:
    assert sorted(halton_order(*shape).tolist()) == list(range(int(np.prod(shape))))


def test_the_first_places_are_haltons() -> None:
    # Index 1 is (1/5, 1/2, 1/3) of the window, index 2 is (2/5, 1/4, 2/3).
    assert halton_order(5, 4, 3)[:2].tolist() == [1 * 12 + 2 * 3 + 1, 2 * 12 + 1 * 3 + 2]


def test_no_part_of_the_window_waits_for_another() -> None:
    times, rows, columns = np.unravel_index(halton_order(6, 16, 16)[: 6 * 16], (6, 16, 16))
    for axis, parts in ((times * 16 // 6, 16), (rows, 16), (columns, 16)):
        counts = np.bincount(axis // 4, minlength=parts // 4)
        assert counts.min() > 96 / 4 / 2
