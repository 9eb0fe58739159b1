"""cluster.yaml is what Ray's own cluster launcher takes."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

FILE = Path(__file__).parent.parent / "cluster.yaml"


@pytest.fixture
def config() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return content


def validated(config: dict[str, Any]) -> dict[str, Any]:
    prepared: dict[str, Any] = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


def test_ray_takes_it(config: dict[str, Any]) -> None:
    types = validated(config)["available_node_types"]
    assert types["head"]["resources"]["CPU"] == 0  # the head drives, and computes nothing
    assert (types["gpu_worker"]["min_workers"], types["gpu_worker"]["max_workers"]) == (0, 8)
    assert types["gpu_worker"]["resources"]["GPU"] == 1


@pytest.mark.parametrize("key", ["available_node_type", "setup_command"])
def test_ray_would_refuse_a_misspelt_key(config: dict[str, Any], key: str) -> None:
    config[key] = config.pop(f"{key}s")
    with pytest.raises(Exception, match=key):
        validated(config)


def test_nodes_are_set_up_from_this_repository(config: dict[str, Any]) -> None:
    places = {local: remote for remote, local in config["file_mounts"].items()}
    assert any(f"--editable {places['.']}" in command for command in config["setup_commands"])
    version = next(
        line.partition("==")[2] for line in (FILE.parent / "constraints.txt").read_text().splitlines()
        if line.startswith("ray==") or line.startswith("ray[")
    )  # fmt: skip
    assert f":{version}-" in config["docker"]["image"]
