"""SLURM: what is submitted, and what the batch script does with the codes of a step."""

import os
import signal
import subprocess
import time
from typing import Any

import pytest

TRAIN = ("--gin_file", "a b.gin", "--workdir", "runs/a", "--gin.DATA_DIR='data'")


def test_a_job_has_a_process_for_each_gpu_and_saves_before_its_time_is_up(machine: Any, launch: Any) -> None:
    [words] = machine.commands(
        "slurm.sh", "run", "--nodes=4", "--gpus", "8", "--partition", "p", "--sbatch_flags", "--mem=0 --qos=q", "--",
        *TRAIN, PHENAKI="phenaki",
    )  # fmt: skip
    script = words.index(str(launch / "slurm_job.sh"))
    assert words[0] == "sbatch"
    assert set(words[1:script]) >= {
        *("--nodes=4", "--ntasks-per-node=8", "--gpus-per-node=8", "--signal=TERM@300", "--requeue"),
        *("--open-mode=append", "--output=phenaki.log", "--partition=p", "--mem=0", "--qos=q"),
    }
    assert words[script + 1 :] == [
        "3",
        str(launch / "worker.sh"),
        "--mistake",
        "200",
        "phenaki",
        "train",
        "--distributed",
        *TRAIN,
    ]


@pytest.mark.parametrize(
    "arguments", [("run", "--name", "a", "--", *TRAIN), ("stop", "--name", "a"), ("delete", "--name", "a")]
)
def test_what_a_dry_run_prints_is_what_is_run(machine: Any, arguments: tuple[str, ...]) -> None:
    printed = machine.commands("slurm.sh", *arguments, PHENAKI="phenaki")
    for name in ("sbatch", "scancel"):
        machine.fake(name)
    assert machine.run("slurm.sh", *arguments, PHENAKI="phenaki").returncode == 0
    assert machine.calls() == printed


@pytest.mark.parametrize(
    ("codes", "expected", "steps", "queued"),
    [
        ([0], 0, 1, False),
        ([2], 2, 1, False),
        ([200], 2, 1, False),
        ([75, 200], 2, 2, False),
        ([143], 0, 1, True),
        ([1, 75, 0], 0, 3, False),
        ([137, 143], 0, 2, True),
        ([1, 1, 1], 1, 3, False),
    ],
)
def test_codes_of_a_step(machine: Any, codes: list[int], expected: int, steps: int, queued: bool) -> None:
    """Stopped is queued again, failures begin again twice, the end and mistakes are the end."""
    (machine.home / "codes").write_text("".join(f"{code}\n" for code in codes))
    machine.fake("srun", '{ read -r code; rest=$(cat); } <codes; echo "$rest" >codes; exit $code')
    machine.fake("scontrol")
    done = machine.run("slurm_job.sh", "2", "worker.sh", "a b", SLURM_JOB_ID="7")
    assert done.returncode == expected
    step, requeue = ["srun", "--wait=300", "worker.sh", "a b"], ["scontrol", "requeue", "7"]
    assert machine.calls() == [step] * steps + [requeue] * queued


def test_a_mistake_of_one_task_is_one_of_the_job(machine: Any, launch: Any) -> None:
    """The others lose it, with a higher code than its own; of all codes srun tells the highest."""
    machine.fake("phenaki", 'exit "$1"')
    machine.fake(
        "srun", 'code=0; for task in 75 2 137; do "${@:2}" "$task" || code=$(($? > code ? $? : code)); done; exit $code'
    )
    done = machine.run("slurm_job.sh", "2", str(launch / "worker.sh"), "--mistake", "200", "phenaki", SLURM_JOB_ID="7")
    assert done.returncode == 2
    assert [name for name, *_ in machine.calls()] == ["srun", "phenaki", "phenaki", "phenaki"]


def test_a_job_that_is_told_to_end_is_not_queued_again(machine: Any, launch: Any) -> None:
    machine.fake("srun", "sleep 0.5; exit 143")
    machine.fake("scontrol")
    job = subprocess.Popen([launch / "slurm_job.sh", "2", "x"], cwd=machine.home, env=machine.environment({}))
    while not machine.calls():
        time.sleep(0.02)
    os.kill(job.pid, signal.SIGTERM)
    assert job.wait(timeout=30) == 0
    assert [name for name, *_ in machine.calls()] == ["srun"]
