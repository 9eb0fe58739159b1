"""Momentum, projection onto the ball and rounding inside it, by hand."""

import pytest
import scipy.stats
import torch
from torch import Tensor

from align_core.attacks import pixel_fraction
from align_core.attacks.updates import accumulate, direction, project, random_point, round_inside
from align_core.randomness import image_keys


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
    assert project(torch.tensor(point), torch.tensor(centre), eps, "linf").item() == pytest.approx(expected)


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
    rounded = round_inside(torch.tensor([point / 255]), torch.tensor([centre], dtype=torch.uint8), eps, "linf")
    assert rounded.dtype == torch.uint8 and rounded.item() == expected


@pytest.mark.parametrize("sign", [-1, 1])
def test_whole_eps_reaches_exactly_that_many_levels_from_every_centre(sign):
    centres = torch.arange(256, dtype=torch.uint8)
    for levels in range(1, 256):
        eps = pixel_fraction(f"{levels}/255")
        far = project(centres / 255 + sign * 2.0, centres / 255, eps, "linf")
        expected = (centres.int() + sign * levels).clamp(0, 255)
        assert torch.equal(round_inside(far, centres, eps, "linf").int(), expected), levels


def test_momentum_that_is_not_normalized_is_the_sum_by_hand() -> None:
    momentum = accumulate(torch.ones(1, 1, 1, 2), torch.tensor([[[[2.0, -4.0]]]]), 0.5, normalized=False)
    assert momentum.flatten().tolist() == [2.5, -3.5]


def test_a_direction_in_l2_has_length_one_and_is_none_without_a_gradient() -> None:
    gradients = torch.tensor([[3.0, -4.0], [0.0, 0.0]]).view(2, 1, 1, 2)
    assert direction(gradients, "l2").flatten(1).tolist() == [pytest.approx([0.6, -0.8]), [0, 0]]
    assert direction(gradients, "linf").flatten(1).tolist() == [[1, -1], [0, 0]]


def levels(*rows: list[float]) -> Tensor:
    return torch.tensor(rows).view(len(rows), 1, 1, -1)


def test_projection_in_l2_shortens_the_difference_and_then_cuts_to_the_range() -> None:
    points, centres = levels([0.5, 0.8], [0.5, 0.41], [0.0, -0.4]), levels([0.2, 0.4], [0.5, 0.4], [0.0, 0.1])
    near = project(points, centres, 0.25, "l2").flatten(1).tolist()
    assert near == [pytest.approx([0.35, 0.6]), pytest.approx([0.5, 0.41]), pytest.approx([0.0, 0.0])]


@pytest.mark.parametrize(
    ("points", "eps", "expected"),
    [
        ([103.4, 100.0, 100.0], 5, [103, 100, 100]),
        ([102.6, 103.6, 100.0], 5.0, [103, 104, 100]),  # 9 + 16 = 25: on the border, which is inside
        ([102.6, 103.6, 100.0], 4.9, [102, 104, 100]),  # both went outwards by as much; the first one steps back
        ([102.6, 103.9, 100.0], 4.9, [102, 104, 100]),  # the pixel that was rounded furthest outwards steps back
        ([102.9, 103.6, 100.0], 4.9, [103, 103, 100]),
        ([97.4, 96.4, 100.0], 4.9, [98, 96, 100]),  # towards the clean pixel, whichever way it is
        ([100.6, 100.6, 100.6], 1.05, [100, 100, 101]),  # until all is inside
    ],
)
def test_rounding_in_l2_by_hand(points: list[float], eps: float, expected: list[int]) -> None:
    centre = torch.full((1, 1, 1, 3), 100, dtype=torch.uint8)
    rounded = round_inside(levels(points) / 255, centre, eps / 255, "l2")
    assert rounded.dtype == torch.uint8 and rounded.flatten().tolist() == expected


def test_random_points_fill_the_l2_ball_evenly() -> None:
    keys = image_keys(0, [str(row) for row in range(4000)])
    centres = torch.full((4000, 1, 2, 3), 0.5)
    away = (random_point(centres, keys, 0.3, "l2") - centres).flatten(1).double() / 0.3
    # The share of the ball within a radius is its 6th power, and every direction is as likely.
    assert scipy.stats.kstest((away.norm(dim=1) ** 6).numpy(), "uniform").pvalue > 0.01
    assert (away / away.norm(dim=1, keepdim=True)).mean(dim=0).abs().max() < 0.03
