"""Refinements: ways to make a surrogate from a source, of which alignment to a witness is one.

A refinement is a line of settings in `presets`, made of parts. A part is an entry in `parts` and a file here, named
after it, that holds one function or class of its name:

* inputs, such as `pgd`: `(at) -> images`, what is learnt from instead of the images.
* mixes, such as `cutmix`: `(images, ...) -> Mixed`.
* terms, such as `score_matching`: `(at) -> scalar`, which is added to the loss.
* updates, such as `sam`: `(gradients, parameters) -> values`, which leaves the gradient that the optimiser takes.
* keeps, such as `swa`: a class that gathers weights, and returns the networks that are kept.
"""

from collections.abc import Mapping
from typing import Any

from align_core.refinements.presets import REFINEMENTS, Refinement

__all__ = ["REFINEMENTS", "Refinement", "laid_over"]

_PARTS = ("loss", "inputs", "mix", "terms", "update", "keep")


def laid_over(settings: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of an alignment with others laid over them, as a preset's over an experiment's.

    A part that is given replaces the one that was there, with its settings; given without a name, it changes the
    settings of the one that was there. Other settings with settings of their own, such as the optimiser, are laid over
    one by one.
    """
    result = dict(settings)
    for key, value in own.items():
        before = result.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping) and (key not in _PARTS or "name" not in value):
            result[key] = laid_over(before, value)
        elif isinstance(value, Mapping) and isinstance(before, str) and key in _PARTS and "name" not in value:
            result[key] = {"name": before, **value}
        else:
            result[key] = value
    return result
