"""The rows of the tables about reasons: their columns in order, and what each of them means.

They are measured on a sample of the test images, and empty where the experiment has no section `reasons`. Intervals are
95 % intervals: percentiles of 10,000 resamples of the sample; of fewer than six images there are none. Over several
seeds, figures are means over them, and intervals are for these very seeds, but for those of `change_both`.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypedDict


class ReasonRow(TypedDict):
    """One measure of one surrogate in reasons.csv, at one point and, where it needs one, with one other network."""

    surrogate: str
    """The surrogate, as in TransferRow; of several networks, the mean of their logits is measured."""
    measure: str
    """What is measured, such as `curvature` or `cosine`: see MEASURES."""
    point: str
    """Where: `clean`, `random` (a point of the ball, the same for every surrogate) or `attacked`, the surrogate's own
    adversarial image; of a loss slice, the factor of the perturbation."""
    counterpart: str
    """The witness or target that it is compared with; `(mean)` is the mean over all targets that have a figure; ""
    where the measure needs no other network."""
    role: str
    """That of the counterpart: `witness`, `target` or ""."""
    n: int
    """Number of images that have a figure; of several seeds the fewest."""
    seeds: int
    """Number of seeds that the row stands for."""
    value: float | None
    """The mean over these images. None where no image has a figure, as where a target has no gradient."""
    value_low: float | None
    """Lower end of the interval of `value`."""
    value_high: float | None
    """Upper end of the interval of `value`."""
    change: float | None
    """Mean of the differences to the original source on the same images: after minus before. None for that source
    itself."""
    change_low: float | None
    """Lower end of the interval of `change`, of the paired differences."""
    change_high: float | None
    """Upper end of the interval of `change`."""
    change_both_low: float | None
    """Lower end of the interval of `change` over images and seeds; None where there is one seed."""
    change_both_high: float | None
    """Upper end of the interval of `change` over images and seeds."""
    converged: float | None
    """Share of the n images on which the power iteration of `curvature` converged, percent. None for other measures."""


class CorrelationRow(TypedDict):
    """One row of correlations.csv: whether a reason goes with the gain, across the surrogates of the experiment."""

    measure: str
    """What is measured, as in ReasonRow, but for loss slices."""
    point: str
    """Where, as in ReasonRow."""
    counterpart: str
    """The other network, as in ReasonRow."""
    role: str
    """That of the counterpart, as in ReasonRow."""
    before_crafting: str
    """`yes` where the measure is known before anything is crafted: at clean and random points alone; else `no`."""
    attack: str
    """The attack whose gains are taken; `(mean)` is the mean gain over all attacks."""
    target: str
    """The target on which the gains are taken: of a measure that compares with a single target, this one, and else
    `(mean)`, the mean over all targets."""
    n: int
    """Number of surrogates that have both figures. The source counts, with a change and a gain of 0; surrogates with
    the same weights count once."""
    correlation: float | None
    """Spearman's rank correlation of `change` with the gain, -1 to 1. None where n is below 2, or either is the same
    for all."""
    correlation_low: float | None
    """Lower end of its interval (`align_core.reasons.rank_correlation`)."""
    correlation_high: float | None
    """Upper end of its interval."""
    p_value: float | None
    """Two-sided permutation test that there is no correlation, 0 to 1, uncorrected."""
    p_holm: float | None
    """`p_value` after Holm's correction for all measures with the same attack and target."""


class SoftLabelRow(TypedDict):
    """One aligned surrogate, witness and attack in soft_labels.csv: the labels that it was taught, beside its gain."""

    surrogate: str
    """The aligned surrogate: one whose loss softens predictions."""
    witness: str
    """Whose soft labels they are."""
    temperature: float
    """That of the alignment."""
    n: int
    """Number of images of the sample."""
    seeds: int
    """Number of seeds that the row stands for."""
    entropy: float | None
    """Mean entropy of the witness's predictions at this temperature, nats, from 0 to the logarithm of the number of
    classes."""
    entropy_low: float | None
    """Lower end of its interval."""
    entropy_high: float | None
    """Upper end of its interval."""
    ece: float | None
    """Expected calibration error of the witness at this temperature, percent (15 bins of equal width)."""
    ece_low: float | None
    """Lower end of its interval (`align_core.reasons.calibration_error`)."""
    ece_high: float | None
    """Upper end of its interval."""
    agreement: float | None
    """Share of the clean images on which surrogate and witness put the same class first, percent."""
    agreement_low: float | None
    """Lower end of its interval."""
    agreement_high: float | None
    """Upper end of its interval."""
    attack: str
    """The attack whose gain stands beside."""
    gain: float | None
    """Mean gain over all targets under this attack, as in the row `(mean)` of TransferRow."""
    gain_low: float | None
    """Lower end of its interval."""
    gain_high: float | None
    """Upper end of its interval."""


MEASURES: dict[str, str] = {
    "loss": "cross-entropy with the label, nats",
    "gradient_l1": "sum of the absolute values of the input gradient, nats per pixel value",
    "gradient_l2": "Euclidean length of the input gradient, nats per pixel value",
    "curvature": "largest magnitude of an eigenvalue of the loss's input Hessian, nats per squared pixel value",
    "linearity": "error of the loss's first-order prediction at this point, nats",
    "largest_linearity": "largest such error in the ball that an ascent from this point finds, nats",
    "loss_along": "loss at the clean image plus a multiple of the perturbation, nats",
    "loss_across": "the same in a random direction orthogonal to the perturbation, of the same length, nats",
    "divergence": "KL of the surrogate's predictions from the counterpart's, nats",
    "agreement": "share of images on which both put the same class first, percent",
    "cosine": "cosine of the two input gradients, -1 to 1",
    "orthogonal_share": "share of the perturbation's squared length across the counterpart's gradient at the clean "
    "image, percent",
}
"""What is measured."""
SLICES = ("loss_along", "loss_across")
"""The measures whose point is a factor of the perturbation."""
PERCENT = ("agreement", "orthogonal_share")
"""The measures whose values of single images are stored as fractions, and are in percent in the table."""


class Shown(NamedTuple):
    """A measure that the page shows: its heading and unit there, the counterpart, and the point that stands for all."""

    heading: str
    unit: str
    counterpart: str
    point: str


SHOWN: dict[str, Shown] = {
    "gradient_l2": Shown("input gradient", "nats per pixel value", "", "clean"),
    "curvature": Shown("curvature", "nats per squared pixel value", "", "clean"),
    "linearity": Shown("linearity error", "nats", "", "random"),
    "cosine": Shown("gradient cosine with targets", "-1 to 1", "(mean)", "clean"),
    "agreement": Shown("agreement with targets", "percent of images", "(mean)", "clean"),
    "orthogonal_share": Shown("perturbation across their gradients", "percent of its square", "(mean)", "attacked"),
}
"""The measures that the page shows. What stands in reasons.csv in full is in its tables."""


def interval_of(row: ReasonRow) -> tuple[float, float, float] | None:
    """A row's value with its interval; None where it has none."""
    value, low, high = row["value"], row["value_low"], row["value_high"]
    return None if value is None or low is None or high is None else (value, low, high)


def over_all_attacks(rows: Sequence[CorrelationRow]) -> list[CorrelationRow]:
    """The correlations with the mean gain over all attacks, which is the gain under the only one where there is one."""
    attacks = {row["attack"] for row in rows}
    return [row for row in rows if row["attack"] == "(mean)" or len(attacks) == 1]
