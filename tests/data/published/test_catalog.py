"""What is known of published datasets agrees with the docs and the files that name them."""

import pathlib

import pytest

from phenaki_jax.data.published.catalog import CATALOG, MIXTURES, published

ROOT = pathlib.Path(__file__).parents[3]
DOCS = (ROOT / "docs" / "data.md").read_text()


@pytest.mark.parametrize("dataset", CATALOG.values(), ids=lambda each: each.name)
def test_docs_tell_the_task_and_the_command(dataset) -> None:
    [row] = [line for line in DOCS.splitlines() if line.startswith("|") and f"`{dataset.task}`" in line]
    assert f"`{dataset.command('DATA_DIR')}`" in row
    assert "](http" in row


@pytest.mark.parametrize("name", MIXTURES)
def test_each_mixture_has_a_file_that_names_it(name: str) -> None:
    lines = (ROOT / "gin_configs" / "data" / f"{name}.gin").read_text().splitlines()
    assert f'MIXTURE = "{name}"' in lines
    assert sum(MIXTURES[name].values()) == pytest.approx(1.0)
    assert f"`{name}`" in DOCS


def test_a_name_may_end_in_a_size() -> None:
    assert published("kinetics600_128") is CATALOG["kinetics600"]
    assert published("kinetics600") is CATALOG["kinetics600"]
    assert published("kinetics") is None
    assert (
        CATALOG["kinetics600"]
        .command("data", "kinetics600_128")
        .endswith("--name kinetics600_128 --size 128 --frames 17 --fps 25")
    )
