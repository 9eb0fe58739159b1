"""What the logits of a batch say: the class that is predicted, and how sure the network is of the label."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor


class Predicted(NamedTuple):
    """Of B images: the classes of the largest logits, int64 [B], and the softmax of the label, float32 [B]."""

    classes_B: npt.NDArray[np.int64]
    confidence_B: npt.NDArray[np.float32]


def predicted(logits_BK: Tensor, labels_B: Tensor) -> Predicted:
    """Predictions and confidences in main memory, from float32 logits and int64 labels on one device."""
    confidence_B = logits_BK.softmax(dim=1).gather(1, labels_B[:, None])[:, 0]
    return Predicted(logits_BK.argmax(dim=1).cpu().numpy(), confidence_B.float().cpu().numpy())
