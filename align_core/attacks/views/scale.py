"""Scale invariance, SI (Lin et al. 2020, equation 8)."""

import torch
from torch import Tensor

from align_core.attacks.views import Rows


def scale(rows: Rows) -> Tensor:
    """Copy 0, 1, 2 ... of an image divided by 1, 2, 4 ..."""
    return rows.images_NCHW * torch.pow(0.5, rows.copies_N)[:, None, None, None]
