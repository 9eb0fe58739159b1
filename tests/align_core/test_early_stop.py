"""An early stop keeps the first of the best checks, and ends after as many worse ones as its patience allows."""

import itertools
from typing import Any

import pytest
import torch

from align_core.align_config import AlignConfig, align_config_of
from align_core.early_stop import EarlyStop
from align_core.early_stop_config import EarlyStopConfig


def by_hand(values: tuple[float, ...], patience: int) -> tuple[int, int]:
    """(number of checks that are taken, position of the one that is kept), one at a time."""
    best, kept, without = -1.0, -1, 0
    for position, value in enumerate(values):
        if value > best:
            best, kept, without = value, position, 0
        else:
            without += 1
        if without == patience:
            return position + 1, kept
    return len(values), kept


@pytest.mark.parametrize("patience", [1, 2, 3])
def test_every_course_of_checks_ends_where_it_should(patience: int) -> None:
    for values in itertools.product((10.0, 20.0, 30.0), repeat=5):
        stop = EarlyStop(EarlyStopConfig(every=2, patience=patience), steps_per_epoch=3, total_steps=10)
        taken = 0
        for step in range(1, 11):
            if stop.is_due(step) and not stop.is_over:
                stop.note(step, values[taken], {"w": torch.tensor([float(taken)])})
                taken += 1
        expected, kept = by_hand(values, patience)
        assert (taken, int(stop.kept["w"])) == (expected, kept)
        assert stop.best == (2 * (kept + 1), values[kept])


def test_checks_are_at_the_end_of_every_epoch_or_as_often_as_asked_and_after_the_last_step() -> None:
    def due(every: int | None) -> list[int]:
        stop = EarlyStop(EarlyStopConfig(every=every), steps_per_epoch=4, total_steps=10)
        return [step for step in range(1, 11) if stop.is_due(step)]

    assert due(None) == [4, 8, 10]
    assert due(3) == [3, 6, 9, 10]
    assert due(50) == [10]


def test_what_is_kept_is_a_copy_and_survives_being_saved() -> None:
    stop = EarlyStop(EarlyStopConfig(patience=2), steps_per_epoch=1, total_steps=9)
    weights = {"w": torch.ones(2), "count": torch.tensor(3)}
    for step, value in ((1, 50.1), (2, 50.0)):
        stop.note(step, value, weights)
        weights["w"] += 1
    assert stop.kept["w"].tolist() == [1, 1] and not stop.is_over
    again = EarlyStop(stop.config, steps_per_epoch=1, total_steps=9)
    again.restore({name: value.clone() for name, value in stop.state().items()})
    assert (again.checks, again.best) == (stop.checks, (1, 50.1))
    assert again.kept.keys() == stop.kept.keys() and again.kept["w"].tolist() == [1, 1]
    again.note(3, 50.1, weights)
    assert again.is_over
    empty = EarlyStop(stop.config, steps_per_epoch=1, total_steps=9)
    empty.restore(EarlyStop(stop.config, steps_per_epoch=1, total_steps=9).state())
    assert empty.checks == [] and not empty.is_over


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"early_stop": {"patience": 0}}, "patience must be from 1"),
        ({"early_stop": {"every": 0}}, "every must be from 1"),
        ({"early_stop": {"by": "gain"}}, "by gain, it needs an `attack`"),
        ({"early_stop": {"attack": "pgd"}}, "by agreement, nothing is crafted"),
        ({"early_stop": {"by": "loss"}}, "by must be one of agreement, gain"),
        ({"early_stop": {}, "keep": "collect"}, "it keeps one network, and `keep` leaves several"),
        ({"early_stop": {"by": "gain", "attack": "pgd"}, "keep": "swag"}, "it keeps one network"),
        ({"early_stop": {}, "weight": 0.0, "label_weight": 1.0}, "it is by agreement with the witnesses"),
        ({"early_stop": {}, "teacher": "source"}, "it is by agreement with the witnesses"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        align_config_of(settings)


def test_it_decides_the_result_and_its_absence_does_not_show() -> None:
    assert "early_stop" not in AlignConfig().effective and AlignConfig().deciding == {}
    found = align_config_of({"early_stop": {"patience": 2}}).deciding
    assert found == {"early_stop": {"by": "agreement", "every": None, "patience": 2, "attack": None}}
    assert align_config_of({"early_stop": {"by": "gain", "attack": "x"}, "keep": "ema"}).early_stop is not None
