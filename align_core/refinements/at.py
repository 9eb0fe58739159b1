"""What the parts of a refinement are handed at each step, and how their code is found."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from align_core.models import Classifier, logits_of, predicting


class At(NamedTuple):
    """Where a refinement stands in one step, before its gradient is taken.

    Args:
        network: the source in training, in train mode.
        images_BCHW: pixels in [0, 1].
        labels_B: their labels.
        towards: images and labels to the alignment losses at these images, by their names, a scalar each, without their
            weights. The gradient flows into the network, and not into the teachers.
        weights: the weight of each alignment loss.
        taught: images to the logits of each teacher on them, without a gradient.
        temperature: that of the alignment.
    """

    network: nn.Module
    images_BCHW: Tensor
    labels_B: Tensor
    towards: Callable[[Tensor, Tensor], dict[str, Tensor]]
    weights: Mapping[str, float]
    taught: Callable[[Tensor], list[Tensor]]
    temperature: float


def part_code(part: Mapping[str, Any]) -> Callable[..., Any]:
    """The function of a part, from the file of its name, with its settings; or its class, which has a capital."""
    name = part["name"]
    module = import_module(f"align_core.refinements.{name}")
    code = getattr(module, name, None) or getattr(module, name.capitalize())
    return partial(code, **{key: value for key, value in part.items() if key != "name"})


def logits(network: nn.Module, images_BCHW: Tensor) -> Tensor:
    """The logits of a network, a Classifier or any other, in float32 [B, K]."""
    output = network(images_BCHW)
    return output if isinstance(network, Classifier) else logits_of(output).float()


@contextmanager
def twice_differentiable(network: nn.Module) -> Iterator[None]:
    """Puts a network into eval mode, as it is attacked, and lets a gradient be differentiated again.

    That excludes the fused kernels of attention, whose backward pass has no derivative.
    """
    with predicting(network), sdpa_kernel(SDPBackend.MATH):
        yield


def gradient_in(network: nn.Module, images_BCHW: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """The gradient of a loss of logits [B, K] in the images, summed over them: each image's own.

    The network predicts in eval mode, as it is attacked, so that images do not depend on each other.
    """
    with torch.enable_grad(), predicting(network, frozen=True):
        leaf_BCHW = images_BCHW.detach().requires_grad_()
        (gradient_BCHW,) = torch.autograd.grad(loss(logits(network, leaf_BCHW)).sum(), leaf_BCHW)
    return gradient_BCHW


def within(images_BCHW: Tensor, centre_BCHW: Tensor, eps: float) -> Tensor:
    """Images brought back into the l-infinity ball around the centre, and to pixels in [0, 1]."""
    return torch.clamp(images_BCHW, centre_BCHW - eps, centre_BCHW + eps).clamp(0, 1)
