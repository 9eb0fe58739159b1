"""The manifests for KubeRay fit what Kubernetes accepts, each other, and the Witness of this repository."""

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from pipelines.cli.parser import command_line
from pipelines.schedule.cron import check_cron

REPOSITORY = Path(__file__).parents[3]
FOLDER = REPOSITORY / "pipelines/deploy"
SCHEMA = yaml.safe_load(Path(__file__).with_name("kuberay.yaml").read_text())
MANIFESTS = {file.stem: yaml.safe_load(file.read_text()) for file in FOLDER.glob("*.yaml")}
CLUSTER, JOB = MANIFESTS["raycluster"], MANIFESTS["rayjob"]


def complaint(manifest: Any) -> str | None:
    """The one thing that is most wrong with a manifest, and where; None where nothing is."""
    worst = best_match(Draft202012Validator(SCHEMA).iter_errors(manifest))
    return None if worst is None else f"{worst.json_path.removeprefix('$.')}: {worst.message}"


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("name", MANIFESTS)
def test_kubernetes_accepts_it(name: str) -> None:
    assert complaint(MANIFESTS[name]) is None


def test_there_is_one_of_each_kind() -> None:
    kinds = sorted(manifest["kind"] for manifest in MANIFESTS.values())
    assert kinds == ["PersistentVolumeClaim", "RayCluster", "RayCronJob", "RayJob"]


def worker(manifest: Any) -> Any:
    return manifest["spec"]["workerGroupSpecs"][0]


def container(manifest: Any) -> Any:
    return worker(manifest)["template"]["spec"]["containers"][0]


def renamed(of: Any, key: str, other: str) -> None:
    of[other] = of.pop(key)


@pytest.mark.parametrize(
    ("name", "break_it", "message"),
    [
        ("raycluster", lambda m: renamed(m["spec"], "enableInTreeAutoscaling", "autoscaling"),
         "spec: .*'autoscaling' was unexpected"),
        ("raycluster", lambda m: m["spec"].pop("headGroupSpec"), "spec: 'headGroupSpec' is a required property"),
        ("raycluster", lambda m: m.update(apiVersion="ray.io/v1alpha1"), "apiVersion: 'ray.io/v1' was expected"),
        ("raycluster", lambda m: m["spec"]["authOptions"].update(mode="tokens"),
         r"spec.authOptions.mode: 'tokens' is not one of \['disabled', 'token'\]"),
        ("raycluster", lambda m: m["spec"]["headGroupSpec"]["rayStartParams"].update({"num-cpus": 0}),
         "spec.headGroupSpec.rayStartParams.*: 0 is not of type 'string'"),
        ("raycluster", lambda m: worker(m).update(minReplicas="0"),
         r"spec.workerGroupSpecs\[0\].minReplicas: '0' is not of type 'integer'"),
        ("raycluster", lambda m: container(m)["resources"]["limits"].update(memory="32GB"),
         r"spec.workerGroupSpecs\[0\].template.spec.containers\[0\].resources.limits.memory: '32GB' does not match"),
        ("rayjob", lambda m: m["spec"].update(clusterSelector={"ray.io/cluster": "witness"}),
         "spec.clusterSelector: {'ray.io/cluster': 'witness'} is expected to be empty"),
        ("rayjob", lambda m: m["spec"].pop("rayClusterSpec"), "spec: 'clusterSelector' is a required property"),
        ("rayjob", lambda m: m["spec"].update(shutdownAfterJobFinishes="yes"),
         "spec.shutdownAfterJobFinishes: 'yes' is not of type 'boolean'"),
        ("raycronjob", lambda m: m["spec"].pop("schedule"), "spec: 'schedule' is a required property"),
        ("raycronjob", lambda m: renamed(m["spec"]["jobTemplate"], "entrypoint", "entryPoint"),
         r"spec.jobTemplate: .*'entryPoint' was unexpected"),
        ("shared-volume", lambda m: m["spec"].update(accessModes=["ReadWriteAll"]),
         r"spec.accessModes\[0\]: 'ReadWriteAll' is not one of"),
        ("shared-volume", lambda m: m.update(kind="Volume"), "kind: 'Volume' is not one of"),
    ],
)  # fmt: skip
def test_a_manifest_that_does_not_fit_gets_one_message_that_says_where(
    name: str, break_it: Callable[[Any], None], message: str
) -> None:
    broken = copy.deepcopy(MANIFESTS[name])
    break_it(broken)
    assert re.match(message, complaint(broken) or "")


def pods(cluster: Any) -> list[Any]:
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


def test_a_job_has_a_cluster_like_the_one_that_stays() -> None:
    assert JOB["spec"]["rayClusterSpec"] == CLUSTER["spec"]


def test_the_head_does_no_work_and_only_workers_have_gpus() -> None:
    assert CLUSTER["spec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    gpus = [pod["containers"][0]["resources"]["limits"].get("nvidia.com/gpu") for pod in pods(CLUSTER["spec"])]
    assert gpus == [None, 1]


def test_the_version_of_ray_is_the_one_in_the_image() -> None:
    (version,) = re.findall(r"^ray==(\S+)", (REPOSITORY / "constraints.txt").read_text(), flags=re.MULTILINE)
    assert CLUSTER["spec"]["rayVersion"] == version


def test_every_node_has_the_same_image_user_and_disk() -> None:
    found = [(pod["containers"][0]["image"], pod["securityContext"], pod["volumes"]) for pod in pods(CLUSTER["spec"])]
    (image, user, volumes), *others = found
    assert others == [(image, user, volumes)] * len(others)
    assert f"USER {user['runAsUser']}\n" in (FOLDER / "Dockerfile").read_text() and user["runAsNonRoot"]
    claims = [volume["persistentVolumeClaim"]["claimName"] for volume in volumes]
    assert claims == [MANIFESTS["shared-volume"]["metadata"]["name"]]
    mounts = [pod["containers"][0]["volumeMounts"] for pod in pods(CLUSTER["spec"])]
    assert mounts == [[{"name": volumes[0]["name"], "mountPath": "/shared"}]] * len(mounts)


@pytest.mark.parametrize("job", [JOB["spec"], MANIFESTS["raycronjob"]["spec"]["jobTemplate"]])
def test_an_entrypoint_is_a_command_whose_files_lie_on_the_shared_disk(job: Any) -> None:
    program, *arguments = job["entrypoint"].split()
    assert program == "witness"
    options = command_line().parse_args(arguments)
    assert str(getattr(options, "schedule", None) or options.output).startswith("/shared/")


def test_the_schedule_runs_on_the_cluster_that_stays_at_a_time_that_exists() -> None:
    spec = MANIFESTS["raycronjob"]["spec"]
    assert spec["jobTemplate"]["clusterSelector"] == {"ray.io/cluster": CLUSTER["metadata"]["name"]}
    check_cron(spec["schedule"])
