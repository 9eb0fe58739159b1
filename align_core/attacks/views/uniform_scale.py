"""Uniform scale, of US-MM (Wang, Ying, Wang and Chen 2023, equation 7)."""

from torch import Tensor

from align_core.attacks.views import Rows


def uniform_scale(rows: Rows, low: float, high: float) -> Tensor:
    """Copy k of K is multiplied by low + (high - low) * k / (K - 1)."""
    place_N = rows.copies_N / max(1, rows.copies - 1)
    return rows.images_NCHW * (low + (high - low) * place_N)[:, None, None, None]
