"""The parts of which attacks are composed: their names, their settings, and what they cost. Nothing here imports torch.

A part is written as its name alone, or with settings: `{name: admix, copies: 3, share: 0.2}`. Each has an entry here,
and a file of its name that holds one function: a view in `views`, a rule over samples in `samples`, an objective in
`objectives`. Settings that are left out take the defaults of the entry.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from align_core.bounds import Bound, named_part, read_numbers


@dataclass(frozen=True)
class View:
    """A transformation of the image, of which `copies` are made per gradient.

    Args:
        what: what it does, and its paper.
        copies: how many copies are made of each image that it is given, unless a file says otherwise.
        settings: of the function in `views/<name>.py`.
        inner_gradients: how many gradients a copy costs before it is there.
        needs_others: whether a second image of the image set is mixed in.
    """

    what: str
    copies: int = 1
    settings: Mapping[str, Bound] = field(default_factory=dict)
    inner_gradients: int = 0
    needs_others: bool = False


@dataclass(frozen=True)
class Rule:
    """A rule that combines the gradients at several points.

    Args:
        what: what it does, and its paper.
        gradients: how many gradients an attack takes: of the number of points, the gradients that each of them costs
            with its views, and the number of steps.
        settings: of the function in `samples/<name>.py`, beside `count`, the number of points.
        count: the number of points unless a file says otherwise.
    """

    what: str
    count: int
    gradients: Callable[[int, int, int], int]
    settings: Mapping[str, Bound] = field(default_factory=dict)


@dataclass(frozen=True)
class Objective:
    """A function that the attack maximises.

    Args:
        what: what it is, and its paper.
        settings: of the function in `objectives/<name>.py`.
        untargeted, targeted: whether it can lead away from the label, and towards a class.
    """

    what: str
    settings: Mapping[str, Bound] = field(default_factory=dict)
    untargeted: bool = True
    targeted: bool = True


_BLOCKS = Bound(3, 1, 32)
_RADIUS = Bound(2.0, 0, 255)

VIEWS: dict[str, View] = {
    "scale": View("the image divided by 1, 2, 4 ..., one copy each (SI; Lin et al. 2020)", copies=5),
    "resize_pad": View(
        "randomly shrunk, placed at random on black (DI; Xie et al. 2019)",
        settings={"probability": Bound(0.5, 0, 1), "smallest": Bound(0.9, 0.01, 1)},
    ),
    "sizes": View(
        "as resize_pad, where each copy may become smaller than the one before (DEM; Zou et al. 2020)",
        copies=5,
        settings={"rate": Bound(1.14, 1, 100), "growth": Bound(0.13, 0, 10)},
    ),
    "admix": View(
        "a share of another class's image is added (Wang et al. 2021)",
        copies=3,
        settings={"share": Bound(0.2, 0, 10)},
        needs_others=True,
    ),
    "uniform_scale": View(
        "scaled by evenly spaced factors, one copy each (US-MM; Wang, Ying, Wang and Chen 2023)",
        copies=5,
        settings={"low": Bound(0.1, 0, 1), "high": Bound(0.75, 0, 1)},
    ),
    "mix_mask": View(
        "multiplied by a mask made of another image (US-MM; Wang, Ying, Wang and Chen 2023)",
        copies=3,
        settings={"range": Bound(0.5, 0, 1)},
        needs_others=True,
    ),
    "spectrum": View(
        "noise is added, and each frequency of the cosine transform is scaled at random (SSA; Long et al. 2022)",
        copies=20,
        settings={"rho": Bound(0.5, 0, 1), "noise": Bound(1.0, 0, 255)},
    ),
    "block_shuffle": View(
        "cut into blocks that change places and are rotated (BSR; Wang, He, Wang and Wang 2024)",
        copies=20,
        settings={"blocks": _BLOCKS, "degrees": Bound(24.0, 0, 180)},
    ),
    "block_operators": View(
        "cut into blocks, each under an operator of its own (SIA; Wang, Zhang and Zhang 2023)",
        copies=20,
        settings={"blocks": _BLOCKS, "noise": Bound(16 / 255, 0, 1)},
    ),
    "warp": View(
        "warped by a thin-plate spline, moved by one step against the objective (DeCowA; Lin et al. 2024)",
        copies=20,
        settings={"mesh": Bound(3, 3, 16), "noise": Bound(2.0, 0, 4), "rho": Bound(0.01, 0, 10)},
        inner_gradients=1,
    ),
    "operators": View(
        "two to four random operators, one after the other (OPS; Guo et al. 2025)",
        copies=30,
        settings={"fewest": Bound(2, 1, 8), "most": Bound(4, 1, 8)},
    ),
}
"""What may be done to an image before its gradient is taken. A new view is a line here and a file in `views`."""

RULES: dict[str, Rule] = {
    "variance": Rule(
        "variance tuning: the gradient, plus what neighbours of the step before had more (VMI; Wang and He 2021)",
        count=20,
        gradients=lambda count, each, steps: each * (steps + count * (steps - 1)),
        settings={"radius": Bound(1.5, 0, 255)},
    ),
    "line": Rule(
        "the mean over points on a line along the last gradient (EMI; Wang, Lin, Wang and Xie 2021)",
        count=11,
        gradients=lambda count, each, steps: each * (1 + count * (steps - 1)),
        settings={"radius": Bound(7.0, 0, 255)},
    ),
    "relevance": Rule(
        "the gradient and its neighbours' mean, weighted by their cosine (GRA; Zhu et al. 2023)",
        count=20,
        gradients=lambda count, each, steps: each * steps * (1 + count),
        settings={"radius": Bound(3.5, 0, 255)},
    ),
    "penalty": Rule(
        "the gradient norm is penalised by a second gradient a step back (PGN; Ge et al. 2023)",
        count=20,
        gradients=lambda count, each, steps: each * steps * 2 * count,
        settings={"radius": Bound(3.0, 0, 255), "share": Bound(0.5, 0, 1)},
    ),
    "flatness": Rule(
        "the mean over neighbours that are moved by their own last gradients (MEF; Qiu et al. 2024)",
        count=20,
        gradients=lambda count, each, steps: each * steps * count,
        settings={"radius": _RADIUS, "inner_radius": Bound(0.15, 0, 255), "inner_decay": Bound(0.9, 0, 10)},
    ),
    "frequency": Rule(
        "as relevance, with neighbours whose frequencies are scaled at random (FGSRA; Wang and Wang 2024)",
        count=20,
        gradients=lambda count, each, steps: each * steps * (1 + count),
        settings={"radius": _RADIUS, "rho": Bound(0.7, 0, 1)},
    ),
    "integrated": Rule(
        "integrated gradients on the way from black to the image (MIG; Ma et al. 2023)",
        count=20,
        gradients=lambda count, each, steps: each * steps * count,
    ),
    "noise": Rule(
        "the mean over points with Gaussian noise (VR; Wu et al. 2018)",
        count=20,
        gradients=lambda count, each, steps: each * steps * count,
        settings={"deviation": Bound(1.0, 0, 255)},
    ),
    "pool": Rule(
        "the mean over the image and noisy ones, which alone are seen through the views (OPS; Guo et al. 2025)",
        count=30,
        gradients=lambda count, each, steps: steps * (1 + count * each),
        settings={"radius": _RADIUS},
    ),
}
"""How the gradients at several points become one. A new rule is a line here and a file in `samples`."""

OBJECTIVES: dict[str, Objective] = {
    "cross_entropy": Objective("cross-entropy of the label, or minus that of the class led to"),
    "margin": Objective("the largest other logit minus the label's (Carlini and Wagner 2017)"),
    "logit": Objective("minus the label's logit, or the logit of the class led to (Zhao, Liu and Larson 2021)"),
    "probability": Objective("minus the label's probability, or that of the class led to (MIG; Ma et al. 2023)"),
    "logit_margin": Objective(
        "cross-entropy at a temperature, which keeps its gradient from vanishing (Weng et al. 2023)",
        settings={"temperature": Bound(5.0, 0.01, 1000)},
    ),
    "po_trip": Objective(
        "minus the Poincaré distance to the class led to, and a triplet loss that leaves the label (Li et al. 2020)",
        settings={"weight": Bound(0.01, 0, 1000), "margin": Bound(0.007, 0, 10)},
        untargeted=False,
    ),
}
"""What an attack may maximise. A new objective is a line here and a file in `objectives`."""

REVISIONS = {"frequency": 2, "kernel": 2}
"""Revisions of views, rules and of the kernel that smooths the gradient, where they are not 1.

A number is raised by hand when a change of the part's code changes the images. It stands in the fingerprints of the
attacks that have the part, and in no others.
"""


def read_view(written: Any) -> dict[str, Any]:
    """A view as a file writes it, with every setting. Raises ValueError, which says what to change."""
    name, settings = named_part(written, VIEWS, "view")
    entry = VIEWS[name]
    copies = {"copies": Bound(entry.copies, 1, 1000)}
    return {"name": name, **read_numbers(f"view {name}", settings, {**copies, **entry.settings})}


def read_rule(written: Any) -> dict[str, Any]:
    """A rule over samples as a file writes it, with every setting. Raises ValueError, which says what to change."""
    name, settings = named_part(written, RULES, "rule")
    entry = RULES[name]
    count = {"count": Bound(entry.count, 1, 10_000)}
    return {"name": name, **read_numbers(f"rule {name}", settings, {**count, **entry.settings})}


def read_objective(written: Any) -> dict[str, Any]:
    """An objective as a file writes it, with every setting. Raises ValueError, which says what to change."""
    name, settings = named_part(written, OBJECTIVES, "objective")
    return {"name": name, **read_numbers(f"objective {name}", settings, OBJECTIVES[name].settings)}
