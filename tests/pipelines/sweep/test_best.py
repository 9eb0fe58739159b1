"""The experiment of best.yaml: the chosen settings in their place, and those of the surrogate's entry beside them."""

import dataclasses

import pytest
from sweeping import IMAGES, experiment_in

from align_core.errors import InputError
from pipelines.experiment.config import load_experiment
from pipelines.experiment.surrogates import contrasts_of, surrogates_of
from pipelines.experiment.written import as_yaml
from pipelines.sweep.best import Best, best_experiment
from pipelines.sweep.entry import entry_of, settled

OWN = {"temperature": 2, "epochs": 3, "clip_grad_norm": 1.0, "optimizer": {"name": "sgd", "lr": 0.5, "momentum": 0.8}}
CHOSEN = {"align.temperature": 16.0, "align.optimizer.lr": 0.25, "align.clip_grad_norm": None, "witnesses": ["cnn_b"]}


def best_of(experiment, surrogate, space, settings) -> Best:
    return best_experiment(experiment, entry_of(experiment, surrogate, IMAGES), space, settings)


@pytest.fixture
def experiment(tmp_path):
    return experiment_in(tmp_path, align=OWN, variants={"hot": {"align": {"temperature": 64}}})


@pytest.fixture
def best(experiment):
    return best_of(experiment, "aligned", "full", CHOSEN).experiment


def test_the_chosen_settings_are_the_experiments_own(experiment, best):
    optimizer = dataclasses.replace(experiment.align.optimizer, lr=0.25)
    changes = {"temperature": 16.0, "clip_grad_norm": None, "optimizer": optimizer}
    assert best.align == dataclasses.replace(experiment.align, **changes)
    assert best.witnesses == ["cnn_b"]


def test_everything_else_is_as_it_was(experiment, best):
    changed = {"name", "align", "witnesses", "variants"}
    assert best.model_dump(exclude=changed) == experiment.model_dump(exclude=changed)
    assert best.name == "digits-best-full"


def test_the_default_settings_are_the_only_variant_as_they_were(experiment, best):
    aligned = {surrogate.name: surrogate for surrogate in surrogates_of(experiment)}["aligned"]
    surrogates = {surrogate.name: surrogate for surrogate in surrogates_of(best)}
    assert "hot" not in surrogates
    assert surrogates["default"].align == aligned.align == experiment.align
    assert surrogates["default"].witnesses == aligned.witnesses == ("wide", "cnn_b")
    assert surrogates["default"].source == surrogates["aligned"].source == "cnn_a"
    assert ("default", "aligned") in contrasts_of(list(surrogates.values()))


def test_settings_that_are_not_searched_stay(experiment):
    best = best_of(experiment, "aligned", "temperature", {"align.temperature": 16.0}).experiment
    assert best.align == dataclasses.replace(experiment.align, temperature=16.0)
    assert best.witnesses == experiment.witnesses


def test_the_experiment_itself_is_left_alone(experiment, best, tmp_path):
    assert experiment == load_experiment(tmp_path / "digits.yaml")


def test_as_it_is_written_it_is_loaded(best, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "best.yaml").write_text(as_yaml(best))
    assert load_experiment(tmp_path / "elsewhere" / "best.yaml") == best


@pytest.mark.parametrize("taken", [(), ("default",), ("default", "default_settings")])
def test_the_variant_has_a_name_that_no_model_has(tmp_path, experiment, taken):
    models = experiment.models | {name: experiment.models["cnn_d"] for name in taken}
    best, tuned, name = best_of(experiment.model_copy(update={"models": models}), "aligned", "full", CHOSEN)
    assert tuned == "aligned"
    assert list(best.variants) == [name]
    assert name not in models
    assert name.startswith("default")


@pytest.mark.parametrize(("space", "said"), [("full" * 25, "is no name"), ("my space", "'digits-best-my space'")])
def test_a_name_that_no_folder_may_have_is_refused(experiment, space, said):
    with pytest.raises(InputError) as refusal:
        best_of(experiment, "aligned", space, {})
    assert str(refusal.value).startswith("name: ")
    assert said in str(refusal.value)


def test_a_source_that_teaches_itself_has_no_witnesses_beside_its_settings(tmp_path):
    experiment = experiment_in(tmp_path, align={"teacher": "source"})
    best = best_of(experiment, "aligned", "temperature", {"align.temperature": 16.0}).experiment
    assert best.witnesses == ["wide", "cnn_b"]
    assert best.variant_align("default") == experiment.align


def test_an_alignment_of_weight_0_names_nothing_that_has_no_effect(tmp_path):
    experiment = experiment_in(tmp_path, align={"weight": 0, "label_weight": 1})
    best = best_of(experiment, "aligned", "optimizer", {"align.optimizer.lr": 0.25}).experiment
    assert best.variant_align("default") == experiment.align
    assert not {"loss", "temperature", "over_witnesses", "teacher"} & best.variants["default"].align.keys()


# Other surrogates than `aligned`

