"""Small networks for the embedded digits, which are grey images of 16 x 16 pixels: the models of the demo."""

from torch import nn


def cnn(layers: int = 6, width: int = 32) -> nn.Module:
    """`layers` 3x3 convolutions with BatchNorm, then a global mean and a linear layer.

    Every second convolution halves the side and doubles the channels, of which there are `width` at first, until the
    side is 4 pixels.
    """
    parts: list[nn.Module] = []
    channels, side, out = 1, 16, width
    for layer in range(layers):
        stride = 2 if layer % 2 and side > 4 else 1
        parts += [nn.Conv2d(channels, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
        channels, side = out, side // stride
        out = out * 2 if stride == 2 else out
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


def mlp(width: int = 128) -> nn.Module:
    """Two hidden layers of `width` units on the pixels themselves."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(256, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)
    )
