"""The surrogates that an experiment has, and the pairs of them that are compared."""

import dataclasses
from typing import Any

import pytest

from pipelines.experiment.surrogates import Surrogate, contrasts_of, surrogates_of
from pipelines.stages.blueprint import Blueprint


def surrogates(blueprint: Blueprint) -> dict[str, Surrogate]:
    return {surrogate.name: surrogate for surrogate in surrogates_of(blueprint.experiment)}


ALL = "controls=[label_only, witness, ensemble, aligned_ensemble]"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            f"{ALL};variants={{}}",
            {
                "source": ("a", "source", ["a"]),
                "aligned": ("a", "source", ["aligned"]),
                "label_only": ("a", "source", ["label_only"]),
                "witness": ("a", "source", ["b"]),
                "ensemble": ("a", "source", ["a", "b"]),
                "aligned_ensemble": ("a", "source", ["aligned", "b"]),
            },
        ),
        (
            f"{ALL};variants={{}};witnesses=[b, d]",
            {
                "source": ("a", "source", ["a"]),
                "aligned": ("a", "source", ["aligned"]),
                "label_only": ("a", "source", ["label_only"]),
                "witness-b": ("a", "source", ["b"]),
                "witness-d": ("a", "source", ["d"]),
                "ensemble": ("a", "source", ["a", "b", "d"]),
                "aligned_ensemble": ("a", "source", ["aligned", "b", "d"]),
            },
        ),
        (
            "controls=[];variants={hot: {align: {temperature: 9}}, moved: {source: d}, again: {source: d}}",
            {
                "source": ("a", "source", ["a"]),
                "aligned": ("a", "source", ["aligned"]),
                "hot": ("a", "source", ["hot"]),
                "source-d": ("d", "source-d", ["d"]),
                "moved": ("d", "source-d", ["moved"]),
                "again": ("d", "source-d", ["again"]),
            },
        ),
    ],
    ids=["controls", "two witnesses", "variants"],
)
def test_surrogates_in_the_order_of_the_tables(tiny_blueprint: Any, settings: str, expected: dict[str, Any]) -> None:
    found = surrogates(tiny_blueprint(settings))
    assert {name: (s.source, s.baseline, list(s.members)) for name, s in found.items()} == expected
    assert list(found) == list(expected)


def test_label_only_is_the_same_fine_tune_without_a_witness(tiny_blueprint: Any) -> None:
    found = surrogates(tiny_blueprint("controls=[label_only];align={epochs: 7, label_weight: 0.5, weight: 2}"))
    aligned, control = found["aligned"], found["label_only"]
    assert control.align == dataclasses.replace(aligned.align, weight=0.0, label_weight=1.0)
    assert (aligned.witnesses, control.witnesses) == (("b",), ())


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("variants={}", set()),
        (f"{ALL};variants={{}}", {
            ("aligned", "label_only"), ("aligned", "witness"), ("aligned", "ensemble"),
            ("aligned_ensemble", "ensemble"),
        }),
        ("controls=[witness];variants={};witnesses=[b, d]", {("aligned", "witness-b"), ("aligned", "witness-d")}),
        ("controls=[aligned_ensemble];variants={}", set()),
        ("controls=[label_only];variants={hot: {align: {temperature: 9}}, moved: {source: d}}", {
            ("aligned", "label_only"), ("hot", "label_only"), ("hot", "aligned"),
        }),
    ],
    ids=["no control", "controls", "two witnesses", "no plain ensemble", "variants"],
)  # fmt: skip
def test_contrasts_compare_surrogates_of_the_same_source(
    tiny_blueprint: Any, settings: str, expected: set[tuple[str, str]]
) -> None:
    pairs = contrasts_of(surrogates_of(tiny_blueprint(settings).experiment))
    assert set(pairs) == expected
    assert len(pairs) == len(expected)


def test_with_several_seeds_every_surrogate_is_there_once_for_each(tiny_blueprint: Any) -> None:
    settings = "seeds=[3, 5];controls=[label_only, ensemble];variants={w: {align: {temperature: 9}, budget: aligned}}"
    blueprint = tiny_blueprint(settings)
    found = surrogates(blueprint)
    assert list(found) == [
        f"{name}~{seed}" for name in ("source", "aligned", "label_only", "ensemble", "w") for seed in (3, 5)
    ]
    assert {
        name: (own.series, own.seed, own.members, own.baseline) for name, own in found.items() if own.seed == 5
    } == {
        "source~5": ("source", 5, ("a",), "source~5"),
        "aligned~5": ("aligned", 5, ("aligned~5",), "source~5"),
        "label_only~5": ("label_only", 5, ("label_only~5",), "source~5"),
        "ensemble~5": ("ensemble", 5, ("a", "b"), "source~5"),
        "w~5": ("w", 5, ("w~5",), "source~5"),
    }
    assert (found["w~5"].budget, found["w~5"].witnesses) == ("aligned~5", ("b",))
    assert (blueprint.experiment.seed, blueprint.experiment.all_seeds) == (3, [3, 5])


def test_a_seed_of_several_makes_what_it_makes_alone(tiny_blueprint: Any) -> None:
    several, alone = tiny_blueprint("seeds=[3, 5];variants={}"), tiny_blueprint("seed=3;variants={}")
    one = {making.name: making.fingerprint for making in several.alignments()}
    assert one["aligned~3"] == next(iter(alone.alignments())).fingerprint != one["aligned~5"]
    crafted = {name: several.adversarial(several.by_name[f"{name}~3"], "x") for name in ("source", "aligned")}
    for name, table in crafted.items():
        assert table.fingerprint == alone.adversarial(alone.by_name[name], "x").fingerprint
        assert table.fingerprint != several.adversarial(several.by_name[f"{name}~5"], "x").fingerprint
    # What all seeds have in common is decided by the first.
    other = tiny_blueprint("seeds=[4, 5];variants={}")
    (one, another) = (own.adversarial(own.by_name["source~5"], "x").fingerprint for own in (several, other))
    assert one != another
