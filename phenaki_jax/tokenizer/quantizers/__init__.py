"""Quantizers behind one interface: features in, quantized features, code indices and their own loss out."""

from phenaki_jax.tokenizer.config import QuantizerConfig
from phenaki_jax.tokenizer.quantizers.binary import BinaryQuantizer
from phenaki_jax.tokenizer.quantizers.cosine_vq import CosineVQ
from phenaki_jax.tokenizer.quantizers.fsq import FSQ
from phenaki_jax.tokenizer.quantizers.indices import check_indices, check_tokens, join_index, split_index
from phenaki_jax.tokenizer.quantizers.moving_averages import CodebookAverages, initial_averages, update_codebook
from phenaki_jax.tokenizer.quantizers.quantizer import Quantized, Quantizer

__all__ = [
    "FSQ",
    "BinaryQuantizer",
    "CodebookAverages",
    "CosineVQ",
    "Quantized",
    "Quantizer",
    "check_indices",
    "check_tokens",
    "initial_averages",
    "join_index",
    "make_quantizer",
    "split_index",
    "update_codebook",
]


def make_quantizer(config: QuantizerConfig, width: int) -> Quantizer:
    """The quantizer that a config names, for features of this width."""
    kinds: dict[str, type[Quantizer]] = {"fsq": FSQ, "lfq": BinaryQuantizer, "bsq": BinaryQuantizer}
    return kinds.get(config.kind, CosineVQ)(config, width)
