"""What an attack maximises: one value per image. A file holds one objective, the function of its own name.

An objective takes logits [N, K], the labels [N], and for a targeted attack the classes to lead to [N], else None.
"""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Objective = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def objective_function(objective: str | dict[str, Any]) -> Objective:
    """The function of an objective, from the file of its name, with its settings."""
    objective = {"name": objective} if isinstance(objective, str) else objective
    name = objective["name"]
    function: Objective = getattr(import_module(f"{__name__}.{name}"), name)
    return partial(function, **{key: value for key, value in objective.items() if key != "name"})


def logit_of(logits_NK: Tensor, classes_N: Tensor) -> Tensor:
    """The logit of a class for each row, [N]."""
    return logits_NK.gather(1, classes_N[:, None])[:, 0]


def others_of(logits_NK: Tensor, classes_N: Tensor) -> Tensor:
    """The logits [N, K] with those of the classes replaced by minus infinity."""
    return logits_NK.masked_fill(F.one_hot(classes_N, logits_NK.shape[1]).bool(), -torch.inf)
