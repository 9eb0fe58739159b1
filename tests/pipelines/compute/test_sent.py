"""Images on their way to a device."""

import numpy as np
import torch

from pipelines.compute.sent import sent


def test_what_is_sent_is_a_copy_of_what_may_only_be_read() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 3, 2, 2)
    pixels.setflags(write=False)
    images = sent(pixels, "cpu")
    assert images.dtype == torch.uint8 and images.tolist() == pixels.tolist()
    images += 1
    assert pixels[0, 0, 0, 0] == 0
    turned = sent(pixels.transpose(0, 1, 3, 2), "cpu")
    assert turned.is_contiguous() and turned.tolist() == pixels.transpose(0, 1, 3, 2).tolist()
