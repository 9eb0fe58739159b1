"""Block shuffle and rotation, BSR (Wang, He, Wang and Wang 2024)."""

from typing import NamedTuple

import torch
from torch import Tensor

from align_core.attacks.sampling import Bounds, sample
from align_core.attacks.views import Rows
from align_core.randomness import part_keys, uniform


def block_shuffle(rows: Rows, blocks: int, degrees: float) -> Tensor:
    """Cuts the image into strips along one axis and each strip along the other; shuffles both, and rotates each block.

    Args:
        rows: the images. Which axis is cut first, the lengths, orders and angles are random for each.
        blocks: number of strips, and of blocks in a strip. Lengths are random, the longest at most twice
            the shortest but for rounding.
        degrees: largest angle of a block's rotation about its centre, either way. What turns in from outside is black.
    """
    height, width = rows.images_NCHW.shape[2:]
    by_rows_N11 = (uniform(part_keys(rows.keys_N, 0, "axis"), (1,)) < 0.5)[:, :, None]
    upright = _places(rows.keys_N, height, width, blocks)
    lying = (upright if height == width else _places(rows.keys_N, width, height, blocks)).swapped()
    place = _Places(*(torch.where(by_rows_N11, one, other) for one, other in zip(upright, lying, strict=True)))
    angle_NHW = (2 * place.turn_NHW - 1) * (degrees * torch.pi / 180)
    middle_y_NHW, middle_x_NHW = (place.top_NHW + place.bottom_NHW) / 2, (place.left_NHW + place.right_NHW) / 2
    y_NHW, x_NHW = place.row_NHW - middle_y_NHW, place.column_NHW - middle_x_NHW
    cos_NHW, sin_NHW = angle_NHW.cos(), angle_NHW.sin()
    turned_y_NHW = middle_y_NHW + cos_NHW * y_NHW + sin_NHW * x_NHW
    turned_x_NHW = middle_x_NHW - sin_NHW * y_NHW + cos_NHW * x_NHW
    return sample(rows.images_NCHW, turned_y_NHW, turned_x_NHW, place.bounds)


class _Places(NamedTuple):
    """For each output pixel: the pixel that it shows without rotation, its block's ends, and a draw for its angle.

    All are float32, also those that are whole: it is faster than int64.
    """

    row_NHW: Tensor
    column_NHW: Tensor
    top_NHW: Tensor
    bottom_NHW: Tensor
    left_NHW: Tensor
    right_NHW: Tensor
    turn_NHW: Tensor

    @property
    def bounds(self) -> Bounds:
        return Bounds(self.top_NHW, self.bottom_NHW, self.left_NHW, self.right_NHW)

    def swapped(self) -> "_Places":
        """The same with rows and columns exchanged."""
        row, column, top, bottom, left, right, turn = (field.transpose(1, 2) for field in self)
        return _Places(column, row, left, right, top, bottom, turn)


def _places(keys_N: Tensor, first: int, second: int, blocks: int) -> _Places:
    """Where pixels come from if strips are cut along an axis of length `first`: [N, first, second]."""
    strip_NH, row_NH, top_NH, bottom_NH = _shuffled(part_keys(keys_N, 0, "strips"), (), blocks, first)
    block_NSW, column_NSW, left_NSW, right_NSW = _shuffled(part_keys(keys_N, 0, "blocks"), (blocks,), blocks, second)
    turns_NSS = uniform(part_keys(keys_N, 0, "turns"), (blocks, blocks))

    def along(values_NSW: Tensor) -> Tensor:  # each output row looks up the cuts of the strip that it shows
        return values_NSW.gather(1, strip_NH[:, :, None].expand(-1, -1, values_NSW.shape[2]))

    across = [values_NH.float()[:, :, None].expand(-1, -1, second) for values_NH in (row_NH, top_NH, bottom_NH)]
    return _Places(
        row_NHW=across[0],
        column_NHW=along(column_NSW.float()),
        top_NHW=across[1],
        bottom_NHW=across[2],
        left_NHW=along(left_NSW.float()),
        right_NHW=along(right_NSW.float()),
        turn_NHW=along(turns_NSS).gather(2, along(block_NSW)),
    )


def _shuffled(keys_N: Tensor, many: tuple[int, ...], blocks: int, length: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Cuts an axis at random and shuffles the pieces; `many` such axes for each key.

    Returns for each output pixel, int64 [N, *many, length]: its piece, the pixel that it shows, and the first and last
    of the piece.
    """
    # Shares lie between 1 and 2, as in torchattack; the authors draw from 0 to 1, so that a piece may have no pixel.
    shares = 1 + uniform(keys_N, (*many, blocks))
    order = uniform(part_keys(keys_N, 0, "order"), (*many, blocks)).argsort(dim=-1)
    lengths = (shares / shares.sum(dim=-1, keepdim=True) * length).round().long()
    missing = length - lengths.sum(dim=-1, keepdim=True)
    longest = lengths.argmax(dim=-1, keepdim=True)
    lengths = lengths + missing * (torch.arange(blocks, device=keys_N.device) == longest)
    starts = lengths.cumsum(dim=-1) - lengths
    ends_out = lengths.gather(-1, order).cumsum(dim=-1)
    pixels_L = torch.arange(length, device=keys_N.device)
    slot = (ends_out[..., None, :] <= pixels_L[:, None]).sum(dim=-1)
    piece = order.gather(-1, slot)
    first, size = starts.gather(-1, piece), lengths.gather(-1, piece)
    pixel = first + pixels_L - (ends_out.gather(-1, slot) - size)
    return piece, pixel, first, first + size - 1
