"""Search spaces: files are read as they are written, and settings that would fail in a trial are refused before any."""

import dataclasses
import math
from decimal import Decimal
from itertools import product
from typing import Any

import pytest
import yaml
from sweeping import TEMPERATURE, entry_in, space_file, space_of

from align_core.errors import InputError
from pipelines.sweep.entry import settled
from pipelines.sweep.settings import label_of
from pipelines.sweep.space import Dimension, load_space

THREE = ["wide", "cnn_b", "mlp"]
BOTH_WEIGHTS = {"align.weight": {"low": 0, "high": 2}, "align.label_weight": {"low": 0, "high": 2}}


@pytest.fixture
def refused(tmp_path):
    """Returns a function that gives the message with which a space file with these keys is refused, after its name."""

    def message(keys: dict[str, Any], **changes: Any) -> str:
        file = space_file(tmp_path, keys)
        with pytest.raises(InputError) as refusal:
            load_space(file, entry_in(tmp_path, **changes))
        assert str(refusal.value).startswith(f"{file}: ")
        return str(refusal.value).removeprefix(f"{file}: ")

    return message


def test_a_users_own_file_is_known_by_its_name_and_tried_as_it_is_written(tmp_path):
    keys = {
        "witnesses": {"subsets_of": "witnesses"},
        "align.temperature": {"low": 1, "high": 64, "scale": "log", "grid": [1, 8, 64]},
        "align.optimizer.name": {"choices": ["sgd", "adamw"]},
        "align.clip_grad_norm": {"choices": [None, 0.5]},
        "align.epochs": {"low": 1, "high": 4, "scale": "integer", "grid": [2, 4]},
    }
    space = load_space(space_file(tmp_path, keys, name="my-space"), entry_in(tmp_path))
    assert (space.name, space.why) == ("my-space", "a test")
    assert set(space.keys) == set(keys)
    assert set(space.ranges) == {"align.temperature", "align.epochs"}
    assert space.choices == {
        "witnesses": [["wide"], ["cnn_b"], ["wide", "cnn_b"]],
        "align.optimizer.name": ["sgd", "adamw"],
        "align.clip_grad_norm": [None, 0.5],
    }


def test_a_space_that_ships_is_found_by_its_name_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    space = load_space("temperature", entry_in(tmp_path))
    assert (space.name, space.keys) == ("temperature", ["align.temperature"])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("temprature", "--space temprature: there is no such space; did you mean 'temperature'?"),
        ("zzz", "--space zzz: there is no such space; there are: alignment, dra, dsm, "),
        ("../tune_spaces/full", "there is no such space"),
        ("nowhere.yaml", "nowhere.yaml: there is no such file"),
        ("nowhere.yml", "nowhere.yml: there is no such file"),
    ],
)
def test_a_space_that_does_not_exist_is_refused(tmp_path, name, said):
    with pytest.raises(InputError) as refusal:
        load_space(name, entry_in(tmp_path))
    assert said in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- align.temperature\n", "must hold keys and values"),
        ("why: a test\n", "keys: this key is required"),
        ("keys: {align.temperature: {why: a test, low: 1, high: 2}}\n", "why: this key is required"),
        ("why: a test\nkeys: {}\n", "keys: "),
        ("why: a test\nkees: {}\n", "kees: unknown key; did you mean 'keys'?"),
        ("why: a test\nkeys: {align.temperature: 3}\n", "keys.align.temperature: must hold keys and values"),
        ("why: a test\nkeys: {align.epochs: {low: 1, high: 2}}\n", "keys.align.epochs.why: this key is required"),
        ("why: a\nkeys: {align.epochs: {why: a, low: 1}, align.epochs: {why: a, low: 2}}\n", "given twice"),
    ],
)
def test_a_file_that_is_not_a_space_is_refused(tmp_path, text, said):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(InputError) as refusal:
        load_space(str(tmp_path / "mine.yaml"), entry_in(tmp_path))
    assert str(refusal.value).startswith(str(tmp_path / "mine.yaml"))
    assert said in str(refusal.value)


