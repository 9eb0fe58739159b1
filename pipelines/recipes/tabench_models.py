"""The victims of TA-Bench (Li et al., NeurIPS 2023) for the key `factory:` of an experiment file."""

import math

import timm
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import CenterCrop, Normalize


def victim(name: str, pretrained: bool = True) -> nn.Module:
    """A network of timm behind the resize and the centre crop that are published with its weights.

    TA-Bench makes its images without a crop, and each of its victims enlarges and crops them before it looks.

    Args:
        name: architecture and tag, such as `vit_base_patch16_224.augreg_in21k_ft_in1k`.
        pretrained: whether the published weights are loaded; without them the weights are random.

    Returns a network that takes square images [B, 3, S, S] of pixels in [0, 1] and returns logits.
    """
    net = timm.create_model(name, pretrained=pretrained)
    published = net.pretrained_cfg
    size = published["input_size"][-1]
    return _Victim(
        net,
        size,
        math.floor(size / published["crop_pct"]),
        published["interpolation"],
        Normalize(published["mean"], published["std"]),
    )


class _Victim(nn.Module):
    """A network that resizes images to the side `resize`, crops their centre of the side `size`, and normalises it."""

    def __init__(self, net: nn.Module, size: int, resize: int, interpolation: str, normalize: Normalize) -> None:
        super().__init__()
        self.net = net
        self.resize = resize
        self.interpolation = interpolation
        self.crop = CenterCrop(size)
        self.normalize = normalize

    def forward(self, images_BCHW: Tensor) -> Tensor:
        # Without antialiasing, as torchvision resized tensors when TA-Bench was published.
        resized_BCHW = F.interpolate(images_BCHW, (self.resize, self.resize), mode=self.interpolation)
        logits_BK: Tensor = self.net(self.normalize(self.crop(resized_BCHW)))
        return logits_BK
