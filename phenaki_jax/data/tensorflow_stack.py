"""TensorFlow, seqio and TFDS as this package uses them: on the host's CPU, and silent unless something is wrong.

The other modules of `data` import the three from here, so that this happens before the first of them is loaded.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator

from phenaki_jax.errors import stderr_elsewhere

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@contextlib.contextmanager
def _quiet_imports() -> Iterator[None]:
    """Hides what TensorFlow's C++ says of absent GPUs while it loads, before any log level counts, and warnings."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere, warnings.catch_warnings(), stderr_elsewhere(kept):
            warnings.simplefilter("ignore")
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


with _quiet_imports():
    import seqio
    import tensorflow as tf
    import tensorflow_datasets as tfds

    tf.config.set_visible_devices([], "GPU")
tfds.disable_progress_bar()

__all__ = ["seqio", "tf", "tfds"]
