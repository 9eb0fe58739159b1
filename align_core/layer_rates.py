"""Which parameters are trained, at which learning rate and by which optimiser: freezing, and layer-wise decay."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from align_core.align_config import OptimizerConfig
from align_core.errors import InputError
from align_core.models import Classifier


def freeze(source: nn.Module, patterns: Sequence[str], batchnorm: str = "update") -> None:
    """Makes every parameter trainable but for those that a Classifier names as `frozen`, or a pattern matches.

    Where `batchnorm` is `frozen`, BatchNorms stay as they are, too, with their statistics.

    Raises InputError for a pattern that matches none, or where nothing is left to be trained.
    """
    always = source.frozen if isinstance(source, Classifier) else ()
    named = list(source.named_parameters(remove_duplicate=False))  # one that is tied has several names
    names = [name for name, _ in named]
    for pattern in patterns:
        if not any(fnmatchcase(_within(name), pattern) for name in names):
            shown = ", ".join(_within(name) for name in names[:3])
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise InputError(f"freeze: no parameter is called {pattern!r}; there are {shown}{more}")
    source.requires_grad_(True)
    for name, parameter in named:
        if name in always or any(fnmatchcase(_within(name), pattern) for pattern in patterns):
            parameter.requires_grad_(False)
    if batchnorm == "frozen":
        freeze_batchnorm(source)
    if not any(parameter.requires_grad for parameter in source.parameters()):
        too = ", or of a BatchNorm (batchnorm: frozen)" if batchnorm == "frozen" else ""
        raise InputError(f"freeze: every parameter is frozen{too}, so that nothing would be trained")


def freeze_batchnorm(source: nn.Module) -> None:
    """Keeps statistics, scale and shift of every BatchNorm as they are."""
    for part in source.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.eval().requires_grad_(False)


def shares(source: nn.Module, parameters: Sequence[nn.Parameter], decay: float) -> list[float]:
    """The share of the learning rate of each parameter: `decay` to the power of its distance from the last layer.

    Layers are timm's groups, where the network is one of timm's, and else the parts that have parameters of their own,
    in their order. What is not of the network, such as a projection of its features, learns at the full rate.
    """
    if decay == 1:
        return [1.0] * len(parameters)
    number = _layers(source.net if isinstance(source, Classifier) else source)
    last = max(number.values())
    return [decay ** (last - number.get(id(parameter), last)) for parameter in parameters]


def optimizer_of(
    parameters: Sequence[nn.Parameter], shares: Sequence[float], config: OptimizerConfig
) -> torch.optim.Optimizer:
    """The optimiser, with a group of parameters for every share of the learning rate."""
    groups = [
        {"params": [own for own, of_it in zip(parameters, shares, strict=True) if of_it == share], "share": share}
        for share in dict.fromkeys(shares)
    ]
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay)
    return torch.optim.SGD(
        groups,
        lr=config.lr,
        momentum=config.momentum,
        nesterov=config.nesterov,
        weight_decay=config.weight_decay,
    )


def _layers(net: Any) -> dict[int, int]:
    """The number of the layer of each parameter, by its identity."""
    if hasattr(net, "group_matcher"):
        from timm.models import group_parameters

        groups = group_parameters(net, net.group_matcher(coarse=False))
        named = dict(net.named_parameters())
        return {id(named[name]): layer for layer, names in groups.items() for name in names}
    owners = [part for part in net.modules() if any(True for _ in part.parameters(recurse=False))]
    return {id(own): layer for layer, part in enumerate(owners) for own in part.parameters(recurse=False)}


def _within(name: str) -> str:
    """The name of a parameter within the network, without the Classifier around it."""
    return name.removeprefix("net.")
