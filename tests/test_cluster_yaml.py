"""Ray's own cluster launcher accepts cluster.yaml, and the nodes are set up from this repository."""

import copy
import re
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


def test_ray_accepts_it(config: dict[str, Any]) -> None:
    types = validated(config)["available_node_types"]
    assert types["head"]["resources"]["CPU"] == 0  # no work is scheduled on the head
    assert (types["gpu_worker"]["min_workers"], types["gpu_worker"]["max_workers"]) == (0, 8)
    assert types["gpu_worker"]["resources"]["GPU"] == 1


@pytest.mark.parametrize("key", ["available_node_type", "setup_command"])
def test_ray_would_refuse_a_misspelt_key(config: dict[str, Any], key: str) -> None:
    config[key] = config.pop(f"{key}s")
    with pytest.raises(Exception, match=key):
        validated(config)


def test_nodes_are_set_up_from_this_repository(config: dict[str, Any]) -> None:
    folders = {local: remote for remote, local in config["file_mounts"].items()}
    (setup,) = config["setup_commands"]
    assert f"--editable {folders['.']}" in setup
    assert f"--constraint {folders['.']}/constraints.txt" in setup


def test_the_image_has_the_version_of_ray_that_is_installed_in_it(config: dict[str, Any]) -> None:
    """Another version would be replaced in the image, under a Ray that runs already."""
    (version,) = re.findall(r"^ray==(\S+)", (FILE.parent / "constraints.txt").read_text(), flags=re.MULTILINE)
    assert f":{version}-" in config["docker"]["image"]
