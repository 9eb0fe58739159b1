"""A sweep survives the loss of a trial: one whose process dies is recorded with the reason, one on a lost node runs on
another.
"""

import csv
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from digits_experiment import experiment
from digits_sweep import write_sweep
from sweeping import space_file

pytestmark = pytest.mark.slow

# The process ends without an exception, as if the kernel had killed it for its use of memory.
FRAGILE = """
import os
from pipelines.recipes.digit_models import cnn

def fragile(**arguments):
    net = cnn(**arguments)
    net.register_forward_pre_hook(lambda module, inputs: os._exit(9) if len(inputs[0]) == 65 else None)
    return net
"""


def test_a_trial_whose_process_dies_is_recorded_and_the_others_go_on(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "fragile_nets.py").write_text(FRAGILE)
    models = experiment(weights)["models"]
    models["cnn_a"] |= {"factory": "fragile_nets:fragile"}
    file = write_sweep(tmp_path, weights, models=models)
    space = space_file(tmp_path, {"align.batch_size": {"choices": [64, 65, 32]}})
    command = [sys.executable, "-m", "pipelines.cli", "tune", str(file), "--space", space, "--searcher", "grid"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [*command, "--max-clean-drop", "100"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "some trials were lost, each with its reason in trials.csv" in done.stderr
    with open(tmp_path / "runs/digits/sweeps/mine/trials.csv", newline="") as table:
        trials = {trial["align.batch_size"]: trial for trial in csv.DictReader(table)}
    assert {size: trial["status"] for size, trial in trials.items()} == {"64": "done", "65": "failed", "32": "done"}
    assert "died" in trials["65"]["reason"]
    best = yaml.safe_load((tmp_path / "runs/digits/sweeps/mine/best.yaml").read_text())
    assert best["align"]["batch_size"] in (32, 64)


def test_a_trial_on_a_lost_node_runs_on_another_one(weights: Path, tmp_path: Path) -> None:
    from ray.cluster_utils import Cluster

    file = write_sweep(tmp_path, weights)
    space = space_file(tmp_path, {"align.temperature": {"choices": [1, 2, 4, 8, 16, 32]}})
    quick = {"RAY_health_check_period_ms": "500", "RAY_health_check_failure_threshold": "5"}
    os.environ.update(quick)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
        command = [sys.executable, "-m", "pipelines.cli", "tune", str(file), "--space", space, "--searcher", "grid"]
        command += ["--address", cluster.address, "--concurrent", "3", "--max-clean-drop", "100", "--json"]
        command += ["--set", "align.epochs=60", "--set", "compute.workers=3"]
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        with open(tmp_path / "said.txt", "wb") as said:
            driver = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=said)
        records = tmp_path / "runs/digits/sweeps/mine/trials"
        while len(list(records.glob("*.json"))) < 2:
            assert driver.poll() is None
            time.sleep(0.05)
        cluster.remove_node(nodes[0], allow_graceful=False)
        out, _ = driver.communicate(timeout=500)
        assert driver.returncode == 0, (tmp_path / "said.txt").read_text(errors="replace")
        assert b'"trials": {"done": 6}' in out
    finally:
        cluster.shutdown()
        for name in quick:
            del os.environ[name]
