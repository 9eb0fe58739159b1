"""The CIFAR-10 recipes: on real images and networks alignment must gain, and the control without a witness lose."""

import json
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest

from align_core.attacks import PRESETS, pixel_fraction
from pipelines.experiment import load_experiment

REPOSITORY = Path(__file__).parents[3]


@pytest.mark.slow
def test_alignment_transfers_better_on_cifar10_and_label_only_does_not(cifar10, tmp_path):
    recipe = REPOSITORY / "pipelines" / "recipes" / "cifar10.yaml"
    command = [sys.executable, "-m", "pipelines.cli", "run", str(recipe), "--output", str(tmp_path), "--json"]
    command += ["--set", "controls=[label_only]"]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "WITNESS_CIFAR10": str(cifar10)}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)["report"]
    with open(f"{report}/transfer.csv") as file:
        header, *lines = (line.rstrip("\n").split(",") for line in file)
    rows = {(row["surrogate"], row["target"]): row for row in (dict(zip(header, line, strict=True)) for line in lines)}
    assert 20 < float(rows["source", "(mean same_family)"]["rate"]) < 50
    assert float(rows["aligned", "(mean same_family)"]["gain_low"]) > 0
    assert float(rows["label_only", "(mean same_family)"]["gain_low"]) < 0
    assert float(rows["source", "adversarially_trained"]["rate"]) < 3


def test_the_study_of_attacks_has_every_preset_in_one_ball_and_every_target_in_one_group(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WITNESS_CIFAR10", str(tmp_path))
    study = load_experiment(REPOSITORY / "pipelines" / "recipes" / "cifar10-attacks.yaml")
    assert list(study.attacks) == [name for name in PRESETS if name != "ops"]  # which is run by itself
    assert {name: attack.method for name, attack in study.attacks.items()} == {name: name for name in study.attacks}
    balls = {(attack.norm, attack.eps) for attack in study.attacks.values()}
    assert balls == {("linf", pixel_fraction("4/255")), ("l2", 0.5)}
    assert all(attack.steps == PRESETS[name].steps for name, attack in study.attacks.items())
    assert sorted(chain(*study.groups.values())) == sorted(study.targets)
