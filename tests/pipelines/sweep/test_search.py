"""The settings that a searcher draws: distributed as the space says, never twice, learned from what it was told.

All of this holds after a restart too.
"""

import json
import math
from itertools import product

import numpy as np
import pytest
import ray
from scipy.stats import chisquare, kstest, loguniform, uniform
from sweeping import TEMPERATURE, space_of

from pipelines.sweep.search import DistinctSearch

LR = {"align.optimizer.lr": {"low": 1e-4, "high": 0.2, "scale": "log"}}
EPOCHS = {"align.epochs": {"low": 1, "high": 4, "scale": "integer", "grid": [1, 2, 3, 4]}}
CLIP = {"align.clip_grad_norm": {"choices": [None, 0.1, 1.0]}}
SUBSETS = {"witnesses": {"choices": [["a"], ["b"], ["c"], ["a", "b"], ["a", "c"], ["b", "c"], ["a", "b", "c"]]}}
GRID = {"align.temperature": {"low": 1, "high": 64, "scale": "log", "grid": [16, 1, 4]}} | CLIP
SMALL = {"a choice": SUBSETS, "an integer": EPOCHS, "both": EPOCHS | CLIP}


def search(keys, kind="random", seed=0, samples=40):
    return DistinctSearch(space_of(keys), kind, seed, samples, metric="score")


def drawn(searcher, count, score=None, first=0):
    """Draws the settings of `count` trials, or of as many as there are.

    Where `score` is given, the searcher is told each trial's score before it is asked for the next.
    """
    found = []
    for number in range(first, first + count):
        answer = searcher.suggest(f"trial-{number}")
        if answer == DistinctSearch.FINISHED:
            break
        found.append(answer["settings"])
        if score is not None:
            searcher.on_trial_complete(f"trial-{number}", {"score": score(found[-1])})
    return found


def restored(searcher, folder, **like):
    """Returns another searcher, restored from what this one saved."""
    searcher.save(str(folder / "state"))
    other = DistinctSearch(searcher.space, searcher.kind, searcher.seed, searcher.samples, searcher.metric)
    other.restore(str(folder / "state"))
    return other


def temperatures(settings):
    return np.array([each["align.temperature"] for each in settings])


def distance(settings):
    """Returns the mean distance of the temperatures from 16, in doublings."""
    return float(np.abs(np.log2(temperatures(settings)) - 4).mean())


def peaked(settings):
    """A score whose maximum is at a temperature of 16."""
    return -((math.log2(settings["align.temperature"]) - 4) ** 2)


def unhashed(settings):
    return [repr(sorted(each.items(), key=lambda item: item[0])) for each in settings]


# Distributions


@pytest.mark.parametrize("kind", ["random", "optuna"])
def test_the_same_seed_draws_the_same_and_another_seed_others(kind):
    one, same, other = (drawn(search(TEMPERATURE | CLIP, kind, seed), 30, peaked) for seed in (3, 3, 4))
    assert len(one) == 30
    assert one == same
    assert not [each for each in one if each in other]


@pytest.mark.parametrize(("keys", "key"), [(TEMPERATURE, "align.temperature"), (LR, "align.optimizer.lr")])
def test_draws_on_a_log_scale_are_log_uniform(keys, key):
    values = [each[key] for each in drawn(search(keys), 500)]
    low, high = keys[key]["low"], keys[key]["high"]
    assert kstest(values, loguniform(low, high).cdf).pvalue > 0.01
    assert kstest(values, uniform(low, high - low).cdf).pvalue < 1e-9


def test_draws_on_a_linear_scale_are_uniform():
    values = [each["align.label_weight"] for each in drawn(search({"align.label_weight": {"low": 0, "high": 1}}), 500)]
    assert kstest(values, uniform(0, 1).cdf).pvalue > 0.01


def test_every_integer_and_every_choice_is_as_likely():
    draws = drawn(search(LR | EPOCHS | CLIP), 600)
    for key, values in (("align.epochs", [1, 2, 3, 4]), ("align.clip_grad_norm", [None, 0.1, 1.0])):
        counts = [sum(each[key] == value for each in draws) for value in values]
        assert sum(counts) == 600
        assert chisquare(counts).pvalue > 0.01
    assert all(type(each["align.epochs"]) is int for each in draws)


def test_random_draws_depend_on_nothing_that_happens_on_the_way():
    """So a sweep with more samples continues one with fewer, whose trials are found again."""
    quiet = drawn(search(TEMPERATURE | CLIP, samples=12), 12)
    assert drawn(search(TEMPERATURE | CLIP, samples=24), 24, peaked)[:12] == quiet


# Never twice


