"""Random resizing and padding (Xie, Wang, Zhang, Ren and Yuille 2018).

The paper enlarges images; here they are shrunk and padded to their own size, so that networks of any kind can take
them. A network is shown no image ids, so an image's random numbers come from a hash of its own 8-bit pixels: neither
the batch nor the worker has any influence, and the same pixels are always treated alike; other pixels, such as those of
another attack on the same image, are treated in another way.
"""

import math
from hashlib import blake2b

import torch
from torch import Tensor
from torch.nn import functional as F

from align_core.randomness import part_keys, uniform


def resize_pad(images_BCHW: Tensor, smallest: float) -> Tensor:
    """Float pixels [B, C, H, W] in [0, 1], each shrunk to a random side and placed at random on black.

    Args:
        images_BCHW: square images.
        smallest: the smallest side, as a share of the image's; the largest is the image's own.
    """
    draws_B3 = uniform(part_keys(_keys(images_BCHW), 0, "resize_pad"), (3,))
    padded = torch.zeros_like(images_BCHW)
    height, width = images_BCHW.shape[2:]
    for row, (size, down, right) in enumerate(draws_B3.tolist()):
        new = [least + int(size * (side - least + 1)) for side in (height, width) for least in [_least(side, smallest)]]
        top, left = int(down * (height - new[0] + 1)), int(right * (width - new[1] + 1))
        shrunk = F.interpolate(images_BCHW[row : row + 1], new, mode="bilinear", antialias=True, align_corners=False)
        padded[row, :, top : top + new[0], left : left + new[1]] = shrunk[0]
    return padded


def _least(side: int, smallest: float) -> int:
    return max(1, math.ceil(side * smallest - 1e-9))


def _keys(images_BCHW: Tensor) -> Tensor:
    """A key per image, int64 [B]: a hash of its 8-bit pixels."""
    levels_BCHW = (images_BCHW * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    digests = [blake2b(levels_CHW.tobytes(), digest_size=8).digest() for levels_CHW in levels_BCHW]
    return torch.tensor([int.from_bytes(digest, "little", signed=True) for digest in digests], dtype=torch.int64)
