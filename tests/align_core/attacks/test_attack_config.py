"""Settings of an attack: which are accepted, and where those that are not given come from."""

import re
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest

from align_core.attacks import PRESETS, RULES, VIEWS, AttackConfig, kernel_for, pixel_fraction
from align_core.errors import InputError


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "bim"}, "no method 'bim'; choose from fgsm, ifgsm, pgd"),
        ({"objective": "logits"}, "no objective 'logits'; did you mean 'logit'. There are: cross_entropy, margin"),
        ({"eps": 0}, "eps must lie between 1/255 and 1, .* is 0$"),
        ({"eps": -4 / 255}, "eps must lie .* is -0.0156"),
        ({"eps": 0.9 / 255}, "eps must lie .* is 0.0035"),
        ({"eps": 8}, "eps must lie .* is 8: did you mean 8/255?"),
        ({"eps": float("nan")}, "eps must be a finite number"),
        ({"eps": float("inf")}, "eps must be a finite number"),
        ({"step": float("nan")}, "step must be a finite number"),
        ({"step": 0}, "step must lie above 0 .* is 0$"),
        ({"step": -1 / 255}, "step must lie above 0"),
        ({"step": 2}, "step must lie above 0 and not above 1.* is 2$"),
        ({"steps": 0}, "steps must be from 1 to 100,000, not 0"),
        ({"method": "fgsm", "steps": 3}, "steps must be 1 for fgsm, which takes one step, not 3"),
        ({"momentum": -1.0}, "momentum must be from 0 to 10, not -1"),
        ({"views": [{"name": "resize_pad", "probability": 1.1}]}, "probability of view resize_pad must be from 0 to 1"),
        (
            {"views": [{"name": "resize_pad", "smallest": 0.0}]},
            "smallest of view resize_pad must be from 0.01 to 1, not 0",
        ),
        (
            {"views": [{"name": "resize_pad", "smalest": 0.5}]},
            "view resize_pad has no setting 'smalest'; did you mean 'smallest'",
        ),
        ({"views": [{"name": "scale", "colour": 2}]}, "view scale has no setting 'colour'; there are: copies"),
        ({"views": ["shear"]}, "there is no view 'shear'; choose from scale, resize_pad"),
        ({"views": [3]}, "the view must be a name, or keys and values with a name, not the number 3"),
        ({"views": [{"copies": 3}]}, "the view must be a name, or keys and values with a name"),
        ({"views": [{"name": "scale", "copies": 0}]}, "copies of view scale must be from 1 to 1000, not 0"),
        ({"views": [{"name": "scale", "copies": 1.5}]}, "copies of view scale must be a whole number"),
        ({"views": ["scale"] * 9}, "at most 8 views, one after the other, not 9"),
        ({"samples": "variances"}, "there is no rule 'variances'; did you mean 'variance'. There are: variance, line"),
        ({"samples": {"name": "variance", "radius": -1.0}}, "radius of rule variance must be from 0 to 255, not -1"),
        ({"samples": {"name": "variance", "count": 0}}, "count of rule variance must be from 1 to 10000, not 0"),
        ({"samples": {"name": "line", "share": 1}}, "rule line has no setting 'share'; there are: count, radius"),
        (
            {"objective": {"name": "logit_margin", "temperature": 0}},
            "temperature of objective logit_margin must be from 0.01",
        ),
        (
            {"objective": {"name": "logit", "temperature": 1}},
            "objective logit has no setting 'temperature'; there are: none",
        ),
        ({"objective": "po_trip"}, "objective: po_trip needs a class to lead to, and towards is away; set another obj"),
        ({"towards": "label"}, "towards must be one of away, column, next, random, least_likely, not label"),
        ({"norm": "l1"}, "norm must be one of linf, l2, not l1"),
        ({"norm": "l2", "eps": 0.9 / 255}, "eps must be at least 1/255, as a Euclidean length, and is 0.0035"),
        ({"norm": "l2", "eps": 1e6}, "eps must be at least 1/255"),
        ({"norm": "l2", "step_decay": 0.9}, "step_decay: 0.9 shrinks steps by the signs of pixels, which the l2 ball"),
        (
            {"method": "ifgsm", "step_decay": 0.9},
            "step_decay: 0.9 shrinks steps .* there is no momentum; set step_decay",
        ),
        ({"step_decay": 0.0}, "step_decay must be above 0 and not above 1, not 0"),
        ({"step_decay_by": "sign"}, "step_decay_by must be momentum or gradient, not sign"),
        (
            {"method": "ifgsm", "nesterov": True},
            "nesterov: true looks ahead along the momentum, and there is none; set n",
        ),
        ({"method": "ifgsm", "warm_start": 3}, "warm_start: 3 gathers momentum, and there is none; set warm_start: 0"),
        ({"warm_start": 1001}, "warm_start must be from 0 to 1,000, not 1001"),
        ({"warm_stride": 0.0}, "warm_stride must be above 0 and not above 1,000, not 0"),
        ({"combine": "images"}, "combine must be gradients or logits, not images"),
        (
            {"combine": "logits"},
            "combine: logits is about the copies that views make, and there are no views; set comb",
        ),
        ({"kernel": 4}, "kernel must be odd, 0, or auto, not 4"),
        ({"kernel": -3}, "kernel must be odd, 0, or auto, not -3"),
        ({"kernel": "large"}, "kernel must be odd, 0, or auto, not large"),
        ({"budget": 0}, "budget must be at least 1, not 0"),
        ({"budget": 4}, "budget must be at least 5 gradients for 5 steps, not 4"),
        (
            {"method": "gi", "budget": 9},
            "budget must be at least 10 gradients for 5 steps after the 5 of warm_start, not 9",
        ),
        ({"budget": 200, "steps": 10}, "a budget of 200 makes 200 steps, and steps is 10; leave one of them out"),
        ({"steps": 10**20}, "steps must be a whole number below 2.63"),
        ({"steps": 100_001}, "steps must be from 1 to 100,000"),
        ({"samples": {"name": "variance", "count": 10**9}}, "count of rule variance must be from 1 to 10000"),
        (
            {
                "steps": 100_000,
                "views": [{"name": "scale", "copies": 100}],
                "samples": {"name": "variance", "count": 2},
            },
            "make 29,999,800 gradients per image, more than 10,000,000",
        ),
        ({"momentum": 1e30}, "momentum must be from 0 to 10"),
        ({"momentum": float("nan")}, "momentum must be a finite number"),
        ({"steps": 2.5}, "steps must be a whole number, not the number 2.5"),
        ({"steps": "3"}, "steps must be a whole number, not the text '3'; leave the quotes out"),
        ({"warm_start": True}, "warm_start must be a whole number, not true"),
        ({"eps": True}, "eps must be a number, not true"),
        ({"eps": "four"}, "'four' is not a pixel fraction such as 4/255"),
        ({"eps": "inf/255"}, "'inf/255' is not a pixel fraction"),
        ({"eps": None}, "eps must be a number, not null"),
        ({"nesterov": "no"}, "nesterov must be true or false, not the text 'no'"),
        ({"method": ["mi"]}, "method must be text, not a list"),
    ],
)
def test_settings_that_make_no_attack_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        AttackConfig(**{"method": "mi", "eps": 4 / 255, **settings})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"method": "gra", "norm": "l2"},
            "step_decay: 0.94, which gra has, shrinks steps by the signs of pixels, which the l2 ball has not; "
            "set step_decay: 1 or norm: linf",
        ),
        ({"method": "fgsra", "momentum": 0.0}, "step_decay: 0.94, which fgsra has, shrinks steps where the sign of"),
        ({"method": "ni", "momentum": 0.0}, "nesterov: true, which ni has, looks ahead along the momentum"),
        ({"method": "gi", "momentum": 0.0}, "warm_start: 5, which gi has, gathers momentum, and there is none"),
        ({"method": "dem", "views": []}, "combine: logits, which dem has, is about the copies that views make"),
        ({"method": "potrip", "towards": "away"}, "objective: po_trip, which potrip has, needs a class to lead to"),
    ],
)
def test_what_contradicts_a_part_of_the_preset_is_refused_with_the_name_of_the_preset(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        AttackConfig(eps=0.5, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"warm_stride": 3.0},
            "warm_stride: 3.0 has no effect without warm_start; set warm_start, or leave warm_stride",
        ),
        ({"method": "gi", "warm_start": 0, "warm_stride": 3.0}, "warm_stride: 3.0 has no effect without warm_start"),
        ({"step_decay_by": "gradient"}, "step_decay_by: gradient has no effect without step_decay; set step_decay, or"),
        (
            {"method": "pgd", "normalized": False},
            "normalized: false has no effect without momentum; set momentum, or l",
        ),
        ({"method": "logit", "momentum": 0.0, "normalized": True}, "normalized: true has no effect without momentum"),
    ],
)
def test_a_setting_that_would_be_ignored_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        AttackConfig(**{"method": "mi", "eps": 4 / 255, **settings})


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "gi", "warm_start": 0},  # keeps the stride of its preset
        {"method": "fgsra", "step_decay": 1.0},
        {"method": "logit", "momentum": 0.0},
        {"method": "pgd", "normalized": True, "warm_stride": 1.0, "step_decay_by": "momentum"},  # as it would be
    ],
)
def test_a_setting_without_effect_may_be_as_the_preset_has_it(settings: dict[str, Any]) -> None:
    attack = AttackConfig(eps=4 / 255, **settings)
    assert replace(attack) == attack
    assert not {"warm_stride", "step_decay_by", "normalized"} <= attack.deciding.keys()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("eps", 1 / 255), ("eps", pixel_fraction("1/255")), ("eps", 1.0), ("step", 1), ("momentum", 0.0),
        ("kernel", 1), ("kernel", "auto"), ("step_decay", 1.0), ("budget", 5), ("norm", "l2"), ("warm_start", 1000),
    ],
)  # fmt: skip
def test_settings_at_the_border_are_taken(name: str, value: float) -> None:
    attack = AttackConfig(**{"method": "mi", "eps": 4 / 255, name: value})
    assert getattr(attack, name) == value


