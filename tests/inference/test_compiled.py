"""What a model computes can be waited for, and the waiting interrupted."""

import subprocess
import sys


def test_an_interruption_is_heard_while_a_program_runs() -> None:
    """A product of 128 x 128 numbers takes 20 microseconds or more, so that all of them take 40 seconds or more."""
    program = """
import os, signal, time, jax, jax.numpy as jnp
from phenaki_jax.errors import raise_interrupt
from phenaki_jax.inference.compiled import fetched
square = jnp.full((128, 128), 1 / 128)
slow = jax.jit(lambda x: jax.lax.fori_loop(0, 2_000_000, lambda _, x: x @ square, x)).lower(square).compile()
signal.signal(signal.SIGALRM, raise_interrupt)
signal.setitimer(signal.ITIMER_REAL, 1)
began = time.monotonic()
try: fetched(slow(square))
except KeyboardInterrupt:
    print(time.monotonic() - began, flush=True)
    os._exit(0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=100)
    assert 1 <= float(done.stdout) < 10
