"""The gradients that an attack states are the images that pass through the surrogate, counted by a hook."""

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
