"""How an attack goes about a surrogate of several networks: their logits or losses averaged, or one after the other."""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from align_core.attacks.surrogate import Forward
from align_core.models import Ensemble

InTurn = Callable[[int], Sequence[Forward]]
"""The number of a step to the networks whose objectives are averaged there."""


def networks_in_turn(surrogate: nn.Module, forward_of: Callable[[nn.Module], Forward], seed: int) -> InTurn:
    """What each step of an attack sees of a surrogate.

    Of an Ensemble with `combine` at `loss` it sees every member, and of one at `cycle` one member a step, in an order
    that the seed decides, and that begins anew after the last (LGV; Gubri et al. 2022). The order is the same for all
    images, so that batches change nothing.

    Args:
        surrogate: a network or an Ensemble.
        forward_of: a network to its forward pass.
        seed: of the attack.
    """
    if not isinstance(surrogate, Ensemble) or surrogate.combine == "logits":
        whole = [forward_of(surrogate)]
        return lambda step: whole
    members = [forward_of(member) for member in surrogate.members]
    if surrogate.combine == "loss":
        return lambda step: members
    order = torch.randperm(len(members), generator=torch.Generator().manual_seed(seed)).tolist()
    return lambda step: [members[order[step % len(order)]]]
