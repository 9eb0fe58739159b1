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
from kuberay_rules import amount, broken_rules

from pipelines.cli.parser import command_line

REPOSITORY = Path(__file__).parents[3]
FOLDER = REPOSITORY / "pipelines/deploy"
SCHEMA = yaml.safe_load(Path(__file__).with_name("kuberay.yaml").read_text())
MANIFESTS = {file.stem: yaml.safe_load(file.read_text()) for file in FOLDER.glob("*.yaml")}
CLUSTER, JOB = MANIFESTS["raycluster"], MANIFESTS["rayjob"]


def complaint(manifest: Any) -> str | None:
    """The one thing that is most wrong with a manifest, and where; None where nothing is."""
    worst = best_match(Draft202012Validator(SCHEMA).iter_errors(manifest))
    if worst is not None:
        return f"{worst.json_path.removeprefix('$.')}: {worst.message}"
    return next(broken_rules(manifest), None)


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


def pod(manifest: Any) -> Any:
    return worker(manifest)["template"]["spec"]


def limits(manifest: Any) -> Any:
    return container(manifest)["resources"]["limits"]


def twice(of: Any) -> None:
    of.append(copy.deepcopy(of[0]))


def selecting(manifest: Any, **labels: str) -> None:
    """Makes of a job with a cluster of its own one that selects a cluster."""
    manifest["spec"].pop("rayClusterSpec")
    manifest["spec"]["clusterSelector"] = labels


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
        ("raycronjob", lambda m: m["spec"]["jobTemplate"].update(entryPoint="ls"),
         r"spec.jobTemplate: .*'entryPoint' was unexpected"),
        ("shared-volume", lambda m: m["spec"].update(accessModes=["ReadWriteAll"]),
         r"spec.accessModes\[0\]: 'ReadWriteAll' is not one of"),
        ("shared-volume", lambda m: m.update(kind="Volume"), "kind: 'Volume' is not one of"),
        ("raycluster", lambda m: m["metadata"].update(name="witness\n"), r"metadata.name: 'witness\\n' does not match"),
        ("raycluster", lambda m: container(m).pop("image"), r"spec.workerGroupSpecs\[0\].*: 'image' is a required"),
        ("raycluster", lambda m: container(m).update(image=""), r"spec.*\.image: '' does not match"),
        ("raycluster", lambda m: container(m).update(image="a b"), r".*image: 'a b' does not match"),
        ("raycluster", lambda m: worker(m).update(groupName=""), r"spec.workerGroupSpecs\[0\].groupName: '' should be"),
        ("raycluster", lambda m: worker(m).update(numOfHosts=0), ".*numOfHosts: 0 is less than the minimum of 1"),
        ("raycluster", lambda m: worker(m).update(minReplicas=9), r"spec.workerGroupSpecs\[0\]: minReplicas is above"),
        *(("raycluster", lambda m, key=key: worker(m).update({key: -1}), f".*{key}: -1 is less than the minimum of 0")
          for key in ("replicas", "minReplicas", "maxReplicas")),
        ("raycluster", lambda m: twice(m["spec"]["workerGroupSpecs"]), r"spec.workerGroupSpecs: .* is there 2 times"),
        ("raycluster", lambda m: twice(pod(m)["containers"]), r".*\.containers: .* is there 2 times"),
        ("raycluster", lambda m: twice(pod(m)["volumes"]), r".*\.volumes: .* is there 2 times"),
        ("raycluster", lambda m: twice(container(m)["volumeMounts"]), r".*volumeMounts: /shared is there 2 times"),
        ("raycluster", lambda m: container(m)["volumeMounts"][0].update(name="other"),
         r"spec.headGroupSpec.template.spec.containers\[0\].volumeMounts: there is no volume other"),  # an alias of it
        ("raycluster", lambda m: pod(m).pop("volumes"), ".*volumeMounts: there is no volume shared"),
        *(("raycluster", lambda m, gpus=gpus: limits(m).update({"nvidia.com/gpu": gpus}),
           r".*resources: nvidia.com/gpu must be a whole number") for gpus in ("0.5", 0.5, "500m")),
        ("raycluster", lambda m: container(m)["resources"].update(requests={"nvidia.com/gpu": 2}),
         ".*resources: requests.nvidia.com/gpu is above its limit"),
        ("raycluster", lambda m: container(m)["resources"].update(requests={"memory": "1Ti"}),
         ".*resources: requests.memory is above its limit"),
        ("raycluster", lambda m: limits(m).update(cpu="1e"), ".*limits.cpu: '1e' does not match"),
        ("raycluster", lambda m: limits(m).update(cpu=True), ".*limits.cpu: True is not of type"),
        ("rayjob", lambda m: selecting(m), "spec.clusterSelector: 'ray.io/cluster' is a required property"),
        ("rayjob", lambda m: selecting(m, **{"ray.io/cluster": ""}), "spec.clusterSelector.*: '' should be non-empty"),
        ("rayjob", lambda m: m["spec"].pop("entrypoint"), "spec: 'entrypoint' is a required property"),
        ("rayjob", lambda m: m["spec"].update(entrypoint=""), "spec.entrypoint: '' should be non-empty"),
        ("rayjob", lambda m: m["spec"].update(backoffLimit=-4), "spec.backoffLimit: -4 is less than the minimum of 0"),
        ("rayjob", lambda m: m["spec"].update(activeDeadlineSeconds=0), "spec.activeDeadlineSeconds: 0 is less than"),
        ("rayjob", lambda m: m["spec"].update(ttlSecondsAfterFinished=-1), "spec.ttlSecondsAfterFinished: -1 is less"),
        *(("raycronjob", lambda m, cron=cron: m["spec"].update(schedule=cron), r"spec.schedule: .* is not a cron expr")
          for cron in ("every night", "", "60 3 * * *")),
        ("shared-volume", lambda m: m["spec"].update(accessModes=[]), r"spec.accessModes: \[\] should be non-empty"),
        ("shared-volume", lambda m: m["spec"].update(resources={}), "spec.resources: 'requests' is a required"),
        ("shared-volume", lambda m: m["spec"]["resources"]["requests"].pop("storage"),
         "spec.resources.requests: 'storage' is a required property"),
    ],
)  # fmt: skip
def test_a_manifest_that_does_not_fit_gets_one_message_that_says_where(
    name: str, break_it: Callable[[Any], None], message: str
) -> None:
    broken = copy.deepcopy(MANIFESTS[name])
    break_it(broken)
    assert re.match(message, complaint(broken) or "")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        *(("raycluster", lambda m, cpu=cpu: limits(m).update(cpu=cpu))
          for cpu in (0.5, "1e3", "500m", ".5", "2.", "1E")),
        ("raycluster", lambda m: limits(m).update({"nvidia.com/gpu": "2000m"})),
        ("raycluster", lambda m: container(m)["resources"].update(requests={"memory": "1000M", "nvidia.com/gpu": 1})),
        ("rayjob", lambda m: selecting(m, **{"ray.io/cluster": "witness"})),
        ("rayjob", lambda m: (m["spec"].pop("entrypoint"), m["spec"].update(submissionMode="InteractiveMode"))),
    ],
)  # fmt: skip
def test_what_kubernetes_takes_is_not_refused(name: str, change: Callable[[Any], None]) -> None:
    changed = copy.deepcopy(MANIFESTS[name])
    change(changed)
    assert complaint(changed) is None


def test_quantities_of_kubernetes() -> None:
    assert [amount(own) for own in (2, 0.5, "500m", "1e3", "1E", "1.5Ki", "2.")] == [2, 0.5, 0.5, 1000, 10**18, 1536, 2]


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


def test_the_schedule_runs_on_the_cluster_that_stays() -> None:
    spec = MANIFESTS["raycronjob"]["spec"]
    assert spec["jobTemplate"]["clusterSelector"] == {"ray.io/cluster": CLUSTER["metadata"]["name"]}
