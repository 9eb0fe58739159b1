"""Small CIFAR-10 networks for the key `factory:` of an experiment file.

They take normalised images [B, 3, 32, 32] and return logits. Their modules have the names of the published weights, so
that these load strictly:

    resnet      github.com/akamaster/pytorch_resnet_cifar10 (BSD-2): resnet20 to resnet1202
    cnn_a       github.com/Verified-Intelligence/alpha-beta-CROWN (BSD-3): cifar_cnn_a_adv.model
    resnet_b    the same repository: resnet2b.pth, resnet4b.pth
"""

from torch import Tensor, nn
from torch.nn import functional as F


def resnet(depth: int, classes: int = 10) -> nn.Module:
    """The CIFAR ResNet of He et al. (arXiv 1512.03385, section 4.2), of depth 6n + 2: 20, 32, 44, 56, 110 ...

    Raises ValueError for any other depth.
    """
    blocks, rest = divmod(depth - 2, 6)
    if blocks < 1 or rest:
        raise ValueError(f"a CIFAR ResNet is 6n + 2 layers deep (20, 32, 44, 56 ...), not {depth}")
    return _ResNet(blocks, classes)


def cnn_a(classes: int = 10) -> nn.Module:
    """Two convolutions and two linear layers: the adversarially trained `cnn_a_adv` of alpha-beta-CROWN."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 8 * 8, 100),
        nn.ReLU(),
        nn.Linear(100, classes),
    )


def resnet_b(blocks: int, classes: int = 10) -> nn.Module:
    """A ResNet without BatchNorm, of 2 or 4 blocks: the adversarially trained `resnet2b` and `resnet4b`.

    Raises ValueError for any other number of blocks.
    """
    if blocks == 2:
        return _ResNet2B(classes)
    if blocks == 4:
        return _ResNet4B(classes)
    raise ValueError(f"resnet_b has 2 or 4 blocks, not {blocks}")


class _ResNet(nn.Module):
    """Three stages of `blocks` blocks, with 16, 32 and 64 channels, then a global mean and a linear layer."""

    def __init__(self, blocks: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(_Block(16, 16) for _ in range(blocks)))
        self.layer2 = nn.Sequential(_Block(16, 32), *(_Block(32, 32) for _ in range(blocks - 1)))
        self.layer3 = nn.Sequential(_Block(32, 64), *(_Block(64, 64) for _ in range(blocks - 1)))
        self.linear = nn.Linear(64, classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = F.relu(self.bn1(self.conv1(x_BCHW)))
        x_BCHW = self.layer3(self.layer2(self.layer1(x_BCHW)))
        logits_BK: Tensor = self.linear(x_BCHW.mean(dim=(2, 3)))
        return logits_BK


class _Block(nn.Module):
    """Two 3x3 convolutions and a shortcut without parameters. A block that gets wider also halves the side."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.added = out_channels - channels
        stride = 2 if self.added else 1
        self.conv1 = nn.Conv2d(channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        out_BCHW = F.relu(self.bn1(self.conv1(x_BCHW)))
        out_BCHW = self.bn2(self.conv2(out_BCHW))
        if self.added:  # the shortcut takes every second pixel, and pads the new channels with zeros on both sides
            x_BCHW = F.pad(x_BCHW[:, :, ::2, ::2], (0, 0, 0, 0, self.added // 2, self.added // 2))
        return F.relu(out_BCHW + x_BCHW)


class _ResNet2B(nn.Module):
    """One stage of two blocks, with 16 channels at 8x8 pixels."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.layer1 = nn.Sequential(_BlockB(8, 16, stride=2), _BlockB(16, 16))
        self.linear1 = nn.Linear(16 * 8 * 8, 100)
        self.linear2 = nn.Linear(100, classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = self.layer1(F.relu(self.conv1(x_BCHW)))
        logits_BK: Tensor = self.linear2(F.relu(self.linear1(x_BCHW.flatten(1))))
        return logits_BK


class _ResNet4B(nn.Module):
    """Two stages of two blocks, with 32 channels at 8x8 and at 4x4 pixels."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.layer1 = nn.Sequential(_BlockB(16, 32, stride=2), _BlockB(32, 32))
        self.layer2 = nn.Sequential(_BlockB(32, 32, stride=2), _BlockB(32, 32))
        self.linear1 = nn.Linear(32 * 4 * 4, 100)
        self.linear2 = nn.Linear(100, classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = self.layer2(self.layer1(F.relu(self.conv1(x_BCHW))))
        logits_BK: Tensor = self.linear2(F.relu(self.linear1(x_BCHW.flatten(1))))
        return logits_BK


class _BlockB(nn.Module):
    """Two 3x3 convolutions with biases. Where the shape changes, the shortcut is a 1x1 convolution."""

    def __init__(self, channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out_channels, 3, stride=stride, padding=1)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = nn.Sequential()
        if stride > 1 or channels != out_channels:
            self.shortcut.append(nn.Conv2d(channels, out_channels, 1, stride=stride))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        out_BCHW = self.conv2(F.relu(self.conv1(x_BCHW)))
        return F.relu(out_BCHW + self.shortcut(x_BCHW))
