"""The benchmarks also run without real weights; this test does not judge what they measure."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from align_core.attacks import PRESETS
from tests.benchmarks import packages
from tests.benchmarks.crafting import shortened
from tests.benchmarks.networks import KINDS, subject

REPOSITORY = Path(__file__).parent.parent

# Run in place of `python -m`: what a GPU machine with torch and timm alone does not have cannot be imported.
WITH_TORCH_AND_TIMM_ALONE = """
import runpy, sys

sys.modules.update(dict.fromkeys([
    "ray", "mlflow", "pandas", "pyarrow", "sklearn", "scipy", "matplotlib", "torchattack",
    "torchattacks",
]))
runpy.run_module("tests.benchmarks." + sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("name", "lines"), [("sweep", 1), ("matrix", 6), ("busy", 4)])
def test_benchmark_runs_on_random_weights(name: str, lines: int, tmp_path: Path):
    ended = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", name],
        cwd=REPOSITORY,
        env=os.environ | {"WITNESS_CIFAR10": str(tmp_path / "nowhere")},
        capture_output=True,
        text=True,
        timeout=900,
    )
    printed = [line for line in ended.stdout.splitlines() if line.startswith(f"{name}: ")]
    assert ended.returncode == 0, ended.stderr
    assert len(printed) == lines, ended.stdout


def test_every_preset_is_timed_at_ten_gradients_or_more_with_its_own_copies_and_points() -> None:
    for method in PRESETS:
        for batch, device in ((100, "cpu"), (16, "cpu"), (1000, "cuda")):
            work = shortened(method, batch, device)
            whole = type(work.attack)(method=method, eps=work.attack.eps)
            assert work.attack.gradients >= min(10, whole.gradients)
            assert work.attack.views == whole.views
            assert work.attack.samples == whole.samples
            assert 1 <= work.images <= batch
            assert (work.limit is None) == (whole.steps == 1)


@pytest.mark.slow
def test_presets_are_timed_with_torch_and_timm_alone(tmp_path: Path) -> None:
    own = {"WITNESS_CIFAR10": str(tmp_path / "nowhere"), "MALLOC_ARENA_MAX": "1"}
    malloc = {"MALLOC_TRIM_THRESHOLD_": "1073741824", "MALLOC_MMAP_THRESHOLD_": "1073741824"}
    methods = ["pgd", "pgd_l2", "bsr", "vmi", "admix", "logit"]
    ended = subprocess.run(
        [
            sys.executable, "-c", WITH_TORCH_AND_TIMM_ALONE, "crafting", *methods,
            "--device", "cpu", "--batch", "4", "--rounds", "1", "--precision", "fp32", "bf16",
        ],
        cwd=REPOSITORY, env=os.environ | own | malloc, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    printed = [line for line in ended.stdout.splitlines() if line.startswith("crafting: ")]
    names = [line.split(": ")[1] for line in printed]
    assert names == 2 * ["bare loop", *methods]
    for line in printed:
        assert re.search(r"[\d.,]+ TFLOP/s, (at most [\d,]+ MiB|memory not seen)$", line), line
        if "bare loop: " not in line:
            assert re.search(r"[\d.]+ x the bare loop \(limit 1.(05|10)(, missed)?\), \d+ % of its speed; ", line), line


@pytest.mark.slow
def test_predictions_are_timed_with_torch_and_timm_alone(tmp_path: Path) -> None:
    own = {"WITNESS_CIFAR10": str(tmp_path / "nowhere"), "MALLOC_ARENA_MAX": "1"}
    malloc = {"MALLOC_TRIM_THRESHOLD_": "1073741824", "MALLOC_MMAP_THRESHOLD_": "1073741824"}
    flags = ["--device", "cpu", "--network", "resnet20", "--precision", "fp32", "bf16", "--chunk", "3", "4"]
    ended = subprocess.run(
        [sys.executable, "-c", WITH_TORCH_AND_TIMM_ALONE, "evaluation", *flags, "--chunks", "2"],
        cwd=REPOSITORY, env=os.environ | own | malloc, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    printed = ended.stdout.splitlines()
    assert len(printed) == 8
    for line in printed:
        assert re.match(r"evaluation: CIFAR ResNet-20, chunks of [34], (1 network|5 networks), cpu, (fp32|bf16)", line)
        assert re.search(r"[\d,]+ predictions/s, \d+ % of the bare loop's speed \([\d,]+/s\), at most", line), line


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:torch.meshgrid")  # by torchattack's DeCoWA
def test_a_method_is_timed_against_another_package() -> None:
    threads = torch.get_num_threads()
    kind = replace(KINDS["resnet20"], batch=4)
    on = subject(kind, kind.batch, "cpu")
    torch.set_num_threads(1)
    try:
        for package, cases in packages.CASES.items():
            for method, case in cases.items():
                line = packages.line(package, method, case, kind, on, least=0)
                assert line.startswith(f"packages: {package}: {method}: CIFAR ResNet-20, ")
                assert re.search(r"threads: [\d.]+ x as fast \(at least 0.0; from [\d.]+ to [\d.]+\); ", line), line
    finally:
        torch.set_num_threads(threads)
