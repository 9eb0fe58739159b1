"""The local loss of spatial adversarial alignment (SAA; Chen et al. 2025, 2501.01015)."""

from torch import Tensor
from torch.nn import functional as F

from align_core.losses.seen import Seen


def local(source: Seen, witness: Seen) -> Tensor:
    """Cross-entropy between predictions at each place of the image, averaged over places: float32 [B].

    At each place of its last feature map, a network predicts by its own last layer; the witness's prediction, a softmax
    at temperature 1, is what the source is led to. That a place predicts by the last layer, that predictions are soft,
    and that the finer grid is averaged down to the coarser one, are inferred: the paper's text was not to be had.

    Raises ValueError where the places are not there.
    """
    if source.places_BKHW is None or witness.places_BKHW is None:
        raise ValueError("this loss compares predictions at places of the image, and they are not there")
    own_BKHW, other_BKHW = source.places_BKHW.float(), witness.places_BKHW.float()
    size = min(own_BKHW.shape[2], other_BKHW.shape[2])
    own_BKHW, other_BKHW = (F.adaptive_avg_pool2d(places, size) for places in (own_BKHW, other_BKHW))
    return F.cross_entropy(own_BKHW, other_BKHW.softmax(dim=1), reduction="none").mean(dim=(1, 2))
