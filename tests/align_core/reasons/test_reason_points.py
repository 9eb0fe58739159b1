"""Random points and directions: drawn by image id, within the ball, across what is given."""

import math

import pytest
import torch
from closed_forms import ids_of, inner_images

from align_core.errors import InputError
from align_core.reasons import orthogonal_direction, random_points

EPS = 8 / 255


def test_a_random_point_is_in_the_ball_and_the_range_and_reaches_its_sides() -> None:
    x_BCHW = torch.rand(20, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    x_BCHW[0] = 0
    found = random_points(x_BCHW, ids_of(20), 0, EPS)
    assert (found - x_BCHW).abs().max() <= EPS + 1e-6 and (found - x_BCHW).abs().max() > 0.99 * EPS
    assert found.min() >= 0 and found.max() <= 1
    assert (found[0] == 0).float().mean() == pytest.approx(0.5, abs=0.1)  # what went below black
    assert (found[1:] - x_BCHW[1:]).mean().abs() < 0.02 * EPS
    round_BCHW = random_points(x_BCHW, ids_of(20), 0, 0.5, "l2")
    lengths_B = (round_BCHW - x_BCHW).flatten(1).norm(dim=1)
    assert lengths_B.max() <= 0.5 + 1e-6 and lengths_B[1:].min() > 0.45


def test_the_direction_is_across_and_as_long() -> None:
    d_BCHW = EPS * torch.randn(10, 3, 8, 8, generator=torch.Generator().manual_seed(0)).sign()
    d_BCHW[3] = 0
    across_BCHW = orthogonal_direction(d_BCHW, ids_of(10), 0)
    assert across_BCHW.dtype == torch.float32
    products_B = (across_BCHW.double() * d_BCHW.double()).flatten(1).sum(dim=1)
    assert (products_B.abs() <= 1e-7 * EPS**2 * 192).all()
    torch.testing.assert_close(across_BCHW.flatten(1).norm(dim=1), d_BCHW.flatten(1).norm(dim=1))
    assert not across_BCHW[3].any()
    # Otherwise it is like a normal vector: of mean 0, and a largest value of a few standard deviations.
    assert across_BCHW[0].mean().abs() < 0.25 * EPS
    assert 2 * EPS < across_BCHW[0].abs().max() < 5 * EPS


def test_in_two_dimensions_it_is_the_only_one_there_is() -> None:
    found = orthogonal_direction(torch.tensor([3.0, 4.0]).view(1, 1, 1, 2), ["a"], 0).flatten()
    assert math.isclose(abs(found[0]), 4, rel_tol=1e-6) and math.isclose(found[0] * 3 + found[1] * 4, 0, abs_tol=1e-5)


def test_seed_id_and_draw_decide_and_the_batch_does_not() -> None:
    x_BCHW = inner_images(5, 1, 4, 4).float()
    for drawn in (
        lambda x, ids, *a: random_points(x, ids, *a),
        lambda x, ids, s, e, n, k: orthogonal_direction(x, ids, s, k),
    ):
        all_BCHW = drawn(x_BCHW, ids_of(5), 3, EPS, "linf", 0)
        assert torch.equal(drawn(x_BCHW[2:3], ids_of(5)[2:3], 3, EPS, "linf", 0), all_BCHW[2:3])
        for other in ((x_BCHW, ids_of(5), 4, EPS, "linf", 0), (x_BCHW, ids_of(5), 3, EPS, "linf", 1)):
            assert not torch.equal(drawn(*other), all_BCHW)


@pytest.mark.parametrize(("eps", "norm"), [(0.0, "linf"), (float("nan"), "linf"), (0.1, "l1")])
def test_other_balls_are_refused(eps: float, norm: str) -> None:
    with pytest.raises(InputError, match="linf or l2 and an eps above 0"):
        random_points(torch.zeros(1, 1, 2, 2), ["a"], 0, eps, norm)


def test_nothing_is_across_a_single_value_and_ids_must_fit() -> None:
    with pytest.raises(InputError, match="one dimension"):
        orthogonal_direction(torch.ones(1, 1, 1, 1), ["a"], 0)
    with pytest.raises(InputError, match="an id for each"):
        orthogonal_direction(torch.ones(2, 1, 2, 2), ["a"], 0)
    with pytest.raises(InputError, match="float pixels"):
        random_points(torch.ones(1, 1, 2, 2, dtype=torch.uint8), ["a"], 0, EPS)
