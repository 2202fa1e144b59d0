"""Cloud TPU VMs: which commands create, install, run, follow, resume and delete, and what a worker does with them."""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import time
from typing import Any

import pytest

POD = ("--name", "pod", "--project", "p", "--zone", "z")
WHERE = ["--project=p", "--zone=z"]
TRAIN = ("--gin_file", "run.gin", "--workdir", "gs://bucket/run", "--gin.DATA_DIR='gs://data/a b'")
ON_HOST = ("--gin_file", "run.gin", "--workdir", "/gcs/bucket/run", "--gin.DATA_DIR='/gcs/data/a b'")
QUEUED = ["gcloud", "compute", "tpus", "queued-resources"]
SSH = ["gcloud", "compute", "tpus", "tpu-vm", "ssh"]
# Reports the states in the file `states`, one at each asking; the last for good.
DESCRIBES = """if [[ "$4" == describe ]]; then
  read -r state <states
  rest="$(tail -n +2 states)"
  [[ -z "$rest" ]] || echo "$rest" >states
  [[ "$state" =~ ^[A-Z_]+$ ]] || { echo "ERROR: $state" >&2; exit 1; }
  echo "a warning: gcloud is old" >&2
  echo "$state"
fi"""


def kinds(calls: list[list[str]]) -> list[str]:
    """What of gcloud was called, such as "create" and "ssh"."""
    return [call[4] for call in calls if call[0] == "gcloud"]


def test_create_asks_for_a_slice_and_waits_for_it(machine: Any) -> None:
    [_, asked, described] = machine.commands("tpu_vm.sh", "create", *POD, "--topology", "v5p:4x4x4", "--spot")
    assert asked[:7] == [*QUEUED, "create", "pod", *WHERE][:7]
    assert {*asked} >= {
        *WHERE,
        "--accelerator-type=v5p-128",
        "--runtime-version=v2-alpha-tpuv5",
        "--node-id=pod",
        "--spot",
    }
    assert described == [*QUEUED, "describe", "pod", *WHERE, "--format=value(state.state)"]


def test_several_slices_are_one_queued_resource_of_several_nodes(machine: Any) -> None:
    more = ("--slices", "2", "--runtime=other", "--create_flags", "--reserved --network=n")
    [_, asked, _] = machine.commands("tpu_vm.sh", "create", *POD, "--topology", "v6e:8x8", *more)
    assert {*asked} >= {"--node-count=2", "--node-prefix=pod", "--runtime-version=other", "--reserved", "--network=n"}
    assert "--node-id=pod" not in asked
    commands = machine.commands("tpu_vm.sh", "stop", *POD, "--slices", "2")
    assert [command[:6] for command in commands] == [[*SSH, "pod-0"], [*SSH, "pod-1"]]
    [command] = machine.commands("tpu_vm.sh", "logs", *POD, "--slices", "2", "--slice", "1", "--worker", "3")
    assert command == [*SSH, "pod-1", *WHERE, "--worker=3", "--command=phenaki_jax/launch/tpu_vm_host.sh logs"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("create", *POD, "--topology", "v5e:8x8"),
        ("install", *POD),
        ("install", *POD, "--slices", "2"),
        ("run", *POD, "--", *TRAIN),
        ("do", *POD, "--", "phenaki", "precompute", "--out", "gs://bucket/tokens"),
        ("logs", *POD),
        ("stop", *POD, "--slices", "2"),
        ("delete", *POD),
    ],
)
def test_what_a_dry_run_prints_is_what_is_run(machine: Any, arguments: tuple[str, ...]) -> None:
    printed = machine.commands("tpu_vm.sh", *arguments)
    machine.fake("gcloud", DESCRIBES)
    machine.fake("git")
    (machine.home / "states").write_text("NOT_FOUND: no such\nACTIVE\n")
    assert machine.run("tpu_vm.sh", *arguments).returncode == 0
    assert sorted(machine.calls()) == sorted(printed)  # of several slices, at once


ANEW = ["create", "describe"]
STATES = [
    ("ACTIVE", ["describe"]),
    ("NOT_FOUND: no such\nACTIVE", ["describe", *ANEW]),
    ("SUSPENDED\nPROVISIONING\nACTIVE", ["describe", "delete", *ANEW, "describe"]),
    ("FAILED\nACTIVE", ["describe", "delete", *ANEW]),
    ("SUSPENDING\nSUSPENDED\nACTIVE", ["describe", "describe", "delete", *ANEW]),
    # What is asked for already keeps its place in the queue.
    *((f"{waits}\nACTIVE", ["describe"] * 2) for waits in ("ACCEPTED", "WAITING_FOR_RESOURCES", "CREATING")),
    # A network that fails in between ends no wait.
    ("PROVISIONING\n" + "no network\n" * 10 + "ACTIVE", ["describe"] * 12),
]


