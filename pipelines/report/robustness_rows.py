"""The rows of robustness.csv: their columns in order, and what each of them means."""

from typing import Literal, TypedDict

Kind = Literal["clean", "attack", "corruption"]
MEAN = "(mean)"
ALL = "(all)"


class RobustnessRow(TypedDict):
    """How accurate one surrogate is on all test images: clean, attacked on itself, or with a common corruption."""

    surrogate: str
    """The surrogate, as in TransferRow; of several networks, the mean of their logits predicts."""
    kind: str
    """`clean`; `attack`, the surrogate's own adversarial images; or `corruption` of the clean images."""
    name: str
    """The attack, or `(all)`: right when clean and under every attack; or the corruption, or `(mean)` over all."""
    severity: int | None
    """Of a corruption, from 1 to 5; None for everything else, and for the mean."""
    seeds: int
    """Number of seeds that the row stands for."""
    accuracy: float | None
    """Share of all test images that the surrogate classifies correctly, percent."""
    accuracy_low: float | None
    """Lower end of the interval of `accuracy` over images: Wilson's; of a mean, percentiles of the bootstrap."""
    accuracy_high: float | None
    """Upper end of the interval of `accuracy`."""
    change: float | None
    """`accuracy` minus that of the original source, on the same images, each attacked on itself, percentage points.
    None for that source itself."""
    change_low: float | None
    """Lower end of the interval of `change` over images: Newcombe's paired one; of a mean, percentiles."""
    change_high: float | None
    """Upper end of the interval of `change`."""
    change_both_low: float | None
    """Lower end of the interval of `change` over images and seeds; None where there is one seed."""
    change_both_high: float | None
    """Upper end of the interval of `change` over images and seeds."""
