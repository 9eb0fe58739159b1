"""The way of images from a decoder's memory to the device."""

import torch
from torch import Tensor

from align_core.images.decoding import Pixels


def sent(pixels: Pixels, device: str) -> Tensor:
    """The pixels of a chunk on the device, uint8, in memory of their own: what Ray hands over is for reading alone.

    To a GPU they go through memory that the system does not move, which it fetches from at its full speed.
    """
    held = torch.empty(pixels.shape, dtype=torch.uint8, pin_memory=torch.device(device).type == "cuda")
    held.numpy()[...] = pixels
    return held.to(device, non_blocking=True)
