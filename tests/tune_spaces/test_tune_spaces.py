"""The search spaces that ship: every searcher can try each over a real experiment, and the README describes them."""

import dataclasses
import re
from itertools import product
from pathlib import Path

import pytest
import yaml
from sweeping import experiment_in

import tune_spaces
from align_core.align_config import AlignConfig
from pipelines.sweep.space import Dimension, load_space, settled

FOLDER = Path(tune_spaces.__file__).parent
NAMES = sorted(file.stem for file in FOLDER.glob("*.yaml"))
README = (FOLDER / "README.md").read_text()


@pytest.fixture
def experiment(tmp_path):
    """An experiment with two witnesses, whose own settings of the alignment every space must be compatible with."""
    own = {"temperature": 16, "epochs": 2, "optimizer": {"name": "adamw", "lr": 2e-3}, "clip_grad_norm": 1.0}
    return experiment_in(tmp_path, align=own)


def test_the_spaces_are_those_that_are_promised():
    assert NAMES == ["full", "optimizer", "temperature", "temperature_weight", "witness"]


@pytest.mark.parametrize("name", NAMES)
def test_it_and_each_of_its_keys_says_why(experiment, name):
    space = load_space(name, experiment)
    assert (space.name, len(space.why) > 40) == (name, True)
    keys = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())["keys"]
    assert set(keys) == set(space.keys)
    assert all(len(dimension["why"]) > 10 for dimension in keys.values())


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_of_its_grid_and_every_corner_of_its_ranges_is_an_alignment(experiment, name):
    space = load_space(name, experiment)
    corners = {key: [d.value(d.low), d.value(d.high)] for key, d in space.ranges.items()} | dict(space.choices)
    for values in (space.grid(), corners):
        tried = [dict(zip(values, combination, strict=True)) for combination in product(*values.values())]
        assert len({repr(settled(experiment, settings)) for settings in tried}) == len(tried)  # no two are the same
        assert len(tried) > 1


@pytest.mark.parametrize("name", NAMES)
def test_every_range_has_a_grid_within_it_that_a_machine_can_try(experiment, name):
    space = load_space(name, experiment)
    for key, dimension in space.ranges.items():
        assert dimension.grid == sorted(dimension.grid), key
        assert all(dimension.low <= value <= dimension.high for value in dimension.grid), key
    assert 2 <= space.grid_size <= 100


@pytest.mark.parametrize("name", NAMES)
def test_the_default_settings_lie_within_it(experiment, name):
    """A sweep can therefore choose the settings of the method's authors, should they be the best."""
    space = load_space(name, experiment)
    for key in space.keys:
        if key == "witnesses":
            assert list(experiment.witnesses) in space.choices[key]
            continue
        value = dataclasses.asdict(AlignConfig())
        for part in key.split(".")[1:]:
            value = value[part]
        inside = (
            value in space.choices[key]
            if key in space.choices
            else space.ranges[key].low <= value <= space.ranges[key].high
        )
        assert inside, key


def test_the_full_space_holds_every_key_of_the_others(experiment):
    keys = {key for name in NAMES for key in load_space(name, experiment).keys}
    assert set(load_space("full", experiment).keys) == keys


def test_the_readme_lists_every_space_with_the_size_of_its_grid(experiment):
    listed = re.findall(r"^\| `(\w+)` \|.*\| (\d+)(?: \(with two witnesses\))? \|$", README, flags=re.MULTILINE)
    assert sorted(name for name, _ in listed) == NAMES
    for name, size in listed:
        assert load_space(name, experiment).grid_size == int(size), name


def test_the_readme_explains_every_key_of_a_dimension():
    _, table = README.split("| key of an entry |")
    explained = re.findall(r"`(\w+)`", "".join(re.findall(r"^\|([^|]*)\|", table, flags=re.MULTILINE)))
    assert sorted(explained) == sorted(Dimension.model_fields)


def test_the_space_of_the_readme_is_valid(experiment, tmp_path):
    (content,) = re.findall(r"^```yaml\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
    (tmp_path / "my-space.yaml").write_text(content)
    space = load_space(str(tmp_path / "my-space.yaml"), experiment)
    assert set(space.keys) == {"align.temperature", "align.epochs", "align.batchnorm", "witnesses"}
    assert space.grid_size == 2 * 2 * 2 * 3