DIMENSIONS = [
    ({"low": 1, "hihg": 2}, ".hihg: unknown key; did you mean 'high'?"),
    (
        {"low": 1, "high": 2, "scale": "lin"},
        ".scale: must be 'linear', 'log' or 'integer', not the text 'lin'; did you mean 'linear'?",
    ),
    ({"low": 1, "high": float("inf")}, ".high: must be a finite number"),
    ({}, ": give either low and high, or choices, or subsets_of"),
    ({"low": 1, "high": 2, "choices": [1]}, ": give either low and high, or choices, or subsets_of"),
    ({"high": 2}, ": a range needs both low and high"),
    ({"low": 2, "high": 2}, ": the range from 2 to 2 is empty; low must be below high"),
    ({"low": 4, "high": 2}, ": the range from 4 to 2 is empty; low must be below high"),
    ({"low": 0, "high": 2, "scale": "log"}, ": a log scale needs a low above 0, not 0"),
    ({"low": 0.5, "high": 2, "scale": "integer"}, ": scale: integer needs whole numbers for low, high and grid"),
    ({"low": 1, "high": 2.5, "scale": "integer"}, ": scale: integer needs whole numbers for low, high and grid"),
    ({"low": 1, "high": 4, "scale": "integer", "grid": [1.5]}, ": scale: integer needs whole numbers"),
    ({"low": 1, "high": 4, "grid": [1, 5]}, ": grid: 5 lies outside the range from 1 to 4"),
    ({"low": 1, "high": 4, "grid": [0.5]}, ": grid: 0.5 lies outside the range from 1 to 4"),
    ({"low": 1, "high": 4, "grid": []}, ".grid: "),
    ({"low": 1, "high": 4, "grid": [1, 2, 1]}, ": grid: 1 is given twice"),
    ({"choices": []}, ": choices is empty; name at least one value"),
    ({"choices": [1, 2, 1]}, ": the choice 1 is given twice"),
    ({"choices": [1, 2, 1.0]}, ": the choice 1"),
    ({"choices": [1, 2], "grid": [1]}, ": grid"),
    ({"choices": [1, 2], "scale": "log"}, ": scale"),
    (
        {"choices": [["wide"], ["cnn_b"]]},
        ": `witnesses` takes subsets_of or choices that are lists of models, and no other key does",
    ),
    (
        {"subsets_of": "witnesses"},
        ": `witnesses` takes subsets_of or choices that are lists of models, and no other key does",
    ),
    ({"subsets_of": "targets"}, ".subsets_of: must be 'witnesses', not the text 'targets'"),
]


@pytest.mark.parametrize(("dimension", "said"), DIMENSIONS, ids=[str(dimension) for dimension, _ in DIMENSIONS])
def test_a_wrong_dimension_is_refused(refused, dimension, said):
    assert refused({"align.weight": dimension}).startswith(f"keys.align.weight{said}")


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        (["wide", "cnn_b"], "takes subsets_of or choices that are lists of models"),
        ([["wide"], "cnn_b"], "takes subsets_of or choices that are lists of models"),
        ([["wide"], []], "takes subsets_of or choices that are lists of models"),
        ([["wide"], ["mlp"]], "mlp is not a witness of aligned; there are: cnn_b, wide"),
        ([["wide"], ["cnn_bb"]], "cnn_bb is not a witness of aligned; did you mean 'cnn_b'?"),
        ([["wide"], [3]], "3 is not a witness of aligned"),
        ([["wide"], ["wide"]], "the choice wide is given twice"),
        ([["wide", "wide"], ["wide"]], "wide is named twice"),
    ],
)
def test_wrong_choices_of_witnesses_are_refused(refused, choices, said):
    message = refused({"witnesses": {"choices": choices}})
    assert message.startswith("keys.witnesses: ")
    assert said in message


def test_a_range_of_witnesses_is_refused(refused):
    assert refused({"witnesses": {"low": 1, "high": 2}}).startswith("keys.witnesses: ")


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("align.tempreature", "the experiment has no such key; did you mean 'align.temperature'?"),
        ("temperature", "the experiment has no such key; did you mean 'align.temperature'?"),
        ("align.optimizer", "the experiment has no such key; did you mean 'align.optimizer."),
        ("align", "the experiment has no such key"),
        ("witness", "the experiment has no such key; did you mean 'witnesses'?"),
        ("align.workers", "cannot be searched"),
        ("align.checkpoint_steps", "cannot be searched"),
        ("attacks.pgd.eps", "a sweep searches `align.*` and `witnesses` only; remove this key"),
        ("seed", "a sweep searches `align.*` and `witnesses` only; remove this key"),
        ("targets", "a sweep searches `align.*` and `witnesses` only; remove this key"),
    ],
)
def test_a_key_that_cannot_be_searched_is_refused(refused, key, said):
    message = refused({key: {"low": 1, "high": 2}})
    assert message.startswith(f"keys.{key}: ")
    assert said in message


