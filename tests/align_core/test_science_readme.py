"""The README of align_core: its Python runs as it stands, and its table names every module."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import align_core
from align_core.attacks.config import PRESETS

FOLDER = Path(align_core.__file__).parent
README = (FOLDER / "README.md").read_text()


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the Python blocks define, run in their order in one namespace, in an empty folder."""
    blocks = re.findall(r"^```python\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
    defined: dict[str, Any] = {"__name__": "readme"}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # networks this small only wait for more, above all beside other tests
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        patch.chdir(tmp_path_factory.mktemp("readme"))
        for number, block in enumerate(blocks, start=1):
            exec(compile(block, f"README.md, Python block {number}", "exec"), defined)
    torch.set_num_threads(threads)
    return defined


def test_the_networks_of_the_example_learn_and_the_aligned_one_stays_accurate(names: dict[str, Any]) -> None:
    for name in ("source", "witness", "target", "other_target", "aligned"):
        assert names["is_right"](names[name], names["images_BCHW"]).mean() > 0.85, name
    assert not torch.equal(names["aligned"].net[0].weight, names["source"].net[0].weight)


def test_the_example_measures_the_transfer_that_the_readme_states(names: dict[str, Any]) -> None:
    stated = re.search(r"a rate of ([\d.]+) % .* a gain of \+([\d.]+) points", README)
    assert stated
    assert names["n"] > 600
    # Training rounds differently on another kind of CPU, and after it a few images of 700 differ.
    assert names["rate"].value == pytest.approx(float(stated[1]), abs=4)
    assert names["gain"].value == pytest.approx(float(stated[2]), abs=2)
    assert names["gain"].low < names["gain"].value < names["gain"].high
    assert names["mean_gain"].low < names["mean_gain"].value < names["mean_gain"].high


def test_the_reasons_of_the_example_are_measured(names: dict[str, Any]) -> None:
    assert names["found"].converged_B.float().mean() > 0.8
    assert (names["along_BT"][:, 2] > names["along_BT"][:, 0]).float().mean() > 0.9  # the attack raises the loss
    assert (names["along_BT"][:, 2] > names["across_BT"][:, 2]).float().mean() > 0.9  # a random direction hardly
    assert (names["largest"].error_B >= names["error_B"]).float().mean() > 0.9
    assert names["likeness_B"].mean() > 0.2 and (names["divergence_B"] >= 0).all()
    assert names["agree_B"].float().mean() > 0.8 and 0.5 < names["wasted_B"].mean() < 1
    assert names["ece"].low <= names["ece"].value <= names["ece"].high
    assert (names["rho"].n, names["steepness_B"].shape) == (4, (40,))


def test_the_model_from_a_file_returns_a_logit_per_class(names: dict[str, Any]) -> None:
    assert names["logits_BK"].shape == (2, 10)


def test_the_table_names_every_module() -> None:
    listed = re.findall(r"^\| `(\w+)` \|", README.split("## Conventions")[0], flags=re.MULTILINE)
    files = {path.stem for path in FOLDER.glob("*.py")} - {"__init__"}
    folders = {path.parent.name for path in FOLDER.glob("*/__init__.py")}
    assert sorted(listed) == sorted(files | folders)


def test_the_table_counts_the_presets() -> None:
    (row,) = re.findall(r"^\| `attacks` \|.*$", README, flags=re.MULTILINE)
    assert f"with {len(PRESETS)} published attacks as presets" in row
