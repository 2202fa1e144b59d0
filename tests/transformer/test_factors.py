"""Codes and their digits."""

import jax.numpy as jnp
import numpy as np

from phenaki_jax.tokenizer.config import QuantizerConfig
from phenaki_jax.tokenizer.quantizers import split_index
from phenaki_jax.transformer.factors import join_codes, split_codes


def test_digits_are_those_of_the_tokenizers_quantizer() -> None:
    config = QuantizerConfig(kind="lfq", bits=18)
    codes = jnp.array([0, 1, 511, 512, 262143, 77777])
    digits = split_codes(codes, config.factors)
    np.testing.assert_array_equal(jnp.stack(digits, axis=-1), split_index(config, codes))
    np.testing.assert_array_equal(join_codes(digits, config.factors), codes)


def test_digits_can_be_counted_in_one_row() -> None:
    assert [int(digit) for digit in split_codes(jnp.array(6), (4, 5), offset=True)] == [2, 4 + 1]