@pytest.mark.parametrize("kind", ["random", "optuna"])
@pytest.mark.parametrize("keys", SMALL.values(), ids=SMALL)
def test_a_small_space_is_drawn_whole_without_repetition_and_is_then_finished(keys, kind):
    values = [d.get("choices") or range(d["low"], d["high"] + 1) for d in keys.values()]
    everything = [dict(zip(keys, combination, strict=True)) for combination in product(*values)]
    searcher = search(keys, kind, samples=len(everything))
    draws = drawn(searcher, len(everything), score=lambda settings: float(len(repr(settings))))
    assert len(set(unhashed(draws))) == len(draws)
    assert sorted(unhashed(draws)) == sorted(unhashed(everything))
    assert searcher.suggest("one more") == DistinctSearch.FINISHED


def test_values_that_are_the_same_when_rounded_are_tried_once():
    draws = drawn(search({"align.temperature": {"low": 1, "high": 1.003}}), 10)
    assert sorted(temperatures(draws)) == [1, 1.001, 1.002, 1.003]


@pytest.mark.parametrize("kind", ["random", "optuna"])
def test_nothing_is_drawn_twice_across_a_restart(tmp_path, kind):
    searcher = search(LR | EPOCHS | CLIP, kind, samples=60)
    before = drawn(searcher, 30, lambda settings: float(settings["align.epochs"]))
    after = drawn(restored(searcher, tmp_path), 30, lambda settings: float(settings["align.epochs"]), first=30)
    assert len(set(unhashed(before + after))) == 60


# A grid


def test_a_grid_is_tried_in_its_order_whole_and_no_further():
    draws = drawn(search(GRID, "grid", samples=9), 20)
    values = [[16.0, 1.0, 4.0], [None, 0.1, 1.0]]
    expected = [dict(zip(GRID, combination, strict=True)) for combination in product(*values)]
    assert draws == expected


def test_a_grid_goes_on_after_a_restart_with_what_it_has_not_tried(tmp_path):
    searcher = search(GRID, "grid", samples=9)
    before = drawn(searcher, 4)
    assert before + drawn(restored(searcher, tmp_path), 5, first=4) == drawn(search(GRID, "grid", samples=9), 9)


# Restarts


@pytest.mark.parametrize("score", [None, peaked], ids=["told nothing", "told scores"])
@pytest.mark.parametrize("asked", [0, 1, 17])
def test_random_search_draws_after_a_restart_what_it_would_have_drawn(tmp_path, asked, score):
    searcher = search(TEMPERATURE | CLIP)
    drawn(searcher, asked, score)
    again = restored(searcher, tmp_path)
    assert drawn(again, 20, score, first=asked) == drawn(searcher, 20, score, first=asked)


@pytest.mark.parametrize("kind", ["random", "grid"])
def test_a_long_sweep_goes_on_after_a_restart(tmp_path, kind):
    grid = [1 + number / 20 for number in range(1_201)]
    searcher = search({"align.temperature": {"low": 1, "high": 64, "grid": grid}}, kind, samples=1_201)
    before = drawn(searcher, 1_200)
    (one_more,) = drawn(restored(searcher, tmp_path), 1, first=1_200)
    assert one_more not in before


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("kind", ["random", "optuna", "grid"])
def test_a_copy_that_was_sent_elsewhere_goes_on_like_one_that_was_restored(tmp_path, kind):
    searcher = search(GRID, kind, samples=9)
    drawn(searcher, 6, peaked)
    copy, other = ray.get(ray.put(searcher)), restored(searcher, tmp_path)
    further = drawn(copy, 3, peaked, first=6)
    assert len(further) == 3
    assert further == drawn(other, 3, peaked, first=6)


# Learning


