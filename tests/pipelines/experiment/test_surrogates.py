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
