"""Video from text with a trained model; needs no training library."""

from phenaki_jax.inference.phenaki import Phenaki
from phenaki_jax.inference.story import Scene, Story

__all__ = ["Phenaki", "Scene", "Story"]
