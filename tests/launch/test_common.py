"""What all launchers have in common: mistakes in one line, topologies that exist, commands that can be pasted."""

import pathlib
import re
import shlex
import subprocess
import sys
from typing import Any

import pytest

SCRIPTS = sorted((pathlib.Path(__file__).parents[2] / "launch").glob("*.sh"))
LAUNCHERS = ("tpu_vm.sh", "gke.sh", "slurm.sh")
POD = ("--name", "pod", "--project", "p", "--zone", "z")
TRAIN = ("--", "--gin_file", "run.gin", "--workdir", "gs://bucket/run")

ASKED = """
from phenaki_jax.training.pods.topology import CHIPS
for chip in CHIPS.values():
    for shape in chip.shapes():
        print(f"{chip.name}:{'x'.join(map(str, shape))}")
"""

MISTAKES = [
    ("tpu_vm.sh", (), "expected one of create"),
    ("tpu_vm.sh", ("begin", *POD), "found command 'begin', expected one of create"),
    ("tpu_vm.sh", ("logs", "stop", *POD), "found 'stop' after 'logs'"),
    ("tpu_vm.sh", ("logs", "--name", "pod", "--zone", "z"), "found no --project"),
    ("tpu_vm.sh", ("logs", "--name", "pod", "--project", "p"), "found no --zone"),
    ("tpu_vm.sh", ("logs", *POD, "--name", "My Pod"), "found --name 'My Pod'"),
    ("tpu_vm.sh", ("logs", *POD, "--slices", "two"), "found --slices 'two', expected a whole number"),
    ("tpu_vm.sh", ("logs", *POD, "--slice", "1"), "found --slice 1 of 1, expected 0 to 0"),
    ("tpu_vm.sh", ("logs", *POD, "--worker"), "found --worker without a value"),
    ("tpu_vm.sh", ("create", *POD), "found no --topology, which create needs"),
    ("tpu_vm.sh", ("create", *POD, "--topology", "v5p-128"), "expected one that phenaki compile knows: v4, v5e"),
    ("tpu_vm.sh", ("create", *POD, "--topology", "v5p:4x4x5"), "v5p has 2x2x1, 2x2x2"),
    ("tpu_vm.sh", ("create", *POD, "--topology", "v6e:4x4x4"), "v6e has 1x1, 2x2, 2x4"),
    ("tpu_vm.sh", ("run", *POD, "--gin_file", "run.gin"), "found --gin_file, expected options of this script, and --"),
    ("tpu_vm.sh", ("run", *POD, "--", "--workdir", "gs://bucket/run"), "found no --gin_file after --"),
    ("tpu_vm.sh", ("run", *POD, "--", "--gin_file", "run.gin"), "found no --workdir after --"),
    ("tpu_vm.sh", ("run", *POD, "--", "--gin_file=run.gin", "--workdir=runs/pod"), "expected gs://BUCKET/FOLDER"),
    ("tpu_vm.sh", ("run", *POD, "--", "--gin_file=run.gin", "--workdir", "gs://bucket"), "expected gs://BUCKET/FOLDER"),
    ("tpu_vm.sh", ("do", *POD), "found nothing after --, expected a command"),
    ("gke.sh", ("build",), "found no --image, which build needs"),
    ("gke.sh", ("run", *POD, "--topology", "v5p:4x4x4", *TRAIN), "found no --image, which run needs"),
    ("gke.sh", ("run", *POD, "--topology", "v5p:4x4x4", "--image", "i"), "found no --gin_file after --"),
    ("slurm.sh", ("run", "--gpus", "0", *TRAIN), "expected at least 1 of each"),
    ("slurm.sh", ("run", "--time", "a day", *TRAIN), "found --time 'a day'"),
    ("slurm.sh", ("run", *TRAIN), "found --workdir 'gs://bucket/run', expected a folder that every node has"),
    ("local.sh", ("two",), "found 'two' processes, expected a whole number"),
    ("local.sh", ("--restarts",), "found '' processes"),
    ("local.sh", ("--twice", "2"), "found --twice, expected --dry_run"),
    ("worker.sh", ("--restarts", "1"), "found no command"),
    ("tpu_vm_host.sh", ("begin",), "found 'begin', expected idle, install, start, resume, do, logs or stop"),
]


@pytest.mark.parametrize(("script", "arguments", "told"), MISTAKES)
def test_a_mistake_is_told_in_one_line(machine: Any, script: str, arguments: tuple[str, ...], told: str) -> None:
    for command in ("gcloud", "kubectl", "docker", "sbatch"):
        machine.fake(command)
    done = machine.run(script, *arguments)
    assert (done.returncode, done.stdout, machine.calls()) == (2, "", [])
    [line] = done.stderr.splitlines()
    assert line.startswith(f"launch/{script}: ")
    assert told in line


