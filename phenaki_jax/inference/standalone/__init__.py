"""Files that are copied beside a model's StableHLO programs, and need jax and NumPy alone."""

from pathlib import Path

from phenaki_jax.inference.standalone.run import FORMAT

__all__ = ["FILES", "FORMAT"]

FILES = tuple(Path(__file__).with_name(name) for name in ("run.py", "small_flatbuffers.py"))
"""What is copied."""
