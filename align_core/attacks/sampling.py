"""Resampling of images in forms whose gradients are the same at every run on a GPU.

Torch's `grid_sample` adds up its gradient on a GPU in any order, so that two runs differ.
"""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor

from align_core.attacks.blending import blended


class Taps(NamedTuple):
    """For each place along an axis the two pixels that it is made of, int64, and their weights, float64."""

    pixel_2NL: Tensor
    weight_2NL: Tensor


class Axis(NamedTuple):
    """An axis that is resampled: what each output is made of, and the outputs in which each input is seen."""

    outputs: Taps
    inputs: Taps


def shrunk_axis(first_N: Tensor, side_N: Tensor, length: int) -> Axis:
    """Shrinks an axis bilinearly and puts it at a place on black. Pixel centres are at halves.

    Args:
        first_N: where the shrunk axis begins, in whole pixels.
        side_N: its length in pixels, at most `length`: no input is then seen in more than two outputs.
        length: of the axis before and after.
    """
    own_L = torch.arange(length, device=first_N.device, dtype=torch.float64)
    ratio_N1, start_N1 = length / side_N.double()[:, None], first_N.double()[:, None] - 0.5

    def shown_at(output: Tensor) -> Tensor:
        return (output - start_N1) * ratio_N1 - 0.5

    def taps(first_NL: Tensor, distance: Callable[[Tensor], Tensor]) -> Taps:
        pixel_2NL = torch.stack([first_NL, first_NL + 1])
        inside_2NL = (pixel_2NL >= 0) & (pixel_2NL < length)
        weight_2NL = (1 - distance(pixel_2NL).abs()).clamp_min(0) * inside_2NL
        return Taps(pixel_2NL.long().clamp(0, length - 1), weight_2NL)

    place_NL = shown_at(own_L)
    first_seen_NL = ((own_L - 0.5) / ratio_N1 + start_N1).floor() + 1  # the next one shows more than the pixel before
    return Axis(
        taps(place_NL.floor(), lambda pixel_2NL: place_NL - pixel_2NL),
        taps(first_seen_NL, lambda output_2NL: shown_at(output_2NL) - own_L),
    )


class Resampled(torch.autograd.Function):
    """Images of which both axes are resampled. The gradient is gathered as the images are, so that nothing is added up
    in any order.
    """

    @staticmethod
    def forward(ctx: Any, images_NCHW: Tensor, rows: Axis, columns: Axis) -> Tensor:
        """The images, of the same shape, made of their rows and then of their columns."""
        ctx.axes = rows, columns
        return _gathered(images_NCHW, rows.outputs, columns.outputs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """The gradient in the images."""
        rows, columns = ctx.axes
        return _gathered(gradients[0], rows.inputs, columns.inputs), None, None


def _gathered(images_NCHW: Tensor, rows: Taps, columns: Taps) -> Tensor:
    """Each row as the sum of two, and then each column. Whole rows are copied at once, which is faster than to gather
    their pixels.
    """
    planes, height = images_NCHW.shape[0] * images_NCHW.shape[1], images_NCHW.shape[2]
    first_P = torch.arange(0, planes * height, height, device=images_NCHW.device).view(*images_NCHW.shape[:2], 1)
    row_2NCH = first_P + rows.pixel_2NL[:, :, None]
    shown = [images_NCHW.flatten(0, 2)[own.flatten()].view(images_NCHW.shape) for own in row_2NCH]
    images_NCHW = _summed(shown, rows.weight_2NL[:, :, None, :, None])
    shown = [images_NCHW.gather(3, own[:, None, None].expand_as(images_NCHW)) for own in columns.pixel_2NL]
    return _summed(shown, columns.weight_2NL[:, :, None, None])


def _summed(shown: Sequence[Tensor], weight_2: Tensor) -> Tensor:
    weight, other = weight_2.to(shown[0])
    return shown[0].mul_(weight).addcmul_(shown[1], other)


class Bounds(NamedTuple):
    """For each output pixel the part of the image that it may show: first and last row, first and last column."""

    top_NHW: Tensor
    bottom_NHW: Tensor
    left_NHW: Tensor
    right_NHW: Tensor


def sample(images_NCHW: Tensor, y_NHW: Tensor, x_NHW: Tensor, bounds: Bounds | None = None) -> Tensor:
    """The images at places between pixels, bilinearly; what lies outside of the bounds is black.

    Args:
        images_NCHW: float images.
        y_NHW, x_NHW: for each output pixel the place that it shows, in pixels: 0 is the centre of the first one.
        bounds: by default the image's own.

    Returns images of the same shape, differentiable in the images and in the places.
    """
    height, width = images_NCHW.shape[2:]
    top, bottom, left, right = bounds or (0, height - 1, 0, width - 1)
    rows = [_Line.at(y_NHW.detach().floor() + down, top, bottom, height) for down in (0, 1)]
    columns = [_Line.at(x_NHW.detach().floor() + across, left, right, width) for across in (0, 1)]
    shown = []
    for row, column in product(rows, columns):
        weight_NHW = (1 - (y_NHW - row.place_NHW).abs()) * (1 - (x_NHW - column.place_NHW).abs())
        shown.append((_number(row, column, width), weight_NHW * (row.inside_NHW & column.inside_NHW)))
    index, weight = (torch.stack(own).flatten(2) for own in zip(*shown, strict=True))
    return blended(images_NCHW, index, weight)


def pick(images_NCHW: Tensor, row_NHW: Tensor, column_NHW: Tensor) -> Tensor:
    """The pixels at whole places, given as float; outside of the image they are black."""
    height, width = images_NCHW.shape[2:]
    row, column = _Line.at(row_NHW, 0, height - 1, height), _Line.at(column_NHW, 0, width - 1, width)
    seen_NHW = (row.inside_NHW & column.inside_NHW).to(images_NCHW.dtype)
    return blended(images_NCHW, _number(row, column, width).flatten(1)[None], seen_NHW.flatten(1)[None])


class _Line(NamedTuple):
    """Whole places along one axis, float32; whether each is inside; and the nearest pixel, int64."""

    place_NHW: Tensor
    inside_NHW: Tensor
    pixel_NHW: Tensor

    @staticmethod
    def at(place_NHW: Tensor, first: Tensor | int, last: Tensor | int, length: int) -> "_Line":
        inside_NHW = (place_NHW >= first) & (place_NHW <= last)
        # Whole first, so that a place that is not a number is an index too: the gradient then says what is wrong.
        return _Line(place_NHW, inside_NHW, place_NHW.long().clamp(0, length - 1))


def _number(row: _Line, column: _Line, width: int) -> Tensor:
    """The numbers of the pixels in the rows and columns, counted row by row."""
    return row.pixel_NHW * width + column.pixel_NHW
