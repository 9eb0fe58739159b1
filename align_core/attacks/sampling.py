"""Resampling of images in forms whose gradients are the same at every run on a GPU: matrix products and gathers.

Torch's `grid_sample` adds up its gradient on a GPU in any order, so that two runs differ.
"""

from typing import NamedTuple

import torch
from torch import Tensor


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
    top_NHW, left_NHW = y_NHW.detach().floor(), x_NHW.detach().floor()
    total_NCHW = torch.zeros_like(images_NCHW)
    for down, across in ((0, 0), (0, 1), (1, 0), (1, 1)):
        row_NHW, column_NHW = top_NHW + down, left_NHW + across
        weight_NHW = (1 - (y_NHW - row_NHW).abs()) * (1 - (x_NHW - column_NHW).abs())
        total_NCHW = total_NCHW + weight_NHW[:, None] * pick(images_NCHW, row_NHW.long(), column_NHW.long(), bounds)
    return total_NCHW


def pick(images_NCHW: Tensor, row_NHW: Tensor, column_NHW: Tensor, bounds: Bounds | None = None) -> Tensor:
    """The pixels at whole places, int64; outside of the bounds, by default the image's own, they are black."""
    count, channels, height, width = images_NCHW.shape
    top, bottom, left, right = bounds or (0, height - 1, 0, width - 1)
    inside_NHW = (row_NHW >= top) & (row_NHW <= bottom) & (column_NHW >= left) & (column_NHW <= right)
    index_NHW = row_NHW.clamp(0, height - 1) * width + column_NHW.clamp(0, width - 1)
    index_NCP = index_NHW.flatten(1)[:, None].expand(count, channels, -1)
    picked_NCHW = images_NCHW.flatten(2).gather(2, index_NCP).view(images_NCHW.shape)
    return picked_NCHW * inside_NHW[:, None]
