"""The gradients that an attack states are the images that pass through the surrogate, counted by a hook."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from attack_setting import Recorder, Setting, attack_of, linear, quick, random_images
from hypothesis import given, settings
from test_compositions import QUICK, compositions

from align_core.attacks import PRESETS, AttackConfig
from align_core.attacks.cost import copies_of


def rows_per_image(attack: AttackConfig, pass_rows: int | None, count: int = 2) -> float:
    """Images that went through the surrogate, forward and backward, for each image that was attacked."""
    recorder, backward = Recorder(linear([[0.1 * ((row + place) % 3) for place in range(48)] for row in range(3)])), []
    recorder.net.register_full_backward_hook(lambda _, __, outputs: backward.append(len(outputs[0])))
    setting = Setting(recorder, random_images(count, 3, 4, 4), torch.arange(count) % 3, classes=3)
    setting.crafted(attack, 0, pass_rows)
    assert recorder.rows == sum(backward)
    # A pass is cut between copies of the first view, or between images whose logits are averaged; no further.
    least = copies_of(attack.views if attack.combine == "logits" else attack.views[1:])
    assert pass_rows is None or max(map(len, recorder.seen)) <= max(pass_rows, least)
    return recorder.rows / count


@pytest.mark.parametrize("method", PRESETS)
def test_a_preset_costs_what_it_states(method: str) -> None:
    attack = attack_of(method)
    assert rows_per_image(attack, 1000) == attack.gradients


@pytest.mark.parametrize("pass_rows", [1, 3, 7])
@pytest.mark.parametrize("method", PRESETS)
def test_the_cost_does_not_depend_on_the_pass(method: str, pass_rows: int) -> None:
    attack = attack_of(method, **quick(method, most=3))
    assert rows_per_image(attack, pass_rows, 5) == attack.gradients


@given(attack=compositions())
@settings(max_examples=30, **QUICK)
def test_a_composition_costs_what_it_states(attack: AttackConfig) -> None:
    assert rows_per_image(attack, 1000) == attack.gradients


@pytest.mark.parametrize(
    ("method", "budget", "chosen"),
    [
        ("mi", 200, {"steps": 200}),
        ("vmi", 200, {"steps": 10}),  # 20 neighbours; none in the last step: 21 * 10 - 20 = 190, 21 * 11 - 20 = 211
        ("bsr", 200, {"steps": 10}),
        ("pgn", 200, {"steps": 5}),
        ("gi", 200, {"steps": 195}),  # five gather momentum first
        ("decowa", 100, {"steps": 5, "copies": 10}),
        ("mef", 50, {"steps": 5, "count": 10}),
        ("ops", 200, {"copies": 6, "count": 6}),
        ("fgsm", 200, {"steps": 1}),
        ("logit", 200, {"steps": 200}),
    ],
)
def test_a_budget_chooses(method: str, budget: int, chosen: dict[str, Any]) -> None:
    attack = attack_of(method, budget=budget)
    found = {"steps": attack.steps, "copies": [view["copies"] for view in attack.views][-1:], **(attack.rule or {})}
    assert {name: found[name] for name in chosen} == {
        name: [value] if name == "copies" else value for name, value in chosen.items()
    }
    assert rows_per_image(attack, 1000) == attack.gradients <= budget


@pytest.mark.parametrize(
    ("method", "budget", "steps", "step"),
    [  # steps times step is the preset's ratio times eps, which is 8 here; the last column in 255ths
        ("mi", 200, 200, 0.04),  # ratio 1
        ("bsr", 200, 10, 0.8),
        ("gi", 20, 15, 8 / 15),  # the five steps that gather momentum are not counted
        ("pgd", 5, 5, 4),  # ratio 2.5
        ("pgd", 40, 40, 0.5),
        ("mef", 400, 20, 0.8),  # ratio 2
        ("mef", 100, 5, 3.2),
        ("mig", 100, 5, 1.6),  # ratio 1 over 25 steps
        ("dem", 100, 20, 4),  # ratio 10
        ("dem", 30, 6, 40 / 3),
        ("dem", 25, 5, 16),
        ("logit", 300, 300, 1),  # ratio 37.5
        ("logit", 20, 20, 15),
        ("logit", 18, 18, 16),  # 300 / 18 crosses the ball: no step is above twice 8
        ("logit", 5, 5, 16),
        ("fgsm", 50, 1, 8),
    ],
)
def test_a_budget_keeps_the_ratio_of_steps_times_step_to_eps(method: str, budget: int, steps: int, step: float) -> None:
    attack = attack_of(method, budget=budget, eps=8 / 255)
    assert (attack.steps, attack.step * 255) == (steps, pytest.approx(step))
    by_steps = attack_of(method, steps=steps, eps=8 / 255, views=attack.views, samples=attack.samples)
    assert by_steps.deciding == attack.deciding


def test_a_step_beside_a_budget_is_as_written_and_steps_must_be_those_chosen() -> None:
    assert attack_of("dem", budget=25, step=0.5 / 255).step == 0.5 / 255
    chosen = attack_of("dem", budget=25)
    assert attack_of("dem", budget=25, steps=5) == replace(chosen) == chosen
    with pytest.raises(ValueError, match="a budget of 25 makes 5 steps, and steps is 10; leave one of them out"):
        attack_of("dem", budget=25, steps=10)


@pytest.mark.parametrize(
    ("method", "settings", "step"),
    [
        ("dem", {"eps": 0.3}, 0.6),
        ("dem", {"eps": 0.8}, 1.0),  # no step is longer than the range of pixels
        ("pgd", {"eps": 0.1, "steps": 1}, 0.2),
        ("pgd_l2", {"eps": 3.0, "steps": 1}, 6.0),
        ("pgd_l2", {"eps": 3.0, "steps": 3}, 2.5),
    ],
)
def test_the_step_by_default_is_never_one_that_would_be_refused(
    method: str, settings: dict[str, Any], step: float
) -> None:
    assert attack_of(method, **{"steps": 5, **settings}).step == pytest.approx(step)


def test_a_step_that_crosses_the_ball_and_a_longer_one_lead_to_the_same_images() -> None:
    """Why a step is at most 2 eps: this is the image of the preset whose ratio would make it 7.5 eps."""
    setting = Setting(linear([[0.1 * ((3 * row + place) % 7) for place in range(48)] for row in range(3)]),
                      random_images(3, 3, 4, 4), torch.arange(3) % 3, classes=3)  # fmt: skip
    capped, longer = (attack_of("logit", steps=5, eps=8 / 255, **own) for own in ({}, {"step": 60 / 255}))
    assert torch.equal(setting.craft(capped), setting.craft(longer))
