"""The networks of `hand_made`, which puts this file beside its experiment."""

from torch import nn


def linear(width: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.Linear(width, 3))
