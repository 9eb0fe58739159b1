"""A sweep as it was asked for: which options are refused, and which earlier sweeps and trials count as the same."""

import sys

import pytest
from hand_made import hand_made
from sweeping import TEMPERATURE, space_file, trial

from align_core.errors import InputError
from pipelines.run.request import Request, open_blueprint
from pipelines.sweep.choice import chosen, trial_rows
from pipelines.sweep.figure import sweep_figure
from pipelines.sweep.record import record_path, write_record
from pipelines.sweep.study import Options, Study
from pipelines.sweep.trial import Sweep

PGD = {"method": "pgd", "eps": "4/255", "step": "1/255", "steps": 4}
GRID = {"align.temperature": {"low": 1, "high": 64, "grid": [1, 4, 16]}}
CLIP = {"align.clip_grad_norm": {"choices": [None, 0.5, 1.0]}}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An experiment with validation images and a validation target, as a sweep needs them."""
    experiment = hand_made(tmp_path_factory.mktemp("sweep"))
    data = experiment.content()["data"]
    data |= {"validation": data["train"] | {"take": [4, 8]}, "test": data["test"] | {"take": [8, 16]}}
    attacks = {"pgd": PGD, "twin-of-pgd": PGD, "mi": PGD | {"method": "mi"}}
    roles = {"witnesses": ["seer", "other"], "targets": ["twin"], "validation_targets": ["cousin"]}
    experiment.write(data=data, attacks=attacks, **roles)
    return experiment


@pytest.fixture
def study(made, tmp_path, monkeypatch):
    """Returns a function that makes a study, with options, over the experiment with overrides. Nothing runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def make(*overrides, space="temperature", **options):
        blueprint = open_blueprint(Request(made.file, overrides, output=str(tmp_path / "runs"), quiet=True))
        return Study(blueprint, Options(space, **({"samples": 4} | options)))

    return make


# Options


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"space": "temprature"}, "--space temprature: there is no such space; did you mean 'temperature'?"),
        ({"searcher": "optun"}, "--searcher: there is no searcher 'optun'; did you mean 'optuna'?"),
        ({"scheduler": "zzz"}, "--scheduler: there is no scheduler 'zzz'; there are: asha, none"),
        ({"samples": 0}, "--samples 0: must be at least 1"),
        ({"samples": None}, "--samples: must be given: the number of settings that random tries"),
        ({"samples": None, "searcher": "optuna"}, "--samples: must be given: the number of settings that optuna tries"),
        ({"samples": 6, "searcher": "grid"}, "--samples 6: the grid of temperature has 7 points; leave this flag out"),
        ({"concurrent": 0}, "--concurrent 0: must be at least 1"),
        ({"max_clean_drop": -0.5}, "--max-clean-drop -0.5: must be points of clean accuracy, from 0 to 100"),
        ({"max_clean_drop": 101.0}, "--max-clean-drop 101: must be points of clean accuracy, from 0 to 100"),
        ({"max_clean_drop": float("nan")}, "--max-clean-drop nan: must be points of clean accuracy, from 0 to 100"),
        ({"attack": "pdg"}, "--attack: the experiment has no attack 'pdg'; did you mean 'pgd'?"),
    ],
)
def test_a_wrong_option_is_refused_by_the_name_of_its_flag(study, options, said):
    with pytest.raises(InputError) as refusal:
        study(**options)
    assert str(refusal.value).startswith(said)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("validation_targets=[]", "validation_targets: must be given"),
        ("data.validation=null", "data.validation: must be given"),
        (f"name={'x' * 90}", "name: "),
    ],
)
def test_an_experiment_that_cannot_be_swept_is_refused(study, override, said):
    with pytest.raises(InputError) as refusal:
        study(override)
    assert str(refusal.value).startswith(said)


@pytest.mark.parametrize(
    ("options", "samples"),
    [({}, 4), ({"searcher": "grid", "samples": None}, 7), ({"searcher": "grid", "samples": 7}, 7)],
)
def test_how_many_settings_are_tried(study, options, samples):
    assert study(**options).samples == samples


@pytest.mark.parametrize(("attack", "expected"), [(None, "pgd"), ("mi", "mi")])
def test_the_attack_is_the_first_unless_given(study, attack, expected):
    assert study(attack=attack).attack == expected


# The same sweep again


