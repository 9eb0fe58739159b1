"""A model that enlarges images of the size at which its weights were trained is warned of, with the cure."""

import inspect
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hand_made import CLASSES, hand_made
from safetensors.torch import save_file
from torch import nn

from align_core.models import Classifier
from pipelines.stages.first_look import FirstLook, first_look, warnings_of
from pipelines.storage.store import fingerprint_of


class Stripes(nn.Module):
    """Calls an image striped, class 1, whose neighbouring pixels differ; those of an image that was enlarged do not."""

    def __init__(self, only: int | None = None, classes: int = 2) -> None:
        super().__init__()
        self.only, self.classes = only, classes
        self.least = nn.Parameter(torch.tensor(0.5))

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        if self.only not in (None, images_BCHW.shape[-1]):
            raise ValueError(f"a table of positions for {self.only} pixels")
        differences_B = images_BCHW.diff(dim=-1).abs().mean(dim=(1, 2, 3))
        least_B = self.least.expand_as(differences_B)
        return torch.stack([least_B, differences_B, *(-least_B for _ in range(2, self.classes))], dim=1)


def striped(count: int, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Grey 8-bit images of this shape, which ends with height and width, and 1 for each that is striped."""
    labels = np.arange(count) % 2
    columns = np.where(np.arange(8) % 2 == 0, 255, 0)
    return (labels.reshape(-1, *(1 for _ in shape)) * np.broadcast_to(columns, shape)).astype(np.uint8), labels


class TestOfAnotherSize:
    """A network that knows images of 8 pixels, and is shown them enlarged to 64."""

    IMAGES, LABELS = striped(64, (1, 8, 8))
    IDS = tuple(str(row) for row in range(64))

    def look(self, net: nn.Module, side: int | None) -> FirstLook:
        classifier = Classifier(net, (0.0,), (1.0,), side).eval()
        found = first_look(classifier, self.IMAGES, self.IDS, self.LABELS, 2, doubts_size=True)
        assert classifier.input_size == side, "the classifier is left as it was"
        return found

    def test_the_cure_is_named(self) -> None:
        found = self.look(Stripes(), 64)
        assert (found.correct, found.as_they_are, found.normalised) == (32, {"8": 64}, {})
        assert found.warning("net") == (
            "data.test: net classifies 32 of 64 images correctly, and would classify 64 correctly with `input_size: 8`"
            ": were its weights trained at that size? Then write it in models.net, or the images are resized. `witness "
            "evaluate --clean` shows the accuracy of every model"
        )

    def test_the_normalisation_is_tried_at_that_size(self) -> None:
        """Every second stripe is so weak that the network sees it only in pixels that are divided by 0.5."""
        images = np.where(np.arange(64).reshape(-1, 1, 1, 1) % 4 == 1, self.IMAGES, self.IMAGES // 2)
        classifier = Classifier(Stripes(), (0.0,), (1.0,), 64).eval()
        found = first_look(classifier, images, self.IDS, self.LABELS, 2, True, True)
        assert (found.correct, found.as_they_are, found.normalised) == (32, {"8": 48}, {"halves of grey": 64})
        assert "48 correctly with `input_size: 8`, and 64 with `mean: [0.5], std: [0.5]` as well" in str(
            found.warning("net")
        )

    @pytest.mark.parametrize("side", [None, 8])
    def test_one_that_does_not_resize_is_not_doubted(self, side: int | None) -> None:
        found = self.look(Stripes(), side)
        assert (found.correct, found.as_they_are, found.warning("net")) == (64, {}, None)

    def test_a_network_of_one_size_is_left(self) -> None:
        found = self.look(Stripes(only=64), 64)
        assert (found.correct, found.as_they_are) == (32, {})

    def test_of_many_one_sentence_is_said(self) -> None:
        looks = {f"net{number}": self.look(Stripes(), 64) for number in range(4)}
        assert warnings_of(looks) == [
            "data.test: 4 models would each classify at least 32 more of 64 images correctly with `input_size: 8`: "
            "were their weights trained at that size? Then write it in each, or the images are resized. `witness "
            "evaluate --clean` shows the accuracy of every model. They are net0, net1, net2, net3"
        ]


def test_a_model_of_an_experiment_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where an earlier version, which did not doubt the size, has looked at it before."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    experiment = hand_made(tmp_path)
    images, labels = striped(40, (8, 8))
    images[:, 7, 7] += np.arange(40, dtype=np.uint8)  # no two are the same, or training images would be test images
    np.savez(experiment.folder / "images.npz", images=images[..., None], labels=labels)
    source = f"import torch\nfrom torch import nn\n\n\n{inspect.getsource(Stripes)}"
    (experiment.folder / "stripes.py").write_text(source)
    save_file({"least": torch.tensor(0.5)}, experiment.folder / "stripes.safetensors")
    model = {"factory": "stripes:Stripes", "args": {"classes": CLASSES}, "weights": "stripes.safetensors"}
    model |= {"input_size": 64}
    data = experiment.content()["data"] | {"test": {"kind": "npz", "path": "images.npz", "take": [4, 40]}}
    experiment.write(data=data, models=experiment.content()["models"] | {"twin": model}, targets=["twin"])
    first = experiment.blueprint()
    (said,) = (note for note in first.inspected.notes if "input_size" in note)
    assert said.startswith("data.test: twin classifies 18 of 36 images correctly, and would classify 36 ")
    first.inspected.save(first.store)
    path = experiment.output / "by-hand" / ".seen" / "first_looks.json"
    known = json.loads(path.read_text())
    key = fingerprint_of([first.networks["twin"].identity, first.inspected.manifests["test"].digest])
    (twin,) = (entry for entry in known.values() if entry["as_they_are"])
    earlier = {own: entry for own, entry in known.items() if entry is not twin} | {key: twin}
    for entry in earlier.values():
        del entry["as_they_are"]
    path.write_text(json.dumps(earlier))
    again = experiment.blueprint()
    assert said in again.inspected.notes
    looks = json.loads(again.inspected.unsaved[".seen/first_looks.json"])
    assert sum("as_they_are" in entry for entry in looks.values()) == 1, "the others need no new look"
