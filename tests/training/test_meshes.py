"""Eight devices train as one does, however they share the work, and what they save any others go on with."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from phenaki_jax.training.data_config import DataConfig
from tests.training.eight_devices import MESHES, RESTORED

pytestmark = pytest.mark.slow

# More threads than cores: devices wait for each other in collectives, each in a thread of one pool.
ENVIRONMENT = {
    **os.environ,
    "NPROC": "64",
    "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8 "
    "--xla_cpu_enable_concurrency_optimized_scheduler=false",
}


def _found(what: str, kind: str, data: DataConfig, folder: Path) -> dict[str, dict[str, Any]]:
    command = [sys.executable, "-m", "tests.training.eight_devices", what, kind, data.data_dir, str(folder)]
    done = subprocess.run(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {line.pop("mesh"): line for line in lines}


@pytest.mark.parametrize("kind", ["tokenizer", "transformer"])
def test_every_mesh_trains_as_one_device(kind: str, data: DataConfig, tmp_path: Path) -> None:
    found = _found("meshes", kind, data, tmp_path)
    assert list(found) == list(MESHES)
    assert max(each["losses"] for each in found.values()) <= 1e-5
    assert max(each["parameters"] for each in found.values()) <= 1e-4


@pytest.mark.parametrize("kind", ["tokenizer", "transformer"])
def test_what_eight_devices_have_saved_others_go_on_with(kind: str, data: DataConfig, tmp_path: Path) -> None:
    found = _found("restored", kind, data, tmp_path)
    assert list(found) == list(RESTORED)
    assert all(each["equal"] for each in found.values())
    assert max(each["losses"] for each in found.values()) <= 1e-5