RIVALS = {
    "hot": {"align": {"temperature": 64}},
    "base": {"refine": "sam"},
    "free": {"refine": "lgv", "align": {"keep": {"per_epoch": 2}}},
    "flat": {"refine": "sam", "align": {"optimizer": {"lr": 0.5}}, "budget": "free"},
    "near": {"refine": "saa", "source": "cnn_c", "witnesses": ["base", "wide"]},
    "sum": {"align": {"loss": ["kl", {"name": "rkd", "angle": 3}]}},
    "shy": {"refine": "dra", "align": {"epochs": 5}},
}
CHOICES = [
    ("free", {"align.keep.per_epoch": 8, "align.optimizer.lr": 0.25}, {"free"}),
    ("flat", {"align.update.rho": 0.25}, {"flat", "free"}),
    ("near", {"align.terms.self_adversarial.weight": 0.5, "align.loss.local.weight": 2.0}, {"near", "base"}),
    ("near", {"witnesses": ["base"]}, {"near", "base"}),
    ("sum", {"align.loss.rkd.weight": 9.0}, {"sum"}),
    ("shy", {"align.terms.score_matching.weight": 0.5}, {"shy"}),
]


@pytest.fixture
def rivals(tmp_path):
    pairs = [["hot", "flat"], ["flat", "aligned"], ["source", "aligned"]]
    targets = ["mlp"]
    return experiment_in(tmp_path, align=OWN, variants=RIVALS, contrasts=pairs, targets=targets)


@pytest.mark.parametrize(("name", "settings", "left"), CHOICES, ids=[str(own[:2]) for own in CHOICES])
def test_a_variant_has_the_chosen_settings_under_its_own_name(rivals, tmp_path, name, settings, left):
    best, tuned, default = best_of(rivals, name, "mine", settings)
    assert (tuned, default) == (name, "default")
    assert set(best.variants) == left | {"default"}
    before = {own.name: own for own in surrogates_of(rivals)}
    now = {own.name: own for own in surrogates_of(best)}
    entry = entry_of(rivals, name, IMAGES)
    # Steps within a budget are counted anew, in this experiment as in that of the sweep.
    unlimited = dataclasses.replace(entry, budget=None)
    assert (now[name].align, now[name].witnesses) == settled(unlimited, settings)
    assert now[name].align != before[name].align or now[name].witnesses != before[name].witnesses
    assert (now["default"].align, now["default"].witnesses) == (before[name].align, before[name].witnesses)
    for kept in ("source", "refine", "budget", "combine"):
        assert getattr(now[name], kept) == getattr(now["default"], kept) == getattr(before[name], kept)
    assert now["aligned"] == before["aligned"]
    assert (name, "default") in contrasts_of(list(now.values()), best.contrasts)
    (tmp_path / "best.yaml").write_text(as_yaml(best))
    assert load_experiment(tmp_path / "best.yaml") == best


def test_of_a_variant_whose_weight_is_chosen_to_be_0_only_what_has_an_effect_is_written(rivals):
    best = best_of(rivals, "hot", "mine", {"align.weight": 0.0, "align.label_weight": 1.0}).experiment
    assert best.variants["hot"].align == {"weight": 0.0, "label_weight": 1.0}
    assert best.variants["default"].align == {"temperature": 64}


def test_only_contrasts_of_surrogates_that_are_left_stay(rivals):
    assert best_of(rivals, "flat", "sam", {}).experiment.contrasts == [
        ["flat", "aligned"], ["source", "aligned"], ["flat", "default"],
    ]  # fmt: skip
    assert best_of(rivals, "aligned", "full", {}).experiment.contrasts == [["source", "aligned"]]


def test_a_control_is_left_as_it_is_and_compared_with_a_variant(rivals):
    best, tuned, default = best_of(rivals, "label_only", "label_only", {"align.optimizer.lr": 0.25})
    assert (tuned, default, list(best.variants)) == ("tuned_label_only", "label_only", ["tuned_label_only"])
    now = {own.name: own for own in surrogates_of(best)}
    before = {own.name: own for own in surrogates_of(rivals)}["label_only"]
    assert now["label_only"] == before
    optimizer = dataclasses.replace(before.align.optimizer, lr=0.25)
    assert now[tuned].align == dataclasses.replace(before.align, optimizer=optimizer)
    assert (tuned, default) in contrasts_of(list(now.values()), best.contrasts)


def test_experiments_of_different_surrogates_have_different_names(rivals):
    names = [
        best_of(rivals, own, space, {}).experiment.name for own in ("aligned", "flat") for space in ("a", "a-flat")
    ]
    assert names == ["digits-best-a", "digits-best-a-flat", "digits-best-a.flat", "digits-best-a-flat.flat"]


def test_all_seeds_are_tested(tmp_path):
    experiment = experiment_in(tmp_path, variants=RIVALS, targets=["mlp"])
    experiment = experiment.model_copy(update={"seeds": [4, 7], "seed": 4})
    best, _, _ = best_of(experiment, "flat", "sam", {"align.update.rho": 0.25})
    assert {own.name for own in surrogates_of(best)} >= {"flat~4", "flat~7", "default~4", "default~7"}
