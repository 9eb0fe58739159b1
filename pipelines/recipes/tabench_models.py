"""The victims of TA-Bench (Li et al., NeurIPS 2023) for the key `factory:` of an experiment file."""

import math
from collections.abc import Mapping
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F


def victim(name: str, pretrained: bool = True) -> nn.Module:
    """A network of timm behind the resize and the centre crop that are published with its weights.

    TA-Bench makes its images without a crop, and each of its victims enlarges and crops them before it looks.

    Args:
        name: architecture and tag, such as `vit_base_patch16_224.augreg_in21k_ft_in1k`.
        pretrained: whether the published weights are loaded; without them the weights are random.

    Returns a network that takes square images [B, 3, S, S] of pixels in [0, 1] and returns logits.
    """
    net = timm.create_model(name, pretrained=pretrained)
    return _Victim(net, net.pretrained_cfg)


class _Victim(nn.Module):
    """A network that resizes its images, crops their centre, and normalises it, as its weights were published."""

    mean_C11: Tensor
    std_C11: Tensor

    def __init__(self, net: nn.Module, published: Mapping[str, Any]) -> None:
        super().__init__()
        self.net = net
        self.interpolation = published["interpolation"]
        size = published["input_size"][-1]
        self.resize = math.floor(size / published["crop_pct"])
        first = round((self.resize - size) / 2)
        self.centre = slice(first, first + size)
        self.register_buffer("mean_C11", torch.tensor(published["mean"])[:, None, None], persistent=False)
        self.register_buffer("std_C11", torch.tensor(published["std"])[:, None, None], persistent=False)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        # Without antialiasing, as torchvision resized tensors when TA-Bench was published.
        resized_BCHW = F.interpolate(images_BCHW, (self.resize, self.resize), mode=self.interpolation)
        cropped_BCHW = resized_BCHW[:, :, self.centre, self.centre]
        logits_BK: Tensor = self.net((cropped_BCHW - self.mean_C11) / self.std_C11)
        return logits_BK