@pytest.mark.parametrize(
    ("overrides", "options"),
    [
        ((), {"samples": 5}),
        ((), {"searcher": "optuna"}),
        ((), {"scheduler": "asha"}),
        ((), {"space": "optimizer"}),
        ((), {"attack": "mi"}),
        (("seed=1",), {}),
        (("align.epochs=2",), {}),
        (("witnesses=[seer]",), {}),
        (("witnesses=[other, seer]",), {}),
        (("source=stranger",), {}),
        (("validation_targets=[stranger]",), {}),
        (("validation_targets=[cousin, stranger]",), {}),
        (("models.cousin.mean=[0.5]", "models.cousin.std=[0.5]"), {}),
        (("data.validation.take=[4, 7]",), {}),
        (("data.train.take=[0, 3]",), {}),
        (("attacks.pgd.steps=5",), {}),
        (("compute.chunk=3",), {}),
        (("compute.precision=bf16",), {}),
    ],
)
def test_what_changes_a_result_or_what_is_tried_makes_it_another_sweep(study, overrides, options):
    assert study(*overrides, **options).fingerprint != study().fingerprint


@pytest.mark.parametrize(
    ("overrides", "options"),
    [
        ((), {}),
        ((), {"max_clean_drop": 3.0}),
        ((), {"concurrent": 1}),
        ((), {"attack": "twin-of-pgd"}),
        (("targets=[stranger]",), {}),
        (("controls=[]",), {}),
        (("data.test.limit=3",), {}),
        (("attacks.mi.steps=5",), {}),
        (("variants.hot.align.temperature=64",), {}),
        (("compute.workers=5", "compute.threads=2"), {}),
        (("tracking=http://localhost:1",), {}),
    ],
)
def test_what_changes_neither_leaves_it_the_same(study, overrides, options):
    assert study(*overrides, **options).fingerprint == study().fingerprint


RIVALS = "variants={hot: {align: {temperature: 64}}, same: {}, flat: {refine: sam}, taught: {witnesses: [flat, seer]}}"


def test_sweeps_over_different_surrogates_of_one_space_do_not_meet(study):
    """Not even where the settings are the same: their records, and what Ray Tune and MLflow know them by, are apart."""
    names = ("aligned", "hot", "same", "label_only")
    studies = [study(RIVALS, "controls=[label_only]", surrogate=name, space="alignment") for name in names[:3]]
    studies.append(study(RIVALS, "controls=[label_only]", surrogate="label_only", space="label_only"))
    assert len({own.fingerprint for own in studies}) == len({own.folder for own in studies}) == 4
    assert [own.folder for own in studies] == [
        "sweeps/alignment", "sweeps/alignment.hot", "sweeps/alignment.same", "sweeps/label_only.label_only",
    ]  # fmt: skip
    assert len({leave(own, trial(settings={"align.temperature": 8.0})) for own in studies[:3]}) == 3


@pytest.mark.parametrize(
    ("override", "is_the_same"),
    [
        ("variants.flat.align.update.rho=0.5", False),
        ("variants.flat.align.epochs=3", False),
        ("variants.flat.source=stranger", False),
        ("variants.flat.budget=hot", False),
        ("variants.hot.align.temperature=32", True),
        ("align.epochs=2", False),
        ("align.temperature=2", True),  # SAM learns from the labels alone
    ],
)
def test_a_rivals_sweep_is_known_by_the_settings_of_its_entry(study, override, is_the_same):
    before, after = study(RIVALS, surrogate="flat", space="sam"), study(RIVALS, override, surrogate="flat", space="sam")
    records = [
        leave(own, trial(settings={"align.update.rho": 0.25, "align.optimizer.lr": 0.5})) for own in (before, after)
    ]
    if "rho" not in override:  # which every trial draws anew
        assert (records[0] == records[1]) is is_the_same
    assert (after.fingerprint == before.fingerprint) is (is_the_same and "temperature=2" not in override)


def test_what_a_witness_is_made_from_is_needed_too(study):
    own = study(RIVALS, surrogate="taught", space="alignment")
    assert own.needed == {"near", "flat", "seer", "cousin"}
    own = study(RIVALS, "seeds=[3, 4]", "variants.flat.source=other", surrogate="taught", space="alignment")
    assert own.needed == {"near", "other", "flat~3", "seer", "cousin"}


def test_of_several_seeds_trials_have_the_first(study):
    one, several = study("seed=3"), study("seeds=[3, 4]")
    assert several.inputs == one.inputs
    assert several.inputs["seed"] == 3
    assert several.fingerprint == one.fingerprint


def test_a_sweep_over_crops_depends_on_pixels_and_originals(study, tmp_path):
    manifest = study().blueprint.inspected.manifests["train"]
    originals = [manifest.digest_of_originals, "bicubic"]
    searched = str(space_file(tmp_path, {"align.augment.crop": {"choices": ["pad4", "random_resized"]}}))
    assert study().inputs["images"] == manifest.digest
    assert study("align.augment.crop=random_resized").inputs["images"] == originals
    for override in ("align.augment.crop=pad4", "align.augment.crop=random_resized"):
        assert study(override, space=searched).inputs["images"] == [manifest.digest, originals]


