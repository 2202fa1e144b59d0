"""GKE: the cluster, and a JobSet that is what its schema and Kubernetes' ask for."""

import subprocess
from typing import Any

import pytest
import yaml

POD = ("--name", "pod", "--project", "p", "--zone", "us-east5-a")
RUN = (*POD, "--topology", "v5p:4x4x4", "--image", "registry/phenaki:1")
TRAIN = ("--gin_file", "run.gin", "--workdir", "gs://bucket/run")

TEXT, NUMBER, YES_OR_NO, TEXTS, NUMBERS = "string", "integer", "boolean", ["string"], ["integer"]
MAP = {"*": TEXT}


def one_of(*names: str) -> frozenset[str]:
    """Text that is one of these."""
    return frozenset(names)


# Of JobSet's CustomResourceDefinition (v1alpha2, of August 2026), which holds batch/v1's Job and its pods, the fields
# that are used; a field that is not here does not exist, one with ! is required. Values that Kubernetes says in words
# alone, as those of completionMode, are here too.
SCHEMA = {
    "apiVersion!": one_of("jobset.x-k8s.io/v1alpha2"),
    "kind!": one_of("JobSet"),
    "metadata!": {"name!": TEXT, "annotations": MAP},
    "spec!": {
        "network": {"enableDNSHostnames": YES_OR_NO, "publishNotReadyAddresses": YES_OR_NO},
        "failurePolicy": {
            "maxRestarts": NUMBER,
            "rules": [
                {
                    "name!": TEXT,
                    "action!": one_of(
                        *("FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"),
                        *("RestartJob", "RestartJobAndIgnoreMaxRestarts"),
                    ),
                    "onJobFailureReasons": [
                        one_of(
                            *("BackoffLimitExceeded", "DeadlineExceeded", "FailedIndexes"),
                            *("MaxFailedIndexesExceeded", "PodFailurePolicy"),
                        )
                    ],
                }
            ],
        },
        "replicatedJobs": [
            {
                "name!": TEXT,
                "replicas": NUMBER,
                "template!": {
                    "spec": {
                        "parallelism": NUMBER,
                        "completions": NUMBER,
                        "completionMode": one_of("NonIndexed", "Indexed"),
                        "backoffLimit": NUMBER,
                        "podFailurePolicy": {
                            "rules!": [
                                {
                                    "action!": one_of("FailJob", "FailIndex", "Ignore", "Count"),
                                    "onExitCodes": {
                                        "containerName": TEXT,
                                        "operator!": one_of("In", "NotIn"),
                                        "values!": NUMBERS,
                                    },
                                }
                            ]
                        },
                        "template!": {
                            "metadata": {"annotations": MAP},
                            "spec": {
                                "restartPolicy": one_of("Always", "OnFailure", "Never"),
                                "serviceAccountName": TEXT,
                                "terminationGracePeriodSeconds": NUMBER,
                                "nodeSelector": MAP,
                                "containers!": [
                                    {
                                        "name!": TEXT,
                                        "image": TEXT,
                                        "args": TEXTS,
                                        "resources": {"limits": {"*": NUMBER}},
                                        "volumeMounts": [{"name!": TEXT, "mountPath!": TEXT}],
                                    }
                                ],
                                "volumes": [
                                    {"name!": TEXT, "csi": {"driver!": TEXT, "volumeAttributes": MAP}},
                                ],
                            },
                        },
                    }
                },
            }
        ],
    },
}
TYPES = {TEXT: str, NUMBER: int, YES_OR_NO: bool}


def faults(value: Any, schema: Any, place: str = "") -> list[str]:
    """Where a document is not what a schema asks for."""
    if isinstance(schema, str):
        return [] if type(value) is TYPES[schema] else [f"{place}: {value!r} is no {schema}"]
    if isinstance(schema, frozenset):
        return [] if value in schema else [f"{place}: {value!r} is none of {', '.join(sorted(schema))}"]
    if isinstance(schema, list):
        if not isinstance(value, list):
            return [f"{place}: {value!r} is no list"]
        return [fault for i, each in enumerate(value) for fault in faults(each, schema[0], f"{place}[{i}]")]
    if not isinstance(value, dict):
        return [f"{place}: {value!r} is no mapping"]
    known = {name.rstrip("!"): each for name, each in schema.items()}
    missing = [name[:-1] for name in schema if name.endswith("!") and name[:-1] not in value]
    return [f"{place}.{name} is missing" for name in missing] + [
        fault
        for name, each in value.items()
        for fault in (
            faults(each, known.get(name, known.get("*")), f"{place}.{name}")
            if name in known or "*" in known
            else [f"{place}.{name} does not exist"]
        )
    ]


