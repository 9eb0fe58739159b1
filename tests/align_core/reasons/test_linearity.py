"""The error of local linearity and slices of the loss, against the closed forms of a quadratic loss."""

import numpy as np
import pytest
import torch
from closed_forms import Quadratic, ids_of, inner_images, with_eigenvalues
from small_nets import mlp
from torch import Tensor, nn
from torch.nn import functional as F

from align_core.errors import InputError
from align_core.reasons import (
    gradients,
    largest_linearity_error,
    linearity_error,
    loss_slice,
    losses,
    orthogonal_direction,
    random_points,
)

EPS = 0.1
A = with_eigenvalues([4.0, -3.0, 1.0, 0.2])
NET = Quadratic(A, torch.tensor([1.0, -2.0, 0.5, 0.0]).double())
X = inner_images(6, 1, 2, 2)
LABELS = torch.zeros(6, dtype=torch.int64)
IDS = ids_of(6)


def half_form(a_PP: Tensor, d_BCHW: Tensor) -> Tensor:
    d_BP = d_BCHW.flatten(1)
    return ((d_BP @ a_PP) * d_BP).sum(dim=1) / 2


def test_of_a_quadratic_it_is_half_the_quadratic_form() -> None:
    at = gradients(NET, X, LABELS, IDS)
    for displaced in (random_points(X, IDS, 0, EPS), X + 5.0, X):
        d_BCHW = displaced - X
        found = linearity_error(at, losses(NET, displaced, LABELS, IDS).loss_B, d_BCHW)
        torch.testing.assert_close(found, half_form(A, d_BCHW).abs(), atol=1e-12, rtol=1e-9)


def test_of_a_network_it_is_what_numpy_makes_of_autograd() -> None:
    net = mlp(0).double().eval()
    x_BCHW, labels_B = inner_images(4, 3, 2, 2), torch.arange(4)
    d_BCHW = random_points(x_BCHW, IDS[:4], 1, 0.2) - x_BCHW
    found = linearity_error(
        gradients(net, x_BCHW, labels_B, IDS[:4]), losses(net, x_BCHW + d_BCHW, labels_B, IDS[:4]).loss_B, d_BCHW
    )
    for image in range(4):
        leaf = x_BCHW[image : image + 1].clone().requires_grad_()
        loss = F.cross_entropy(net(leaf), labels_B[image : image + 1])
        (slope,) = torch.autograd.grad(loss, leaf)
        moved = F.cross_entropy(net(leaf + d_BCHW[image]), labels_B[image : image + 1])
        expected = abs(moved.item() - loss.item() - np.dot(slope.numpy().ravel(), d_BCHW[image].numpy().ravel()))
        assert found[image].item() == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_the_largest_error_in_a_cube_is_at_the_best_corner() -> None:
    corners = torch.cartesian_prod(*[torch.tensor([-EPS, EPS]).double()] * 4)
    at = gradients(NET, X, LABELS, IDS)
    expected = half_form(A, corners.view(-1, 1, 2, 2)).abs().max()
    found = largest_linearity_error(NET, X, LABELS, IDS, 0, EPS, at=at)
    assert (found.error_B <= expected + 1e-12).all()
    assert found.error_B.max() == pytest.approx(expected.item(), rel=1e-6)  # an ascent may end at another corner
    torch.testing.assert_close(half_form(A, found.point_BCHW - X).abs(), found.error_B)
    assert ((found.point_BCHW - X).abs() <= EPS + 1e-12).all()
    diagonal = Quadratic(torch.diag(torch.tensor([4.0, 1.0, 2.0, 0.5])).double(), torch.ones(4).double())
    found = largest_linearity_error(diagonal, X, LABELS, IDS, 0, EPS, at=gradients(diagonal, X, LABELS, IDS))
    torch.testing.assert_close(found.error_B, torch.full((6,), EPS**2 * 7.5 / 2).double())


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_largest_error_in_a_round_ball_is_along_the_largest_eigenvalue(sign: float) -> None:
    net = Quadratic(sign * with_eigenvalues([4.0, 1.0, 0.5, 0.2]), torch.ones(4).double())
    at = gradients(net, X, LABELS, IDS)
    found = largest_linearity_error(net, X, LABELS, IDS, 0, EPS, at=at, norm="l2", steps=100)
    torch.testing.assert_close(found.error_B, torch.full((6,), EPS**2 * 4 / 2).double(), rtol=1e-3, atol=0)


