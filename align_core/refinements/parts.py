"""The parts of which refinements are composed: their names and settings. Nothing here imports torch.

A part is written as its name alone, or with settings: `{name: sam, rho: 0.1}`. Each has an entry here, and a file of
its name in this folder.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from align_core.attacks.lengths import pixel_fraction
from align_core.bounds import Bound, named_part, read_numbers


@dataclass(frozen=True)
class Part:
    """A part of a refinement.

    Args:
        what: what it does, and its paper.
        settings: of the function or class in the file of its name.
    """

    what: str
    settings: Mapping[str, Bound] = field(default_factory=dict)


_EPS = Bound(4 / 255, 0, 1)
_STEP = Bound(1 / 255, 0, 1)
_STEPS = Bound(10, 1, 1000)
_WEIGHT = Bound(1.0, 0, 1e6)
_ALPHA = Bound(1.0, 0.01, 100)
_PER_EPOCH = Bound(4, 1, 1000)

INPUTS: dict[str, Part] = {
    "random": Part("uniform noise within eps is added (Ma et al. 2024)", {"eps": _EPS}),
    "pgd": Part(
        "PGD on the source as it stands, against the labels, from a random start (Ma et al. 2024)",
        {"eps": _EPS, "step": _STEP, "steps": _STEPS},
    ),
    "pgd_l2": Part(
        "PGD in the l2 ball on the source as it stands, against the labels (Springer et al. 2021)",
        {"eps": Bound(0.1, 0, 1000), "reach": Bound(2.0, 0.1, 100), "steps": Bound(3, 1, 1000)},
    ),
}
"""What may be done to the training images beside their augmentation."""

MIXES: dict[str, Part] = {
    "cutmix": Part("a box of each image is replaced by that of another (Yun et al. 2019)", {"alpha": _ALPHA}),
    "mixup": Part("each image is averaged with another (Zhang et al. 2018)", {"alpha": _ALPHA}),
}
"""How training images may be mixed with each other, and their labels with them."""

TERMS: dict[str, Part] = {
    "input_gradient": Part(
        "the length of the input gradient of the cross-entropy is penalised (Zhang et al. 2024)", {"weight": _WEIGHT}
    ),
    "score_matching": Part(
        "the input gradient of the label's log-probability is matched to the images' score (DRA; Zhu et al. 2022)",
        {"weight": _WEIGHT},
    ),
    "self_adversarial": Part(
        "the alignment losses again, on images that lead the source away from the witness (SAA; Chen et al. 2025)",
        {"weight": Bound(0.02, 0, 1e6), "local": Bound(0.02, 0, 1e6), "eps": _EPS, "step": _STEP, "steps": _STEPS},
    ),
}
"""Terms that may be added to the loss."""

NEED_TEACHER = ("self_adversarial",)
"""Terms that compare the source with its teachers, and cannot be without one."""

UPDATES: dict[str, Part] = {
    "sam": Part(
        "sharpness-aware: the gradient at the worst point within rho of the weights (Foret et al. 2021)",
        {"rho": Bound(0.05, 1e-6, 1000)},
    ),
    "gradient_norm": Part(
        "the length of the weights' gradient is penalised by a second gradient gamma away (MBA; Li et al. 2023)",
        {"weight": _WEIGHT, "gamma": Bound(0.1, 1e-6, 1000)},
    ),
}
"""Which gradient the optimiser may take, instead of that at the weights themselves."""

KEEPS: dict[str, Part] = {
    "ema": Part("the exponential moving average of the weights", {"decay": Bound(0.99, 0, 0.999999)}),
    "swa": Part(
        "the mean of the weights, gathered several times an epoch (SWA; Izmailov et al. 2018)",
        {"per_epoch": _PER_EPOCH, "start": Bound(0.0, 0, 0.99)},
    ),
    "collect": Part(
        "a network each time that weights are gathered (LGV; Gubri et al. 2022)", {"per_epoch": _PER_EPOCH}
    ),
    "swag": Part(
        "networks drawn from a Gaussian around the mean of the weights (SWAG; MBA; Li et al. 2023)",
        {"per_epoch": Bound(30, 1, 10_000), "samples": Bound(10, 1, 1000), "scale": Bound(1.5, 0, 100)},
    ),
    "scaled": Part(
        "the last weights, those of all convolutions times a factor (SASD-WS; Wu et al. 2024)",
        {"factor": Bound(0.93, 0.01, 10)},
    ),
}
"""What is kept of the weights, instead of the last ones alone."""


def networks_are_several(keep: str | Mapping[str, Any]) -> bool:
    """Whether this part `keep` leaves networks of which there may be several."""
    return not isinstance(keep, str) and keep["name"] in ("collect", "swag")


KINDS: dict[str, tuple[str, Mapping[str, Part]]] = {
    "inputs": ("clean", INPUTS),
    "mix": ("none", MIXES),
    "update": ("plain", UPDATES),
    "keep": ("last", KEEPS),
}
"""The settings of `AlignConfig` that name one part: the word that stands for none, and the parts that there are."""


def read_part(kind: str, written: Any) -> str | dict[str, Any]:
    """A part as a file writes it, with every setting, or the word that stands for none.

    Raises ValueError, which says what to change.
    """
    none, parts = KINDS[kind]
    return none if written in (none, {"name": none}) else _read(kind, written, parts, none)


def read_terms(written: Any) -> list[dict[str, Any]]:
    """The further terms of a loss as a file writes them. Raises ValueError, which says what to change."""
    terms = [_read("terms", own, TERMS) for own in (written if isinstance(written, list | tuple) else [written])]
    names = [own["name"] for own in terms]
    if len(set(names)) < len(names):
        raise ValueError("terms: each may be named once")
    return terms


def _read(kind: str, written: Any, parts: Mapping[str, Part], none: str | None = None) -> dict[str, Any]:
    """A part that is not the word `none`, which the message about an unknown name has among the others."""
    try:
        name, settings = named_part(written, {**({none: None} if none else {}), **parts}, "part")
    except ValueError as problem:
        raise ValueError(f"{kind}: {problem}") from problem
    if name == none:
        raise ValueError(f"{kind}: {none} has no settings; leave {', '.join(settings)} out")
    for key in ("eps", "step"):
        if isinstance(settings.get(key), str):
            settings[key] = pixel_fraction(settings[key])
    return {"name": name, **read_numbers(f"{kind} {name}", settings, parts[name].settings)}
