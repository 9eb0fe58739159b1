"""The choice of a sweep: the Pareto set, the chosen trial, and the rows of trials.csv."""

import argparse
import csv
import io

import numpy as np
import pytest
from sweeping import TEMPERATURE, space_of, trial

from pipelines.cli.show import print_sweep
from pipelines.sweep.choice import as_csv, chosen, keeping, pareto_set, said_choice, trial_rows
from pipelines.sweep.command import SweepResult


def trials(*ends):
    """Returns finished trials with these pairs of gain and clean accuracy, keyed by their number."""
    return {str(number): trial(gain, accuracy) for number, (gain, accuracy) in enumerate(ends)}


def unfinished(**end):
    """Returns trials without an end, which are neither chosen nor in the Pareto set, however good they are."""
    return {
        "stopped": trial(status="stopped", **end),
        "running": trial(status="running", **end),
        "failed": trial(status="failed", reason="the loss is not finite", **end),
        "lost": trial(status="failed", lost=True, **(end | {"measurements": []})),
    }


# The Pareto set


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ([], ""),
        ([(-3, 10)], "0"),
        ([(5, 90), (4, 91)], "01"),
        ([(5, 90), (5, 91)], "1"),
        ([(5, 91), (4, 91)], "0"),
        ([(5, 90), (5, 90)], "01"),
        ([(5, 90), (5, 90), (5, 89), (4, 90)], "01"),
        ([(5, 90), (4, 91), (3, 92), (3.5, 90.5), (4, 90), (6, 80)], "0125"),
        ([(-1, 95), (-2, 96), (-2, 95)], "01"),
    ],
)
def test_the_pareto_set_holds_the_trials_that_no_other_beats(ends, expected):
    assert pareto_set(trials(*ends)) == set(expected)


@pytest.mark.parametrize("seed", range(20))
def test_the_pareto_set_is_what_comparing_all_pairs_leaves(seed):
    ends = np.random.default_rng(seed).integers(0, 6, (25, 2)).astype(float).tolist()  # with many ties
    left = set()
    for number, (gain, accuracy) in enumerate(ends):
        better = [(g, a) for g, a in ends if (g > gain and a >= accuracy) or (g >= gain and a > accuracy)]
        if not better:
            left.add(str(number))
    assert pareto_set(trials(*ends)) == left


def test_trials_without_an_end_neither_beat_others_nor_are_in_the_pareto_set():
    assert pareto_set(trials((1, 80)) | unfinished(gain=50.0, accuracy=99.0)) == {"0"}


# The chosen trial


@pytest.mark.parametrize(
    ("max_clean_drop", "expected"),
    [(0.0, "keeps"), (0.9, "keeps"), (1.0, "costs one"), (2.5, "costs one"), (3.0, "costs three"), (100.0, "ruins")],
)
def test_the_largest_gain_is_chosen_of_those_that_keep_clean_accuracy(max_clean_drop, expected):
    records = {
        "worse": trial(gain=-1.0, change=1.0),
        "ruins": trial(gain=40.0, change=-60.0),
        "costs three": trial(gain=9.0, change=-3.0),
        "costs one": trial(gain=6.0, change=-1.0),
        "keeps": trial(gain=4.0, change=0.0),
        "improves": trial(gain=3.0, change=2.0),
    }
    assert chosen(records, max_clean_drop) == expected


@pytest.mark.parametrize(
    "records",
    [{}, unfinished(gain=9.0, change=0.0), {"a": trial(gain=9.0, change=-1.01), "b": trial(gain=8.0, change=-50.0)}],
    ids=["there is none", "none ended", "all cost too much"],
)
def test_nothing_is_chosen_where_no_trial_keeps_clean_accuracy(records):
    assert chosen(records, 1.0) is None


def test_a_gain_below_zero_is_chosen_where_there_is_no_other():
    assert chosen({"a": trial(gain=-3.0), "b": trial(gain=-2.0), **unfinished(gain=5.0)}, 1.0) == "b"


