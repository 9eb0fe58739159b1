"""Settings of an attack: which are accepted, and where those that are not given come from."""

import re
from dataclasses import replace

import pytest
import torch

from align_core.attacks import AttackConfig, craft, pixel_fraction
from align_core.attacks.config import DESCRIPTIONS, PRESETS


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "cw"}, "no method 'cw'; choose from fgsm, pgd, mi"),
        ({"objective": "logit"}, "no objective 'logit'; choose from cross_entropy, margin"),
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
        ({"method": "fgsm", "steps": 3}, r"steps must be 1 for fgsm \(pgd is its iterated form\), not 3"),
        ({"momentum": -1.0}, "momentum must be from 0 to 10, not -1"),
        ({"diversity": 1.1}, "diversity must be a probability, not 1.1"),
        ({"diversity": -0.1}, "diversity must be a probability, not -0.1"),
        ({"diversity_size": 0.0}, "diversity_size must be above 0 and not above 1, not 0"),
        ({"diversity_size": 1.1}, "diversity_size must be above 0 and not above 1, not 1.1"),
        ({"kernel": 4}, "kernel must be odd, or 0, not 4"),
        ({"kernel": -3}, "kernel must be odd, or 0, not -3"),
        ({"copies": 0}, "copies must be from 1 to 100: each is half as bright as the one before, not 0"),
        ({"neighbours": -1}, "neighbours must be from 0 to 10,000, not -1"),
        ({"neighbourhood": -1.0}, "neighbourhood must be from 0 to 255, in units of eps, not -1"),
        ({"neighbourhood": 256.0}, "neighbourhood must be from 0 to 255"),
        ({"steps": 10**20}, "steps must be a whole number below 2.63"),
        ({"steps": 100_001}, "steps must be from 1 to 100,000"),
        ({"copies": 10**9}, "copies must be from 1 to 100"),
        ({"neighbours": 10**9}, "neighbours must be from 0 to 10,000"),
        (
            {"steps": 100_000, "copies": 100, "neighbours": 2},
            "make 29,999,800 gradients per image, more than 10,000,000",
        ),
        ({"momentum": 1e30}, "momentum must be from 0 to 10"),
        ({"momentum": float("nan")}, "momentum must be a finite number"),
        ({"steps": 2.5}, "steps must be a whole number, not the number 2.5"),
        ({"steps": "3"}, "steps must be a whole number, not the text '3'; leave the quotes out"),
        ({"copies": True}, "copies must be a whole number, not true"),
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
    ("name", "value"),
    [
        ("eps", 1 / 255), ("eps", pixel_fraction("1/255")), ("eps", 1.0), ("step", 1), ("momentum", 0.0),
        ("diversity", 1.0), ("kernel", 1), ("neighbourhood", 0.0),
    ],
)  # fmt: skip
def test_settings_at_the_border_are_taken(name: str, value: float) -> None:
    attack = AttackConfig(**{"method": "mi", "eps": 4 / 255, name: value})
    assert getattr(attack, name) == value


def test_what_is_not_given_comes_from_the_method():
    vni = AttackConfig(method="vni", eps=4 / 255, steps=20, momentum=0.9)
    assert (vni.nesterov, vni.neighbours, vni.neighbourhood) == (True, 20, 1.5)  # VNI's own
    assert (vni.steps, vni.momentum) == (20, 0.9)  # as given
    assert (vni.step, vni.copies, vni.kernel, vni.diversity, vni.random_start) == (1 / 255, 1, 0, 0.0, False)  # general
    assert replace(vni) == vni
    fgsm = AttackConfig(method="fgsm", eps=4 / 255)
    assert (fgsm.step, fgsm.steps, fgsm.momentum) == (4 / 255, 1, 0.0)
    assert AttackConfig(method="vmi", eps=4 / 255, neighbours=0).neighbours == 0


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


def test_every_preset_has_a_description_in_one_line_that_names_its_paper():
    assert list(DESCRIPTIONS) == list(PRESETS)
    for description in DESCRIPTIONS.values():
        assert re.fullmatch(r"[^\n]{20,90} \([A-Z][^()\n]+ (19|20)\d\d\)", description), description


@pytest.mark.parametrize("method", sorted(PRESETS))
def test_gradients_are_the_passes_through_the_surrogate(method: str) -> None:
    """`gradients` must equal the number of forward passes that the loop makes."""
    passes = []
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3))
    net.register_forward_hook(lambda *_: passes.append(1))
    attack = AttackConfig(method=method, eps=8 / 255)
    images_BCHW = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    craft(net, images_BCHW, torch.tensor([0, 1]), ["a", "b"], attack, seed=0)
    assert len(passes) == attack.gradients


def test_fractions_can_be_written_as_text_from_python_too() -> None:
    attack = AttackConfig(method="mi", eps="8/255", step="0.5/255")  # type: ignore[arg-type]
    assert attack == AttackConfig(method="mi", eps=8 / 255, step=0.5 / 255)
    assert AttackConfig(method="mi", eps="8/255").step == 2 / 255  # type: ignore[arg-type]


@pytest.mark.parametrize(("side", "largest"), [(2, 5), (16, 33)])
def test_a_kernel_wider_than_twice_the_image_is_refused(side: int, largest: int) -> None:
    AttackConfig(method="ti", eps=4 / 255, kernel=largest).check_kernel(side)
    with pytest.raises(ValueError, match=f"kernel must be at most {largest} for images of {side} pixels"):
        AttackConfig(method="ti", eps=4 / 255, kernel=largest + 2).check_kernel(side)
