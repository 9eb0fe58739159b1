"""Embedding graph alignment (EGA; Ma, Chen and Akata, BMVC 2022, 2211.13264)."""

import torch
from torch import Tensor

from align_core.losses.seen import Seen, features_of_both, unit


def ega(source: Seen, witness: Seen, node: float, edge: float) -> Tensor:
    """`node` times |N - I| plus `edge` times |E_witness - E_source|, Frobenius norms that are not squared: a scalar.

    The entries are Pearson correlations between the features of two images: E of one network with itself, N of the
    source with the witness. As in the authors' code nothing is divided by the batch, so that the loss grows with it.
    The weights 0.8 and 0.24 are those of Ma et al. (2024).

    Raises ValueError where the features are not there, or of different widths.
    """
    source_BD, witness_BD = (_standard(own_BD) for own_BD in features_of_both(source, witness))
    if source_BD.shape != witness_BD.shape:
        raise ValueError(f"features of widths {source_BD.shape[1]} and {witness_BD.shape[1]} have no correlation")
    identity_BB = torch.eye(len(source_BD), device=source_BD.device)
    nodes = _norm(source_BD @ witness_BD.T - identity_BB)
    return node * nodes + edge * _norm(witness_BD @ witness_BD.T - source_BD @ source_BD.T)


def _standard(features_BD: Tensor) -> Tensor:
    """Features of mean 0 and length 1; zero where an image's features are all equal, but for rounding."""
    rounding_B1 = 1e-6 * torch.linalg.vector_norm(features_BD, dim=1, keepdim=True)
    return unit(features_BD - features_BD.mean(dim=1, keepdim=True), least=rounding_B1)


def _norm(matrix: Tensor) -> Tensor:
    """The Frobenius norm, whose gradient is 0 where the matrix is."""
    squares = matrix.square().sum()
    return squares.clamp_min(torch.finfo(squares.dtype).tiny).sqrt() * (squares > 0)
