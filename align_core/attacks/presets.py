"""Published attacks as presets of the parts, at the settings of their papers. Nothing here imports torch.

A new preset is an entry here. A comment says where a setting is that of published code and not of the paper. Step
lengths are not written as such: `reach` is the number of steps times the length of a step, in units of eps, so that a
preset keeps its proportions at any number of steps.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Preset:
    """A published attack.

    Args:
        what: what it does, in one line.
        paper: authors, and arXiv number or venue.
        year: of publication.
        settings: those in which it differs from plain iterated gradient signs; fields of `AttackConfig`.
        steps: number of steps in the paper.
        reach: number of steps times the length of a step, in units of eps.
    """

    what: str
    paper: str
    year: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    steps: int = 10
    reach: float = 1.0


_MI: dict[str, Any] = {"momentum": 1.0}
_NI: dict[str, Any] = {"momentum": 1.0, "nesterov": True}
# As in the code of Zhao et al., which runs Po+Trip in the same way: 300 steps of 2/255, momentum of gradients that
# nothing divides, DI with probability 0.7, and a kernel of 5.
_TARGETED: dict[str, Any] = {
    "momentum": 1.0,
    "normalized": False,
    "kernel": 5,
    "views": [{"name": "resize_pad", "probability": 0.7}],
    "towards": "next",
}
# The paper enlarges images of 299 pixels to at most 330; shrinking them within their own size, as torchattacks and
# torchattack do, suits networks of a fixed input size.
_DI = {"name": "resize_pad"}

PRESETS: dict[str, Preset] = {
    "fgsm": Preset(
        "one step of size eps along the sign of the gradient", "Goodfellow et al., 1412.6572", 2015, steps=1
    ),
    "ifgsm": Preset("iterated gradient signs", "Kurakin et al., 1607.02533", 2017),
    "pgd": Preset(
        "iterated gradient signs from a random start in the ball",
        "Madry et al., 1706.06083",
        2018,
        {"random_start": True},
        reach=2.5,
    ),
    "cw": Preset(
        "PGD on the margin of the logits",
        "Carlini and Wagner, 1608.04644, as in Madry et al.",
        2017,
        {"random_start": True, "objective": "margin"},
        reach=2.5,
    ),
    "fgm_l2": Preset(
        "one step of length eps along the gradient, in the l2 ball",
        "Miyato et al., 1605.07725",
        2017,
        {"norm": "l2"},
        steps=1,
    ),
    "pgd_l2": Preset(
        "PGD in the l2 ball", "Madry et al., 1706.06083", 2018, {"random_start": True, "norm": "l2"}, reach=2.5
    ),
    "mi_l2": Preset("MI in the l2 ball", "Dong et al., 1710.06081", 2018, {**_MI, "norm": "l2"}),
    "mi": Preset("iterated gradient signs with momentum", "Dong et al., 1710.06081", 2018, _MI),
    "ni": Preset(
        "MI with the gradient taken at the point to which the momentum leads", "Lin et al., 1908.06281", 2020, _NI
    ),
    "gi": Preset(
        "MI whose momentum is first gathered over five long steps",
        "Wang et al., 2211.11236",
        2022,
        {**_MI, "warm_start": 5, "warm_stride": 10.0},
    ),
    "di": Preset(
        "MI on images that are randomly shrunk and padded", "Xie et al., 1803.06978", 2019, {**_MI, "views": [_DI]}
    ),
    "ti": Preset(
        "MI with the gradient smoothed by a Gaussian kernel", "Dong et al., 1904.02884", 2019, {**_MI, "kernel": "auto"}
    ),
    "diti": Preset(
        "MI, DI and TI together", "Dong et al., 1904.02884", 2019, {**_MI, "views": [_DI], "kernel": "auto"}
    ),
    "si": Preset(
        "MI with the gradient averaged over copies of lower brightness",
        "Lin et al., 1908.06281",
        2020,
        {**_MI, "views": ["scale"]},
    ),
    "sini": Preset(
        "NI with the gradient averaged over copies of lower brightness",
        "Lin et al., 1908.06281",
        2020,
        {**_NI, "views": ["scale"]},
    ),
    "siniditi": Preset(
        "SI-NI, DI and TI together", "Lin et al., 1908.06281", 2020, {**_NI, "views": ["scale", _DI], "kernel": "auto"}
    ),
    "vr": Preset(
        "MI with the gradient averaged over copies with Gaussian noise",
        "Wu et al., 1802.09707",
        2018,
        {**_MI, "samples": "noise"},
    ),
    "vmi": Preset(
        "MI with variance tuning: gradients at random neighbours correct the next gradient",
        "Wang and He, 2103.15571",
        2021,
        {**_MI, "samples": "variance"},
    ),
    "vni": Preset(
        "NI with variance tuning: gradients at random neighbours correct the next gradient",
        "Wang and He, 2103.15571",
        2021,
        {**_NI, "samples": "variance"},
    ),
    "vmisiditi": Preset(
        "VMI with SI, DI and TI (VMI-CT)",
        "Wang and He, 2103.15571",
        2021,
        {**_MI, "samples": "variance", "views": ["scale", _DI], "kernel": "auto"},
    ),
    "emi": Preset(
        "MI with the gradient averaged over points along the last gradient",
        "Wang et al., 2103.10609",
        2021,
        {**_MI, "samples": "line"},
    ),
    "gra": Preset(
        "MI with neighbours weighted by cosine; steps shrink where the sign turns",
        "Zhu et al., ICCV",
        2023,
        {**_MI, "samples": "relevance", "step_decay": 0.94},
    ),
    "pgn": Preset(
        "MI with a penalty on the gradient norm, which leads to flat maxima",
        "Ge et al., 2306.05225",
        2023,
        {**_MI, "samples": "penalty"},
    ),
    # Twenty steps of a tenth of eps, as in TransferAttack's code.
    "mef": Preset(
        "MI with the mean gradient of neighbours that move by their own last gradients",
        "Qiu et al., 2405.16181",
        2024,
        {"momentum": 0.5, "samples": "flatness"},
        steps=20,
        reach=2.0,
    ),
    # The decay of steps, and what it compares, are those of TransferAttack's code.
    "fgsra": Preset(
        "GRA with neighbours whose frequencies are scaled at random",
        "Wang and Wang, CIKM",
        2024,
        {**_MI, "samples": "frequency", "step_decay": 0.94, "step_decay_by": "gradient"},
    ),
    "mig": Preset(
        "MI on integrated gradients",
        "Ma et al., ICCV",
        2023,
        {**_MI, "samples": "integrated", "objective": "probability"},
        steps=25,
    ),
    "dem": Preset(
        "TI on the mean logits over five ranges of image sizes, with steps of size eps",
        "Zou et al., 2112.06011",
        2020,
        {**_MI, "views": ["sizes"], "combine": "logits", "kernel": "auto"},
        reach=10.0,
    ),
    "admix": Preset(
        "SI on images into which a share of another class's image is mixed",
        "Wang et al., 2102.00436",
        2021,
        {**_MI, "views": ["admix", "scale"]},
    ),
    # Masks are made of images of other classes, drawn from the image set; the code takes them from the batch.
    "usmm": Preset(
        "MI on images at five brightnesses, multiplied by masks made of other images",
        "Wang et al., 2311.12051",
        2023,
        {**_MI, "views": ["uniform_scale", "mix_mask"]},
    ),
    # The gradient is taken through the transform, as the paper writes it; published code stops at its output.
    "ssa": Preset(
        "MI on images with noise, and frequencies scaled at random",
        "Long et al., 2207.05382",
        2022,
        {**_MI, "views": ["spectrum"]},
    ),
    # Seven operators and noise of 16/255, as in TransferAttack's code; the authors' own code has three operators more.
    "sia": Preset(
        "MI on images cut into blocks, each transformed by an operator of its own",
        "Wang et al., 2309.14700",
        2023,
        {**_MI, "views": ["block_operators"]},
    ),
    # 3 x 3 blocks, at most twice as long as each other, and uniform angles, as in the code of TransferAttack and
    # torchattack; the authors' first code (mi_bsr.py) has 2 x 2 blocks of any length, and normal angles.
    "bsr": Preset(
        "MI on images cut into blocks that are shuffled and rotated",
        "Wang et al., 2308.10299",
        2024,
        {**_MI, "views": ["block_shuffle"]},
    ),
    "decowa": Preset(
        "MI on thin-plate warps, each moved by one step against the objective",
        "Lin et al., 2402.03951",
        2024,
        {**_MI, "views": ["warp"]},
    ),
    # 30 noises and 30 compositions, as in TransferAttack's code since its correction; before, it had 10 and 20.
    "ops": Preset(
        "MI on images with noise of several radii, under random operators",
        "Guo et al., CVPR",
        2025,
        {**_MI, "samples": "pool", "views": ["operators"]},
    ),
    "logit": Preset(
        "targeted: the logit of a class, with DI and TI",
        "Zhao et al., 2012.11207",
        2021,
        {**_TARGETED, "objective": "logit"},
        steps=300,
        reach=37.5,
    ),
    "logit_margin": Preset(
        "targeted: cross-entropy at temperature 5, with DI and TI",
        "Weng et al., 2303.03680",
        2023,
        {**_TARGETED, "objective": "logit_margin"},
        steps=300,
        reach=37.5,
    ),
    "potrip": Preset(
        "targeted: Poincaré distance and a triplet loss, with DI and TI",
        "Li et al., CVPR",
        2020,
        {**_TARGETED, "objective": "po_trip"},
        steps=300,
        reach=37.5,
    ),
}
"""Name of a method -> the published attack. `witness list attacks` prints them."""
