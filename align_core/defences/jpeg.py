"""JPEG compression: each image is really encoded and decoded, by Pillow, with the chroma at half the resolution."""

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def jpeg(images_BCHW: Tensor, quality: int) -> Tensor:
    """Float pixels [B, C, H, W] in [0, 1], of 1 or 3 channels, rounded to 8 bits, encoded and decoded."""
    levels_BHWC = (images_BCHW * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    decoded = [torch.from_numpy(through_jpeg(pixels_HWC, quality)) for pixels_HWC in levels_BHWC]
    return torch.stack(decoded).to(images_BCHW.device, images_BCHW.dtype) / 255


def through_jpeg(pixels_HWC: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]", quality: int) -> np.ndarray:
    """Pixels uint8 [C, H, W] after JPEG."""
    is_grey = pixels_HWC.shape[2] == 1
    file = io.BytesIO()
    picture = Image.fromarray(pixels_HWC[:, :, 0] if is_grey else pixels_HWC)
    picture.save(file, "JPEG", quality=quality, subsampling="4:4:4" if is_grey else "4:2:0")
    decoded = np.array(Image.open(file))
    return decoded[None] if is_grey else np.ascontiguousarray(decoded.transpose(2, 0, 1))
