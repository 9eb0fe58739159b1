"""Every preset, view, rule and objective against a second implementation: see `plain_attack`."""

from typing import Any

import pytest
from attack_setting import EPS, Setting, attack_of, quick
from plain_attack import attacked

from align_core.attacks import OBJECTIVES, PRESETS, RULES, VIEWS


def share_equal(setting: Setting, method: str, **settings: Any) -> float:
    attack = attack_of(method, **settings)
    ours, plain = setting.craft(attack), attacked(setting, attack)
    assert (ours != setting.images).float().mean() > 0.5  # something has happened that can be compared
    return (ours == plain).float().mean().item()


@pytest.mark.parametrize("method", PRESETS)
def test_every_preset_is_the_plain_one_pixel_by_pixel(method: str, tiny: Setting) -> None:
    assert share_equal(tiny, method, **quick(method, most=3)) > 0.99


VIEW_SETTINGS: dict[str, dict[str, Any]] = {
    "resize_pad": {"probability": 1.0, "smallest": 0.6}, "block_shuffle": {"blocks": 4, "degrees": 90.0},
    "block_operators": {"blocks": 4, "noise": 0.3}, "warp": {"mesh": 4}, "operators": {"most": 6},
    "spectrum": {"rho": 0.9, "noise": 0.4},
}  # fmt: skip


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_with_other_settings_is_the_plain_one(view: str, tiny: Setting) -> None:
    written = [{"name": view, "copies": 3, **VIEW_SETTINGS.get(view, {})}]
    assert share_equal(tiny, "mi", steps=3, step=EPS / 2, views=written) > 0.99


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_with_other_settings_views_and_nesterov_is_the_plain_one(rule: str, tiny: Setting) -> None:
    settings: dict[str, Any] = {key: 0.7 * bound.default for key, bound in RULES[rule].settings.items()}
    settings |= {"name": rule, "count": 3}
    attack = {"nesterov": True, "momentum": 0.8, "views": [{"name": "spectrum", "copies": 2}, {"name": "resize_pad"}]}
    assert share_equal(tiny, "mi", steps=4, step=EPS / 3, samples=settings, **attack) > 0.99


@pytest.mark.parametrize(
    ("objective", "towards"),
    [(name, "next") for name in OBJECTIVES] + [(name, "away") for name, own in OBJECTIVES.items() if own.untargeted],
)
def test_an_objective_is_the_plain_one(objective: str, towards: str, tiny: Setting) -> None:
    assert share_equal(tiny, "mi", steps=3, step=EPS / 2, objective=objective, towards=towards) > 0.99
