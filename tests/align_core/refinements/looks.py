"""What a part of a refinement is handed, for tests of parts by themselves, and small networks to look at."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from small_nets import cnn
from torch import Tensor, nn
from torch.nn import functional as F

from align_core.refinements.at import At


def at_of(
    network: nn.Module,
    images_BCHW: Tensor,
    labels_B: Tensor,
    towards: Callable[[Tensor, Tensor], dict[str, Tensor]] = lambda images, labels: {},
    weights: Mapping[str, float] = {},
    taught: Callable[[Tensor], list[Tensor]] = lambda images: [],
    temperature: float = 1.0,
) -> At:
    return At(network, images_BCHW, labels_B, towards, weights, taught, temperature)


def linear(seed: int = 0, classes: int = 4, pixels: int = 12) -> nn.Sequential:
    """A softmax model, of which every derivative is known."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Flatten(), nn.Linear(pixels, classes))
    net[1].weight.data.mul_(4)
    return net


def curved(seed: int = 0, pixels: int = 3) -> nn.Sequential:
    """A network whose logits are curved, too."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, 6), nn.Tanh(), nn.Linear(6, 4))


def grey(count: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images and labels for `cnn`."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 1, 8, 8, generator=generator), torch.arange(count) % 10


def pixels(count: int = 5, *shape: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, *(shape or (3, 2, 2)), generator=generator), torch.arange(count) % 4


def losses_of(network: nn.Module, images_BCHW: Tensor, labels_B: Tensor) -> Tensor:
    """Each image's cross-entropy as the network is attacked: in eval mode."""
    modes = [(part, part.training) for part in network.modules()]
    with torch.no_grad():
        found = F.cross_entropy(network.eval()(images_BCHW), labels_B, reduction="none")
    for part, mode in modes:
        part.training = mode
    return found


def watched(network: nn.Module) -> dict[str, Any]:
    """What a part must leave as it found it: modes, weights, statistics, gradients and what takes a gradient."""
    return {
        "modes": [part.training for part in network.modules()],
        "state": {name: value.tolist() for name, value in network.state_dict().items()},
        "gradients": [None if own.grad is None else own.grad.tolist() for own in network.parameters()],
        "trainable": [own.requires_grad for own in network.parameters()],
    }


def partly_evaluated() -> nn.Sequential:
    """A network in train mode, but for its first BatchNorm, with a frozen parameter."""
    net = cnn(0).train()
    net[1].eval()
    net[0].bias.requires_grad_(False)
    return net


def softmax_score(
    weight: list[list[float]], bias: list[float], x: list[float], label: int
) -> tuple[list[float], float]:
    """Of log p(label | x) of a softmax model: its gradient in x, and the trace of its second derivative, by sums."""
    logits = [sum(w * own for w, own in zip(row, x, strict=True)) + b for row, b in zip(weight, bias, strict=True)]
    raised = [math.exp(own - max(logits)) for own in logits]
    p = [own / sum(raised) for own in raised]
    mean = [sum(p[k] * weight[k][d] for k in range(len(p))) for d in range(len(x))]
    trace = -sum(p[k] * (weight[k][d] - mean[d]) ** 2 for k in range(len(p)) for d in range(len(x)))
    return [weight[label][d] - mean[d] for d in range(len(x))], trace
