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
# Of JobSet's CustomResourceDefinition (v1alpha2, of August 2026), which holds batch/v1's Job and its pods, the fields
# that are used; a field that is not here does not exist, one with ! is required.
SCHEMA = {
    "apiVersion!": TEXT,
    "kind!": TEXT,
    "metadata!": {"name!": TEXT, "annotations": MAP},
    "spec!": {
        "network": {"enableDNSHostnames": YES_OR_NO, "publishNotReadyAddresses": YES_OR_NO},
        "failurePolicy": {
            "maxRestarts": NUMBER,
            "rules": [{"name!": TEXT, "action!": TEXT, "onJobFailureReasons": TEXTS}],
        },
        "replicatedJobs": [
            {
                "name!": TEXT,
                "replicas": NUMBER,
                "template!": {
                    "spec": {
                        "parallelism": NUMBER,
                        "completions": NUMBER,
                        "completionMode": TEXT,
                        "backoffLimit": NUMBER,
                        "podFailurePolicy": {
                            "rules!": [
                                {
                                    "action!": TEXT,
                                    "onExitCodes": {"containerName": TEXT, "operator!": TEXT, "values!": NUMBERS},
                                }
                            ]
                        },
                        "template!": {
                            "metadata": {"annotations": MAP},
                            "spec": {
                                "restartPolicy": TEXT,
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
    assert (found["apiVersion"], found["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert faults(found, SCHEMA) == []
    assert "${" not in str(found)
    # The check itself finds what is wrong.
    found["spec"]["replicatedJobs"][0]["template"]["spec"]["paralelism"] = 16
    found["spec"]["failurePolicy"]["maxRestarts"] = "20"
    del found["spec"]["failurePolicy"]["rules"][0]["name"]
    assert faults(found, SCHEMA) == [
        ".spec.failurePolicy.maxRestarts: '20' is no integer",
        ".spec.failurePolicy.rules[0].name is missing",
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


@pytest.mark.parametrize(
    ("topology", "slices", "machine_type", "hosts"),
    [("v5p:4x4x4", 2, "ct5p-hightpu-4t", 16), ("v6e:2x4", 1, "ct6e-standard-8t", 1)],
)
def test_a_node_pool_for_each_slice(machine: Any, topology: str, slices: int, machine_type: str, hosts: int) -> None:
    commands = machine.commands("gke.sh", "create", *POD, "--topology", topology, "--slices", str(slices), "--spot")
    cluster, *pools, credentials, jobset = commands
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
    _, policy, pool, *_ = machine.commands("gke.sh", "create", *where)
    assert policy[1:6] == ["compute", "resource-policies", "create", "workload-policy", "pod"]
    assert {*policy} >= {"--region=us-east5", "--accelerator-topology=4x4x4"}
    assert "--placement-policy=pod" in pool
    assert machine.commands("gke.sh", "delete", *where)[1][1:4] == ["compute", "resource-policies", "delete"]


@pytest.mark.parametrize("command", ["create", "logs", "stop", "delete"])
def test_what_a_dry_run_prints_is_what_is_run(machine: Any, command: str) -> None:
    arguments = (command, *POD, "--topology", "v5p:4x4x4")
    printed = machine.commands("gke.sh", *arguments)
    for name in ("gcloud", "kubectl"):
        machine.fake(name)
    assert machine.run("gke.sh", *arguments).returncode == 0
    assert machine.calls() == printed


def test_an_image_is_made_of_what_is_committed(machine: Any) -> None:
    printed = machine.run("gke.sh", "--dry_run", "build", "--image", "i").stdout.splitlines()
    assert printed[1] == "docker push i"
    machine.fake("git", "echo committed")
    machine.fake("docker", 'if [[ "$1" == build ]]; then cat >context; fi')
    subprocess.run(["bash", "-c", printed[0]], cwd=machine.home, env=machine.environment({}), check=True)
    by_hand = machine.calls()
    assert machine.run("gke.sh", "build", "--image", "i").returncode == 0
    assert sorted(machine.calls()) == sorted([*by_hand, *by_hand, ["docker", "push", "i"]])
    assert (machine.home / "context").read_text() == "committed\n"