@pytest.mark.parametrize("accuracies", [(90.0, 92.0, 91.0), (92.0, 91.0, 90.0), (90.0, 91.0, 92.0)])
def test_of_equal_gains_the_one_with_most_clean_accuracy_is_chosen(accuracies):
    records = {
        fingerprint: trial(5.0, accuracy, accuracy - 90)
        for fingerprint, accuracy in zip("abc", accuracies, strict=True)
    }
    best = chosen(records, 1.0)
    assert records[best].last["clean_accuracy"] == 92.0
    assert pareto_set(records) == {best}


def test_the_choice_does_not_depend_on_the_order_of_the_trials():
    records = {fingerprint: trial(5.0) for fingerprint in ("b", "c", "a")}
    assert chosen(records, 1.0) == chosen(dict(reversed(records.items())), 1.0)


# The table

SPACE = space_of(
    TEMPERATURE | {"witnesses": {"choices": [["a"], ["a", "b"]]}, "align.clip_grad_norm": {"choices": [None, 1.0]}}
)
SETTINGS = {"align.temperature": 4.0, "witnesses": ["a", "b"], "align.clip_grad_norm": None}
COLUMNS = [
    "trial", "align.temperature", "witnesses", "align.clip_grad_norm", "gain", "gain_low", "gain_high",
    "clean_accuracy", "clean_change", "cnn_d/rate", "other/rate", "images", "pareto", "status", "steps", "seconds",
    "reason",
]  # fmt: skip


def rows_of(records):
    for record in records.values():
        record.settings = SETTINGS
    return trial_rows(SPACE, records, ["cnn_d", "other"])


def test_rows_start_with_the_largest_gain_and_end_with_what_did_not_end():
    records = {"b": trial(1.0), "z": trial(7.0), "a": trial(1.0), "c": trial(-2.0)} | unfinished(gain=50.0)
    found = [row["trial"] for row in rows_of(records)]
    assert found[:4] == ["z", "a", "b", "c"]
    assert set(found[4:]) == set(unfinished())
    assert found == [row["trial"] for row in rows_of(dict(reversed(records.items())))]


def test_a_row_says_what_was_tried_and_what_came_of_it():
    record = trial(5.25, 91.5, -0.5, seconds=12.5)
    (row,) = rows_of({"abc": record})
    assert list(row) == COLUMNS
    assert row == {
        "trial": "abc", "align.temperature": "4.0", "witnesses": "a+b", "align.clip_grad_norm": "null",
        "gain": 5.25, "gain_low": 3.75, "gain_high": 7.25, "clean_accuracy": 91.5, "clean_change": -0.5,
        "cnn_d/rate": 35.25, "other/rate": None, "images": 200, "pareto": 1, "status": "done", "steps": 8,
        "seconds": 12.5, "reason": "",
    }  # fmt: skip


def test_figures_are_those_of_the_last_measurement():
    first, last = trial(1.0).last | {"step": 2, "n": 50}, trial(3.0).last
    done, stopped = rows_of(
        {"a": trial(measurements=[first, last]), "b": trial(status="stopped", measurements=[first])}
    )
    assert (done["gain"], done["images"], done["steps"]) == (3.0, 200, 8)
    assert (stopped["gain"], stopped["images"], stopped["steps"], stopped["pareto"]) == (1.0, 50, 2, 0)


def test_a_trial_that_failed_has_a_reason_and_no_figures():
    rows = {row["trial"]: row for row in rows_of(unfinished(gain=5.0))}
    figures = COLUMNS[4:12]
    assert all(rows["failed"][figure] is None for figure in figures)
    assert all(rows["lost"][figure] is None for figure in figures)
    assert (rows["failed"]["status"], rows["failed"]["reason"]) == ("failed", "the loss is not finite")
    assert rows["failed"]["pareto"] == 0