@pytest.mark.parametrize(("states", "expected"), STATES)
def test_create_waits_for_what_is_asked_for_and_asks_for_what_is_not(
    machine: Any, states: str, expected: list[str]
) -> None:
    machine.fake("gcloud", DESCRIBES)
    (machine.home / "states").write_text(f"{states}\n")
    done = machine.run("tpu_vm.sh", "create", *POD, "--topology", "v5p:4x4x4")
    assert (done.returncode, kinds(machine.calls())) == (0, expected)


@pytest.mark.parametrize(
    ("states", "expected"),
    [("ACTIVE", ["describe"]), ("SUSPENDED\nACTIVE", ["describe", "delete", *ANEW, "ssh", "scp", "ssh"])],
)
def test_resume_makes_anew_what_is_gone(machine: Any, states: str, expected: list[str]) -> None:
    machine.fake("gcloud", DESCRIBES)
    machine.fake("git")
    (machine.home / "states").write_text(f"{states}\n")
    done = machine.run("tpu_vm.sh", "resume", *POD, "--topology", "v5p:4x4x4", "--", *TRAIN)
    assert (done.returncode, kinds(machine.calls())) == (0, [*expected, "ssh"])
    # And the run is that of `run`, but where one runs.
    last = machine.calls()[-1]
    [run] = machine_commands(machine, "run", *POD, "--", *TRAIN)
    assert last == [*run[:-1], run[-1].replace("tpu_vm_host.sh start", "tpu_vm_host.sh resume")]


def machine_commands(machine: Any, *arguments: str) -> list[list[str]]:
    """What a dry run prints on a machine where others ran before it."""
    (machine.home / "calls").unlink()
    commands: list[list[str]] = machine.commands("tpu_vm.sh", *arguments)
    return commands


@pytest.mark.parametrize(
    ("command", "states", "told"),
    [
        ("resume", "permission denied", "the state of pod cannot be told: ERROR: permission denied"),
        ("create", "NOT_FOUND: no\nFAILED", "pod is FAILED: see gcloud compute tpus queued-resources describe pod"),
        ("create", "PROVISIONING\nno network", "the state of pod cannot be told: ERROR: no network"),
    ],
)
def test_what_cannot_be_created_is_told(machine: Any, command: str, states: str, told: str) -> None:
    machine.fake("gcloud", DESCRIBES)
    (machine.home / "states").write_text(f"{states}\n")
    done = machine.run("tpu_vm.sh", command, *POD, "--topology", "v5p:4x4x4", "--", *TRAIN)
    assert done.returncode == 2
    assert told in done.stderr.splitlines()[-1]
    assert "ssh" not in kinds(machine.calls())


def test_a_worker_that_fails_fails_the_command(machine: Any) -> None:
    machine.fake("gcloud", '[[ "$5" == pod-0 ]] || exit 7')
    assert machine.run("tpu_vm.sh", "stop", *POD, "--slices", "2").returncode == 7
    assert len(machine.calls()) == 2


ON_THIS_MACHINE = 'for word in "$@"; do if [[ "$word" == --command=* ]]; then exec bash -c "${word#*=}"; fi; done'


@pytest.fixture
def worker(machine: Any, launch: pathlib.Path) -> Any:
    """A machine that is its own only worker: what gcloud is to run there runs here."""
    shutil.copytree(launch, machine.home / "phenaki_jax" / "launch")
    phenaki = machine.home / "phenaki_jax" / ".venv" / "bin" / "phenaki"
    phenaki.parent.mkdir(parents=True)
    phenaki.symlink_to(machine.fake("phenaki", "trap 'exit 0' TERM; echo begun >&2; while :; do sleep 0.05; done"))
    machine.fake("mountpoint")
    machine.fake("gcloud", ON_THIS_MACHINE)
    yield machine
    session = machine.home / "phenaki.session"
    if session.exists():
        # Also one that has not begun its session yet.
        for kill in (os.kill, os.killpg):
            with contextlib.suppress(ProcessLookupError):
                kill(int(session.read_text()), signal.SIGKILL)


def until(is_so: Any) -> None:
    """Waits for it, some seconds at most."""
    end = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_run_goes_on_by_itself_and_ends_when_it_is_asked_to(worker: Any) -> None:
    log = worker.home / "phenaki.log"
    assert worker.run("tpu_vm.sh", "run", *POD, "--", *TRAIN).returncode == 0
    until(lambda: log.exists() and "begun" in log.read_text())
    assert ["phenaki", "train", "--distributed", *ON_HOST, "--stopped_code", "143"] in worker.calls()
    for command in (("run", *POD, "--", *TRAIN), ("install", *POD)):
        again = worker.run("tpu_vm.sh", *command)
        assert again.returncode == 2
        assert "a training runs here already" in again.stderr
    # Of a pod only those begin again that have ended.
    worker.fake("gcloud", f'if [[ "$4" == describe ]]; then echo ACTIVE; else {ON_THIS_MACHINE}; fi')
    resumed = worker.run("tpu_vm.sh", "resume", *POD, "--topology", "v5p:4x4x4", "--", *TRAIN)
    assert (resumed.returncode, resumed.stdout) == (0, "a training runs here still\n")
    assert [call[0] for call in worker.calls()].count("phenaki") == 1
    session = (worker.home / "phenaki.session").read_text().strip()
    assert worker.run("tpu_vm.sh", "stop", *POD).returncode == 0
    until(lambda: subprocess.run(["bash", "-c", f"kill -0 -- -{session}"], capture_output=True).returncode)


