"""A first look at every model: how many of a few test images it classifies correctly, before hours are spent on it.

A network that does no better than chance is often one whose labels are in another order, or which got pixels that it
does not expect. All tables would then be wrong, and none would look so.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from align_core.images import read_images
from align_core.images.decoding import Pixels
from align_core.images.manifest import Manifest
from pipelines.compute.images import opened
from pipelines.experiment.config import DataConfig
from pipelines.stages.normalisations import USUAL, at_own_size, better_normalisation, better_size, predictions

if TYPE_CHECKING:
    from align_core.models import Classifier

MOST_IMAGES = 64
# Below this probability under pure chance, a count is no accident: once among a hundred models, or in 100,000.
_ABOVE_CHANCE, _FAR_ABOVE_CHANCE = 0.01, 1e-5

_ONE_BY_ONE = 3  # of more models with the same doubt, one sentence is said

Labels = npt.NDArray[np.int64]

_ORDERS = {
    "one higher": "if every label were one higher",
    "one lower": "if every label were one lower",
    "as text": "if the classes were numbered in the order of numbers written as text (0, 1, 10, 11, ...)",
    "from text": "if the classes were numbered as numbers, and not in the order of text (0, 1, 10, 11, ...)",
    "another": "if the classes were in another order",
}
_CAUSE_OF_SIZE = "were its weights trained at that size? Then write it in models.{name}, or the images are resized."
_CAUSES_OF_ORDER = "are the labels one off, or is this another label set?"
_CAUSES_OF_ANOTHER = (
    "is this another label set? Where the image sets name their classes, `data.classes` may be a file with these names "
    "in the order of the models' outputs."
)
_CAUSES_OF_CHANCE = "the labels one off, or is this another label set?"
_SEE_ALL = "`witness evaluate --clean` shows the accuracy of every model"


@dataclass(frozen=True)
class FirstLook:
    """How a model fared on n images.

    Attributes:
        images: n. classes: number of classes.
        correct: how many it classifies correctly.
        otherwise: how many it would, if the labels were in another order, by a key of `_ORDERS`.
        normalised: how many it would with another usual normalisation of pixels, by its name, where it is better.
        as_they_are: how many it would with images at their own size, by the side in pixels, where it is better;
            `normalised` is then of this size.
    """

    images: int
    classes: int
    correct: int
    otherwise: dict[str, int]
    normalised: dict[str, int] = field(default_factory=dict)
    as_they_are: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not all(isinstance(own, dict) for own in (self.otherwise, self.normalised, self.as_they_are)):
            raise TypeError("not what a first look found")
        is_known = self.otherwise.keys() <= _ORDERS.keys() and self.normalised.keys() <= USUAL.keys()
        is_known = is_known and all(side.isdecimal() for side in self.as_they_are)
        if not is_known or min(self.images, self.classes) < 1:
            raise ValueError("not what a first look found")

    def warning(self, name: str, trained_here: bool = False) -> str | None:
        """What has to be said of the model `name`, or None where it does better than chance in this order alone."""
        if self.as_they_are:
            return self._of_size(name)
        if self.normalised:
            return self._of_normalisation(name)
        found = f"data.test: {name} classifies {self.correct} of {self.images} images correctly"
        if (order := self._better_order()) is not None:
            found += f", and would classify {self.otherwise[order]} correctly {_ORDERS[order]}"
            return f"{found}: {_causes_of(order)} {_SEE_ALL}"
        if not self._is_no_better_than_chance():
            return None
        found += f", no better than chance (1 in {self.classes})"
        if trained_here:
            return f"{found}: has its training failed? models.{name}.train sets its length and learning rate"
        return f"{found}: are its weights untrained, {_CAUSES_OF_CHANCE} {_SEE_ALL}"

    def doubt(self) -> str | None:
        """What several models may have in common: "chance", a side in pixels, another order by its key, or None."""
        if self.normalised:
            return None
        if self.as_they_are:
            return next(iter(self.as_they_are))
        return self._better_order() or ("chance" if self._is_no_better_than_chance() else None)

    def _better_order(self) -> str | None:
        order, most = max(self.otherwise.items(), key=lambda item: item[1], default=("", 0))
        is_better = most > 2 * self.correct and _by_chance(most, self.images, self.classes) < _FAR_ABOVE_CHANCE
        return order if is_better else None

    def _is_no_better_than_chance(self) -> bool:
        # Of very few images, all may be classified correctly by chance: they show nothing.
        is_shown = _by_chance(self.images, self.images, self.classes) <= _ABOVE_CHANCE
        return is_shown and _by_chance(self.correct, self.images, self.classes) > _ABOVE_CHANCE

    def _of_normalisation(self, name: str) -> str:
        ((whose, most),) = self.normalised.items()
        mean, std = USUAL[whose]
        return (
            f"data.test: {name} classifies {self.correct} of {self.images} images correctly, and would classify {most} "
            f"correctly with `mean: {list(mean)}, std: {list(std)}`: are these missing in models.{name}, or are those "
            f"there of other weights? {_SEE_ALL}"
        )

    def _of_size(self, name: str) -> str:
        ((side, most),) = self.as_they_are.items()
        found = (
            f"data.test: {name} classifies {self.correct} of {self.images} images correctly, and would classify {most} "
            f"correctly with `input_size: {side}`"
        )
        if self.normalised:
            ((whose, best),) = self.normalised.items()
            mean, std = USUAL[whose]
            found += f", and {best} with `mean: {list(mean)}, std: {list(std)}` as well"
        return f"{found}: {_CAUSE_OF_SIZE.format(name=name)} {_SEE_ALL}"


def warnings_of(looks: Mapping[str, FirstLook]) -> list[str]:
    """What has to be said of these models, by their names: a sentence for each, or one for many with the same doubt."""
    together: dict[tuple[str, int, int], list[str]] = {}
    for name, look in looks.items():
        if (doubt := look.doubt()) is not None:
            together.setdefault((doubt, look.images, look.classes), []).append(name)
    many = {name for names in together.values() if len(names) > _ONE_BY_ONE for name in names}
    alone = [look.warning(name) for name, look in looks.items() if name not in many]
    return [warning for warning in alone if warning] + [
        _of_many({name: looks[name] for name in names}, doubt)
        for (doubt, _, _), names in together.items()
        if len(names) > _ONE_BY_ONE
    ]


def _of_many(looks: Mapping[str, FirstLook], doubt: str) -> str:
    """One sentence for models that were shown the same images, and share a doubt."""
    one = next(iter(looks.values()))
    most = max(look.correct for look in looks.values())
    found = f"data.test: {len(looks)} models classify at most {most} of {one.images} images correctly"
    if doubt == "chance":
        found += f", no better than chance (1 in {one.classes})"
        causes = f"are their weights untrained, {_CAUSES_OF_CHANCE}"
    elif doubt.isdecimal():
        least = min(look.as_they_are[doubt] - look.correct for look in looks.values())
        found = f"data.test: {len(looks)} models would each classify at least {least} more of {one.images} images "
        found += f"correctly with `input_size: {doubt}`"
        causes = "were their weights trained at that size? Then write it in each, or the images are resized."
    else:
        least = min(look.otherwise[doubt] for look in looks.values())
        found, causes = f"{found}, and would classify at least {least} correctly {_ORDERS[doubt]}", _causes_of(doubt)
    return f"{found}: {causes} {_SEE_ALL}. They are {', '.join(looks)}"


def _causes_of(order: str) -> str:
    return _CAUSES_OF_ANOTHER if order == "another" else _CAUSES_OF_ORDER


def sample_of(labels_N: Labels) -> Labels:
    """Positions of at most `MOST_IMAGES` images, as many of each class as there are, drawn with a fixed seed."""
    rng = np.random.default_rng(0)
    order = rng.permutation(len(labels_N))
    rank = np.empty(len(labels_N), dtype=np.int64)  # how many images of the same class come before, in that order
    seen: dict[int, int] = {}
    for position in order:
        label = int(labels_N[position])
        rank[position] = seen[label] = seen.get(label, -1) + 1
    chosen = order[np.argsort(rank[order], kind="stable")][:MOST_IMAGES]
    return np.sort(chosen)


def look_at(
    classifier: "Classifier",
    data: DataConfig,
    test: Manifest,
    doubts_normalisation: bool = False,
    doubts_size: bool = False,
) -> FirstLook:
    """Shows a model, in eval mode, some test images. Raises InputError where it fails or its logits are not finite.

    Where it is in doubt that the model's mean and std are those of its weights, other usual ones are tried, too; and
    where it is of the size to which it resizes, the images at their own size.
    """
    chosen = sample_of(test.labels)
    ids = [test.ids[position] for position in chosen]
    images = read_images(opened(data.test, data.fit, test.shape[0]), ids)
    labels_B, classes = test.labels[chosen], data.classes_count
    return first_look(classifier, images, ids, labels_B, classes, doubts_normalisation, doubts_size)


def first_look(
    classifier: "Classifier",
    images_BCHW: Pixels,
    ids: Sequence[str],
    labels_B: Labels,
    classes: int,
    doubts_normalisation: bool = False,
    doubts_size: bool = False,
) -> FirstLook:
    """Shows a model uint8 images, as `look_at` does. Raises InputError as that does."""
    predicted_B = predictions(classifier, images_BCHW, ids)
    look = compared(predicted_B, labels_B, classes)
    own_B = better_size(classifier, images_BCHW, ids, labels_B, predicted_B) if doubts_size else None
    if own_B is not None:
        look = replace(look, as_they_are={str(images_BCHW.shape[-1]): int((own_B == labels_B).sum())})
        predicted_B = own_B
    if not doubts_normalisation:
        return look
    with nullcontext() if own_B is None else at_own_size(classifier):
        normalised = better_normalisation(classifier, images_BCHW, ids, labels_B, predicted_B)
    return replace(look, normalised=normalised)


def compared(predicted_B: Labels, labels_B: Labels, classes: int) -> FirstLook:
    """Counts predictions that are right, and those that would be if the labels were in another order."""
    as_text = np.array(sorted(range(classes), key=str))  # position in the order of text -> number
    from_text = np.argsort(as_text)
    others = {"one higher": (labels_B + 1) % classes, "one lower": (labels_B - 1) % classes}
    if classes > 10:
        others |= {"as text": from_text[labels_B], "from text": as_text[labels_B]}
    otherwise = {order: int((predicted_B == other).sum()) for order, other in others.items()}
    if len(labels_B) >= 4 * classes and (best := _best_order(predicted_B, labels_B, classes)) >= 0.6 * len(labels_B):
        otherwise["another"] = best
    return FirstLook(len(labels_B), classes, int((predicted_B == labels_B).sum()), otherwise)


def _best_order(predicted_B: Labels, labels_B: Labels, classes: int) -> int:
    """How many predictions are right if each class is renamed to one that no other has, chosen greedily."""
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (labels_B, predicted_B), 1)
    total = 0
    for _ in range(classes):
        row, column = np.unravel_index(counts.argmax(), counts.shape)
        total += max(0, int(counts[row, column]))
        counts[row, :] = counts[:, column] = -1
    return total


def _by_chance(correct: int, images: int, classes: int) -> float:
    """Probability that guessing among the classes is right at least so often."""
    share = 1 / classes
    return sum(
        math.comb(images, count) * share**count * (1 - share) ** (images - count)
        for count in range(correct, images + 1)
    )
