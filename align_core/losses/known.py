"""The alignment losses: their names, what they compare, and their settings. Nothing here imports torch.

A loss is written as its name alone, or with settings: `{name: rkd, weight: 0.5, angle: 2}`. Several are written as a
list, and their weighted values are added. A new loss is an entry here, and a file of its name that holds one function.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from align_core.bounds import Bound, named_part, read_numbers

_WEIGHT = {"weight": Bound(1.0, 0, 1e6)}


@dataclass(frozen=True)
class Loss:
    """A measure of how far a source is from a witness on a batch of images.

    Args:
        what: what it compares, and its paper.
        sees: `logits`; or `features`, the vectors that the networks' last layers take; or `places`, the logits that the
            last layers make of each place of the last feature maps.
        per_image: whether it has a value for each image by itself; otherwise the images of a batch are compared with
            each other, and the value is one of the whole batch.
        least: how many images it needs at once: of fewer, it or a term of it does not depend on the networks.
        tempered: whether the logits are divided by `align.temperature`.
        projected: whether both networks' features must be of one width, so that those of the source are projected.
        settings: of the function, beside `weight`.
    """

    what: str
    sees: Literal["logits", "features", "places"] = "logits"
    per_image: bool = True
    least: int = 1
    tempered: bool = False
    projected: bool = False
    settings: Mapping[str, Bound] = field(default_factory=dict)


LOSSES: dict[str, Loss] = {
    "kl": Loss("T^2 KL(witness || source) of softmax(logits / T): model alignment (Ma et al. 2024)", tempered=True),
    "symkl": Loss("T^2 times KL(witness || source) plus KL(source || witness) (Ma et al. 2024)", tempered=True),
    "mse": Loss("mean squared difference of the logits (Ma et al. 2024)"),
    "l1": Loss("mean absolute difference of the logits (Ma et al. 2024)"),
    "hint": Loss(
        "mean squared difference of the features (after FitNets; Romero et al. 2015)", sees="features", projected=True
    ),
    "pkt": Loss(
        "KL between the probabilities that cosines within a batch make (Passalis and Tefas 2018)",
        sees="features",
        per_image=False,
        least=2,
    ),
    "rkd": Loss(
        "distances and angles between the images of a batch (Park et al. 2019)",
        sees="features",
        per_image=False,
        least=3,
        settings={"distance": Bound(1.0, 0, 1e6), "angle": Bound(2.0, 0, 1e6)},
    ),
    "nce": Loss(
        "contrast between images of one class and of others, by their labels (Chen et al. 2021)",
        sees="features",
        per_image=False,
        least=2,
        projected=True,
        settings={"sharpness": Bound(0.1, 0.001, 100)},
    ),
    "ega": Loss(
        "correlations within a batch, and between source and witness (Ma, Chen and Akata 2022)",
        sees="features",
        per_image=False,
        least=2,
        projected=True,
        settings={"node": Bound(0.8, 0, 1e6), "edge": Bound(0.24, 0, 1e6)},
    ),
    "local": Loss(
        "cross-entropy to the witness's predictions at every place of the image (SAA; Chen et al. 2025)", sees="places"
    ),
}
"""Every alignment loss by name. `witness list losses` prints them."""


def read_loss(written: Any) -> dict[str, Any]:
    """A loss as a file writes it, with every setting. Raises ValueError, which says what to change."""
    name, settings = named_part(written, LOSSES, "alignment loss")
    return {"name": name, **read_numbers(f"loss {name}", settings, {**_WEIGHT, **LOSSES[name].settings})}


def read_losses(written: Any) -> list[dict[str, Any]]:
    """The losses of an alignment as a file writes them: one, or a list. Raises ValueError, which says what to do."""
    if not isinstance(written, list | tuple):
        written = [written]
    losses = [read_loss(own) for own in written]
    names = [own["name"] for own in losses]
    if not losses or len(set(names)) < len(names):
        raise ValueError("loss must name at least one loss, and each of them once")
    if not any(own["weight"] for own in losses):
        raise ValueError("loss: all weights are 0; for a fine-tune without alignment, set align.weight to 0")
    return losses


def compares(losses: Sequence[Mapping[str, Any]], seen: str) -> bool:
    """Whether any of these losses sees `features`, or `places`."""
    return any(LOSSES[own["name"]].sees == seen for own in losses)