def test_buckets_are_mounted_so_that_they_outlive_the_training(worker: Any) -> None:
    worker.fake("mountpoint", "exit 1")
    worker.fake("sudo")
    assert worker.run("tpu_vm.sh", "run", *POD, "--", *TRAIN).returncode == 0
    unmounted, made, mounted = [call[1:] for call in worker.calls() if call[0] == "sudo"][:3]
    assert unmounted == ["umount", "--lazy", "/gcs"]
    # The bare folder stays root's.
    assert made == ["mkdir", "-p", "/gcs"]
    service, gcsfuse = mounted[: mounted.index("gcsfuse")], mounted[mounted.index("gcsfuse") :]
    assert service[0] == "systemd-run"
    assert {*service} >= {"--property=Type=forking", "--property=Before=systemd-user-sessions.service"}
    assert gcsfuse[:3] == ["gcsfuse", "-o", "allow_other"]
    assert {*gcsfuse} >= {f"--uid={os.getuid()}", f"--gid={os.getgid()}"}
    # And without a memory of their files.
    assert {*gcsfuse} >= {"--metadata-cache-ttl-secs=0", "--metadata-cache-negative-ttl-secs=0"}
    assert gcsfuse[-1] == "/gcs"


def test_every_attempt_finds_the_buckets(worker: Any) -> None:
    worker.fake("mountpoint", "[[ -e ~/mounted ]]")
    worker.fake("sudo", 'if [[ "$1" == systemd-run ]]; then echo >~/mounted; fi')
    worker.fake("phenaki", "rm ~/mounted; echo attempt; exit 75")
    log = worker.home / "phenaki.log"
    assert worker.run("tpu_vm.sh", "run", *POD, "--restarts", "2", "--", *TRAIN).returncode == 0
    until(lambda: log.exists() and log.read_text().count("attempt\n") == 3)
    begun = [call[1] if call[0] == "sudo" else call[0] for call in worker.calls()]
    assert [name for name in begun if name in ("phenaki", "systemd-run")] == ["systemd-run", "phenaki"] * 3


def test_a_training_that_is_told_to_end_is_not_killed_with_its_session(worker: Any) -> None:
    worker.fake("phenaki", "trap 'sleep 0.2; echo saved; exit 143' TERM; echo begun; while :; do sleep 0.05; done")
    log = worker.home / "phenaki.log"
    assert worker.run("tpu_vm.sh", "run", *POD, "--", *TRAIN).returncode == 0
    until(lambda: log.exists() and "begun" in log.read_text())
    session = int((worker.home / "phenaki.session").read_text())
    # As systemd does when a machine goes down.
    os.killpg(session, signal.SIGTERM)
    os.killpg(session, signal.SIGHUP)
    until(lambda: "saved" in log.read_text())


def test_nothing_begins_where_the_buckets_cannot_be_mounted(worker: Any) -> None:
    worker.fake("mountpoint", "exit 1")
    worker.fake("sudo", '[[ "$1" != systemd-run ]]')
    assert worker.run("tpu_vm.sh", "run", *POD, "--", *TRAIN).returncode != 0
    assert not (worker.home / "phenaki.session").exists()


def test_any_command_runs_where_the_buckets_are(worker: Any) -> None:
    done = worker.run(
        "tpu_vm.sh", "do", *POD, "--", "bash", "-c", "pwd; command -v phenaki; echo $0", "gs://bucket/a b"
    )
    root = worker.home / "phenaki_jax"
    assert done.stdout.splitlines() == [str(root), str(root / ".venv" / "bin" / "phenaki"), "/gcs/bucket/a b"]


def test_install_takes_what_is_committed_and_the_versions_that_are_tested(worker: Any) -> None:
    for name in ("gcsfuse", "uv", "git", "tar"):
        worker.fake(name)
    assert worker.run("tpu_vm.sh", "install", *POD).returncode == 0
    calls = worker.calls()
    assert any(call[0] == "git" and call[3] == "archive" and call[-1] == "HEAD" for call in calls)
    [pip] = [call for call in calls if call[:3] == ["uv", "pip", "install"]]
    assert pip[3:] == ["--quiet", "--python", ".venv", "--constraint", "constraints.txt", "--editable", ".", "jax[tpu]"]


def test_run_without_install_is_told(worker: Any) -> None:
    shutil.rmtree(worker.home / "phenaki_jax" / ".venv")
    done = worker.run("tpu_vm.sh", "run", *POD, "--", *TRAIN)
    assert done.returncode == 2
    assert "install first" in done.stderr
