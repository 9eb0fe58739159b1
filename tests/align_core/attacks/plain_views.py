"""Each view a second time: for one copy of one image, in float64, with the plainest means that there are.

They are written from the papers, and draw the numbers that `align_core.attacks.views` draws, from the same keys. None
uses a line of it: resizing is `interpolate` and `pad`, rotation torchvision's, warping `grid_sample`, and so on.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import scipy.fft
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import rotate

from align_core.attacks import Others
from align_core.randomness import normal, part_keys, uniform


class Copy(NamedTuple):
    """One copy of one image: its key [1], its number among how many copies, and what a view may need besides."""

    key: Tensor
    number: int
    copies: int
    label: int
    unit: float
    others: Others
    value: Callable[[Tensor], Tensor]

    def draws(self, *shape: int, part: str = "") -> Tensor:
        return uniform(part_keys(self.key, 0, part) if part else self.key, shape)[0].double()

    def bell(self, *shape: int, part: str) -> Tensor:
        return normal(part_keys(self.key, 0, part), shape)[0].double()


def scale(image: Tensor, copy: Copy) -> Tensor:
    return image / 2**copy.number


def uniform_scale(image: Tensor, copy: Copy, low: float, high: float) -> Tensor:
    return image * (np.linspace(low, high, copy.copies)[copy.number] if copy.copies > 1 else low)


def _other(copy: Copy) -> Tensor:
    """An image of another label, counted off one by one."""
    rows = [row for row, label in enumerate(copy.others.labels_P.tolist()) if label != copy.label]
    return copy.others.images_PCHW[rows[int(copy.draws(1) * len(rows))]].double() / 255


def admix(image: Tensor, copy: Copy, share: float) -> Tensor:
    return image + share * _other(copy)


def mix_mask(image: Tensor, copy: Copy, range: float) -> Tensor:
    return (image * ((1 - range) + 2 * range * _other(copy))).clamp(0, 1)


def _shrunk(image: Tensor, smallest: float, which: float, across: float, down: float) -> Tensor:
    height, width = image.shape[1:]
    sides = []
    for length in (height, width):
        lowest = max(1, math.floor(smallest * length))
        sides.append(lowest + math.floor(which * (length - lowest)))
    small = F.interpolate(image[None], sides, mode="bilinear", align_corners=False)[0]
    top, left = math.floor(down * (height - sides[0] + 1)), math.floor(across * (width - sides[1] + 1))
    return F.pad(small, (left, width - left - sides[1], top, height - top - sides[0]))


def resize_pad(image: Tensor, copy: Copy, probability: float, smallest: float) -> Tensor:
    which, across, down, chance = copy.draws(4).tolist()
    return _shrunk(image, smallest, which, across, down) if chance < probability else image


def sizes(image: Tensor, copy: Copy, rate: float, growth: float) -> Tensor:
    which, across, down, _ = copy.draws(4).tolist()
    return _shrunk(image, 1 / (rate + growth * copy.number), which, across, down)


def frequencies_scaled(image: Tensor, draws: Tensor, rho: float) -> Tensor:
    rows, columns = (torch.from_numpy(scipy.fft.dct(np.eye(side), axis=0, norm="ortho")) for side in image.shape[1:])
    spectrum = torch.einsum("fy,cyx,gx->cfg", rows, image, columns) * (1 + rho * (2 * draws - 1))
    return torch.einsum("fy,cfg,gx->cyx", rows, spectrum, columns)


def spectrum(image: Tensor, copy: Copy, rho: float, noise: float) -> Tensor:
    noisy = image + noise * copy.unit * copy.bell(*image.shape, part="noise")
    return frequencies_scaled(noisy, copy.draws(*image.shape, part="mask"), rho)


def _lengths(shares: Tensor, length: int) -> list[int]:
    """Random lengths that sum to the side, as in the paper's code: shares from 1 to 2, the rest to the longest."""
    shares = 1 + shares
    lengths = [round(float(share / shares.sum()) * length) for share in shares]
    lengths[lengths.index(max(lengths))] += length - sum(lengths)
    return lengths


def block_shuffle(image: Tensor, copy: Copy, blocks: int, degrees: float) -> Tensor:
    first, second = (1, 2) if copy.draws(1, part="axis") < 0.5 else (2, 1)
    strips = image.split(_lengths(copy.draws(blocks, part="strips"), image.shape[first]), dim=first)
    cuts, turns = copy.draws(blocks, blocks, part="blocks"), copy.draws(blocks, blocks, part="turns")
    strip_order = _order(part_keys(copy.key, 0, "strips"), blocks)
    block_orders = _order(part_keys(copy.key, 0, "blocks"), blocks, blocks)
    shown = []
    for strip in strip_order.tolist():
        pieces = strips[strip].split(_lengths(cuts[strip], image.shape[second]), dim=second)
        turned = [_rotated(piece, (2 * turn - 1) * degrees) for piece, turn in zip(pieces, turns[strip], strict=True)]
        shown.append(torch.cat([turned[block] for block in block_orders[strip].tolist()], dim=second))
    return torch.cat(shown, dim=first)


def _order(key: Tensor, *shape: int) -> Tensor:
    return uniform(part_keys(key, 0, "order"), shape)[0].argsort(dim=-1)


