"""Deformation-constrained warping, DeCowA (Lin et al. 2024)."""

from functools import lru_cache

import torch
from torch import Tensor

from align_core.attacks.sampling import sample
from align_core.attacks.views import Rows
from align_core.randomness import uniform


def warp(rows: Rows, mesh: int, noise: float, rho: float) -> Tensor:
    """Moves the inner points of a mesh at random, then a step against the objective, and warps the image with them.

    Args:
        rows: the images, each with a warp of its own. `objective` is asked once for the step.
        mesh: points of the mesh along each axis; those on the border stay where they are.
        noise: width of the interval around 0 from which the moves are drawn; the image is 2 wide.
        rho: length of the step, in units of the gradient. It keeps the warp from destroying what the image shows.
    """
    height, width = rows.images_NCHW.shape[2:]
    basis_PM = _spline_basis(height, width, mesh).to(rows.images_NCHW)
    moves_NM2 = (uniform(rows.keys_N, ((mesh - 2) ** 2, 2)) - 0.5) * noise
    still_NCHW = rows.images_NCHW.detach()
    moves_NM2.requires_grad_()
    objective_N = rows.objective(_warped(still_NCHW, basis_PM, moves_NM2))
    slope_NM2 = torch.autograd.grad(objective_N.sum(), moves_NM2)[0]
    return _warped(rows.images_NCHW, basis_PM, moves_NM2.detach() - rho * slope_NM2)


def _warped(images_NCHW: Tensor, basis_PM: Tensor, moves_NM2: Tensor) -> Tensor:
    """The images where a spline puts their pixels, x before y in `moves`.

    Places are those of the paper's code: -1 is the centre of the first pixel for the spline, and its outer edge for the
    image.
    """
    height, width = images_NCHW.shape[2:]
    shift_N2HW = (basis_PM @ moves_NM2).transpose(1, 2).reshape(-1, 2, height, width)
    x_W, y_H = (torch.linspace(-1, 1, side, device=images_NCHW.device) for side in (width, height))
    x_NHW, y_NHW = x_W[None, None, :] + shift_N2HW[:, 0], y_H[None, :, None] + shift_N2HW[:, 1]
    return sample(images_NCHW, ((y_NHW + 1) * height - 1) / 2, ((x_NHW + 1) * width - 1) / 2)


@lru_cache(maxsize=8)
def _spline_basis(height: int, width: int, mesh: int) -> Tensor:
    """How far each pixel moves when one inner point of the mesh moves by 1: float64 [height * width, inner points].

    The thin-plate spline through the points (Bookstein 1989) is linear in their moves, so that its system of equations
    is solved once, and not for each warp.
    """
    points_K2 = _grid(mesh, mesh)
    count = len(points_K2)
    corner_KP = torch.cat([torch.ones(count, 1, dtype=torch.float64), points_K2], dim=1)
    system = torch.zeros(count + 3, count + 3, dtype=torch.float64)
    system[:count, :count] = _kernel(points_K2, points_K2)
    system[:count, count:], system[count:, :count] = corner_KP, corner_KP.T
    moves = torch.eye(count + 3, count, dtype=torch.float64).view(-1, mesh, mesh)
    weights = torch.linalg.solve(system, moves[:, 1:-1, 1:-1].flatten(1))
    pixels_P2 = _grid(height, width)
    ones_P1 = torch.ones(len(pixels_P2), 1, dtype=torch.float64)
    basis_PM: Tensor = torch.cat([_kernel(pixels_P2, points_K2), ones_P1, pixels_P2], dim=1) @ weights
    return basis_PM


def _grid(rows: int, columns: int) -> Tensor:
    """Points from -1 to 1, row by row, x before y: float64 [rows * columns, 2]."""
    y_R, x_C = torch.linspace(-1, 1, rows, dtype=torch.float64), torch.linspace(-1, 1, columns, dtype=torch.float64)
    return torch.stack([x_C.expand(rows, -1), y_R[:, None].expand(-1, columns)], dim=-1).flatten(0, 1)


def _kernel(one_A2: Tensor, other_B2: Tensor) -> Tensor:
    """The kernel of thin-plate splines, r^2 log r^2, of all pairs of points."""
    square_AB = (one_A2[:, None] - other_B2[None]).square().sum(dim=-1)
    return torch.xlogy(square_AB, square_AB)