def test_the_file_holds_the_rows_with_blanks_where_there_is_nothing():
    records = {
        "abc": trial(5.25, 91.0, -1 / 3),
        "def": trial(status="failed", measurements=[], reason='no\n  "memory", left '),
    }
    text = as_csv(rows_of(records)).decode()
    assert text.splitlines()[0].split(",") == COLUMNS
    done, failed = csv.DictReader(io.StringIO(text))
    assert (done["gain"], done["clean_change"], done["images"], done["other/rate"]) == ("5.2500", "-0.3333", "200", "")
    assert (done["witnesses"], done["align.clip_grad_norm"], done["pareto"]) == ("a+b", "null", "1")
    assert (failed["gain"], failed["images"], failed["pareto"], failed["status"]) == ("", "", "0", "failed")
    assert failed["reason"] == 'no "memory", left'
    assert len(text.splitlines()) == 3


# What is said of the choice


def row(low, high):
    return {
        "trial": "abc", "align.temperature": "9.61234", "witnesses": "a+b", "gain": 2.5, "gain_low": low,
        "gain_high": high, "clean_accuracy": 90.0, "pareto": 1, "status": "done",
    }  # fmt: skip


def result(low=-1.0, **others):
    rows = [row(low, 6.0), row(low, 6.0) | {"trial": "def", "gain": 1.0}]
    drop = {"kept": 1, "max_clean_drop": 1.5}
    return SweepResult("out/sweeps/mine", "", "flat", ["align.temperature", "witnesses"], rows, **drop, **others)


def test_the_choice_is_said_with_its_gain_and_interval():
    said = said_choice(row(1.0, 4.0), ["align.temperature", "witnesses"], 1)
    gain = "on validation images and targets: +2.5 points (+1.0 to +4.0)"
    assert said == f"align.temperature = 9.61234, witnesses = a+b; {gain}"
    assert said_choice(row(1.0, 4.0), ["witnesses"], 12).endswith(", which is biased upwards, as the largest of 12")


@pytest.mark.parametrize(("low", "is_detectable"), [(0.1, True), (0.0, False), (-1.0, False)])
def test_a_gain_whose_interval_holds_0_is_not_detectable(low, is_detectable):
    assert ("no detectable gain, +2.5" in said_choice(row(low, 4.0), [], 2)) == (not is_detectable)


def test_trials_that_keep_clean_accuracy_are_counted():
    records = {"a": trial(1.0, change=-1.0), "b": trial(2.0, change=-1.1), **unfinished(gain=3.0, change=0.0)}
    assert keeping(records, 1.0) == ["a"]


def test_the_command_says_what_was_chosen_and_what_came_of_it_on_the_test_targets(capsys):
    interval = {"gain_low": -1.0, "gain_high": 4.0, "seeds": 1}
    contrast = {
        "surrogate": "flat",
        "baseline": "default",
        "attack": "pgd",
        "target": "(mean)",
        "gain": 1.5,
        **interval,
    }
    settings = {"align.temperature": 9.61234, "witnesses": ["a", "b"]}
    print_sweep(result(best=settings, chosen=row(-1.0, 6.0), contrast=[contrast]), argparse.Namespace())
    said = capsys.readouterr().out
    for line in (
        "chosen: align.temperature = 9.61234, witnesses = a+b; on validation images and targets: no detectable gain, "
        "+2.5 points (-1.0 to +6.0), which is biased upwards, as the largest of 2",
        "1 of 2 trials that came to their end keep clean accuracy within 1.5 points of the source's (--max-clean-drop)",
        "flat with the chosen settings shows no detectable difference from that with the default ones, on test images "
        "and targets under pgd: +1.5 points (-1.0 to +4.0)",
        "best settings: out/sweeps/mine/best.yaml",
    ):
        assert line in said


def test_the_command_says_that_nothing_was_chosen_by_its_count_alone(capsys):
    print_sweep(result(), argparse.Namespace())
    said = capsys.readouterr().out
    assert "1 of 2 trials" in said and "chosen" not in said and "best settings" not in said
