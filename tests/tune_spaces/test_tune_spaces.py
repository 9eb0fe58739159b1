"""The search spaces that ship: every searcher can try each over a surrogate that it suits, and the README has them."""

import re
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
import yaml
from sweeping import IMAGES, experiment_in

import tune_spaces
from align_core.errors import InputError
from align_core.losses import LOSSES
from align_core.refinements import REFINEMENTS
from pipelines.sweep.entry import Entry, entry_of, settled
from pipelines.sweep.space import Dimension, load_space

FOLDER = Path(tune_spaces.__file__).parent
NAMES = sorted(file.stem for file in FOLDER.glob("*.yaml"))
README = (FOLDER / "README.md").read_text()
OF_ALIGNMENT = ["full", "optimizer", "temperature", "temperature_weight", "witness"]
OF_LOSSES = sorted(LOSSES.keys() - {"kl", "local"})
VARIANTS = {name: {"refine": name} for name in REFINEMENTS if name != "label_only"}
VARIANTS |= {name: {"align": {"loss": name}} for name in OF_LOSSES}
VARIANTS |= {f"kl_and_{name}": {"align": {"loss": ["kl", name]}} for name in OF_LOSSES}
# What an experiment may set for all of its surrogates, and every space must be compatible with.
OWN = {"temperature": 16, "epochs": 2, "optimizer": {"name": "adamw", "lr": 2e-3}, "clip_grad_norm": 1.0}


def suited(space: str) -> str:
    """The name of the surrogate that a space is for: of its own name, or the aligned one."""
    return "aligned" if space in OF_ALIGNMENT else space


@pytest.fixture
def entries(tmp_path) -> Callable[..., Entry]:
    """Returns a function that gives the surrogate for a space, in an experiment with two witnesses."""

    def entry(space: str, align=OWN) -> Entry:
        return entry_of(experiment_in(tmp_path, align=align, variants=VARIANTS), suited(space), IMAGES)

    return entry


def test_the_spaces_are_those_that_are_promised():
    assert sorted([*OF_ALIGNMENT, *REFINEMENTS, *OF_LOSSES]) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_it_and_each_of_its_keys_says_why(entries, name):
    space = load_space(name, entries(name))
    assert (space.name, len(space.why) > 40) == (name, True)
    keys = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())["keys"]
    assert set(keys) == set(space.keys)
    assert all(len(dimension["why"]) > 10 for dimension in keys.values())


@pytest.mark.parametrize("name", [*REFINEMENTS, *OF_LOSSES])
def test_each_range_of_a_refinement_or_a_loss_has_its_source(name):
    """Below every key stands a comment, which names a paper by number or venue, or says why none."""
    _, text = (FOLDER / f"{name}.yaml").read_text().split("keys:\n")
    found = re.findall(r"^  (align\.[\w.]+):\n((?:    # .*\n)+)", text, flags=re.MULTILINE)
    assert [key for key, _ in found] == list(yaml.safe_load(text))
    for key, comment in found:
        assert re.search(r"\d{4}\.\d{5}|CVPR|summary|reproduction|published|of the space", comment), key


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_of_its_grid_and_every_corner_of_its_ranges_can_be_made(entries, name):
    entry = entries(name)
    space = load_space(name, entry)
    corners = {key: [d.value(d.low), d.value(d.high)] for key, d in space.ranges.items()} | dict(space.choices)
    for values in (space.grid(), corners):
        tried = [dict(zip(values, combination, strict=True)) for combination in product(*values.values())]
        assert len({repr(settled(entry, settings)) for settings in tried}) == len(tried)  # no two are the same
        assert len(tried) > 1


@pytest.mark.parametrize("name", NAMES)
def test_every_range_has_a_grid_within_it_that_a_machine_can_try(entries, name):
    space = load_space(name, entries(name))
    for key, dimension in space.ranges.items():
        assert dimension.grid == sorted(dimension.grid), key
        assert all(dimension.low <= value <= dimension.high for value in dimension.grid), key
    assert 2 <= space.grid_size <= 100


def value_of(entry: Entry, key: str):
    """The value that the surrogate's entry has for a key; of a part, its name."""
    if key == "witnesses":
        return list(entry.witnesses)
    _, kind, *path = key.split(".")
    value = getattr(entry.align, kind)
    if kind in ("loss", "terms"):
        parts = {part["name"]: part for part in (entry.align.losses if kind == "loss" else entry.align.terms)}
        return parts[path[0]][path[1]]
    for name in path:
        value = value[name] if isinstance(value, dict) else getattr(value, name)
    return value["name"] if isinstance(value, dict) else value


@pytest.mark.parametrize("name", NAMES)
def test_the_default_settings_lie_within_it(entries, name):
    """A sweep can therefore choose the settings of the method's authors, should they be the best."""
    entry = entries(name, align={})
    space = load_space(name, entry)
    for key in space.keys:
        value = value_of(entry, key)
        inside = space.ranges[key].holds(value) if key in space.ranges else value in space.choices[key]
        assert inside, key


@pytest.mark.parametrize("name", REFINEMENTS)
def test_a_refinement_is_searched_by_what_it_consists_of(entries, name):
    """Besides the learning rate, a space reaches each part that its refinement brings, but for those of others."""
    keys = load_space(name, entries(name)).keys
    brought = {kind for kind in ("update", "keep", "inputs", "mix", "terms", "label_smoothing")
               if kind in REFINEMENTS[name].settings}  # fmt: skip
    assert brought <= {key.split(".")[1] for key in keys}
    assert "align.optimizer.lr" in keys and len(keys) > 1


@pytest.mark.parametrize("name", OF_LOSSES)
def test_a_loss_is_searched_alone_or_beside_others_and_where_it_is_not_is_refused(entries, tmp_path, name):
    experiment = experiment_in(tmp_path, align=OWN, variants=VARIANTS)
    weight = f"align.loss.{name}.weight"
    for own in (name, f"kl_and_{name}"):
        assert weight in load_space(name, entry_of(experiment, own, IMAGES)).keys
    with pytest.raises(InputError, match=f"{weight}: of aligned, `loss` is kl; choose a space that suits it"):
        load_space(name, entry_of(experiment, "aligned", IMAGES))


def test_the_full_space_holds_every_key_of_the_others_for_alignment(entries):
    keys = {key for name in [*OF_ALIGNMENT, "alignment"] for key in load_space(name, entries("full")).keys}
    assert set(load_space("full", entries("full")).keys) == keys


def test_the_readme_lists_every_space_with_the_size_of_its_grid(entries):
    listed = re.findall(r"^\| `(\w+)` \|.*\| (\d+)(?: \(with two witnesses\))? \|$", README, flags=re.MULTILINE)
    assert sorted(name for name, _ in listed) == NAMES
    for name, size in listed:
        assert load_space(name, entries(name)).grid_size == int(size), name


def test_the_readme_explains_every_key_of_a_dimension():
    table = README.split("| key of an entry |")[1].split("\n## ")[0]
    explained = re.findall(r"`(\w+)`", "".join(re.findall(r"^\|([^|]*)\|", table, flags=re.MULTILINE)))
    assert sorted(explained) == sorted(Dimension.model_fields)


def test_the_space_of_the_readme_is_valid(entries, tmp_path):
    (content,) = re.findall(r"^```yaml\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
    (tmp_path / "my-space.yaml").write_text(content)
    space = load_space(str(tmp_path / "my-space.yaml"), entries("full"))
    assert set(space.keys) == {"align.temperature", "align.epochs", "align.batchnorm", "witnesses"}
    assert space.grid_size == 2 * 2 * 2 * 3
