"""A model that does no better than chance, or far better with its labels in another order, is warned of at once."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hand_made import CLASSES, CURVE, IMAGES, HandMade, hand_made
from safetensors.torch import load_file, save_file
from scipy.stats import binom
from torch import nn

from align_core.errors import InputError
from align_core.models import Classifier, build
from align_core.weights import to_bytes
from pipelines.progress import Progress
from pipelines.report.page import make_report
from pipelines.run.forecast import forecast_of
from pipelines.run.request import Request
from pipelines.run.status import status_of
from pipelines.stages.align import _in_its_keys, _look_at, commit
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.first_look import FirstLook, _by_chance, compared, first_look, sample_of, warnings_of
from pipelines.stages.makings import write_failure

LABELS = np.arange(64) % 10
LEARNT_NOTHING = (
    "data.test: twin classifies 4 of 12 images correctly, no better than chance (1 in 3): has its training failed? "
    "models.twin.train sets its length and learning rate"
)


def warning(predicted: object, classes: int = 10, labels: object = LABELS) -> str | None:
    return compared(np.asarray(predicted), np.asarray(labels), classes).warning("net")


@pytest.mark.parametrize(("images", "classes"), [(64, 10), (64, 1000), (7, 2), (12, 3)])
def test_the_probability_under_chance_is_the_binomials(images: int, classes: int) -> None:
    for correct in range(images + 1):
        assert _by_chance(correct, images, classes) == pytest.approx(binom.sf(correct - 1, images, 1 / classes))


def test_a_good_model_is_not_warned_of() -> None:
    assert warning(LABELS) is None
    assert warning(np.where(np.arange(64) < 32, LABELS, 0)) is None  # 35 of 64


@pytest.mark.parametrize(("predicted", "classes"), [([0], 10), ([1], 10), ([1, 0], 3), ([1] * 4, 3)])
def test_of_very_few_images_nothing_is_said(predicted: list[int], classes: int) -> None:
    assert warning(np.array(predicted), classes, np.zeros(len(predicted), dtype=np.int64)) is None


def test_no_better_than_chance() -> None:
    found = warning(np.zeros(64, dtype=int))
    assert found == (
        "data.test: net classifies 7 of 64 images correctly, no better than chance (1 in 10): are its weights "
        "untrained, the labels one off, or is this another label set? `witness evaluate --clean` shows the accuracy of "
        "every model"
    )


class TestOfMany:
    """A label set that is one off makes every model doubtful: one sentence says so, and not one for each."""

    def test_one_sentence_says_what_they_have_in_common(self) -> None:
        at_chance = {f"net{number}": compared(np.full(64, number), LABELS, 10) for number in range(4)}
        shifted = {f"far{number}": compared((LABELS + 1) % 10, LABELS, 10) for number in range(3)}
        right = {"good": compared(LABELS, LABELS, 10)}
        *alone, together = warnings_of({**at_chance, **right, **shifted})
        assert together == (
            "data.test: 4 models classify at most 7 of 64 images correctly, no better than chance (1 in 10): are their "
            "weights untrained, the labels one off, or is this another label set? `witness evaluate --clean` shows the "
            "accuracy of every model. They are net0, net1, net2, net3"
        )
        assert alone == [look.warning(name) for name, look in shifted.items()], "three are said one by one"

    def test_of_another_order(self) -> None:
        predicted = (LABELS + 1) % 10
        looks = {
            f"net{wrong}": compared(np.where(np.arange(64) < wrong, LABELS, predicted), LABELS, 10)
            for wrong in range(4)
        }
        assert warnings_of(looks) == [
            "data.test: 4 models classify at most 3 of 64 images correctly, and would classify at least 61 correctly "
            "if every label were one higher: are the labels one off, or is this another label set? `witness evaluate "
            "--clean` shows the accuracy of every model. They are net0, net1, net2, net3"
        ]

    def test_models_without_a_doubt(self) -> None:
        assert warnings_of({f"net{number}": compared(LABELS, LABELS, 10) for number in range(9)}) == []


@pytest.mark.parametrize(
    ("predicted", "order"),
    [
        ((LABELS + 1) % 10, "would classify 64 correctly if every label were one higher"),
        ((LABELS - 1) % 10, "would classify 64 correctly if every label were one lower"),
        (
            np.roll(np.arange(10), 3)[LABELS],
            "would classify 64 correctly if the classes were in another order: is this another label set? Where the "
            "image sets name their classes, `data.classes` may be a file with these names in the order of the models' "
            "outputs. `witness",
        ),
    ],
)
def test_labels_in_another_order(predicted: object, order: str) -> None:
    found = warning(predicted)
    assert found is not None
    assert f"classifies 0 of 64 images correctly, and {order}" in found


def test_numbers_in_the_order_of_text() -> None:
    """Folders 0 to 999, sorted as text, are numbered 0, 1, 10, 100, 101, ... in a set whose model counts in numbers."""
    in_text = sorted(range(1000), key=str)
    positions = np.arange(64) * 15 + 2
    for labels, predicted, order in (
        (positions, np.array(in_text)[positions], "as numbers, and not in the order of text"),
        (np.array(in_text)[positions], positions, "in the order of numbers written as text"),
    ):
        found = warning(predicted, 1000, labels)
        assert found is not None
        assert order in found


def test_the_sample_has_as_many_of_each_class_as_there_are() -> None:
    labels = np.repeat(np.arange(10), [100, 100, 100, 100, 100, 100, 100, 100, 2, 1])
    chosen = sample_of(labels)
    assert np.bincount(labels[chosen]).tolist() == pytest.approx([7.6] * 8 + [2, 1], abs=1)
    assert len(set(chosen)) == 64
    assert chosen.tolist() == sample_of(labels).tolist() == sorted(chosen)
    assert sample_of(np.zeros(5, dtype=int)).tolist() == [0, 1, 2, 3, 4]


def test_logits_that_are_not_finite_are_refused() -> None:
    class Dark(nn.Module):
        """Divides by the brightness, as normalisation per image does."""

        def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
            return images_BCHW.flatten(1) / images_BCHW.flatten(1).sum(1, keepdim=True)

    images = np.full((40, 1, 1, 2), 100, np.uint8)
    classifier, ids = Classifier(Dark(), (0.0,), (1.0,)), [str(row) for row in range(40)]
    assert first_look(classifier, images, ids, np.zeros(40, dtype=np.int64), 2).images == 40
    images[35] = 0
    with pytest.raises(InputError, match=r"NaN or infinite on images of data\.test"):
        first_look(classifier, images, ids, np.zeros(40, dtype=np.int64), 2)


class TestOfAnotherNormalisation:
    """A network that calls images bright, class 1, whose normalised pixels are above zero on average."""

    IMAGES = np.linspace(0, 255, 64).astype(np.uint8).repeat(3 * 2 * 2).reshape(64, 3, 2, 2)
    LABELS = (IMAGES[:, 0, 0, 0] > 127).astype(np.int64)
    IDS = tuple(str(row) for row in range(64))

    class Bright(nn.Module):
        def __init__(self, most: float = float("inf")) -> None:
            super().__init__()
            self.most = most

        def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
            if images_BCHW.abs().max() > self.most:
                raise ValueError("too bright")
            mean_B = images_BCHW.mean(dim=(1, 2, 3))
            return torch.stack([torch.zeros_like(mean_B), mean_B], dim=1)

    def look(self, *normalisation: float, net: nn.Module | None = None) -> tuple[FirstLook, Classifier]:
        mean, std = normalisation
        classifier = Classifier(net or self.Bright(), (mean,) * 3, (std,) * 3).eval()
        found = first_look(classifier, self.IMAGES, self.IDS, self.LABELS, 2, doubts_normalisation=True)
        return found, classifier

    def test_one_that_was_forgotten_is_named(self) -> None:
        found, classifier = self.look(0.0, 1.0)
        assert found.warning("net") == (
            "data.test: net classifies 33 of 64 images correctly, and would classify 64 correctly with `mean: [0.5, "
            "0.5, 0.5], std: [0.5, 0.5, 0.5]`: are these missing in models.net, or are those there of other weights? "
            "`witness evaluate --clean` shows the accuracy of every model"
        )
        assert classifier.mean_C11.flatten().tolist() == [0.0] * 3, "the classifier is left as it was"
        assert classifier.std_C11.flatten().tolist() == [1.0] * 3

    def test_the_right_one_is_not_doubted(self) -> None:
        found, _ = self.look(0.5, 0.5)
        assert (found.correct, found.normalised, found.warning("net")) == (64, {}, None)

    def test_a_network_that_does_not_bear_the_others_is_left(self) -> None:
        found, _ = self.look(0.0, 1.0, net=self.Bright(most=1.0))
        assert found.normalised == {"halves": 64}, "those of data sets go beyond one"

    def test_grey_images_have_their_own(self) -> None:
        grey = self.IMAGES[:, :1]
        classifier = Classifier(self.Bright(), (0.0,), (1.0,)).eval()
        found = first_look(classifier, grey, self.IDS, self.LABELS, 2, doubts_normalisation=True)
        assert found.normalised == {"halves of grey": 64}


class TestInAnExperiment:
    @pytest.fixture
    def experiment(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HandMade:
        monkeypatch.setattr(sys, "path", list(sys.path))
        return hand_made(tmp_path)

    def test_it_is_kept_by_weights_and_images(self, experiment: HandMade, monkeypatch: pytest.MonkeyPatch) -> None:
        first = experiment.blueprint()
        assert {path.partition("/")[2] for path in first.inspected.unsaved} >= {"models.json", "first_looks.json"}
        first.inspected.save(first.store)
        monkeypatch.setattr("align_core.models.load", None)  # nothing may be loaded again
        again = experiment.blueprint()
        assert again.inspected.notes == first.inspected.notes
        assert again.inspected.unsaved == {}

    def test_a_model_with_shifted_labels_is_named(self, experiment: HandMade) -> None:
        """The network finds the label in the first pixel, and counts from one."""
        with np.load(experiment.folder / "images.npz") as stored:
            images, labels = stored["images"], stored["labels"]
        images[:, 0, 0, 0] = 100 * labels
        np.savez(experiment.folder / "images.npz", images=images, labels=labels)
        state = load_file(experiment.folder / "twin.safetensors")
        read_pixel = torch.zeros_like(state["1.weight"])
        read_pixel[0, 0] = 255 / 100
        # Logit k is highest where the label is k - 1: 2 k x - k^2, for the pixel's label x + 1, modulo the classes.
        head = torch.tensor([[0.0, 0.0], [2.0, 0.0], [4.0, 0.0]])
        state |= {"1.weight": read_pixel, "1.bias": torch.zeros(2), "2.weight": head}
        state["2.bias"] = torch.tensor([0.0, -1.0, -4.0])
        save_file(state, experiment.folder / "twin.safetensors")
        save_file(
            {**state, "2.weight": head.roll(1, 0), "2.bias": state["2.bias"].roll(1)},
            experiment.folder / "near.safetensors",
        )
        notes = experiment.blueprint().inspected.notes
        assert not any("twin" in note for note in notes)
        assert any("near classifies 0 of 12" in note and "one higher" in note for note in notes), notes

    @pytest.mark.parametrize("damage", ["{", "[]", '{"x": {}}', "null", "lists"])
    @pytest.mark.parametrize("file", ["models.json", "first_looks.json"])
    def test_a_damaged_file_is_made_anew(self, experiment: HandMade, file: str, damage: str) -> None:
        first = experiment.blueprint()
        first.inspected.save(first.store)
        path = experiment.output / "by-hand" / ".seen" / file
        entries = json.loads(path.read_text())
        lists = {key: {name: [] for name in own} for key, own in entries.items()}
        odd = {'{"x": {}}': json.dumps({key: {"odd": 1} for key in entries}), "lists": json.dumps(lists)}
        path.write_text(odd.get(damage, damage))
        again = experiment.blueprint()
        assert again.inspected.notes == first.inspected.notes
        assert {name: own.digest for name, own in again.networks.items()} == {
            name: own.digest for name, own in first.networks.items()
        }


class TestOfAModelThatIsTrainedHere:
    @pytest.fixture
    def experiment(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HandMade:
        """The target `twin` is trained here."""
        monkeypatch.setattr(sys, "path", list(sys.path))
        experiment = hand_made(tmp_path)
        models = experiment.content()["models"]
        untrained = {key: value for key, value in models["twin"].items() if key != "weights"}
        experiment.write(models=models | {"twin": untrained | {"train": {}}}, targets=["twin"])
        return experiment

    def made(self, blueprint: Blueprint, bias: list[float]) -> None:
        """Puts a network into the store that predicts the class of the largest bias, whatever it is shown."""
        (making,) = blueprint.trainings()
        state = dict(build(making.model, CLASSES, channels=1).net.state_dict())
        state |= {"2.weight": torch.zeros_like(state["2.weight"]), "2.bias": torch.tensor(bias)}
        commit(blueprint.store, making, [to_bytes(state)], CURVE, seconds=1.0, shape=(1, 8, 8))
        blueprint.refresh()

    def test_one_that_diverged_is_told_its_own_keys_and_is_missed_by_plan_and_status(
        self, experiment: HandMade
    ) -> None:
        blueprint = experiment.blueprint()
        (making,) = blueprint.trainings()
        said = "the loss is nan at step 1: lower align.optimizer.lr, or set align.clip_grad_norm"
        reason = _in_its_keys(making, said)
        assert reason == "the loss is nan at step 1: lower models.twin.train.lr"
        assert _in_its_keys(replace(making, start="near"), said) == said
        write_failure(blueprint.store, making, f"its training failed: {reason}")
        blueprint.refresh()
        for lines in (forecast_of(blueprint).notes, status_of(Request(experiment.file, quiet=True)).warnings):
            assert [line for line in lines if line.startswith("Not there: trained/twin: ")], lines

    def test_it_is_said_when_the_training_has_ended(
        self, experiment: HandMade, capsys: pytest.CaptureFixture[str]
    ) -> None:
        blueprint = experiment.blueprint()
        self.made(blueprint, [0.0, 1.0, 0.0])
        capsys.readouterr()
        _look_at(blueprint, "twin", Progress(quiet=True))
        assert capsys.readouterr().err == f"witness: {LEARNT_NOTHING}\n"

    def test_logits_that_are_not_finite_are_left_to_the_evaluation(
        self, experiment: HandMade, capsys: pytest.CaptureFixture[str]
    ) -> None:
        blueprint = experiment.blueprint()
        self.made(blueprint, [0.0, float("inf"), 0.0])
        capsys.readouterr()
        _look_at(blueprint, "twin", Progress(quiet=True))
        assert capsys.readouterr().err == ""

    @pytest.mark.parametrize(("predicted", "is_said"), [("021" * 4, True), ("0" * IMAGES, False)])
    def test_it_is_said_in_the_report(self, experiment: HandMade, predicted: str, is_said: bool) -> None:
        self.made(experiment.blueprint(), [0.0, 1.0, 0.0])
        blueprint = experiment.finish({"clean/twin": predicted})
        make_report(blueprint)
        assert (LEARNT_NOTHING in (experiment.report / "report.html").read_text()) is is_said


def test_a_look_is_of_its_own_kind() -> None:
    for wrong in ({"images": 0}, {"classes": 0}, {"otherwise": {"sideways": 1}}):
        with pytest.raises(ValueError, match="not what"):
            FirstLook(**{"images": 1, "classes": CLASSES, "correct": 0, "otherwise": {}} | wrong)