def manifest(machine: Any, *arguments: str) -> Any:
    """What is given to kubectl create."""
    done = machine.run("gke.sh", "--dry_run", "run", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    first, *lines, last = done.stdout.splitlines()
    assert first == "kubectl --context=gke_p_us-east5-a_pod create --filename=- <<'END'"
    assert last == "END"
    return yaml.safe_load("\n".join(lines))


def test_the_manifest_is_what_the_schema_asks_for(machine: Any) -> None:
    found = manifest(machine, *RUN, "--", *TRAIN)
    assert faults(found, SCHEMA) == []
    assert "${" not in str(found)
    # The check itself finds what is wrong.
    job = found["spec"]["replicatedJobs"][0]["template"]["spec"]
    job["completionMode"] = "indexed"
    job["paralelism"] = 16
    found["spec"]["failurePolicy"]["maxRestarts"] = "20"
    del found["spec"]["failurePolicy"]["rules"][0]["name"]
    assert faults(found, SCHEMA) == [
        ".spec.failurePolicy.maxRestarts: '20' is no integer",
        ".spec.failurePolicy.rules[0].name is missing",
        ".spec.replicatedJobs[0].template.spec.completionMode: 'indexed' is none of Indexed, NonIndexed",
        ".spec.replicatedJobs[0].template.spec.paralelism does not exist",
    ]


def test_a_job_for_each_slice_and_a_pod_for_each_host(machine: Any) -> None:
    found = manifest(
        machine, *RUN, "--slices", "2", "--restarts=7", "--grace", "90", "--service_account=a", "--", *TRAIN
    )
    [job] = found["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    pod = spec["template"]["spec"]
    [container] = pod["containers"]
    assert (found["metadata"]["name"], job["replicas"], found["spec"]["failurePolicy"]["maxRestarts"]) == ("pod", 2, 7)
    assert (spec["parallelism"], spec["completions"], spec["completionMode"]) == (16, 16, "Indexed")
    assert (pod["terminationGracePeriodSeconds"], pod["serviceAccountName"]) == (90, "a")
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5p-slice",
        "cloud.google.com/gke-tpu-topology": "4x4x4",
    }
    assert (container["image"], container["resources"]) == ("registry/phenaki:1", {"limits": {"google.com/tpu": 4}})


def test_names_that_yaml_would_take_for_something_else_stay_names(machine: Any) -> None:
    like_yaml = ("--service_account", "on", "--image", "1.50", "--topology", "v5p:4x4x4")
    done = machine.run("gke.sh", "--dry_run", "run", *POD, "--name", "null", *like_yaml, "--", *TRAIN)
    found = yaml.safe_load("\n".join(done.stdout.splitlines()[1:-1]))
    pod = found["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    assert (found["metadata"]["name"], pod["serviceAccountName"]) == ("null", "on")
    assert pod["containers"][0]["image"] == "1.50"


def test_a_mistake_fails_at_once_and_anything_else_begins_again(machine: Any) -> None:
    spec = manifest(machine, *RUN, "--", *TRAIN)["spec"]
    [rule] = spec["failurePolicy"]["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])
    job = spec["replicatedJobs"][0]["template"]["spec"]
    [rule] = job["podFailurePolicy"]["rules"]
    assert rule == {
        "action": "FailJob",
        "onExitCodes": {"containerName": "train", "operator": "In", "values": [2]},
    }
    # Kubernetes takes that policy of no other pods.
    assert job["template"]["spec"]["restartPolicy"] == "Never"
    assert job["template"]["spec"]["containers"][0]["name"] == "train"
    assert job["backoffLimit"] == 0


def test_arguments_reach_the_pod_as_they_are(machine: Any) -> None:
    odd = ["--gin.A='x \"y\" \\ z'", "--gin.B=${NAME} & $HOME", "é: [#"]
    found = manifest(machine, *RUN, "--", *TRAIN, *odd, "--gin.C=$(POD)")
    [container] = found["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["containers"]
    # Kubernetes reads $$( as $(.
    assert container["args"] == ["--gin_file", "run.gin", "--workdir", "/gcs/bucket/run", *odd, "--gin.C=$$(POD)"]


def test_the_image_runs_what_tells_mistakes_from_failures(launch: Any) -> None:
    assert 'ENTRYPOINT ["launch/worker.sh", "phenaki", "train", "--distributed"]' in (launch / "Dockerfile").read_text()


@pytest.mark.parametrize("command", ["run", "resume"])
def test_the_manifest_that_is_applied_is_the_one_that_is_printed(machine: Any, command: str) -> None:
    printed = manifest(machine, *RUN, "--", *TRAIN)
    machine.fake("kubectl", 'if [[ "$2" == create ]]; then cat >applied; fi')
    assert machine.run("gke.sh", command, *RUN, "--", *TRAIN).returncode == 0
    assert yaml.safe_load((machine.home / "applied").read_text()) == printed
    assert [call[2] for call in machine.calls()] == {"run": ["create"], "resume": ["delete", "create"]}[command]


def test_a_training_that_is_there_already_is_told_in_one_line(machine: Any) -> None:
    machine.fake("kubectl", 'echo "Error from server (AlreadyExists): jobsets \\"pod\\" already exists" >&2; exit 1')
    done = machine.run("gke.sh", "run", *RUN, "--", *TRAIN)
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert "resume" in line
    machine.fake("kubectl", "echo 'error: no connection' >&2; exit 1")
    done = machine.run("gke.sh", "run", *RUN, "--", *TRAIN)
    assert (done.returncode, done.stderr) == (1, "error: no connection\n")


def made(calls: list[list[str]]) -> list[list[str]]:
    """All but questions after what is there."""
    return [call for call in calls if "describe" not in call[:5]]


@pytest.mark.parametrize(
    ("topology", "slices", "machine_type", "hosts"),
    [("v5p:4x4x4", 2, "ct5p-hightpu-4t", 16), ("v6e:2x4", 1, "ct6e-standard-8t", 1)],
)
def test_a_node_pool_for_each_slice(machine: Any, topology: str, slices: int, machine_type: str, hosts: int) -> None:
    commands = machine.commands("gke.sh", "create", *POD, "--topology", topology, "--slices", str(slices), "--spot")
    cluster, *pools, credentials, jobset = made(commands)
    assert {*cluster} >= {"--location=us-east5-a", "--workload-pool=p.svc.id.goog", "--addons=GcsFuseCsiDriver"}
    assert [pool[4] for pool in pools] == [f"slice-{i}" for i in range(slices)]
    shape = topology.partition(":")[2]
    asked = {
        f"--machine-type={machine_type}",
        f"--tpu-topology={shape}",
        f"--num-nodes={hosts}",
        "--spot",
        "--cluster=pod",
    }
    assert all({*pool} >= asked for pool in pools)
    assert credentials[:5] == ["gcloud", "container", "clusters", "get-credentials", "pod"]
    assert jobset[:4] == ["kubectl", "--context=gke_p_us-east5-a_pod", "apply", "--server-side"]
    assert "kubernetes-sigs/jobset/releases/download/v0.12.0/manifests.yaml" in jobset[4]


def test_tpu7x_needs_a_policy_of_its_topology(machine: Any) -> None:
    where = (*POD, "--topology", "tpu7x:4x4x4")
    _, policy, pool, *_ = made(machine.commands("gke.sh", "create", *where))
    assert policy[1:6] == ["compute", "resource-policies", "create", "workload-policy", "pod"]
    assert {*policy} >= {"--region=us-east5", "--accelerator-topology=4x4x4"}
    assert "--placement-policy=pod" in pool
    assert machine.commands("gke.sh", "delete", *where)[1][1:4] == ["compute", "resource-policies", "delete"]
    # Slices of one host have none.
    one_host = (*POD, "--topology", "tpu7x:2x2x1")
    for command in ("create", "delete"):
        assert not any("resource-policies" in words for words in machine.commands("gke.sh", command, *one_host))


def test_create_again_makes_what_is_missing_and_what_has_failed(machine: Any) -> None:
    machine.fake(
        "gcloud",
        """case "$*" in
          *describe\\ pod*) echo RUNNING ;;
          *describe\\ slice-0*) echo RUNNING ;;
          *describe\\ slice-1*) echo ERROR ;;
          *describe*) exit 1 ;;
        esac""",
    )
    machine.fake("kubectl")
    assert machine.run("gke.sh", "create", *POD, "--topology", "v5p:4x4x4", "--slices", "3").returncode == 0
    pools = [call[3:5] for call in made(machine.calls()) if call[2] == "node-pools"]
    assert pools == [["delete", "slice-1"], ["create", "slice-1"], ["create", "slice-2"]]
    assert ["clusters", "create"] not in [call[2:4] for call in machine.calls()]
    assert [call[2] for call in machine.calls() if call[0] == "kubectl"] == ["apply"]


@pytest.mark.parametrize("command", ["create", "logs", "stop", "delete"])
def test_what_a_dry_run_prints_is_what_is_run(machine: Any, command: str) -> None:
    arguments = (command, *POD, "--topology", "v5p:4x4x4")
    printed = machine.commands("gke.sh", *arguments)
    machine.fake("gcloud", '[[ "$4" != describe ]]')
    machine.fake("kubectl")
    assert machine.run("gke.sh", *arguments).returncode == 0
    assert machine.calls() == printed


def test_an_image_is_made_of_what_is_committed(machine: Any) -> None:
    printed = machine.run("gke.sh", "--dry_run", "build", "--image", "i").stdout.splitlines()
    assert printed[1] == "docker push i"
    assert "--platform=linux/amd64" in printed[0]
    machine.fake("git", "echo committed")
    machine.fake("docker", 'if [[ "$1" == build ]]; then cat >context; fi')
    subprocess.run(["bash", "-c", printed[0]], cwd=machine.home, env=machine.environment({}), check=True)
    by_hand = machine.calls()
    assert machine.run("gke.sh", "build", "--image", "i").returncode == 0
    assert sorted(machine.calls()) == sorted([*by_hand, *by_hand, ["docker", "push", "i"]])
    assert (machine.home / "context").read_text() == "committed\n"
