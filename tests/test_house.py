"""The files around the code agree with each other and with what is installed."""

import ast
import importlib.metadata
import importlib.util
import pathlib
import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import phenaki_jax

ROOT = pathlib.Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
REQUIREMENTS = [*PROJECT["dependencies"], *EXTRAS["test"]]
BENCHMARKS = sorted(ROOT.glob("benchmarks/**/*.py"))
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])

MARKDOWN_LINK = re.compile(r"\]\(<?([^)\s>]+)>?[^)]*\)|^\[[^\]]+\]:\s*(\S+)|(?:src|href)=\"([^\"]+)\"", re.MULTILINE)
CODE = re.compile(r"^(```|~~~).*?^\1|`[^`\n]+`", re.MULTILINE | re.DOTALL)


def pinned_versions() -> dict[str, str]:
    """Version by canonical name, as constraints.txt says."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pins}


def relative_links(page: pathlib.Path) -> list[str]:
    """Targets of the page's links to files of this repository, without their anchors."""
    links = ["".join(groups) for groups in MARKDOWN_LINK.findall(CODE.sub("", page.read_text()))]
    return [link.split("#")[0] for link in links if not re.match(r"#|[a-z+]+:", link)]


@pytest.mark.parametrize("requirement", [Requirement(text) for text in REQUIREMENTS], ids=str)
def test_constraints_pin_every_requirement(requirement: Requirement) -> None:
    """What `make install` installs is a version that the package itself allows."""
    version = pinned_versions().get(canonicalize_name(requirement.name))
    assert version is not None, f"constraints.txt has no line for {requirement.name}"
    assert requirement.specifier.contains(version, prereleases=True)


def test_installed_version_is_the_packages_own() -> None:
    """The version is written once, in the package."""
    try:
        installed = importlib.metadata.version("phenaki_jax")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("phenaki_jax runs from its folder and is not installed")
    assert installed == phenaki_jax.__version__


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page: pathlib.Path) -> None:
    """Every relative link of the documentation points to something that exists."""
    broken = [link for link in relative_links(page) if not (page.parent / link).exists()]
    assert not broken


@pytest.mark.parametrize("file", BENCHMARKS, ids=lambda file: str(file.relative_to(ROOT)))
def test_what_a_benchmark_takes_of_the_package_is_there(file: pathlib.Path) -> None:
    """Benchmarks run in environments of their own, where nothing else would notice a name that has moved."""
    imports = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom)]
    for module in (node for node in imports if (node.module or "").startswith("phenaki_jax")):
        for name in (alias.name for alias in module.names):
            found = importlib.import_module(str(module.module))
            assert hasattr(found, name) or importlib.util.find_spec(f"{module.module}.{name}"), f"no {name} in {found}"
