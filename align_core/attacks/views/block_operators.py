"""Structure invariant attack, SIA (Wang, Zhang and Zhang 2023): each block is changed by an operator of its own."""

import torch
from torch import Tensor

from align_core.attacks.sampling import pick
from align_core.attacks.views import Rows
from align_core.randomness import part_keys, uniform

_OPERATORS = 7  # shift down, shift right, flip top to bottom, flip left to right, turn by 180 degrees, dim, add noise


def block_operators(rows: Rows, blocks: int, noise: float) -> Tensor:
    """Cuts the image into blocks x blocks pieces at random places, each under one of seven random operators.

    Args:
        rows: the images; cuts, operators and their numbers are random for each.
        blocks: number of pieces along each axis, at most the side.
        noise: half the width of the noise that the last operator adds, as a share of the pixel range.
    """
    height, width = rows.images_NCHW.shape[2:]
    top_NH, rows_NH, row_block_NH = _cut(part_keys(rows.keys_N, 0, "rows"), blocks, height)
    left_NW, columns_NW, column_block_NW = _cut(part_keys(rows.keys_N, 0, "columns"), blocks, width)
    block_NHW = row_block_NH[:, :, None] * blocks + column_block_NW[:, None, :]

    def drawn(part: str) -> Tensor:
        draws_NP = uniform(part_keys(rows.keys_N, 0, part), (blocks * blocks,))
        return draws_NP.gather(1, block_NHW.flatten(1)).view(block_NHW.shape)

    operator_NHW = (drawn("operator") * _OPERATORS).long()
    move_NHW = drawn("number")
    top_NHW, left_NHW = top_NH[:, :, None], left_NW[:, None, :]
    rows_NHW, columns_NHW = rows_NH[:, :, None], columns_NW[:, None, :]
    y_NHW = torch.arange(height, device=block_NHW.device)[None, :, None] - top_NHW
    x_NHW = torch.arange(width, device=block_NHW.device)[None, None, :] - left_NHW
    shifted_y_NHW = (y_NHW - (move_NHW * rows_NHW).long()) % rows_NHW
    shifted_x_NHW = (x_NHW - (move_NHW * columns_NHW).long()) % columns_NHW
    flips_y_NHW, flips_x_NHW = (operator_NHW == 2) | (operator_NHW == 4), (operator_NHW == 3) | (operator_NHW == 4)
    source_y_NHW = torch.where(operator_NHW == 0, shifted_y_NHW, torch.where(flips_y_NHW, rows_NHW - 1 - y_NHW, y_NHW))
    source_x_NHW = torch.where(
        operator_NHW == 1, shifted_x_NHW, torch.where(flips_x_NHW, columns_NHW - 1 - x_NHW, x_NHW)
    )
    moved_NCHW = pick(rows.images_NCHW, (top_NHW + source_y_NHW).float(), (left_NHW + source_x_NHW).float())
    dimmed_NCHW = moved_NCHW * torch.where(operator_NHW == 5, move_NHW, 1.0)[:, None]
    noise_NCHW = (2 * uniform(part_keys(rows.keys_N, 0, "noise"), rows.images_NCHW.shape[1:]) - 1) * noise
    return torch.where((operator_NHW == 6)[:, None], (moved_NCHW + noise_NCHW).clamp(0, 1), dimmed_NCHW)


def _cut(keys_N: Tensor, blocks: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Cuts an axis at different random places; for each pixel its piece's first pixel, its length and its number."""
    pieces = min(blocks, length)
    places_NP = uniform(keys_N, (length - 1,)).argsort(dim=1)[:, : pieces - 1].sort(dim=1).values + 1
    starts_NP = torch.cat([torch.zeros_like(keys_N)[:, None], places_NP], dim=1)
    ends_NP = torch.cat([places_NP, torch.full_like(keys_N, length)[:, None]], dim=1)
    piece_NL = (ends_NP[:, None, :] <= torch.arange(length, device=keys_N.device)[:, None]).sum(dim=2)
    first_NL = starts_NP.gather(1, piece_NL)
    return first_NL, ends_NP.gather(1, piece_NL) - first_NL, piece_NL