@pytest.mark.parametrize(("samples", "share"), [(12, 0.9), (40, 0.6)])
def test_optuna_draws_ever_nearer_to_the_best(samples, share):
    """Even of few samples, most are drawn after the random ones at the start. The means are over 16 seeds."""

    def later(kind):
        draws = [drawn(search(TEMPERATURE, kind, seed, samples), samples, peaked) for seed in range(16)]
        return np.mean([distance(found[samples // 2 :]) for found in draws])

    assert later("optuna") < share * later("random")


def test_optuna_goes_by_what_it_was_told_after_a_third_of_few_samples():
    one, other = (
        drawn(search(TEMPERATURE, "optuna", samples=12), 8, score) for score in (peaked, lambda s: -peaked(s))
    )
    assert one[:4] == other[:4]
    assert one[5:] != other[5:]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_what_optuna_was_told_is_still_known_after_a_restart(tmp_path, seed):
    searcher = search(TEMPERATURE, "optuna", seed)
    drawn(searcher, 25, peaked)
    later = drawn(restored(searcher, tmp_path), 10, peaked, first=25)
    assert distance(later) < 0.6 * distance(drawn(search(TEMPERATURE, seed=seed), 40))


def test_trials_that_end_after_a_restart_teach_as_others_do(tmp_path):
    searcher = search(TEMPERATURE, "optuna")
    running = drawn(searcher, 12)
    told, untold = restored(searcher, tmp_path), restored(searcher, tmp_path)
    for number, settings in enumerate(running):
        told.on_trial_complete(f"trial-{number}", {"score": peaked(settings)})
        untold.on_trial_complete(f"trial-{number}", error=True)
    again = restored(told, tmp_path)
    later = drawn(told, 10, peaked, first=12)
    assert distance(later) < 0.6 * distance(drawn(untold, 10, peaked, first=12))
    assert drawn(again, 10, peaked, first=12) == later  # still known after another restart


FAILED = {
    "an error": {"error": True},
    "an error after a score": {"result": {"score": 1e9}, "error": True},
    "no result": {"result": None},
    "a result without a score": {"result": {"gain": 1.0}},
}


def after_one_that(searcher, folder, **how):
    """Returns what is drawn after twenty trials, the eighth of which ended as `how` says: here, and after a restart."""
    drawn(searcher, 7, peaked)
    drawn(searcher, 1, first=7)
    searcher.on_trial_complete("trial-7", **how)
    drawn(searcher, 12, peaked, first=8)
    here = drawn(searcher, 5, peaked, first=20)
    return here, drawn(restored(searcher, folder), 5, peaked, first=25)


@pytest.mark.parametrize("how", FAILED.values(), ids=FAILED)
def test_a_trial_that_failed_teaches_nothing(tmp_path, how):
    ended = after_one_that(search(TEMPERATURE, "optuna"), tmp_path, **how)
    assert ended == after_one_that(search(TEMPERATURE, "optuna"), tmp_path, error=True)
    assert ended[0] != after_one_that(search(TEMPERATURE, "optuna"), tmp_path, result={"score": 1e9})[0]


def test_a_trial_that_failed_is_not_drawn_again(tmp_path):
    searcher = search(SUBSETS, samples=7)
    first = drawn(searcher, 3)
    for number in range(3):
        searcher.on_trial_complete(f"trial-{number}", error=True)
    assert len(set(unhashed(first + drawn(restored(searcher, tmp_path), 4, first=3)))) == 7


def test_a_trial_that_failed_and_was_run_again_teaches(tmp_path):
    searcher = search(TEMPERATURE, "optuna")
    running = drawn(searcher, 12)
    for number in range(12):
        searcher.on_trial_complete(f"trial-{number}", error=True)
    untold, again = restored(searcher, tmp_path), restored(searcher, tmp_path)
    for number, settings in enumerate(running):
        again.on_trial_complete(f"trial-{number}", {"score": peaked(settings)})
    assert distance(drawn(again, 10, peaked, first=12)) < 0.6 * distance(drawn(untold, 10, peaked, first=12))


# Damaged states

EARLIER = {"t": {"settings": {"align.temperature": 2.0}, "parameters": {"align.temperature": 2.0}, "score": None}}
DAMAGED = {
    "empty": "",
    "cut short": None,
    "of an earlier version": json.dumps(EARLIER),
    "other JSON": "[1, 2]",
    "other operations": '[{"op_code": 4}]',
    "unknown operations": '[{"op_code": 99, "worker_id": ""}]',
}


@pytest.mark.parametrize("kind", ["random", "optuna", "grid"])
@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_from_a_damaged_state_the_draws_begin_anew(tmp_path, kind, content):
    """The trials that have ended have records, which tell the searcher their scores without running them again."""
    searcher = search(GRID, kind, samples=9)
    first = drawn(searcher, 6, peaked)
    searcher.save(str(tmp_path / "state"))
    content = (tmp_path / "state").read_text()[:-100] if content is None else content
    (tmp_path / "damaged").write_text(content)
    searcher.restore(str(tmp_path / "damaged"))
    searcher.on_trial_complete("trial-0", {"score": 1.0})  # a trial that the searcher no longer knows may still end
    assert drawn(searcher, 6, peaked) == first


def test_the_pickled_searcher_of_an_earlier_version_is_refused():
    """So that Ray Tune's whole state is, and the sweep starts anew with the trials that have ended."""
    state = {"space": space_of(TEMPERATURE), "kind": "random", "seed": 0, "samples": 4, "_asked": EARLIER}
    with pytest.raises(AttributeError):
        DistinctSearch.__new__(DistinctSearch).__setstate__(state)
