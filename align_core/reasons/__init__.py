"""Reasons: what may explain that a surrogate's attacks transfer, measured image by image.

A file is one concept. `passes` runs networks, and gives logits, losses and input gradients at points; most reasons are
computed from these without another pass. All values are per image, [B], so that chunks of images can be measured
anywhere and put together; NaN stands for a blank, where a value is not defined. Nothing depends on the batch that an
image is in but the rounding of the network.
"""

from align_core.reasons.agreement import cosine, prediction_divergence, top1_agreement
from align_core.reasons.calibration import calibration_error, entropy, first_class
from align_core.reasons.correlation import RankCorrelation, rank_correlation
from align_core.reasons.curvature import Curvature, curvature
from align_core.reasons.gradient_norm import GradientNorm, gradient_norm
from align_core.reasons.linearity import LargestError, largest_linearity_error, linearity_error
from align_core.reasons.loss_slice import loss_slice
from align_core.reasons.orthogonal import orthogonal_share
from align_core.reasons.passes import NoGradient, Passed, gradients, losses
from align_core.reasons.points import orthogonal_direction, random_points
from align_core.reasons.together import (
    FACTORS,
    Batch,
    compared_reasons,
    own_reasons,
    passes_at,
    passes_of_other,
    softness,
)

__all__ = [
    "FACTORS",
    "Batch",
    "Curvature",
    "GradientNorm",
    "LargestError",
    "NoGradient",
    "Passed",
    "RankCorrelation",
    "calibration_error",
    "compared_reasons",
    "cosine",
    "curvature",
    "entropy",
    "first_class",
    "gradient_norm",
    "gradients",
    "largest_linearity_error",
    "linearity_error",
    "loss_slice",
    "losses",
    "orthogonal_direction",
    "orthogonal_share",
    "own_reasons",
    "passes_at",
    "passes_of_other",
    "prediction_divergence",
    "random_points",
    "rank_correlation",
    "softness",
    "top1_agreement",
]