def test_what_is_not_given_comes_from_the_method() -> None:
    vni = AttackConfig(method="vni", eps=4 / 255, steps=20, momentum=0.9)
    assert (vni.nesterov, vni.samples) == (True, {"name": "variance", "count": 20, "radius": 1.5})  # VNI's own
    assert (vni.steps, vni.momentum) == (20, 0.9)  # as given
    assert (vni.step, vni.views, vni.kernel, vni.random_start) == (0.2 / 255, [], 0, False)  # general
    assert replace(vni) == vni
    fgsm = AttackConfig(method="fgsm", eps=4 / 255)
    assert (fgsm.step, fgsm.steps, fgsm.momentum) == (4 / 255, 1, 0.0)
    assert AttackConfig(method="vmi", eps=4 / 255, samples="none").rule is None


def test_one_attack_that_is_written_in_two_ways_is_decided_by_the_same_settings() -> None:
    short = AttackConfig(method="di", eps=4 / 255)
    long = AttackConfig(method="mi", eps=4 / 255, views=[{"name": "resize_pad", "copies": 1, "smallest": 0.9}])
    assert short.deciding == long.deciding and "method" not in short.deciding
    by_budget = AttackConfig(method="bsr", eps=4 / 255, budget=200)
    assert by_budget.deciding == AttackConfig(method="bsr", eps=4 / 255).deciding
    assert short.deciding != AttackConfig(method="mi", eps=4 / 255).deciding


