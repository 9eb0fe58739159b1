"""The figure of a sweep shows every finished trial at its place, the line through the Pareto set, and the choice."""

import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from sweeping import TEMPERATURE, space_of, trial

from pipelines.sweep.figure import sweep_figure

WEIGHT = {"align.weight": {"low": 0.1, "high": 10, "scale": "log"}}
LABELS = {"align.label_weight": {"low": 0, "high": 1}}
EPOCHS = {"align.epochs": {"low": 1, "high": 8, "scale": "integer"}}
CLIP = {"align.clip_grad_norm": {"choices": [None, 1.0, 10.0]}}
WITNESSES = {
    "witnesses": {"choices": [["near"], ["a-witness-with-a-long-name"], ["near", "a-witness-with-a-long-name"]]}
}
SPACES = {
    "temperature": TEMPERATURE,
    "temperature and weight": LABELS | WEIGHT | TEMPERATURE,
    "learning rate and epochs": {"align.optimizer.lr": {"low": 1e-4, "high": 0.2, "scale": "log"}} | EPOCHS | CLIP,
    "a linear range and a choice": LABELS | CLIP,
    "witnesses": WITNESSES,
    "a choice and witnesses": CLIP | WITNESSES,
    "everything": TEMPERATURE | WEIGHT | LABELS | EPOCHS | CLIP | WITNESSES,
}


def trials(keys, count=6):
    """Returns finished trials with different settings, some of them with the same gain and accuracy."""
    rng = np.random.default_rng(0)
    records = {}
    for number in range(count):
        settings = {
            key: d["choices"][number % len(d["choices"])]
            if "choices" in d
            else d["low"] + number * (d["high"] - d["low"]) / 6
            for key, d in keys.items()
        }
        gain, accuracy = rng.integers(-4, 8), rng.integers(85, 95)
        records[f"t{number}"] = trial(float(gain), float(accuracy), settings=settings)
    return records


@pytest.fixture
def drawn(monkeypatch):
    """Returns a function that gives the Matplotlib figure instead of the picture."""

    def draw(keys, records, best=None) -> Figure:
        with monkeypatch.context() as patch:
            patch.setattr("pipelines.sweep.figure.as_png", lambda figure: figure)
            return sweep_figure(space_of(keys), records, best, "digits", "aligned")

    return draw


def offsets(panel, collection):
    """Returns the coordinates of the dots of one collection of a panel."""
    return np.asarray(panel.collections[collection].get_offsets()).tolist()


def dots(panel, count):
    """Returns the scatter plot of a panel that has so many dots; error bars are collections without colours."""
    (found,) = [c for c in panel.collections if len(c.get_offsets()) == count and c.get_array() is not None]
    return found


def line(panel, label):
    (found,) = [line for line in panel.lines if line.get_label() == label]
    return np.transpose(found.get_data()).tolist()


PICTURES = [*((name, 6, "t3") for name in SPACES), ("learning rate and epochs", 1, "t0"), ("witnesses", 6, None)]


@pytest.mark.parametrize(("name", "count", "best"), PICTURES)
def test_a_picture_comes_of_every_kind_of_space(name, count, best):
    keys = SPACES[name]
    content = sweep_figure(space_of(keys), trials(keys, count), best, "digits", "aligned")
    with Image.open(io.BytesIO(content)) as picture:
        picture.load()
        assert picture.format == "PNG"
        assert 600 < picture.width < 4000 and 300 < picture.height < 4000
        assert len(picture.convert("RGB").getcolors(maxcolors=1 << 24)) > 10


RECORDS = {
    "a": trial(1.0, 92.0, settings={"align.temperature": 2.0, "align.weight": 0.5}),
    "b": trial(6.0, 88.0, settings={"align.temperature": 32.0, "align.weight": 4.0}),
    "c": trial(4.0, 91.0, settings={"align.temperature": 8.0, "align.weight": 1.0}),
    "d": trial(3.0, 90.0, settings={"align.temperature": 16.0, "align.weight": 2.0}),
    "e": trial(50.0, 99.0, settings={"align.temperature": 64.0, "align.weight": 8.0}, status="stopped"),
    "f": trial(settings={"align.temperature": 64.0, "align.weight": 8.0}, status="failed", measurements=[]),
}
KEYS = WEIGHT | TEMPERATURE


def test_gain_is_drawn_against_temperature_coloured_by_weight_for_finished_trials_alone(drawn):
    left, right, bar = drawn(KEYS, RECORDS).axes
    places = dots(left, 4)
    assert places.get_offsets().tolist() == [[2, 1], [32, 6], [8, 4], [16, 3]]
    assert places.get_array().tolist() == [0.5, 4.0, 1.0, 2.0]
    assert (left.get_xlabel(), left.get_xscale(), bar.get_ylabel()) == ("align.temperature", "log", "align.weight")
    low, high = left.get_xlim()
    assert 0 < low < 1 and 64 < high < 128
    assert "4 trials" in left.figure.get_suptitle() and "digits" in left.figure.get_suptitle()
    assert dots(right, 4).get_offsets().tolist() == [[92, 1], [88, 6], [91, 4], [90, 3]]
    assert "accuracy" in right.get_xlabel() and "gain" in left.get_ylabel()


def test_intervals_are_drawn_over_the_gains(drawn):
    left = drawn(KEYS, RECORDS).axes[0]
    (bars,) = left.containers
    (segments,) = bars[2]
    ends = sorted((*segment[0], segment[1][1]) for segment in segments.get_segments())
    assert np.allclose(ends, [(2, -0.5, 3), (8, 2.5, 6), (16, 1.5, 5), (32, 4.5, 8)])


def test_an_interval_that_does_not_hold_its_estimate_is_drawn_too(drawn):
    """A percentile interval does not have to contain the estimate."""
    record = trial(5.0)
    record.measurements[-1] |= {"gain_low": 5.5, "gain_high": 7.0}
    assert dots(drawn(TEMPERATURE, {"a": record}).axes[0], 1).get_offsets().tolist() == [[4, 5]]


def test_the_line_joins_the_trials_that_nothing_beats(drawn):
    right = drawn(KEYS, RECORDS).axes[1]
    assert line(right, "not beaten in both (Pareto)") == [[88, 6], [91, 4], [92, 1]]


def test_the_chosen_is_ringed_in_both_panels_and_named(drawn):
    left, right, _ = drawn(KEYS, RECORDS, best="c").axes
    assert offsets(left, -1) == [[8, 4]]
    assert offsets(right, -1) == [[91, 4]]
    assert "chosen" in [text.get_text() for text in right.get_legend().get_texts()]
    assert "chosen" not in [text.get_text() for text in drawn(KEYS, RECORDS).axes[1].get_legend().get_texts()]


def test_choices_are_named_at_their_places(drawn):
    records = trials(WITNESSES | CLIP, 4)
    left, _, bar = drawn(WITNESSES | CLIP, records).axes
    words = ["near", "a-witness-with-a-long-name", "near+a-witness-with-a-long-name"]
    assert [label.get_text() for label in left.get_xticklabels()] == words
    assert [label.get_text() for label in bar.get_yticklabels()] == ["null", "1.0", "10.0"]
    assert dots(left, 4).get_offsets()[:, 0].tolist() == [0, 1, 2, 0]
    assert dots(left, 4).get_array().tolist() == [0, 1, 2, 0]


@pytest.mark.parametrize("keys", [TEMPERATURE, WITNESSES], ids=["a range", "a choice"])
def test_a_space_of_one_key_has_no_colours_to_explain(drawn, keys):
    assert len(drawn(keys, trials(keys)).axes) == 2