@pytest.mark.parametrize(
    ("script", "arguments", "missing", "advice"),
    [
        ("tpu_vm.sh", ("logs", *POD), "gcloud", "https://cloud.google.com/sdk/docs/install"),
        ("gke.sh", ("delete", *POD), "gcloud", "https://cloud.google.com/sdk/docs/install"),
        ("gke.sh", ("logs", *POD), "kubectl", "gcloud components install kubectl"),
        ("gke.sh", ("build", "--image", "i"), "docker", "https://docs.docker.com"),
        ("slurm.sh", ("run", "--", "--gin_file", "run.gin", "--workdir", "runs/a"), "sbatch", "login node"),
        ("slurm.sh", ("stop",), "scancel", "login node"),
    ],
)
def test_a_missing_tool_is_named(
    machine: Any, script: str, arguments: tuple[str, ...], missing: str, advice: str
) -> None:
    done = machine.run(script, *arguments)
    [line] = done.stderr.splitlines()
    assert done.returncode == 2
    assert line.startswith(f"launch/{script}: found no {missing}: ")
    assert advice in line
    assert machine.run(script, "--dry_run", *arguments).returncode == 0


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_help_is_the_comment_that_a_script_begins_with(machine: Any, script: pathlib.Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    if script.name in ("common.sh", "slurm_job.sh"):
        return
    done = machine.run(script.name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == script.read_text().splitlines()[1].removeprefix("# ")
    assert f"launch/{script.name}" in done.stdout
    assert "set -euo" not in done.stdout


@pytest.mark.parametrize("script", LAUNCHERS)
def test_every_option_is_in_the_help(machine: Any, script: str, launch: pathlib.Path) -> None:
    read = re.search(r'^read_options "([^"]*)"[\s\\]+"([^"]*)"', (launch / script).read_text(), re.MULTILINE)
    assert read is not None
    for option in [*" ".join(read.groups()).split(), "dry_run"]:
        assert f"--{option}" in machine.run(script, "--help").stdout


def in_bash(launch: pathlib.Path, text: str) -> str:
    """What a few lines print that know launch/common.sh."""
    script = f". {launch}/common.sh\n{text}"
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout


def test_a_bash_that_is_too_old_is_told(launch: pathlib.Path) -> None:
    for major, minor, told in [(4, 4, ""), (5, 1, ""), (99, 0, "expected 99.0 or newer"), (5, 99, "expected 5.99")]:
        script = f". {launch}/common.sh; need_bash {major} {minor}"
        done = subprocess.run(["bash", "-c", script, "launch/x.sh"], capture_output=True, text=True)
        assert done.returncode == (2 if told else 0)
        assert told in done.stderr
        assert done.stderr.count("\n") == bool(told)


def test_the_topologies_are_those_of_phenaki_compile(launch: pathlib.Path) -> None:
    there = set(
        subprocess.run([sys.executable, "-c", ASKED], capture_output=True, text=True, check=True).stdout.split()
    )
    chips = {name.partition(":")[0] for name in there}
    others = {
        f"{name}:{shape}" for name in chips for shape in ("1x2", "4x2", "4x4x1", "4x6x8", "8x4x4", "24x24x28", "")
    }
    assert chips == {"v4", "v5e", "v5p", "v6e", "tpu7x"}
    assert "v4:16x16x20" not in there  # more chips than a pod has
    asked = sorted(there | others | {"v4:16x16x20", "v3:4x4", "v5p"})
    loop = f'for topology in {" ".join(asked)}; do (describe_topology) 2>/dev/null && echo "$topology"; done; true'
    assert set(in_bash(launch, loop).split()) == there


@pytest.mark.parametrize(
    ("topology", "expected"),
    [
        ("v4:4x4x4", "64 16 4 v4-128 tpu-ubuntu2204-base tpu-v4-podslice ct4p-hightpu-4t"),
        ("v5e:8x8", "64 16 4 v5litepod-64 v2-alpha-tpuv5-lite tpu-v5-lite-podslice ct5lp-hightpu-4t"),
        ("v5p:4x4x4", "64 16 4 v5p-128 v2-alpha-tpuv5 tpu-v5p-slice ct5p-hightpu-4t"),
        ("v6e:8x8", "64 16 4 v6e-64 v2-alpha-tpuv6e tpu-v6e-slice ct6e-standard-4t"),
        ("v6e:2x4", "8 1 8 v6e-8 v2-alpha-tpuv6e tpu-v6e-slice ct6e-standard-8t"),
        ("v6e:1x1", "1 1 1 v6e-1 v2-alpha-tpuv6e tpu-v6e-slice ct6e-standard-1t"),
        ("tpu7x:2x2x1", "4 1 4 tpu7x-8 v2-alpha-tpu7-ubuntu2404 tpu7x tpu7x-standard-4t"),
    ],
)
def test_the_clouds_names_of_a_topology(launch: pathlib.Path, topology: str, expected: str) -> None:
    facts = "chips hosts chips_per_host accelerator_type runtime_version gke_accelerator machine_type"
    show = " ".join(f"${fact}" for fact in facts.split())
    assert in_bash(launch, f"topology={topology}\ndescribe_topology\necho {show}").strip() == expected


@pytest.mark.parametrize(
    "word", ["plain", "", "two words", "it's", '"', "a$HOME`b`", "é", "new\nline", "a\\b", "*", "~"]
)
def test_quoted_words_are_read_back_as_they_were(launch: pathlib.Path, word: str) -> None:
    script = f'. {launch}/common.sh; eval "set -- $(quoted "$1" x "$1")"; printf "%s|" "$@"'
    done = subprocess.run(["bash", "-c", script, "bash", word], capture_output=True, text=True, check=True)
    assert done.stdout == f"{word}|x|{word}|"


def test_local_processes_are_told_how_to_find_each_other(machine: Any) -> None:
    done = machine.run("local.sh", "--dry_run", "2", "--gin_file", "a b.gin", PORT="7", PHENAKI="phenaki")
    joined = ["phenaki", "train", "--gin_file", "a b.gin", "--coordinator", "localhost:7", "--processes", "2"]
    commands = [shlex.split(line) for line in done.stdout.splitlines()]
    assert commands == [[*joined, "--process", str(process), "&"] for process in range(2)]
