"""What a manifest says in one place about another, which a schema cannot check, as Kubernetes and the operator do."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

from pipelines.schedule.cron import check_cron

_FACTORS = {
    "n": Fraction(1, 10**9), "u": Fraction(1, 10**6), "m": Fraction(1, 1000), "": Fraction(1),
    **{suffix: Fraction(1000**power) for power, suffix in enumerate("kMGTPE", start=1)},
    **{f"{suffix}i": Fraction(1024**power) for power, suffix in enumerate("KMGTPE", start=1)},
}  # fmt: skip


def broken_rules(part: Any, path: str = "") -> Iterator[str]:
    """What is wrong with a manifest that fits the schema, and where, a sentence each."""
    if isinstance(part, list):
        for number, own in enumerate(part):
            yield from broken_rules(own, f"{path}[{number}]")
    if not isinstance(part, dict):
        return
    if "containers" in part:
        yield from _of_pod(part, path)
    if "minReplicas" in part and part["minReplicas"] > part["maxReplicas"]:
        yield f"{path}: minReplicas is above maxReplicas"
    if "workerGroupSpecs" in part:
        yield from _twice(f"{path}.workerGroupSpecs", (group["groupName"] for group in part["workerGroupSpecs"]))
    if "limits" in part or "requests" in part:
        yield from _of_resources(part.get("limits", {}), part.get("requests", {}), path)
    if isinstance(schedule := part.get("schedule"), str):
        try:
            check_cron(schedule)
        except ValueError as problem:
            yield f"{path}.schedule: {problem}"
    for key, own in part.items():
        yield from broken_rules(own, f"{path}.{key}" if path else key)


def _of_pod(pod: Any, path: str) -> Iterator[str]:
    volumes = [volume["name"] for volume in pod.get("volumes", [])]
    yield from _twice(f"{path}.volumes", volumes)
    yield from _twice(f"{path}.containers", (container["name"] for container in pod["containers"]))
    for number, container in enumerate(pod["containers"]):
        where, mounts = f"{path}.containers[{number}].volumeMounts", container.get("volumeMounts", [])
        yield from _twice(where, (mount["mountPath"] for mount in mounts))
        yield from (f"{where}: there is no volume {own['name']}" for own in mounts if own["name"] not in volumes)


def _of_resources(limits: Any, requests: Any, path: str) -> Iterator[str]:
    """Devices, whose names have a slash, come whole, and as many are requested as are the limit."""
    for name in {**limits, **requests}:
        given = [amount(own[name]) for own in (requests, limits) if name in own]
        if given[0] > given[-1]:
            yield f"{path}: requests.{name} is above its limit"
        if "/" in name and (given[0].denominator > 1 or given[0] != given[-1] or name not in limits):
            yield f"{path}: {name} must be a whole number, the same in limits and requests"


def amount(quantity: float | str) -> Fraction:
    """The number that a quantity of Kubernetes stands for."""
    found = re.fullmatch(r"([0-9.]+)(.*)", str(quantity))
    assert found is not None
    number, suffix = found.groups()
    return Fraction(number) * (_FACTORS[suffix] if suffix in _FACTORS else Fraction(10) ** int(suffix[1:]))


def _twice(path: str, names: Iterable[str]) -> Iterator[str]:
    yield from (f"{path}: {name} is there {count} times" for name, count in Counter(names).items() if count > 1)
