"""The mix mask of US-MM (Wang, Ying, Wang and Chen 2023, equation 9)."""

from torch import Tensor

from align_core.attacks.views import Rows


def mix_mask(rows: Rows, range: float) -> Tensor:
    """Multiplies by a mask that another image of the image set spreads over [1 - range, 1 + range]; cut to [0, 1]."""
    assert rows.others is not None
    mask_NCHW = 1 - range + 2 * range * rows.others.drawn(rows.keys_N, rows.labels_N)
    return (rows.images_NCHW * mask_NCHW).clamp(0, 1)
