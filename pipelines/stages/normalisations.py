"""Would a model classify more test images correctly if they were normalised in another usual way, or not resized?

A `mean` and `std` that were forgotten, or are those of other weights, leave most models better than chance, so that
nothing looks wrong, and make every figure that of a broken model. So does an `input_size` that was forgotten: a library
resizes images of 32 pixels to the 176 or 224 of its own weights.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from align_core.errors import InputError
from align_core.images.decoding import Pixels

if TYPE_CHECKING:
    from align_core.models import Classifier

Normalisation = tuple[Sequence[float], Sequence[float]]

USUAL: dict[str, Normalisation] = {
    "none of grey": ((0.0,), (1.0,)),
    "halves of grey": ((0.5,), (0.5,)),
    "MNIST": ((0.1307,), (0.3081,)),
    "none": ((0.0,) * 3, (1.0,) * 3),
    "halves": ((0.5,) * 3, (0.5,) * 3),
    "ImageNet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "CIFAR-10": ((0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)),
}
"""Mean and standard deviation of each channel, in fractions of the pixel range, by the data set that they are of."""

_BATCH = 32
_FEWEST = 10
"""How many more images have to be right: by chance, ten that differ are all in favour once among a thousand models."""


def better_normalisation(
    classifier: "Classifier",
    images_BCHW: Pixels,
    ids: Sequence[str],
    labels_B: npt.NDArray[np.int64],
    predicted_B: npt.NDArray[np.int64],
) -> dict[str, int]:
    """The usual normalisation, by name, under which most of these images are classified correctly, and how many.

    Empty unless it beats the model's own by at least ten images. To save passes, the images that are right now are
    looked at only where enough of the others become right.

    Args:
        classifier: in eval mode; it is left as it was.
        images_BCHW: uint8.
        predicted_B: what it predicts with its own normalisation.
    """
    right_B = predicted_B == labels_B
    wrong, right = np.flatnonzero(~right_B), np.flatnonzero(right_B)
    found = {}
    for name, normalisation in USUAL.items():
        if len(normalisation[0]) != images_BCHW.shape[1] or _is_own(classifier, normalisation):
            continue
        count = 0
        with suppress(InputError), _normalising(classifier, normalisation):  # it need not bear pixels of other sizes
            for rows in (wrong, right):
                now_B = predictions(classifier, images_BCHW[rows], [ids[row] for row in rows.tolist()])
                count += int((now_B == labels_B[rows]).sum())
                if count < _FEWEST:  # of those that were wrong
                    break
        if count >= len(right) + _FEWEST:
            found[name] = count
    best = max(found, key=lambda name: found[name], default=None)
    return {} if best is None else {best: found[best]}


def better_size(
    classifier: "Classifier",
    images_BCHW: Pixels,
    ids: Sequence[str],
    labels_B: npt.NDArray[np.int64],
    predicted_B: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64] | None:
    """What a model predicts, int64 [B], for images that it does not resize.

    None where it does not resize them anyhow, where it cannot take them as they are, or unless at least ten more images
    are then classified correctly. The arguments are those of `better_normalisation`.
    """
    if classifier.input_size in (None, images_BCHW.shape[-1]):
        return None
    with suppress(InputError), at_own_size(classifier):  # a network with a table of positions takes one size alone
        now_B = predictions(classifier, images_BCHW, ids)
        if (now_B == labels_B).sum() >= (predicted_B == labels_B).sum() + _FEWEST:
            return now_B
    return None


@contextmanager
def at_own_size(classifier: "Classifier") -> Iterator[None]:
    """The classifier without resizing, and then again as it was."""
    own, classifier.input_size = classifier.input_size, None
    try:
        yield
    finally:
        classifier.input_size = own


def predictions(classifier: "Classifier", images_BCHW: Pixels, ids: Sequence[str]) -> npt.NDArray[np.int64]:
    """The classes int64 [B] that a model predicts for uint8 images, in small batches.

    Raises InputError where it fails, or its logits are not finite.
    """
    import torch

    from align_core.own_code import own_code

    found = [np.zeros(0, np.int64)]
    for start in range(0, len(images_BCHW), _BATCH):
        batch_BCHW = torch.from_numpy(np.array(images_BCHW[start : start + _BATCH])).to(torch.float32) / 255
        with own_code("predicting test images"), torch.no_grad():
            logits_BK = classifier(batch_BCHW, ids[start : start + _BATCH])
        if not logits_BK.isfinite().all():
            raise InputError("its logits are NaN or infinite on images of data.test")
        found.append(logits_BK.argmax(dim=1).numpy())
    return np.concatenate(found)


def _is_own(classifier: "Classifier", normalisation: Normalisation) -> bool:
    own = [part.flatten().tolist() for part in (classifier.mean_C11, classifier.std_C11)]
    return np.allclose(own, normalisation, atol=0.01)


@contextmanager
def _normalising(classifier: "Classifier", normalisation: Normalisation) -> Iterator[None]:
    """The classifier with another normalisation, and then again with its own."""
    import torch

    own = classifier.mean_C11, classifier.std_C11
    classifier.mean_C11, classifier.std_C11 = (
        torch.tensor(values, dtype=torch.float32, device=own[0].device).view(-1, 1, 1) for values in normalisation
    )
    try:
        yield
    finally:
        classifier.mean_C11, classifier.std_C11 = own
