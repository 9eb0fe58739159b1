"""The refinements, ways to make a surrogate from a source, as settings of one loop. Nothing here imports torch.

A refinement is an entry here, and where it needs code of its own, a part in a file of this folder. Where an experiment
gives a setting for the surrogate itself, that counts; what neither says is as in the experiment's `align`.

What its authors' code says and their paper does not is marked, and so is what is our own choice: most were trained from
scratch, or for longer, and all are fine-tunes of a source here, of whatever length an experiment gives them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Refinement:
    """A way to make a surrogate from a source.

    Args:
        what: what it does, in one line.
        paper: authors, and arXiv number or venue.
        year: of publication.
        settings: those in which it differs from the experiment's `align`; fields of `AlignConfig`.
        note: what is our own choice, or not published; "" where nothing is.
    """

    what: str
    paper: str
    year: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""


_ON_LABELS: dict[str, Any] = {"weight": 0.0, "label_weight": 1.0}
# LGV, and MBA after it: a constant, high learning rate without warm-up, and momentum that is not Nesterov's.
_HIGH_RATE: dict[str, Any] = {
    "name": "sgd",
    "lr": 0.05,
    "schedule": "constant",
    "warmup": 0.0,
    "momentum": 0.9,
    "nesterov": False,
}

REFINEMENTS: dict[str, Refinement] = {
    "alignment": Refinement(
        "the source's predictions are matched to those of witnesses",
        "Ma et al., 2311.18495",
        2024,
        {"teacher": "witnesses"},
    ),
    "label_only": Refinement("the same fine-tune on labels alone: a control", "Witness", 2026, _ON_LABELS),
    "label_smoothing": Refinement(
        "a fine-tune on labels of which a tenth is spread over all classes",
        "Szegedy et al., 1512.00567",
        2016,
        {**_ON_LABELS, "label_smoothing": 0.1},
    ),
    "saa": Refinement(
        "alignment of predictions at every place of the image too, and on images that lead the source away",
        "Chen et al., 2501.01015",
        2025,
        {
            "teacher": "witnesses",
            "loss": ["kl", {"name": "local", "weight": 0.2}],
            "terms": ["self_adversarial"],
        },
        "from a third party's summary: how places are matched, and the attack's lengths and steps, are inferred",
    ),
    "lgv": Refinement(
        "weights gathered along a fine-tune at a high learning rate, and crafted on in turn",
        "Gubri et al., 2207.13129",
        2022,
        {**_ON_LABELS, "optimizer": {**_HIGH_RATE, "weight_decay": 1e-4}, "keep": "collect"},
    ),
    "swa": Refinement(
        "the mean of the weights that LGV gathers",
        "Izmailov et al., 1803.05407; Gubri et al., 2207.13129",
        2018,
        {**_ON_LABELS, "optimizer": {**_HIGH_RATE, "weight_decay": 1e-4}, "keep": "swa"},
    ),
    "mba": Refinement(
        "networks drawn around the mean of flat weights, and crafted on in turn",
        "Li et al., 2302.05086",
        2023,
        {
            **_ON_LABELS,
            "optimizer": {**_HIGH_RATE, "weight_decay": 5e-4},
            "update": "gradient_norm",
            "keep": "swag",
        },
        "the authors draw a new network at every step; here 10 are drawn once, and seen in turn",
    ),
    "sam": Refinement(
        "a fine-tune to weights whose neighbourhood has a low loss",
        "Foret et al., 2010.01412",
        2021,
        {**_ON_LABELS, "update": "sam"},
    ),
    "sasd": Refinement(
        "sharpness-aware distillation from the source itself, and convolutions scaled by 0.93",
        "Wu et al., CVPR",
        2024,
        {
            "teacher": "source",
            "temperature": 1.0,
            "update": "sam",
            "keep": "scaled",
            "optimizer": {
                "name": "sgd",
                "lr": 0.05,
                "schedule": "constant",
                "warmup": 0.0,
                "momentum": 0.0,
                "nesterov": False,
                "weight_decay": 0.0,
            },
        },
        "their teacher is a source that was fine-tuned with SAM: name such a surrogate in `witnesses`, and set "
        "`teacher: witnesses`",
    ),
    "dsm": Refinement(
        "the source's own predictions on images that are mixed by CutMix",
        "Yang et al., 2206.08316",
        2023,
        {"teacher": "source", "temperature": 1.0, "mix": "cutmix"},
        "their surrogate is trained from scratch; here the source is fine-tuned",
    ),
    "dra": Refinement(
        "input gradients are matched to the score of the images' distribution",
        "Zhu et al., 2210.04213",
        2022,
        {**_ON_LABELS, "terms": [{"name": "score_matching", "weight": 0.01}]},
        "the authors withhold their training code: the loss follows from the score-matching identity, and its weight "
        "is our own",
    ),
    "input_gradient": Refinement(
        "a fine-tune that penalises the length of the input gradient",
        "Zhang et al., 2307.07873",
        2024,
        {**_ON_LABELS, "terms": ["input_gradient"]},
    ),
    "slight_at": Refinement(
        "adversarial training within a small l2 ball",
        "Springer et al., 2106.02105",
        2021,
        {**_ON_LABELS, "inputs": "pgd_l2"},
        "they take networks that others trained from scratch on ImageNet at eps 0.1; smaller images need a smaller eps",
    ),
}
"""Every refinement by name. `witness list refinements` prints them."""