def _rotated(block: Tensor, degrees: float) -> Tensor:
    return rotate(block, float(degrees), InterpolationMode.BILINEAR) if block.numel() else block


def block_operators(image: Tensor, copy: Copy, blocks: int, noise: float) -> Tensor:
    height, width = image.shape[1:]
    ys, xs = (
        [0, *sorted(_places(copy, part, side, blocks)), side] for part, side in (("rows", height), ("columns", width))
    )
    operators, numbers = copy.draws(blocks * blocks, part="operator"), copy.draws(blocks * blocks, part="number")
    noises = (2 * copy.draws(*image.shape, part="noise") - 1) * noise
    result = torch.empty_like(image)
    for row, (top, bottom) in enumerate(pairwise(ys)):
        for column, (left, right) in enumerate(pairwise(xs)):
            place = (slice(None), slice(top, bottom), slice(left, right))
            block, number = image[place], float(numbers[row * blocks + column])
            result[place] = [
                lambda block, number: block.roll(int(number * block.shape[1]), 1),
                lambda block, number: block.roll(int(number * block.shape[2]), 2),
                lambda block, _: block.flip(1),
                lambda block, _: block.flip(2),
                lambda block, _: block.rot90(2, (1, 2)),
                lambda block, number: block * number,
                lambda block, _, here=place: (block + noises[here]).clamp(0, 1),
            ][int(operators[row * blocks + column] * 7)](block, number)
    return result


def _places(copy: Copy, part: str, length: int, blocks: int) -> list[int]:
    """Different random places for cuts: those of the smallest draws."""
    draws = copy.draws(length - 1, part=part).tolist()
    return [1 + place for place in sorted(range(length - 1), key=draws.__getitem__)[: min(blocks, length) - 1]]


def operators(image: Tensor, copy: Copy, fewest: int, most: int) -> Tensor:
    levels = fewest + int(copy.draws(1, part="level") * (most - fewest + 1))
    for level in range(levels):
        key = part_keys(copy.key, level, "operator")
        which, down, across = uniform(key, (3,))[0].double().tolist()
        which_side = uniform(part_keys(key, 0, "size"), (4,))[0].double().tolist()
        image = _operated(image, int(which * 31), down, across, which_side)
    return image


def _operated(image: Tensor, number: int, down: float, across: float, place: list[float]) -> Tensor:
    """One of the paper's 31 operators, in its order."""
    if number < 5:
        return [
            image,
            image.flip(1),
            image.flip(2),
            image.roll(int(down * image.shape[1]), 1),
            image.roll(int(across * image.shape[2]), 2),
        ][number]
    if number < 14:
        return rotate(image, [5, -5, 15, -15, 45, -45, 90, -90, 180][number - 5])
    if number < 21:
        return image / (number - 12)
    return _shrunk(image, 1 / [1.1, 1.3, 1.5, 1.7, 1.9, 2.1, 2.3, 2.5, 2.7, 2.9][number - 21], *place[:3])


def warp(image: Tensor, copy: Copy, mesh: int, noise: float, rho: float) -> Tensor:
    moves = ((copy.draws((mesh - 2) ** 2, 2) - 0.5) * noise).requires_grad_()
    (slope,) = torch.autograd.grad(copy.value(_warped(image.detach(), moves, mesh)), moves)
    return _warped(image, moves.detach() - rho * slope, mesh)


def _warped(image: Tensor, moves: Tensor, mesh: int) -> Tensor:
    """The thin-plate spline from the still mesh to the moved one, solved anew, and `grid_sample`."""
    height, width = image.shape[1:]
    still = _grid(mesh, mesh).flatten(0, 1)
    inner = torch.zeros(mesh, mesh, 2, dtype=torch.float64)
    inner[1:-1, 1:-1] = moves.view(mesh - 2, mesh - 2, 2)
    moved = still + inner.flatten(0, 1)
    edge = torch.cat([torch.ones(mesh**2, 1, dtype=torch.float64), still], dim=1)
    system = torch.cat(
        [
            torch.cat([_bending(still, still), edge], dim=1),
            torch.cat([edge.T, torch.zeros(3, 3, dtype=torch.float64)], dim=1),
        ]
    )
    weights = torch.linalg.solve(system, torch.cat([moved, torch.zeros(3, 2, dtype=torch.float64)]))
    pixels = _grid(height, width).flatten(0, 1)
    basis = torch.cat([_bending(pixels, still), torch.ones(len(pixels), 1, dtype=torch.float64), pixels], dim=1)
    return F.grid_sample(image[None], (basis @ weights).view(1, height, width, 2), align_corners=False)[0]


def _grid(rows: int, columns: int) -> Tensor:
    y, x = torch.meshgrid(
        *(torch.linspace(-1, 1, side, dtype=torch.float64) for side in (rows, columns)), indexing="ij"
    )
    return torch.stack([x, y], dim=-1)


def _bending(some: Tensor, others: Tensor) -> Tensor:
    distance = torch.cdist(some, others)
    return torch.where(distance > 0, 2 * distance**2 * distance.clamp_min(1e-300).log(), 0.0)


VIEWS: dict[str, Callable[..., Tensor]] = {
    function.__name__: function
    for function in (
        scale,
        resize_pad,
        sizes,
        admix,
        uniform_scale,
        mix_mask,
        spectrum,
        block_shuffle,
        block_operators,
        warp,
        operators,
    )
}
