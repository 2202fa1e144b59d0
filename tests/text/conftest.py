"""What transformers and t5x wrote (benchmarks/t5_oracle.py --write-fixtures and --write-t5x-fixtures)."""

import pathlib
import tarfile
from collections.abc import Callable

import numpy as np
import pytest
from safetensors.numpy import load_file

FIXTURES = pathlib.Path(__file__).parent / "fixtures"


@pytest.fixture(scope="session")
def fixtures() -> pathlib.Path:
    return FIXTURES


@pytest.fixture(scope="session")
def t5x_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], pathlib.Path]:
    """Unpacks a checkpoint by the name of its archive."""

    def unpack(name: str) -> pathlib.Path:
        folder = tmp_path_factory.mktemp(name)
        with tarfile.open(FIXTURES / f"{name}.tar.xz") as archive:
            archive.extraction_filter = getattr(tarfile, "data_filter", None)  # as of Python 3.11.4
            archive.extractall(folder)
        return folder / "checkpoint_0"

    return unpack


@pytest.fixture
def tensors() -> dict[str, np.ndarray]:
    """A T5 with its decoder, by transformers' names."""
    return load_file(FIXTURES / "transformers_t5.safetensors")
