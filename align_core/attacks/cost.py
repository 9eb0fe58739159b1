"""What an attack costs: gradients per image, each a forward and a backward pass through the surrogate."""

from collections.abc import Sequence
from typing import Any

from align_core.attacks.parts import RULES, VIEWS


def copies_of(views: Sequence[dict[str, Any]]) -> int:
    """How many copies of an image the views make: their numbers multiply."""
    copies = 1
    for view in views:
        copies *= view["copies"]
    return copies


def gradients_of_a_point(views: Sequence[dict[str, Any]]) -> int:
    """Gradients that one point costs with its views: one for each copy, and those that views take inside."""
    inner, copies = 0, 1
    for view in views:
        copies *= view["copies"]
        inner += copies * VIEWS[view["name"]].inner_gradients
    return copies + inner


def gradients_of(views: Sequence[dict[str, Any]], rule: dict[str, Any] | None, steps: int) -> int:
    """Gradients per image of an attack of `steps` steps with these views and this rule over samples."""
    each = gradients_of_a_point(views)
    return RULES[rule["name"]].gradients(rule["count"], each, steps) if rule else each * steps


def points_of(rule: dict[str, Any] | None) -> int:
    """The most points whose gradients a step takes at once."""
    return rule["count"] + 1 if rule else 1