@pytest.mark.parametrize(
    ("settings", "revisions"),
    [
        ({"method": "ti"}, ["kernel 2"]),
        ({"method": "diti"}, ["kernel 2"]),
        ({"method": "fgsra", "kernel": 5}, ["frequency 2", "kernel 2"]),
        ({"method": "fgsra", "samples": "relevance"}, None),
        ({"method": "ti", "kernel": 0}, None),
        *(({"method": method}, None) for method in ("pgd", "mi", "si", "vmi", "gra", "ssa", "sia", "bsr", "admix")),
    ],
)
def test_the_revisions_of_an_attacks_own_parts_decide_it_and_no_others(
    settings: dict[str, Any], revisions: list[str] | None
) -> None:
    assert AttackConfig(eps=4 / 255, **settings).deciding.get("revisions") == revisions


def test_presets_are_not_changed_by_attacks_made_of_them() -> None:
    before = deepcopy(PRESETS)
    for name in PRESETS:
        attack = AttackConfig(method=name, eps=4 / 255, budget=5 if name in ("mi", "ti") else 60)
        for view in attack.views:
            view["copies"] = 99
    assert before == PRESETS


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("4/255", 4 / 255),
        ("0.5/255", 0.5 / 255),
        ("0.5", 0.5),
        ("1e-2", 0.01),
        (" 8/255 ", 8 / 255),
        (0.25, 0.25),
        (1, 1),
    ],
)
def test_pixel_fractions(written, value):
    assert pixel_fraction(written) == pytest.approx(value)


