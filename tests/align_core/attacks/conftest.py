"""A small wavy network, and images that are not square, for the comparison with the plain implementation."""

import pytest
import torch
from attack_setting import Setting, random_images
from torch import Tensor, nn


class Wavy(nn.Module):
    """A smooth network whose gradient turns within a fraction of a step, so that small mistakes show at once."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, stride=2)
        self.head = nn.Linear(8 * 6 * 7, 10)

    def forward(self, images: Tensor) -> Tensor:
        waves = torch.sin(3 * self.second(torch.sin(20 * self.first(images))))
        logits: Tensor = 3 * self.head(waves.flatten(1))
        return logits


@pytest.fixture(scope="session")
def tiny() -> Setting:
    """A random network in float64, and images of 13 x 15 pixels.

    They are not square, so that exchanged axes show, and have a pixel in the middle, so that no rotation falls between
    two pixels, where rounding alone decides which is the nearest.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Wavy()
    return Setting(net.eval(), random_images(4, 3, 13, 15), torch.tensor([3, 1, 4, 1])).double()
