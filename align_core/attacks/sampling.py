"""Resampling of images in forms whose gradients are the same at every run on a GPU: matrix products and gathers.

Torch's `grid_sample` adds up its gradient on a GPU in any order, so that two runs differ.
"""

from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from align_core.attacks.blending import blended


def resized_axis(first_N: Tensor, side_N: Tensor, length: int) -> Tensor:
    """The matrix that shrinks or stretches one axis bilinearly and puts it at a place on black.

    Args:
        first_N: where the resized axis begins, in pixels.
        side_N: its length, in pixels.
        length: of the axis before and after.

    Returns [N, length, length]: outputs by inputs. Pixel centres are at halves; outside of the resized axis the rows
    are zero, and half a pixel around it they fade, as with `grid_sample` and zeros as padding.
    """
    pixels_L = torch.arange(length, device=first_N.device, dtype=torch.float32)
    places_NL = (pixels_L + 0.5 - first_N[:, None]) * (length / side_N[:, None]) - 0.5
    return (1 - (places_NL[:, :, None] - pixels_L).abs()).clamp_min(0)


def resample(images_NCHW: Tensor, rows_NHH: Tensor, columns_NWW: Tensor) -> Tensor:
    """Applies a matrix to the rows and one to the columns of each image."""
    wide_NCHW = images_NCHW @ columns_NWW.transpose(1, 2)[:, None]
    return rows_NHH[:, None] @ wide_NCHW


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
