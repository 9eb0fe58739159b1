"""The presets' settings against a second table, typed from the papers and the reference implementations.

Lengths are in 255ths at eps 16/255. A row has steps, length of a step, and what the attack has besides.
"""

from typing import Any

import pytest

from align_core.attacks import PRESETS, AttackConfig

MOMENTUM = {"momentum": 1.0}
NESTEROV = {"momentum": 1.0, "nesterov": True}
DIVERSE = {"name": "resize_pad", "copies": 1, "probability": 0.5, "smallest": 0.9}
SCALES = {"name": "scale", "copies": 5}
TUNED = {"name": "variance", "count": 20, "radius": 1.5}
TARGETED = {
    "momentum": 1.0,
    "normalized": False,
    "kernel": 5,
    "towards": "next",
    "views": [{**DIVERSE, "probability": 0.7}],
}
PLAIN: dict[str, Any] = {
    "norm": "linf",
    "objective": "cross_entropy",
    "towards": "away",
    "random_start": False,
    "momentum": 0.0,
    "normalized": True,
    "nesterov": False,
    "warm_start": 0,
    "warm_stride": 1.0,
    "step_decay": 1.0,
    "step_decay_by": "momentum",
    "kernel": 0,
    "views": [],
    "combine": "gradients",
    "samples": "none",
}

TABLE: dict[str, tuple[int, float, int, dict[str, Any]]] = {
    # name: steps, step, gradients per image, the rest
    "fgsm": (1, 16, 1, {}),
    "ifgsm": (10, 1.6, 10, {}),
    "pgd": (10, 4, 10, {"random_start": True}),
    "cw": (10, 4, 10, {"random_start": True, "objective": "margin"}),
    "fgm_l2": (1, 16, 1, {"norm": "l2"}),
    "pgd_l2": (10, 4, 10, {"random_start": True, "norm": "l2"}),
    "mi_l2": (10, 1.6, 10, {**MOMENTUM, "norm": "l2"}),
    "mi": (10, 1.6, 10, MOMENTUM),
    "ni": (10, 1.6, 10, NESTEROV),
    "gi": (10, 1.6, 15, {**MOMENTUM, "warm_start": 5, "warm_stride": 10.0}),
    "di": (10, 1.6, 10, {**MOMENTUM, "views": [DIVERSE]}),
    "ti": (10, 1.6, 10, {**MOMENTUM, "kernel": "auto"}),
    "diti": (10, 1.6, 10, {**MOMENTUM, "views": [DIVERSE], "kernel": "auto"}),
    "si": (10, 1.6, 50, {**MOMENTUM, "views": [SCALES]}),
    "sini": (10, 1.6, 50, {**NESTEROV, "views": [SCALES]}),
    "siniditi": (10, 1.6, 50, {**NESTEROV, "views": [SCALES, DIVERSE], "kernel": "auto"}),
    "vr": (10, 1.6, 200, {**MOMENTUM, "samples": {"name": "noise", "count": 20, "deviation": 1.0}}),
    "vmi": (10, 1.6, 190, {**MOMENTUM, "samples": TUNED}),
    "vni": (10, 1.6, 190, {**NESTEROV, "samples": TUNED}),
    "vmisiditi": (10, 1.6, 950, {**MOMENTUM, "samples": TUNED, "views": [SCALES, DIVERSE], "kernel": "auto"}),
    "emi": (10, 1.6, 100, {**MOMENTUM, "samples": {"name": "line", "count": 11, "radius": 7.0}}),
    "gra": (
        10,
        1.6,
        210,
        {**MOMENTUM, "samples": {"name": "relevance", "count": 20, "radius": 3.5}, "step_decay": 0.94},
    ),
    "pgn": (10, 1.6, 400, {**MOMENTUM, "samples": {"name": "penalty", "count": 20, "radius": 3.0, "share": 0.5}}),
    "mef": (
        20,
        1.6,
        400,
        {
            "momentum": 0.5,
            "samples": {"name": "flatness", "count": 20, "radius": 2.0, "inner_radius": 0.15, "inner_decay": 0.9},
        },
    ),
    "fgsra": (
        10,
        1.6,
        210,
        {
            **MOMENTUM,
            "samples": {"name": "frequency", "count": 20, "radius": 2.0, "rho": 0.7},
            "step_decay": 0.94,
            "step_decay_by": "gradient",
        },
    ),
    "mig": (
        25,
        0.64,
        500,
        {
            **MOMENTUM,
            "samples": {"name": "integrated", "count": 20},
            "objective": "probability",
        },
    ),
    "dem": (
        10,
        16,
        50,
        {
            **MOMENTUM,
            "views": [{"name": "sizes", "copies": 5, "rate": 1.14, "growth": 0.13}],
            "combine": "logits",
            "kernel": "auto",
        },
    ),
    "admix": (10, 1.6, 150, {**MOMENTUM, "views": [{"name": "admix", "copies": 3, "share": 0.2}, SCALES]}),
    "usmm": (
        10,
        1.6,
        150,
        {
            **MOMENTUM,
            "views": [
                {"name": "uniform_scale", "copies": 5, "low": 0.1, "high": 0.75},
                {"name": "mix_mask", "copies": 3, "range": 0.5},
            ],
        },
    ),
    "ssa": (10, 1.6, 200, {**MOMENTUM, "views": [{"name": "spectrum", "copies": 20, "rho": 0.5, "noise": 1.0}]}),
    "sia": (
        10,
        1.6,
        200,
        {
            **MOMENTUM,
            "views": [{"name": "block_operators", "copies": 20, "blocks": 3, "noise": 16 / 255}],
        },
    ),
    "bsr": (
        10,
        1.6,
        200,
        {**MOMENTUM, "views": [{"name": "block_shuffle", "copies": 20, "blocks": 3, "degrees": 24.0}]},
    ),
    "decowa": (
        10,
        1.6,
        400,
        {
            **MOMENTUM,
            "views": [{"name": "warp", "copies": 20, "mesh": 3, "noise": 2.0, "rho": 0.01}],
        },
    ),
    "ops": (
        10,
        1.6,
        9010,
        {
            **MOMENTUM,
            "samples": {"name": "pool", "count": 30, "radius": 2.0},
            "views": [{"name": "operators", "copies": 30, "fewest": 2, "most": 4}],
        },
    ),
    "logit": (300, 2, 300, {**TARGETED, "objective": "logit"}),
    "logit_margin": (300, 2, 300, {**TARGETED, "objective": {"name": "logit_margin", "temperature": 5.0}}),
    "potrip": (300, 2, 300, {**TARGETED, "objective": {"name": "po_trip", "weight": 0.01, "margin": 0.007}}),
}


def test_the_tables_have_the_same_attacks_at_least_thirty() -> None:
    assert sorted(TABLE) == sorted(PRESETS) and len(TABLE) >= 30


@pytest.mark.parametrize("method", PRESETS)
def test_a_preset_has_the_settings_of_its_paper(method: str) -> None:
    steps, step, gradients, besides = TABLE[method]
    attack = AttackConfig(method=method, eps=16 / 255)
    assert (attack.steps, attack.gradients) == (steps, gradients)
    assert attack.step * 255 == pytest.approx(step)
    assert {name: getattr(attack, name) for name in PLAIN} == PLAIN | besides
