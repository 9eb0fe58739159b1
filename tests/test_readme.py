"""The README's commands work as they stand there."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.cli import main

REPOSITORY = Path(__file__).parent.parent
README = (REPOSITORY / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
COMMANDS = [
    shlex.split(line, comments=True)
    for kind, block in BLOCKS
    if kind == "console"
    for line in block.splitlines()
    if line.strip()
]


def test_every_make_command_is_a_target():
    targets = re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), flags=re.MULTILINE)
    named = [command[1] for command in COMMANDS if command[0] == "make"]
    assert named
    assert set(named) <= set(targets)


def test_every_command_is_known():
    assert {command[0] for command in COMMANDS} <= {"make", "witness", "."}
    for command in (command for command in COMMANDS if command[0] == "witness"):
        with pytest.raises(SystemExit) as ended:
            main([command[1], "--help"])
        assert ended.value.code == 0


@pytest.mark.slow
def test_the_commands_run_in_the_order_of_the_readme(tmp_path):
    """From `witness run` on the demo's recipe to the last; the page of MLflow, which stays, is tested elsewhere."""
    commands = [command[1:] for command in COMMANDS if command[0] == "witness" and command[1] != "ui"]
    assert len(commands) >= 7
    for command in commands:
        paths = [str(REPOSITORY / part) if part.startswith("pipelines/") else part for part in command]
        done = subprocess.run(
            [sys.executable, "-m", "pipelines.cli", *paths], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
    assert (tmp_path / "runs" / "demo" / "report" / "report.html").is_file()


def test_the_experiment_and_the_space_of_the_readme_are_valid(tmp_path):
    """Checked without data: every key is known, every value of its type, every role a model's."""
    from pipelines.experiment.config import load_experiment
    from pipelines.sweep.space import load_space

    experiment, space, *_ = (block for kind, block in BLOCKS if kind == "yaml")
    (tmp_path / "experiment.yaml").write_text(experiment)
    (tmp_path / "space.yaml").write_text(space)
    loaded = load_experiment(tmp_path / "experiment.yaml")
    assert loaded.align.temperature == 4.0
    assert loaded.variant_align("t16").temperature == 16
    keys = load_space(str(tmp_path / "space.yaml"), loaded).keys
    assert keys == ["align.temperature", "align.epochs", "align.batchnorm"]


def test_the_schedule_of_the_readme_is_valid_and_its_commands_are_known(tmp_path):
    import yaml

    from pipelines.schedule.cron import check_cron
    from pipelines.schedule.file import load_schedule

    experiment, _, schedule, ray_cron_job = (block for kind, block in BLOCKS if kind == "yaml")
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "my-resnets.yaml").write_text(experiment)
    (tmp_path / "wide.yaml").write_text(experiment.replace("name: my-resnets", "name: wide"))
    (tmp_path / "nightly.yaml").write_text(schedule.replace("/shared", str(tmp_path)))
    resnets, wide = load_schedule(tmp_path / "nightly.yaml").entries
    assert (resnets.working_dir, wide.working_dir) == (tmp_path / "experiments", None)
    assert (wide.config.retries, wide.config.catch_up) == (2, False)
    spec = yaml.safe_load(ray_cron_job)["spec"]
    check_cron(spec["schedule"])
    witness, command, _, how = spec["jobTemplate"]["entrypoint"].split()
    assert (witness, command, how) == ("witness", "schedule", "--once")


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch):
    import torch
    from safetensors.torch import save_file

    from align_core.model_config import ModelConfig, TrainConfig
    from align_core.models import build

    (code,) = (block for kind, block in BLOCKS if kind == "python")
    monkeypatch.chdir(tmp_path)
    net = build(ModelConfig(timm="resnet18", train=TrainConfig()), classes=10, channels=3).net
    save_file(net.state_dict(), "resnet18.safetensors")
    names = {
        "images_BCHW": torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8),
        "labels_B": torch.tensor([1, 2]),
        "image_ids": ["one", "two"],
    }
    exec(code.replace("steps=20", "steps=2"), names)
    assert names["adversarial_BCHW"].dtype == torch.uint8
    assert not torch.equal(names["adversarial_BCHW"], names["images_BCHW"])
