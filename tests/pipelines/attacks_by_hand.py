"""Attacks as a user may write them: one that is sound, and one that leaves the ball."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def pgd(net: nn.Module, images: Tensor, labels: Tensor, eps: float, step: float, steps: int, tries: int = 1) -> Tensor:
    adversarial = images + eps * (2 * torch.rand_like(images) - 1)
    adversarial = adversarial.clamp(0, 1)
    for _ in range(steps):
        adversarial = adversarial.detach().requires_grad_()
        gradient = torch.autograd.grad(F.cross_entropy(net(adversarial), labels), adversarial)[0]
        adversarial = adversarial + step * gradient.sign()
        adversarial = adversarial.clamp(images - eps, images + eps).clamp(0, 1)
    return adversarial


def too_far(net: nn.Module, images: Tensor, labels: Tensor, eps: float, step: float, steps: int) -> Tensor:
    return (images + 2 * eps * (images < 0.5)).clamp(0, 1)


def outwards(net: nn.Module, images: Tensor, labels: Tensor, eps: float, step: float, steps: int) -> Tensor:
    away = torch.where(images < 0.5, 1.0, -1.0)
    return images + eps * away / away.flatten(1).norm(dim=1)[:, None, None, None]
