"""`python -m phenaki_jax.train --gin_file=... --gin.NAME=VALUE --workdir=...`, for people used to t5x."""

from __future__ import annotations

import sys

from phenaki_jax.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
