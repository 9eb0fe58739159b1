"""The surrogates that an experiment has, and the pairs of them that are compared."""

import dataclasses
from typing import Any

import pytest

from align_core.errors import InputError
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


def test_label_only_leaves_out_what_needs_a_witness(tiny_blueprint: Any) -> None:
    terms = "align={terms: [self_adversarial, {name: input_gradient, weight: 0.5}]}"
    found = surrogates(tiny_blueprint(f"controls=[label_only];{terms}"))
    aligned, control = found["aligned"].align, found["label_only"].align
    assert aligned is not None and control is not None and len(aligned.terms) == 2
    assert control.terms == [{"name": "input_gradient", "weight": 0.5}]


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


@pytest.mark.parametrize(
    "variants",
    [
        "{w: {refine: sam}}",  # where the experiment's loss and temperature have no effect
        "{w: {refine: sam, align: {weight: 1, label_weight: 0, temperature: 8}}}",
        "{w: {align: {weight: 0, label_weight: 1}}}",
    ],
)
def test_what_a_variant_inherits_may_have_no_effect_on_it(tiny_blueprint: Any, variants: str) -> None:
    assert "w" in surrogates(tiny_blueprint(f"align={{loss: rkd, temperature: 9}};variants={variants}"))


def test_the_settings_of_an_alignment_may_be_meant_for_variants(tiny_blueprint: Any) -> None:
    settings = "align={weight: 0, label_weight: 1, temperature: 9};variants={w: {align: {weight: 1}}}"
    assert surrogates(tiny_blueprint(settings))["w"].align.temperature == 9  # type: ignore[union-attr]


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
    assert blueprint.experiment.seed == 3


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        ("{w: {refine: sam, budget: aligned, align: {batch_size: 4}}}", "that of aligned is less than one step of w$"),
        ("{w: {refine: mba}, v: {witnesses: [w]}}", "variants.v.witnesses: w is 10 networks"),
    ],
)
def test_of_several_seeds_messages_name_what_the_file_names(tiny_blueprint: Any, variants: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        tiny_blueprint(f"seeds=[3, 5];align={{limit_steps: 1, batch_size: 1}};variants={variants}")


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


MATRIX = "matrix=[a, c, d];source=null;targets=null;variants={}"


def test_in_a_matrix_every_model_is_a_source_and_a_target_of_the_others(tiny_blueprint: Any) -> None:
    found = surrogates(tiny_blueprint(f"{MATRIX};witnesses=[]"))
    targets = ["a", "c", "d"]
    assert {name: (s.source, s.baseline, list(s.members), s.unseen(targets)) for name, s in found.items()} == {
        "source-a": ("a", "source-a", ["a"], ["c", "d"]),
        "source-c": ("c", "source-c", ["c"], ["a", "d"]),
        "source-d": ("d", "source-d", ["d"], ["a", "c"]),
    }


def test_with_witnesses_every_model_of_a_matrix_is_aligned_and_controlled(tiny_blueprint: Any) -> None:
    settings = "matrix=[a, c];variants={};controls=[label_only, witness, ensemble, aligned_ensemble];align.epochs=3"
    blueprint = tiny_blueprint(f"{MATRIX};{settings}")
    found = surrogates(blueprint)
    assert {name: (s.source, s.baseline, list(s.members), s.witnesses) for name, s in found.items()} == {
        "source-a": ("a", "source-a", ["a"], ()),
        "source-c": ("c", "source-c", ["c"], ()),
        "aligned-a": ("a", "source-a", ["aligned-a"], ("b",)),
        "aligned-c": ("c", "source-c", ["aligned-c"], ("b",)),
        "label_only-a": ("a", "source-a", ["label_only-a"], ()),
        "label_only-c": ("c", "source-c", ["label_only-c"], ()),
        "witness": ("b", "witness", ["b"], ()),
        "ensemble-a": ("a", "source-a", ["a", "b"], ()),
        "ensemble-c": ("c", "source-c", ["c", "b"], ()),
        "aligned_ensemble-a": ("a", "source-a", ["aligned-a", "b"], ()),
        "aligned_ensemble-c": ("c", "source-c", ["aligned-c", "b"], ()),
    }
    assert list(found) == [
        *("source-a", "source-c", "aligned-a", "aligned-c", "label_only-a", "label_only-c", "witness"),
        *("ensemble-a", "ensemble-c", "aligned_ensemble-a", "aligned_ensemble-c"),
    ]
    for name in ("a", "c"):
        aligned, control = found[f"aligned-{name}"].align, found[f"label_only-{name}"].align
        assert aligned.epochs == 3 and control == dataclasses.replace(aligned, weight=0.0, label_weight=1.0)
    assert {name: s.unseen(["a", "c"]) for name, s in found.items()} == {
        name: ["a", "c"] if name == "witness" else ["c"] if name.endswith("-a") else ["a"] for name in found
    }
    assert contrasts_of(list(found.values())) == [
        *(("aligned-a", own) for own in ("label_only-a", "witness", "ensemble-a")),
        *(("aligned-c", own) for own in ("label_only-c", "witness", "ensemble-c")),
        *((f"aligned_ensemble-{name}", f"ensemble-{name}") for name in ("a", "c")),
    ]
    makings = {making.name: (making.start, making.witnesses) for making in blueprint.alignments()}
    assert makings["aligned-c"] == ("c", ("b",)) and makings["label_only-c"] == ("c", ())


def test_what_is_made_in_a_matrix_is_what_an_experiment_of_one_source_makes(tiny_blueprint: Any) -> None:
    of_matrix = tiny_blueprint("matrix=[a, c];source=null;targets=null;variants={};controls=[label_only]")
    alone = tiny_blueprint("source=c;targets=[a];variants={};controls=[label_only]")
    one, other = ({making.name: making.fingerprint for making in own.alignments()} for own in (of_matrix, alone))
    assert (one["aligned-c"], one["label_only-c"]) == (other["aligned"], other["label_only"])
    tables = [own.cell(name, "x", "a").table for own, name in ((of_matrix, "source-c"), (alone, "source"))]
    assert tables[0].fingerprint == tables[1].fingerprint


def test_a_variant_in_a_matrix_has_the_targets_that_it_does_not_know(tiny_blueprint: Any) -> None:
    variants = (
        "variants={to_d: {source: a, witnesses: [d]}, both: {source: a, ensemble: [c, to_d]}, "
        "hot: {source: a, align: {temperature: 9}}, outside: {source: f}, rest: {source: c, ensemble: [source-a, c]}}"
    )
    more = "models.f={factory: 'nets_of_any_size:net', train: {}};matrix=[a, c, d, e]"
    blueprint = tiny_blueprint(f"{MATRIX};{variants};{more};contrasts=[[both, rest], [source-d, source-c]]")
    found, targets = surrogates(blueprint), ["a", "c", "d", "e"]
    assert {name: s.unseen(targets) for name, s in found.items() if not s.role} == {
        "to_d": ["c", "e"],
        "both": ["e"],  # c itself, and what to_d was made from
        "hot": ["c", "d", "e"],
        "outside": targets,
        "rest": ["d", "e"],
    }
    assert found["source-f"].unseen(targets) == targets
    assert {(cell.surrogate, cell.target) for cell in blueprint.cells() if cell.surrogate == "rest"} == {
        ("rest", "@self"), ("rest", "d"), ("rest", "e"),
    }  # fmt: skip
    assert contrasts_of(list(found.values()), blueprint.experiment.contrasts) == [
        *((name, "aligned-a") for name in ("to_d", "hot")),
        ("both", "rest"),
        ("source-d", "source-c"),
    ]


def test_a_matrix_of_several_seeds_has_each_of_its_surrogates_once_for_each(tiny_blueprint: Any) -> None:
    settings = "seeds=[3, 5];controls=[label_only, witness];contrasts=[[witness, source-c]]"
    blueprint = tiny_blueprint(f"{MATRIX};matrix=[a, c];{settings}")
    found = surrogates(blueprint)
    names = ("source-a", "source-c", "aligned-a", "aligned-c", "label_only-a", "label_only-c", "witness")
    assert list(found) == [f"{name}~{seed}" for name in names for seed in (3, 5)]
    assert [own.series for own in found.values() if own.seed == 5] == list(names)
    aligned, witness = found["aligned-c~5"], found["witness~5"]
    assert (aligned.baseline, aligned.members, aligned.known) == ("source-c~5", ("aligned-c~5",), {"b", "c"})
    assert (witness.baseline, witness.source, witness.unseen(["a", "c"])) == ("witness~5", "b", ["a", "c"])
    assert {(cell.surrogate, cell.target) for cell in blueprint.cells() if cell.surrogate == "source-a~5"} == {
        ("source-a~5", "@self"), ("source-a~5", "c"),
    }  # fmt: skip
    assert set(contrasts_of(list(found.values()), blueprint.experiment.contrasts)) == {
        *((f"aligned-{own}~{seed}", f"label_only-{own}~{seed}") for own in ("a", "c") for seed in (3, 5)),
        *((f"aligned-{own}~{seed}", f"witness~{seed}") for own in ("a", "c") for seed in (3, 5)),
        *((f"witness~{seed}", f"source-c~{seed}") for seed in (3, 5)),
    }