@pytest.mark.parametrize("written", ["four", "4/0", "4/255/2", "4/", "/255", "", None, [4]])
def test_what_is_no_pixel_fraction_is_refused(written):
    with pytest.raises(ValueError, match="is not a pixel fraction such as 4/255"):
        pixel_fraction(written)


def test_every_part_and_preset_has_a_description_in_one_line_and_its_paper() -> None:
    for preset in PRESETS.values():
        assert re.fullmatch(r"[^\n]{15,90}", preset.what), preset.what
        assert re.fullmatch(r"[A-Z][^()\n]+, (\d{4}\.\d{4,5}(, as in .*)?|[A-Z]+)", preset.paper), preset.paper
        assert 2013 < preset.year < 2027
    for view in VIEWS.values():
        assert re.fullmatch(r"[^\n]{20,100} \([^()\n]+ (19|20)\d\d\)", view.what), view.what
    for rule in RULES.values():
        assert re.fullmatch(r"[^\n]{20,100} \([^()\n]+ (19|20)\d\d\)", rule.what), rule.what


def test_fractions_can_be_written_as_text_from_python_too() -> None:
    attack = AttackConfig(method="mi", eps="8/255", step="0.5/255")  # type: ignore[arg-type]
    assert attack == AttackConfig(method="mi", eps=8 / 255, step=0.5 / 255)
    assert AttackConfig(method="mi", eps="8/255").step == 0.8 / 255  # type: ignore[arg-type]


@pytest.mark.parametrize(("side", "largest"), [(2, 5), (16, 33)])
def test_a_kernel_wider_than_twice_the_image_is_refused(side: int, largest: int) -> None:
    AttackConfig(method="ti", eps=4 / 255, kernel=largest).for_images(3, side)
    with pytest.raises(InputError, match=f"kernel must be at most {largest} for images of {side} pixels"):
        AttackConfig(method="ti", eps=4 / 255, kernel=largest + 2).for_images(3, side)


@pytest.mark.parametrize(
    ("side", "kernel"),
    [(8, 3), (23, 3), (24, 5), (32, 5), (64, 5), (96, 7), (160, 11), (224, 15), (299, 21), (384, 25)],
)
def test_an_automatic_kernel_is_the_odd_number_nearest_to_15_for_224_pixels(side: int, kernel: int) -> None:
    assert kernel_for(side) == kernel
    assert AttackConfig(method="ti", eps=4 / 255).for_images(3, side).deciding["kernel"] == kernel


def test_an_l2_ball_that_reaches_every_image_is_the_largest() -> None:
    AttackConfig(method="pgd_l2", eps=3**0.5 * 8).for_images(3, 8)
    with pytest.raises(InputError, match=r"eps must be at most 13\.86 in the l2 ball for images of 3 x 8 x 8 values"):
        AttackConfig(method="pgd_l2", eps=13.9).for_images(3, 8)
