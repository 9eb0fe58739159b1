"""An experiment whose weights and images lie on the command's node alone gives the same results on another node."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from digits_experiment import CNN, IMAGE_SIZE, SMALL, assert_same_tables, experiment
from empty_store import put_empty_store
from job_cluster import end_with_children
from PIL import Image

from align_core.images import ImageSetConfig, open_image_set
from pipelines.run.command import run
from pipelines.run.request import Request

pytestmark = pytest.mark.slow

IN_A_NAMESPACE = ["unshare", "--mount", "--propagation", "private", "sh", "-c"]
HIDING = 'mount -t tmpfs none "$0" && exec "$@"'  # in the new namespace alone


@pytest.fixture(scope="module")
def inputs(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an experiment, in whose sub-folder `files` all its weights and images are."""
    folder = tmp_path_factory.mktemp("inputs")
    files = folder / "files"
    shutil.copytree(weights, files)
    (files / "aligned").mkdir()
    shutil.copy(weights / "cnn_d.safetensors", files / "aligned" / "model.safetensors")
    card = {"model": {"factory": CNN, "args": SMALL, "weights": "gone.safetensors", "family": "cnn"}}
    (files / "aligned" / "card.json").write_text(json.dumps(card))
    digits = open_image_set(ImageSetConfig(kind="digits"), IMAGE_SIZE)
    ids, labels = digits.listing()
    pixels = [digits.read(ids[position])[0] for position in range(600, 728)]
    np.savez(files / "train.npz", images=np.stack(pixels), labels=labels[600:728])
    for position in range(1200, 1240):
        file = files / "test" / str(labels[position]) / f"{position}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(digits.read(ids[position])[0]).save(file)
    models = experiment(files)["models"]
    del models["mlp"]
    changes = {
        "data": {
            "classes": 10,
            "image_size": IMAGE_SIZE,
            "train": {"kind": "npz", "path": "files/train.npz"},
            "test": {"kind": "folder", "path": "files/test"},
        },
        "models": models | {"earlier": {"aligned": "files/aligned"}},
        "targets": ["cnn_c", "earlier"],
        "controls": ["label_only"],
        "variants": {},
        "tracking": f"sqlite:///{folder}/mlflow.db",
    }
    (folder / "digits.yaml").write_text(yaml.safe_dump(experiment(files) | changes))
    put_empty_store(folder)
    return folder


@pytest.fixture(scope="module")
def away(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of a cluster with a second node that sees none of the files, and the cache of that node."""
    hiding = [*IN_A_NAMESPACE, HIDING, str(inputs / "files")]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*hiding, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("no folder can be hidden from a node here: mount namespaces are not permitted")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cache = tmp_path_factory.mktemp("cache_of_node")
    start = [str(Path(sys.executable).with_name("ray")), "start", "--block", f"--address={cluster.address}"]
    log = cache / "log.txt"
    with open(log, "wb") as output:
        node = subprocess.Popen(
            [*hiding, *start, "--num-cpus=2", '--resources={"away": 4}', "--disable-usage-stats"],
            env={**os.environ, "WITNESS_CACHE": str(cache)},
            stdout=output,
            stderr=output,
        )
    try:
        end = time.monotonic() + 90
        while b"Ray runtime started" not in log.read_bytes():
            assert time.monotonic() < end and node.poll() is None, log.read_text()
            time.sleep(0.5)
        yield cluster.address, cache
    finally:
        end_with_children(node)
        cluster.shutdown()


def test_the_results_are_those_of_a_run_on_one_machine(
    inputs: Path, ray_cluster: None, away: tuple[str, Path], tmp_path: Path
) -> None:
    address, cache = away
    command = [sys.executable, "-m", "pipelines.cli", "run", str(inputs / "digits.yaml"), "--address", address]
    command += ["--output", str(tmp_path / "away"), "--set", "compute.resources={away: 1}"]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    sent = {file.name for file in (cache / "sent").rglob("*") if file.is_file()}
    assert {"cnn_a.safetensors", "wide.safetensors", "cnn_c.safetensors", "model.safetensors", "train.npz"} <= sent
    assert len(list((cache / "sent").glob("*/test/*/*.png"))) == 40
    here = Path(run(Request(inputs / "digits.yaml", output=str(tmp_path / "here"))).location)
    for name in ("clean", "adversarial", "outcomes"):
        assert_same_tables(here / name, tmp_path / "away" / here.name / name)
    transfer = "report/transfer.csv"
    assert (here / transfer).read_bytes() == (tmp_path / "away" / here.name / transfer).read_bytes()
