"""Momentum, projection onto the ball and rounding inside it, by hand."""

import pytest
import torch

from align_core.attacks import pixel_fraction
from align_core.attacks.updates import accumulate, project, round_inside


def test_momentum_over_two_steps_by_hand():
    first = torch.tensor([[2.0, -4.0, 0.0, 2.0], [200.0, -400.0, 0.0, 200.0]]).view(2, 1, 2, 2)
    second = torch.tensor([[-3.0, 1.0, -1.0, -3.0], [0.0, 0.0, 0.0, 0.0]]).view(2, 1, 2, 2)
    momentum = accumulate(torch.zeros(2, 1, 2, 2), first, 0.5)
    assert momentum.flatten(1).tolist() == [[1, -2, 0, 1], [1, -2, 0, 1]]  # each image is divided by its own mean
    momentum = accumulate(momentum, second, 0.5)
    assert momentum.flatten(1).tolist() == [[-1, -0.5, -0.5, -1], [0.5, -1, 0, 0.5]]


@pytest.mark.parametrize(
    ("point", "centre", "eps", "expected"),
    [(0.5, 0.4, 0.05, 0.45), (0.3, 0.4, 0.05, 0.35), (0.42, 0.4, 0.05, 0.42), (-1, 0.01, 0.05, 0), (2, 0.99, 0.05, 1)],
)
def test_projection_by_hand(point, centre, eps, expected):
    assert project(torch.tensor(point), torch.tensor(centre), eps).item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("point", "centre", "eps", "expected"),
    [
        (103.4, 100, 4 / 255, 103),
        (103.6, 100, 4 / 255, 104),
        (104.2, 100, 4 / 255, 104),
        (104.9, 100, 4 / 255, 104),
        (95.1, 100, 4 / 255, 96),
        (103.5, 101, 2.5 / 255, 103),  # the nearest level, 104, is 3 levels from the centre
        (98.5, 101, 2.5 / 255, 99),
        (103.6, 101, 2.6 / 255, 103),
        (109.0, 101, 0.0313725, 109),  # 8/255, rounded to six significant figures
        (0.4, 2, 4 / 255, 0),
        (-2.0, 2, 4 / 255, 0),
        (254.6, 253, 4 / 255, 255),
        (257.0, 253, 4 / 255, 255),
    ],
)
def test_rounding_by_hand(point, centre, eps, expected):
    rounded = round_inside(torch.tensor([point / 255]), torch.tensor([centre], dtype=torch.uint8), eps)
    assert rounded.dtype == torch.uint8 and rounded.item() == expected


@pytest.mark.parametrize("sign", [-1, 1])
def test_whole_eps_reaches_exactly_that_many_levels_from_every_centre(sign):
    centres = torch.arange(256, dtype=torch.uint8)
    for levels in range(1, 256):
        eps = pixel_fraction(f"{levels}/255")
        far = project(centres / 255 + sign * 2.0, centres / 255, eps)
        expected = (centres.int() + sign * levels).clamp(0, 255)
        assert torch.equal(round_inside(far, centres, eps).int(), expected), levels
