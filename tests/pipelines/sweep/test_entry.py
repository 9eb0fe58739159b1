"""The surrogate of a sweep: which there are, how settings reach its parts, and the budget that every trial keeps."""

import dataclasses

import pytest
from sweeping import IMAGES, entry_in, experiment_in, space_file

from align_core.errors import InputError
from align_core.refinements.cost import passes_per_image
from pipelines.experiment.surrogates import resolved, surrogates_of
from pipelines.sweep.entry import entry_of, settled
from pipelines.sweep.space import load_space

VARIANTS = {
    "flat": {"refine": "sam", "source": "cnn_c"},
    "lgv": {"refine": "lgv"},
    "saa": {"refine": "saa"},
    "sum": {"align": {"loss": ["kl", {"name": "rkd", "angle": 3}]}},
    "by_hand": {"align": {"inputs": {"name": "pgd", "steps": 2}}, "budget": "lgv"},
    "sam_too": {"refine": "sam", "budget": "by_hand"},
    "taught": {"witnesses": ["saa", "wide"]},
    "pair": {"ensemble": ["aligned", "flat"]},
    "made": {"model": "cnn_b"},
}
# The witness cnn_b is a model of its own too, and cnn_c a source, so that neither can be a target.
ROLES = {"variants": VARIANTS, "targets": ["mlp"]}


def entry(folder, name, **changes):
    return entry_in(folder, name, **ROLES, **changes)


def refusal(folder, name, keys):
    own = entry(folder, name)
    with pytest.raises(InputError) as refused:
        load_space(space_file(folder, keys), own)
    return str(refused.value)


# Which surrogate


@pytest.mark.parametrize("name", ["aligned", "label_only", "flat", "lgv", "saa", "sum", "by_hand", "taught"])
def test_whatever_is_fine_tuned_has_the_settings_of_its_entry(tmp_path, name):
    (own,) = (s for s in surrogates_of(experiment_in(tmp_path, **ROLES)) if s.name == name)
    found = entry(tmp_path, name)
    assert (found.name, found.align, found.witnesses) == (name, own.align, own.witnesses)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("flatt", "--surrogate: the experiment has no surrogate 'flatt'; did you mean 'flat'?"),
        ("zzz", "--surrogate: the experiment has no surrogate 'zzz'; there are: aligned, by_hand, flat, "),
        ("lgv~0", "--surrogate: the experiment has no surrogate 'lgv~0'; did you mean 'lgv'?"),
        ("source", "--surrogate source: it is the model cnn_a as it is, so that it has no settings to search"),
        ("made", "--surrogate made: it is the model cnn_b as it is, so that it has no settings to search"),
        ("witness-wide", "--surrogate witness-wide: it is the model wide as it is"),
        ("pair", "--surrogate pair: it only puts aligned and flat together, so that it has no settings to search; "),
        ("ensemble", "--surrogate ensemble: it only puts cnn_a and wide and cnn_b together"),
    ],
)
def test_what_is_not_fine_tuned_is_refused_with_the_reason(tmp_path, name, said):
    with pytest.raises(InputError) as refused:
        entry(tmp_path, name)
    assert str(refused.value).startswith(said)


def test_of_several_seeds_the_first_is_tuned(tmp_path):
    experiment = experiment_in(tmp_path, **ROLES).model_copy(update={"seeds": [5, 6], "seed": 5})
    found = entry_of(experiment, "taught", IMAGES)
    assert (found.name, found.witnesses) == ("taught", ("saa", "wide"))
    assert found.networks == {"taught": "taught~5", "saa": "saa~5", "wide": "wide"}


# Which settings


@pytest.mark.parametrize(
    ("name", "settings", "changes"),
    [
        ("flat", {"align.update.rho": 0.25}, {"update": {"name": "sam", "rho": 0.25}}),
        ("lgv", {"align.keep.per_epoch": 7}, {"keep": {"name": "collect", "per_epoch": 7}}),
        ("by_hand", {"align.inputs.eps": 0.5}, {"inputs": {"name": "pgd", "eps": 0.5, "step": 1 / 255, "steps": 2}}),
        (
            "sum",
            {"align.loss.rkd.weight": 9.0, "align.loss.rkd.distance": 0.5},
            {"loss": [{"name": "kl", "weight": 1.0}, {"name": "rkd", "weight": 9.0, "distance": 0.5, "angle": 3.0}]},
        ),
        ("aligned", {"align.loss.kl.weight": 3.0}, {"loss": [{"name": "kl", "weight": 3.0}]}),
        ("aligned", {"align.loss.kl.weight": 1.0}, {"loss": "kl"}),
        (
            "saa",
            {"align.terms.self_adversarial.weight": 0.5, "align.loss.local.weight": 2.0},
            {
                "loss": [{"name": "kl", "weight": 1.0}, {"name": "local", "weight": 2.0}],
                "terms": [
                    {"name": "self_adversarial", "weight": 0.5, "local": 0.02, "eps": 4 / 255, "step": 1 / 255,
                     "steps": 10},
                ],
            },
        ),
        ("flat", {"align.update": "plain"}, {"update": "plain"}),
    ],
    ids=lambda value: str(value)[:50],
)  # fmt: skip
def test_settings_reach_a_part_and_leave_all_others(tmp_path, name, settings, changes):
    own = entry(tmp_path, name)
    own = dataclasses.replace(own, budget=None)
    align, _ = settled(own, settings)
    assert align == dataclasses.replace(own.align, **changes)