def test_optuna_learns_from_the_drop_that_is_allowed(study):
    one, other = (study(searcher="optuna", max_clean_drop=drop).fingerprint for drop in (1.0, 2.0))
    assert one != other


@pytest.mark.parametrize(
    ("change", "is_the_same"),
    [
        ({"why": "another reason"}, True),
        ({"low": 0.5}, False),
        ({"high": 32}, False),
        ({"scale": "log"}, False),
        ({"grid": [1, 8]}, False),
    ],
)
def test_a_users_own_space_is_known_by_what_it_tries(study, tmp_path, change, is_the_same):
    before = study(space=space_file(tmp_path, GRID), searcher="grid", samples=None).fingerprint
    changed = {"align.temperature": GRID["align.temperature"] | change}
    after = study(space=space_file(tmp_path, changed), searcher="grid", samples=None).fingerprint
    assert (after == before) is is_the_same


def test_a_sweep_is_over_when_one_with_its_fingerprint_has_ended(study):
    first = study()
    assert not first.is_over()
    fingerprints = [
        leave(first, trial(settings={"align.temperature": 2.0 + number})) for number in range(first.samples)
    ]
    end = {"fingerprint": first.fingerprint, "trials": fingerprints}
    first.blueprint.store.write_json(f"{first.folder}/sweep.json", end)
    assert study().is_over()
    first.blueprint.store.write_json(f"{first.folder}/sweep.json", end | {"trials": fingerprints[1:]})
    assert not study().is_over()
    first.blueprint.store.write_json(f"{first.folder}/sweep.json", end)
    first.blueprint.store.delete(record_path(first.folder, fingerprints[0]))
    assert not study().is_over()
    assert not study(samples=5).is_over()
    assert not study("align.epochs=2").is_over()


# Trials of earlier sweeps


def leave(study, record):
    """Writes the record of a trial as a sweep would, and returns the trial's fingerprint."""
    blueprint = study.blueprint
    sweep = Sweep(
        store=blueprint.store, folder=study.folder, entry=study.entry, base=None, inputs=study.inputs,
        identities={name: blueprint.networks[name].identity for name in blueprint.experiment.witnesses},
        validation=None,
        baseline=None, max_clean_drop=study.options.max_clean_drop, worker=None, is_scheduled=False,
    )  # fmt: skip
    fingerprint = sweep.fingerprint(record.settings)
    write_record(blueprint.store, record_path(study.folder, fingerprint), record)
    return fingerprint


def test_trials_are_found_again_whatever_asks_for_them(study):
    record = trial(5.0, settings={"align.temperature": 8.0})
    fingerprint = leave(study(), record)
    others = {"samples": 9}, {"searcher": "optuna"}, {"scheduler": "asha"}, {"max_clean_drop": 5.0}
    for options in ({}, *others):
        assert study(**options).records() == {fingerprint: record}


@pytest.mark.parametrize("override", ["align.epochs=2", "witnesses=[seer]"])
def test_trials_over_other_settings_of_the_experiment_are_no_trials_of_this_sweep(study, override):
    """With the same searched settings, best.yaml would be another experiment than the one that was measured."""
    leave(study(), trial(50.0, settings={"align.temperature": 8.0}))
    fingerprint = leave(study(override), trial(5.0, settings={"align.temperature": 16.0}))
    assert list(study(override).records()) == [fingerprint]


OLD, NEW = (
    {"align.temperature": 8.0, "align.clip_grad_norm": 1.0},
    {"align.temperature": 4.0, "align.clip_grad_norm": 0.5},
)
OTHER_CLIP = {"align.clip_grad_norm": {"choices": [0.5, 2.0]}}


@pytest.mark.parametrize(
    ("before", "after"),
    [(TEMPERATURE, TEMPERATURE | CLIP), (TEMPERATURE | CLIP, TEMPERATURE), (TEMPERATURE, CLIP), (CLIP, OTHER_CLIP)],
    ids=["one more key", "one key less", "another key", "another choice"],
)
def test_a_space_that_was_changed_between_two_sweeps_shows_and_chooses_what_it_holds(study, tmp_path, before, after):
    first = study(space=space_file(tmp_path, before))
    leave(first, trial(9.0, settings={key: OLD[key] for key in before}))
    second = study(space=space_file(tmp_path, after))
    fingerprint = leave(second, trial(3.0, settings={key: NEW[key] for key in after}))
    records = second.records()
    assert fingerprint in [row["trial"] for row in trial_rows(second.space, records, ["cousin"])]
    assert sweep_figure(second.space, records, fingerprint, "by-hand", "aligned").startswith(b"\x89PNG")
    assert records[chosen(records, 1.0)].settings.keys() == after.keys()
