"""What changes a fingerprint although no key does, and settings that are written in two ways and are the same."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from fingerprint_table import fingerprints

from align_core.align_config import AlignConfig, OptimizerConfig
from align_core.attacks import AttackConfig
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.revisions import REVISIONS

ALL = {f"{own}/x/{target}" for own in ("source", "aligned", "v") for target in ("@self", "c", "e")}


@pytest.mark.parametrize(
    ("stage", "columns"),
    [
        ("align", {"trained", "aligned"}),
        ("craft", {"adversarial", "outcomes"}),
        ("evaluate", {"clean", "outcomes"}),
        ("trial", set()),
    ],
)
def test_a_raised_revision_changes_what_its_stage_makes(
    tiny_blueprint: Callable[[str], Blueprint], monkeypatch: pytest.MonkeyPatch, stage: str, columns: set[str]
) -> None:
    before = fingerprints(tiny_blueprint("seed=0"))
    monkeypatch.setitem(REVISIONS, stage, 99)
    after = fingerprints(tiny_blueprint("seed=0"))
    changed = {name for name in before if all(before[name][own] != after[name][own] for own in before[name])}
    assert columns <= changed
    assert stage == "align" or not changed & {"image sets", "trained", "aligned"}
    assert stage != "evaluate" or "adversarial" not in changed


@pytest.mark.parametrize(
    ("network", "changed"),
    [
        (
            "a",  # the source, whose aligned copies are folded like it
            {
                "adversarial": {"source/x", "aligned/x", "v/x"},
                "clean": {"a", "source", "aligned", "v"},
                "outcomes": ALL,
            },
        ),
        ("c", {"adversarial": set(), "clean": {"c"}, "outcomes": {f"{own}/x/c" for own in ("source", "aligned", "v")}}),
    ],
)
def test_what_is_folded_changes_what_is_crafted_on_it_and_what_it_predicts(
    tiny_blueprint: Callable[[str], Blueprint], network: str, changed: dict[str, set[str]]
) -> None:
    blueprint = tiny_blueprint("seed=0")
    networks = dict(blueprint.inspected.networks)
    networks[network] = replace(networks[network], folded=(("0", "1"),))
    folded = Blueprint(blueprint.experiment, replace(blueprint.inspected, networks=networks), blueprint.store)
    before, after = fingerprints(blueprint), fingerprints(folded)
    differ = {kind: {name for name in own if own[name] != after[kind][name]} for kind, own in before.items()}
    nothing: dict[str, set[str]] = {"image sets": set(), "trained": set(), "aligned": set()}
    nothing |= {"reasons": set(), "corrupted": set()}  # for which this experiment does not ask
    assert differ == {**nothing, **changed, "report": {""}}


def test_two_models_of_one_architecture_are_trained_independently(tiny_blueprint: Callable[[str], Blueprint]) -> None:
    net = "{factory: 'nets_of_any_size:net', train: {}}"
    trained = fingerprints(tiny_blueprint(f"models.n={net};models.o={net}"))["trained"]
    assert trained["n"] != trained["o"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"method": "mi"}, {"method": "pgd", "random_start": False, "momentum": 1.0, "step": 0.4 / 255}),
        ({"method": "fgsm"}, {"method": "pgd", "random_start": False, "steps": 1, "step": 4 / 255}),
        ({"method": "ni"}, {"method": "mi", "nesterov": True, "step": 0.4 / 255, "steps": 10}),
        ({"method": "bsr"}, {"method": "mi", "views": [{"name": "block_shuffle", "blocks": 3.0}]}),
        ({"method": "mi"}, {"method": "mi", "objective": {"name": "cross_entropy"}}),
        ({"method": "mi"}, {"method": "gi", "warm_start": 0}),  # without effect: the preset's `warm_stride`
        ({"method": "gra", "step_decay": 1.0}, {"method": "mi", "samples": "relevance"}),
        ({"method": "mi", "momentum": 0.0}, {"method": "ifgsm"}),
        ({"method": "bsr", "budget": 100}, {"method": "bsr", "steps": 5}),
    ],
)
def test_an_attack_that_is_written_in_two_ways_is_the_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert AttackConfig(eps=4 / 255, **one).deciding == AttackConfig(eps=4 / 255, **other).deciding


def test_settings_without_effect_decide_nothing() -> None:
    labels = AlignConfig(weight=0.0, label_weight=1.0)
    assert labels.deciding == AlignConfig(weight=0.0, label_weight=1.0, temperature=9.0, checkpoint_steps=3).deciding
    assert labels.deciding != AlignConfig(weight=0.0, label_weight=2.0).deciding
    assert AlignConfig().deciding != AlignConfig(temperature=9.0).deciding
    assert AlignConfig().deciding != AlignConfig(optimizer=OptimizerConfig(lr=2e-3)).deciding
