"""The operators of OPS (Guo et al. 2025): flips, shifts, rotations, dimming and diverse sizes, one after the other."""

from collections.abc import Callable

import torch
from torch import Tensor

from align_core.attacks.sampling import pick
from align_core.attacks.views import Rows
from align_core.attacks.views.resize_pad import shrunk
from align_core.randomness import part_keys, uniform

_ANGLES = (5.0, -5.0, 15.0, -15.0, 45.0, -45.0, 90.0, -90.0, 180.0)
_DIVISORS = (2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)
_RATES = (1.1, 1.3, 1.5, 1.7, 1.9, 2.1, 2.3, 2.5, 2.7, 2.9)
_FIRST_ANGLE = 5  # after identity, the two flips and the two shifts
_FIRST_DIVISOR = _FIRST_ANGLE + len(_ANGLES)
_FIRST_RATE = _FIRST_DIVISOR + len(_DIVISORS)
_OPERATORS = _FIRST_RATE + len(_RATES)


def operators(rows: Rows, fewest: int, most: int) -> Tensor:
    """Applies `fewest` to `most` of the paper's 31 operators to each image, all drawn at random."""
    level_N = fewest + (uniform(part_keys(rows.keys_N, 0, "level"), (1,))[:, 0] * (most - fewest + 1)).long()
    images_NCHW = rows.images_NCHW
    for level in range(most):
        keys_N = part_keys(rows.keys_N, level, "operator")
        draws_N3 = uniform(keys_N, (3,))
        operator_N = torch.where(level < level_N, (draws_N3[:, 0] * _OPERATORS).long(), 0)
        moves_N = (operator_N > 0) & (operator_N < _FIRST_DIVISOR)
        images_NCHW = _where(moves_N, images_NCHW, _moved, operator_N, draws_N3[:, 1:])
        images_NCHW = _dimmed(images_NCHW, operator_N)
        images_NCHW = _where(operator_N >= _FIRST_RATE, images_NCHW, _resized, operator_N, keys_N)
    return images_NCHW


def _where(applies_N: Tensor, images_NCHW: Tensor, change: Callable[..., Tensor], *more: Tensor) -> Tensor:
    """The images, changed where it applies. On a GPU all are changed: to look where it applies, the CPU would wait."""
    if images_NCHW.device.type != "cpu":
        return torch.where(applies_N[:, None, None, None], change(images_NCHW, *more), images_NCHW)
    rows_R = applies_N.nonzero()[:, 0]
    return images_NCHW.index_copy(0, rows_R, change(images_NCHW[rows_R], *(own[rows_R] for own in more)))


def _moved(images_NCHW: Tensor, operator_N: Tensor, draws_N2: Tensor) -> Tensor:
    """Flips, shifts around the border, and rotations to the nearest pixel; other operators move nothing."""
    height, width = images_NCHW.shape[2:]
    y_1H1 = torch.arange(height, device=operator_N.device, dtype=torch.float32)[None, :, None]
    x_11W = torch.arange(width, device=operator_N.device, dtype=torch.float32)[None, None, :]
    kind_N11 = operator_N[:, None, None]
    angles = torch.tensor(_ANGLES, device=operator_N.device) * (torch.pi / 180)
    turn_N11 = angles[(kind_N11 - _FIRST_ANGLE).clamp(0, len(_ANGLES) - 1)]
    turns_N11 = (kind_N11 >= _FIRST_ANGLE) & (kind_N11 < _FIRST_DIVISOR)
    cos_N11, sin_N11 = turn_N11.cos(), turn_N11.sin()
    middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
    turned_y_NHW = (middle_y + sin_N11 * (x_11W - middle_x) + cos_N11 * (y_1H1 - middle_y)).round()
    turned_x_NHW = (middle_x + cos_N11 * (x_11W - middle_x) - sin_N11 * (y_1H1 - middle_y)).round()
    down_N11, right_N11 = ((draws_N2 * draws_N2.new_tensor([height, width])).floor()[:, i, None, None] for i in (0, 1))
    source_y_NH1 = torch.where(kind_N11 == 1, height - 1 - y_1H1, y_1H1)
    source_y_NH1 = torch.where(kind_N11 == 3, (y_1H1 - down_N11) % height, source_y_NH1)
    source_x_N1W = torch.where(kind_N11 == 2, width - 1 - x_11W, x_11W)
    source_x_N1W = torch.where(kind_N11 == 4, (x_11W - right_N11) % width, source_x_N1W)
    source_y_NHW = torch.where(turns_N11, turned_y_NHW, source_y_NH1)
    source_x_NHW = torch.where(turns_N11, turned_x_NHW, source_x_N1W)
    return pick(images_NCHW, source_y_NHW, source_x_NHW)


def _dimmed(images_NCHW: Tensor, operator_N: Tensor) -> Tensor:
    factors = 1 / torch.tensor(_DIVISORS, device=operator_N.device)
    dims_N = (operator_N >= _FIRST_DIVISOR) & (operator_N < _FIRST_RATE)
    factor_N = torch.where(dims_N, factors[(operator_N - _FIRST_DIVISOR).clamp(0, len(_DIVISORS) - 1)], 1.0)
    return images_NCHW * factor_N[:, None, None, None]


def _resized(images_NCHW: Tensor, operator_N: Tensor, keys_N: Tensor) -> Tensor:
    rates = torch.tensor(_RATES, device=operator_N.device, dtype=torch.float64)
    smallest_N = 1 / rates[(operator_N - _FIRST_RATE).clamp(0, len(_RATES) - 1)]
    return shrunk(images_NCHW, part_keys(keys_N, 0, "size"), smallest_N)[0]
