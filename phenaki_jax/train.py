"""`python -m phenaki_jax.train --gin_file=... --gin.NAME=VALUE --workdir=...`, for people used to t5x."""

from __future__ import annotations

import sys

from phenaki_jax.cli.main import run_process

if __name__ == "__main__":
    run_process(["train", *sys.argv[1:]])