def test_ascent_only_adds_to_the_random_point_and_stays_in_the_pixel_range() -> None:
    dark = torch.zeros_like(X)
    at = gradients(NET, dark, LABELS, IDS)
    start = largest_linearity_error(NET, dark, LABELS, IDS, 0, EPS, at=at, steps=0)
    assert torch.equal(start.point_BCHW, random_points(dark, IDS, 0, EPS))
    found = largest_linearity_error(NET, dark, LABELS, IDS, 0, EPS, at=at, steps=3)
    assert (found.error_B >= start.error_B).all() and found.point_BCHW.min() >= 0


def test_the_best_of_all_points_that_were_visited_counts() -> None:
    net, visited = mlp(3).double().eval(), []
    with torch.no_grad():
        for own in net.parameters():
            own.mul_(3)
    x_BCHW, labels_B = inner_images(6, 3, 2, 2), torch.arange(6) % 5
    at = gradients(net, x_BCHW, labels_B, IDS)
    handle = net.register_forward_hook(lambda _, inputs, __: visited.append(inputs[0].detach().clone()))
    found = largest_linearity_error(net, x_BCHW, labels_B, IDS, 0, 0.3, at=at, steps=6)
    handle.remove()
    assert len(visited) == 7  # 6 gradients and a forward pass
    errors_VB = torch.stack(
        [linearity_error(at, losses(net, point, labels_B, IDS).loss_B, point - x_BCHW) for point in visited]
    )
    torch.testing.assert_close(found.error_B, errors_VB.amax(dim=0))
    assert (errors_VB[-1] < found.error_B - 1e-6).any()


def test_it_starts_where_it_is_told_and_within_the_ball() -> None:
    at = gradients(NET, X, LABELS, IDS)
    start = X + 0.05
    found = largest_linearity_error(NET, X, LABELS, IDS, 0, EPS, at=at, start_BCHW=start, steps=0)
    assert torch.equal(found.point_BCHW, start)
    torch.testing.assert_close(found.error_B, half_form(A, start - X).abs())
    climbed = largest_linearity_error(NET, X, LABELS, IDS, 0, EPS, at=at, start_BCHW=start)
    assert (climbed.error_B >= found.error_B).all()
    outside = largest_linearity_error(NET, X, LABELS, IDS, 0, EPS, at=at, start_BCHW=X + 0.3, steps=0)
    torch.testing.assert_close(outside.point_BCHW, X + EPS)
    with pytest.raises(InputError, match="of one shape"):
        largest_linearity_error(NET, X, LABELS, IDS, 0, EPS, at=at, start_BCHW=start[:1])


def test_a_linear_loss_and_a_single_image_have_no_error() -> None:
    net = Quadratic(torch.zeros(4, 4).double(), torch.ones(4).double())
    at = gradients(net, X[:1], LABELS[:1], IDS[:1])
    assert largest_linearity_error(net, X[:1], LABELS[:1], IDS[:1], 0, EPS, at=at).error_B.item() < 1e-12


def test_a_slice_of_a_quadratic_is_a_parabola() -> None:
    d_BCHW = random_points(X, IDS, 0, EPS) - X
    at = gradients(NET, X, LABELS, IDS)
    assert at.gradient_BCHW is not None
    slope_B = (at.gradient_BCHW * d_BCHW).flatten(1).sum(dim=1)
    for along in (d_BCHW, orthogonal_direction(d_BCHW, IDS, 0)):
        factors = [-1.0, 0.0, 0.5, 2.0]
        found = loss_slice(NET, X, LABELS, IDS, along, factors)
        slope_B = (at.gradient_BCHW * along).flatten(1).sum(dim=1)
        for column, t in enumerate(factors):
            torch.testing.assert_close(found[:, column], at.loss_B + t * slope_B + t * t * half_form(A, along))


def test_what_does_not_fit_is_refused() -> None:
    at = gradients(NET, X, LABELS, IDS)
    with pytest.raises(InputError, match="needs the gradient"):
        linearity_error(losses(NET, X, LABELS, IDS), at.loss_B, X)
    with pytest.raises(InputError, match="of one shape"):
        linearity_error(at, at.loss_B, X[:, :, :1])
    with pytest.raises(InputError, match="of one shape"):
        linearity_error(at, at.loss_B[:1], X)
    with pytest.raises(InputError, match="steps must be"):
        largest_linearity_error(NET, X, LABELS, IDS, 0, EPS, at=at, steps=-1)
    for factors in ([], [float("nan")]):
        with pytest.raises(InputError, match="finite numbers"):
            loss_slice(NET, X, LABELS, IDS, X, factors)
    with pytest.raises(FloatingPointError, match="not finite for 00000"):
        loss_slice(nn.Flatten(), X, LABELS, IDS, 10 * X, [1.7e308])
