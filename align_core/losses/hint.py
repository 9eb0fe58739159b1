"""The mean squared difference of features, after the hints of FitNets (Romero et al. 2015, 1412.6550)."""

from torch import Tensor

from align_core.losses.seen import Seen, features_of_both


def hint(source: Seen, witness: Seen) -> Tensor:
    """The squared difference of the features before the last layer, averaged over their width: float32 [B].

    FitNets compares middle layers in a first stage of training. This is the form of Ma et al. (2024), which compares
    what the last layers take, in one stage; the source's features are projected where widths differ.

    Raises ValueError where the features are not there, or of different widths.
    """
    source_BD, witness_BD = features_of_both(source, witness)
    if source_BD.shape != witness_BD.shape:
        raise ValueError(f"features of widths {source_BD.shape[1]} and {witness_BD.shape[1]} have no difference")
    return (source_BD - witness_BD).square().mean(dim=1)
