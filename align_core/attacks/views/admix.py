"""Admix (Wang et al. 2021, equation 6): a small share of an image of another class is added."""

from torch import Tensor

from align_core.attacks.views import Rows


def admix(rows: Rows, share: float) -> Tensor:
    """Adds `share` of another image of the image set, clean, drawn by key among those of other labels."""
    assert rows.others is not None
    return rows.images_NCHW + share * rows.others.drawn(rows.keys_N, rows.labels_N)