@pytest.mark.parametrize(
    ("name", "key", "said"),
    [
        ("lgv", "align.update.rho", "of lgv, `update` is plain; choose a space that suits it"),
        ("flat", "align.keep.per_epoch", "of flat, `keep` is last; choose"),
        ("flat", "align.update.gamma", "of flat, `update` is sam, which has rho; choose"),
        ("aligned", "align.loss.rkd.weight", "of aligned, `loss` is kl; choose"),
        ("sum", "align.loss.hint.weight", "of sum, `loss` is kl, rkd; choose"),
        ("sum", "align.terms.score_matching.weight", "sum has no `terms`; choose"),
        ("flat", "align.update.roh", "the experiment has no such key; did you mean 'align.update.rho'?"),
        ("lgv", "align.temperature", "changes nothing of lgv; choose a space that suits it"),
        ("by_hand", "align.epochs", "changes nothing of by_hand, whose `budget` decides how long it is trained"),
    ],
)
def test_a_key_that_the_surrogate_has_not_is_refused(tmp_path, name, key, said):
    message = refusal(tmp_path, name, {key: {"low": 1, "high": 2, "scale": "integer"}})
    assert f"mine.yaml: keys.{key}: {said}" in message


def test_witnesses_are_searched_among_its_own(tmp_path):
    space = load_space(space_file(tmp_path, {"witnesses": {"subsets_of": "witnesses"}}), entry(tmp_path, "taught"))
    assert space.choices["witnesses"] == [["saa"], ["wide"], ["saa", "wide"]]
    said = refusal(tmp_path, "flat", {"witnesses": {"choices": [["wide"], ["cnn_b"]]}})
    assert "keys.witnesses: flat has no witness; choose a space that suits it" in said


def test_a_part_and_its_setting_are_not_searched_together(tmp_path):
    keys = {"align.update": {"choices": ["sam", "plain"]}, "align.update.rho": {"low": 0.1, "high": 1}}
    assert "keys.align.update: align.update.rho is a setting of it" in refusal(tmp_path, "flat", keys)


def test_a_key_counts_where_it_has_an_effect_beside_any_value_of_the_others(tmp_path):
    keys = {"align.weight": {"choices": [0, 1]}, "align.temperature": {"low": 1, "high": 4}}
    own = entry(tmp_path, "aligned", align={"label_weight": 1.0})
    assert load_space(space_file(tmp_path, keys), own).keys == ["align.temperature", "align.weight"]


# The budget


@pytest.mark.parametrize("name", ["by_hand", "sam_too"])
def test_its_own_settings_take_the_steps_of_its_entry(tmp_path, name):
    experiment = experiment_in(tmp_path, **ROLES)
    (planned,) = (own for own in resolved(surrogates_of(experiment), IMAGES) if own.name == name)
    align, _ = settled(entry(tmp_path, name), {})
    assert align == planned.align
    assert align.limit_steps


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_every_trial_takes_the_passes_of_its_budget(tmp_path, steps):
    """Dearer steps are fewer: the passes of all of them fill the budget but for less than one step."""
    own = entry(tmp_path, "by_hand")
    spent = 4 * 4 * 64 * 2  # of lgv: 4 epochs of 4 steps with 64 images, a pass there and back for each
    align, witnesses = settled(own, {"align.inputs.steps": steps})
    step = passes_per_image(align, len(witnesses)).total * 64
    assert own.budget == spent
    assert 0 <= spent - align.limit_steps * step < step


def test_settings_that_leave_no_step_within_the_budget_are_refused(tmp_path):
    said = refusal(tmp_path, "by_hand", {"align.inputs.steps": {"choices": [1, 500]}})
    assert "align.inputs.steps = 500: variants.by_hand.budget: that of lgv is less than one step of by_hand" in said
