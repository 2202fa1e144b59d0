"""A loaded model draws what it drew before, from the seed alone, and keeps what it is given."""

import numpy as np

from phenaki_jax.inference.phenaki import Phenaki

def test_same_seed_gives_the_same_video_and_another_gives_another(model: Phenaki) -> None:
    first = model.generate("a red circle", seed=3)
    assert first.shape == (1, 5, 32, 32, 3)
    np.testing.assert_array_equal(first, model.generate("a red circle", seed=3))
    assert (first != model.generate("a red circle", seed=4)).any()
