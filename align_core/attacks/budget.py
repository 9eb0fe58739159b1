"""Attacks at equal cost: how many steps, copies and points fit into a number of gradients per image."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from align_core.attacks.cost import gradients_of

_FEWEST_STEPS = 5
_MOST_STEPS = 100_000


@dataclass(frozen=True)
class Fitted:
    """What fits into a budget: views and rule, perhaps with fewer copies and points, and the number of steps."""

    views: list[dict[str, Any]]
    rule: dict[str, Any] | None
    steps: int


def fitted(
    views: Sequence[dict[str, Any]], rule: dict[str, Any] | None, warm: int, budget: int, one_step: bool = False
) -> Fitted:
    """The attack with as many steps as the budget allows; one that takes a single step keeps to it.

    Copies and points stay as they are where five steps fit. Where they do not, the largest of these numbers is lowered
    by one again and again until five steps fit. Raises ValueError where five steps of one gradient each do not fit.
    """
    fewest = 1 if one_step else _FEWEST_STEPS
    chosen = Fitted([dict(view) for view in views], dict(rule) if rule else None, fewest)
    while gradients_of(chosen.views, chosen.rule, warm + fewest) > budget:
        numbers = [(view["copies"], view, "copies") for view in chosen.views]
        if chosen.rule:
            numbers.append((chosen.rule["count"], chosen.rule, "count"))
        most, part, key = max(numbers, key=lambda number: number[0], default=(1, {}, ""))
        if most == 1:
            least = gradients_of(chosen.views, chosen.rule, warm + fewest)
            first = f" after the {warm} of warm_start" if warm else ""
            raise ValueError(f"budget must be at least {least} gradients for {fewest} steps{first}, not {budget}")
        part[key] = most - 1
    return Fitted(chosen.views, chosen.rule, 1 if one_step else _most_steps(chosen, warm, budget))


def _most_steps(chosen: Fitted, warm: int, budget: int) -> int:
    """The largest number of steps whose gradients keep to the budget: costs grow with steps, so it is bisected."""
    low, high = _FEWEST_STEPS, _MOST_STEPS + 1
    while high - low > 1:
        middle = (low + high) // 2
        if gradients_of(chosen.views, chosen.rule, warm + middle) <= budget:
            low = middle
        else:
            high = middle
    return low
