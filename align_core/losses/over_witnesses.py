"""How the losses to several witnesses are combined."""

from collections.abc import Sequence

import torch
from torch import Tensor

OVER_WITNESSES = ("mean", "max", "min")


def over_witnesses(losses: Sequence[Tensor], how: str | Sequence[float] = "mean") -> Tensor:
    """One loss, a float32 scalar, from the losses to each of several witnesses; 0 without any.

    With the mean, rather than the sum, the loss keeps its size whatever the number of witnesses, and so one learning
    rate fits them all. `max` and `min` choose among the witnesses image by image (Ma et al. 2024, research code), and
    need losses that have a value for each.

    Args:
        losses: to each witness, float32: [B], or a scalar.
        how: `mean`, `max` or `min`; or a weight for each witness, of which only the shares count.
    """
    if not losses:
        return torch.zeros(())
    stacked_W = torch.stack(tuple(losses))
    if how == "mean":
        return stacked_W.mean()
    if how == "max":
        return stacked_W.amax(dim=0).mean()
    if how == "min":
        return stacked_W.amin(dim=0).mean()
    weights_W = torch.tensor(list(map(float, how)), device=stacked_W.device)
    means_W = stacked_W if stacked_W.dim() == 1 else stacked_W.mean(dim=1)
    return (weights_W * means_W).sum() / weights_W.sum()
