"""Phenaki in JAX and Flax: a causal video tokenizer, a masked video-token transformer and stories of any length."""

__version__ = "0.1.0"
