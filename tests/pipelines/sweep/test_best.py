"""best.yaml is the experiment with the chosen settings, and the default ones as a variant beside them."""

import dataclasses

import pytest
from sweeping import experiment_in

from align_core.errors import InputError
from pipelines.experiment.config import load_experiment
from pipelines.experiment.surrogates import contrasts_of, surrogates_of
from pipelines.experiment.written import as_yaml
from pipelines.sweep.best import best_experiment

OWN = {"temperature": 2, "epochs": 3, "clip_grad_norm": 1.0, "optimizer": {"name": "sgd", "lr": 0.5, "momentum": 0.8}}
SETTINGS = {"align.temperature": 16.0, "align.optimizer.lr": 0.25, "align.clip_grad_norm": None, "witnesses": ["cnn_b"]}


@pytest.fixture
def experiment(tmp_path):
    return experiment_in(tmp_path, align=OWN, variants={"hot": {"align": {"temperature": 64}}})


@pytest.fixture
def best(experiment):
    return best_experiment(experiment, "full", SETTINGS)[0]


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
    best, _ = best_experiment(experiment, "temperature", {"align.temperature": 16.0})
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
    best, name = best_experiment(experiment.model_copy(update={"models": models}), "full", SETTINGS)
    assert list(best.variants) == [name]
    assert name not in models
    assert name.startswith("default")


@pytest.mark.parametrize(("space", "said"), [("full" * 25, "is no name"), ("my space", "'digits-best-my space'")])
def test_a_name_that_no_folder_may_have_is_refused(experiment, space, said):
    with pytest.raises(InputError) as refusal:
        best_experiment(experiment, space, {})
    assert str(refusal.value).startswith("name: ")
    assert said in str(refusal.value)