def test_a_key_that_cannot_be_searched_is_not_suggested(refused):
    assert "align.workers" not in refused({"align.worker": {"low": 1, "high": 2}})


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"align.temperature": {"low": 0, "high": 2}}, "align.temperature"),
        ({"align.optimizer.momentum": {"low": 0.5, "high": 1}}, "align.optimizer"),
        ({"align.loss": {"choices": ["kl", "kll"]}}, "align.loss"),
        ({"align.batchnorm": {"choices": ["update", "freeze"]}}, "align.batchnorm"),
        ({"align.batch_size": {"choices": [64, 0.5]}}, "align.batch_size"),
        ({"align.epochs": {"choices": [{"a": 1}, 2]}}, "align.epochs"),
        ({"align.epochs": {"choices": [[1], 2]}}, "align.epochs"),
        # Between the ends lie numbers that are neither a number of epochs nor a truth value.
        ({"align.epochs": {"low": 1, "high": 8}}, "align.epochs"),
        ({"align.epochs": {"low": 1, "high": 8, "scale": "log"}}, "align.epochs"),
        ({"align.optimizer.nesterov": {"low": 0, "high": 1}}, "align.optimizer.nesterov"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_settings_that_no_alignment_can_have_are_refused_before_any_trial(refused, keys, named):
    assert named in refused(keys)


def test_settings_that_fail_only_together_are_refused_before_any_trial(refused):
    message = refused(BOTH_WEIGHTS, align={"weight": 1, "label_weight": 1})
    assert "weight and label_weight must be 0 or more, and not both 0" in message


def test_settings_that_hold_only_together_are_accepted(tmp_path):
    """A weight of 0 is refused together with the experiment's own label_weight of 0, but no trial has that."""
    keys = {"align.weight": {"choices": [0, 1]}, "align.label_weight": {"choices": [0.5, 1]}}
    assert set(load_space(space_file(tmp_path, keys), entry_in(tmp_path)).keys) == set(keys)


@pytest.mark.parametrize(
    ("keys", "witnesses", "said"),
    [
        ({"witnesses": {"subsets_of": "witnesses"}}, ["wide"], "witnesses = ['wide']"),
        ({"align.weight": {"choices": [2]}}, ["wide"], "align.weight = 2"),
    ],
)
def test_a_space_that_leaves_nothing_to_choose_is_refused(refused, keys, witnesses, said):
    assert refused(keys, witnesses=witnesses).startswith(f"there is nothing to choose: {said}")


def test_witnesses_are_tried_one_by_one_and_in_every_combination(tmp_path):
    entry = entry_in(tmp_path, witnesses=THREE, targets=["cnn_c"])
    space = load_space(space_file(tmp_path, {"witnesses": {"subsets_of": "witnesses"}}), entry)
    subsets = [[name for name, is_in in zip(THREE, flags, strict=True) if is_in] for flags in product([1, 0], repeat=3)]
    assert sorted(space.choices["witnesses"]) == sorted(subset for subset in subsets if subset)
    assert space.grid_size == 7


@pytest.mark.parametrize(("low", "high"), [(1.23456, 64.00321), (0.00012345, 0.2), (12345.6, 99999.9), (0.0, 1.0)])
def test_what_is_drawn_has_four_digits_and_stays_within_the_range(low, high):
    dimension = Dimension(why="a test", low=low, high=high)
    for part in range(101):
        drawn = low + (high - low) * part / 100
        value = dimension.value(min(drawn, high))
        assert low <= value <= high
        assert value in (low, high) or len(Decimal(str(value)).normalize().as_tuple().digits) <= 4
        assert value == pytest.approx(drawn, rel=5.001e-4)


def test_an_integer_is_an_integer():
    value = Dimension(why="a test", low=1, high=12345, scale="integer").value(12344)
    assert (value, type(value)) == (12344, int)


GRID = {
    "align.temperature": {"low": 1, "high": 64, "scale": "log", "grid": [1, 8, 1.23456]},
    "align.epochs": {"low": 1, "high": 4, "scale": "integer", "grid": [2, 4]},
    "align.clip_grad_norm": {"choices": [None, 0.5]},
}


def test_a_grid_is_every_value_as_it_is_written():
    space = space_of(GRID)
    assert space.grid() == {
        "align.temperature": [1.0, 8.0, 1.23456], "align.epochs": [2, 4], "align.clip_grad_norm": [None, 0.5],
    }  # fmt: skip
    assert all(type(value) is int for value in space.grid()["align.epochs"])
    assert space.grid_size == 3 * 2 * 2


def test_a_range_without_a_grid_has_none():
    with pytest.raises(InputError, match=r"align\.temperature: a grid needs `grid:`, the values to try of this range"):
        _ = space_of(GRID | TEMPERATURE).grid_size


def test_settings_are_laid_over_the_experiment_and_leave_all_else_as_it_is(tmp_path):
    own = {"temperature": 8, "optimizer": {"name": "sgd", "lr": 0.5, "momentum": 0.8}, "clip_grad_norm": 2.0}
    entry = entry_in(tmp_path, align=own)
    settings = {"align.optimizer.lr": 0.25, "align.clip_grad_norm": None, "align.epochs": 3, "witnesses": ["cnn_b"]}
    align, witnesses = settled(entry, settings)
    optimizer = dataclasses.replace(entry.align.optimizer, lr=0.25)
    assert align == dataclasses.replace(entry.align, optimizer=optimizer, clip_grad_norm=None, epochs=3)
    assert (align.temperature, align.optimizer.momentum) == (8.0, 0.8)
    assert witnesses == ("cnn_b",)
    assert settled(entry, {}) == (entry.align, ("wide", "cnn_b"))
    assert entry == entry_in(tmp_path, align=own)


@pytest.mark.parametrize("settings", [{"align.temperature": -1.0}, {"align.optimizer.lrr": 1.0}, {"align.epochs": 1.5}])
def test_settings_that_no_alignment_can_have_are_named(tmp_path, settings):
    ((key, value),) = settings.items()
    with pytest.raises(InputError) as refusal:
        settled(entry_in(tmp_path), settings)
    assert str(refusal.value).startswith(f"{key} = {value}: ")


@pytest.mark.parametrize(
    "value", [None, True, False, 0.5, 3, 1e-4, "kl", ["wide"], ["wide", "cnn_b"]], ids=lambda value: str(value)
)
def test_a_value_in_one_word(value):
    word = label_of(value)
    assert word and not set(word) & set(" ,[]'\"")
    assert (word.split("+") if isinstance(value, list) else yaml.safe_load(word)) == value


def test_different_values_are_different_words():
    values = [None, True, False, 0.5, 1, 2.0, "kl", "sgd", ["wide"], ["cnn_b"], ["wide", "cnn_b"]]
    assert len({label_of(value) for value in values}) == len(values)


MIXED = space_of(
    {
        "align.temperature": {"low": 1, "high": 64, "scale": "log"},
        "align.epochs": {"low": 1, "high": 3, "scale": "integer"},
        "align.loss": {"choices": ["kl", "other"]},
    }
)
DRAWN = {"align.temperature": 4.0, "align.epochs": 2, "align.loss": "kl"}


@pytest.mark.parametrize(
    ("changes", "holds"),
    [
        ({}, True),
        ({"align.temperature": 1}, True),
        ({"align.temperature": 64.0}, True),
        ({"align.temperature": 0.99}, False),
        ({"align.temperature": 64.1}, False),
        ({"align.temperature": "4"}, False),
        ({"align.temperature": None}, False),
        ({"align.temperature": True}, False),
        ({"align.temperature": float("nan")}, False),
        ({"align.epochs": 1}, True),
        ({"align.epochs": 3}, True),
        ({"align.epochs": 0}, False),
        ({"align.epochs": 4}, False),
        ({"align.epochs": 1.5}, False),
        ({"align.loss": "other"}, True),
        ({"align.loss": "third"}, False),
        ({"align.weight": 1.0}, False),
    ],
)
def test_a_space_holds_what_could_have_been_drawn_from_it(changes, holds):
    assert MIXED.holds(DRAWN | changes) is holds


@pytest.mark.parametrize("key", DRAWN)
def test_a_space_does_not_hold_settings_that_lack_a_key(key):
    assert not MIXED.holds({name: value for name, value in DRAWN.items() if name != key})


def test_the_size_of_a_space_is_the_number_of_its_settings():
    whole = {"align.epochs": {"low": 2, "high": 4, "scale": "integer"}}
    choices = {"align.loss": {"choices": ["kl", "other"]}}
    assert space_of(whole).size == 3
    assert space_of(whole | choices).size == 6
    assert space_of(choices).size == 2
    other = {"align.batch_size": {"low": 10, "high": 11, "scale": "integer"}}
    assert space_of(whole | other | choices).size == 12
    assert MIXED.size == math.inf
    assert space_of(whole | {"align.weight": {"low": 0, "high": 1}}).size == math.inf


def test_subsets_of_very_many_witnesses_are_refused(tmp_path):
    entry, names = entry_in(tmp_path), tuple(f"w{number}" for number in range(40))
    many = dataclasses.replace(entry, surrogate=dataclasses.replace(entry.surrogate, witnesses=names))
    with pytest.raises(InputError, match=r"keys.witnesses: 40 witnesses have 2\^40 subsets; name those to try"):
        load_space(space_file(tmp_path, {"witnesses": {"subsets_of": "witnesses"}}), many)
