"""A trial: when it is measured, what the searcher is reported of it, and what its fingerprint depends on."""

import dataclasses

import pytest
from sweeping import entry_in, trial

from align_core.images import Fit, ImageSetConfig
from pipelines.compute.cluster import Worker
from pipelines.compute.fine_tune import FineTune
from pipelines.storage.store import Store
from pipelines.sweep.trial import Sweep, _measured_steps, _metrics

WEIGHTS = {"wide": "1111", "cnn_b": "2222"}


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "runs"), "digits")


@pytest.fixture
def sweep(tmp_path, store):
    """A sweep that allows a loss of two points of clean accuracy. Its images and weights are never loaded."""
    entry = entry_in(tmp_path, align={"temperature": 4, "epochs": 2, "optimizer": {"lr": 0.5}})
    base = FineTune(
        name="aligned", start="cnn_a", witnesses=("wide", "cnn_b"), align=entry.align, loader=None,
        images=ImageSetConfig(kind="digits"), fit=Fit(16), image_ids=["00000"], labels=[0],
        contents=[""], originals=[""], seed=0, threads=1, progress_file="",
    )  # fmt: skip
    return Sweep(
        store=store, folder="sweeps/mine", entry=entry, base=base, inputs={"images": "abc"},
        identities={name: {"weights": weights} for name, weights in WEIGHTS.items()}, validation=None, baseline=None,
        max_clean_drop=2.0, worker=Worker("cpu", 1, 1, 0, {}, 1), is_scheduled=False,
    )  # fmt: skip


# When it is measured


@pytest.mark.parametrize(
    ("total", "expected"),
    [(1, {1}), (2, {1, 2}), (3, {1, 2, 3}), (4, {1, 2, 3, 4}), (8, {2, 4, 6, 8}), (10, {3, 5, 8, 10}),
     (1_001, {251, 501, 751, 1_001})],
)  # fmt: skip
def test_it_is_measured_after_each_quarter_and_at_the_end(total, expected):
    assert _measured_steps(total) == expected


# What the searcher is reported


@pytest.mark.parametrize("gain", [-100.0, -3.0, 0.0, 12.5])
@pytest.mark.parametrize("change", [5.0, 0.0, -1.0, -2.0])
def test_the_score_is_the_gain_where_clean_accuracy_is_kept(sweep, gain, change):
    assert sweep.score(gain, change) == gain


def test_whatever_costs_too_much_scores_below_every_gain_and_lower_the_more_it_costs(sweep):
    worst_gain = sweep.score(-100.0, 0.0)
    scores = [sweep.score(gain, change) for gain, change in ((5.0, -2.1), (90.0, -3.0), (100.0, -40.0), (0.0, -100.0))]
    assert worst_gain > scores[0]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == 4


def test_an_alignment_whose_loss_was_not_finite_scores_below_every_other(sweep):
    failed = _metrics(sweep, trial(status="failed", measurements=[], reason="the loss is not finite"), {})
    record = trial(gain=-100.0, accuracy=0.0, change=-100.0)
    worst = _metrics(sweep, record, record.last)
    assert failed["score"] < worst["score"]
    assert failed["gain"] <= worst["gain"]


def test_each_measurement_is_reported_by_itself(sweep):
    record = trial(gain=5.0, change=-1.0)
    record.measurements.insert(0, record.last | {"gain": 1.0, "step": 2})
    reported = [_metrics(sweep, record, measurement) for measurement in record.measurements]
    assert reported == [{"gain": 1.0, "score": 1.0, "step": 2}, {"gain": 5.0, "score": 5.0, "step": 8}]


# Its fingerprint


def test_settings_that_change_nothing_are_the_same_trial(sweep):
    fingerprint = sweep.fingerprint({})
    for settings in (
        {"align.temperature": 4.0},
        {"align.temperature": 4, "align.epochs": 2, "align.optimizer.lr": 0.5},
        {"witnesses": ["wide", "cnn_b"]},
        {"align.checkpoint_steps": 7},
    ):
        assert sweep.fingerprint(settings) == fingerprint


def test_without_weight_the_temperature_changes_nothing(sweep):
    fingerprints = {
        sweep.fingerprint({"align.weight": 0, "align.label_weight": 1, "align.temperature": t}) for t in (1.0, 8.0)
    }
    assert len(fingerprints) == 1


def test_whatever_changes_a_result_is_another_trial(sweep):
    settings = [
        {}, {"align.temperature": 8.0}, {"align.optimizer.lr": 0.25}, {"align.optimizer.name": "adamw"},
        {"align.epochs": 1}, {"align.weight": 0.5}, {"align.label_weight": 0.5}, {"align.clip_grad_norm": 1.0},
        {"align.augment.flip": False}, {"witnesses": ["wide"]}, {"witnesses": ["cnn_b"]},
    ]  # fmt: skip
    fingerprints = [sweep.fingerprint(each) for each in settings]
    fingerprints.append(dataclasses.replace(sweep, inputs={"images": "abd"}).fingerprint({}))
    other = {"wide": {"weights": "3333"}, "cnn_b": {"weights": "2222"}}
    fingerprints.append(dataclasses.replace(sweep, identities=other).fingerprint({}))
    assert len(set(fingerprints)) == len(fingerprints)


def test_its_alignment_has_the_settings_and_a_name_of_its_own(sweep):
    settings = {"align.temperature": 16.0, "witnesses": ["cnn_b"]}
    job = sweep.job(settings)
    assert job.align == dataclasses.replace(sweep.entry.align, temperature=16.0)
    assert job.witnesses == ("cnn_b",)
    other = sweep.job({"align.temperature": 8.0})
    assert sweep.fingerprint(settings) in job.name
    assert job.name != other.name
    kept = {"start", "images", "image_ids", "labels", "seed", "loader", "threads"}
    assert all(getattr(job, name) == getattr(sweep.base, name) for name in kept)


def test_witnesses_that_are_made_with_a_seed_are_those_of_that_seed(sweep):
    entry = dataclasses.replace(sweep.entry, networks={"aligned": "aligned~3", "wide": "wide~3", "cnn_b": "cnn_b"})
    job = dataclasses.replace(sweep, entry=entry).job({"witnesses": ["cnn_b", "wide"]})
    assert job.witnesses == ("cnn_b", "wide~3")
