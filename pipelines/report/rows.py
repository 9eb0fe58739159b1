"""The rows of the report's tables: their columns in order, and what each of them means.

Rates and accuracies are in percent, 0 to 100; gains and changes are in percentage points. A figure is None, and its
cell in the CSV file empty, where it does not apply or where there is nothing to measure it on. Intervals are 95 %
intervals over test images: they do not cover what another training run would change, except for those that are said to.

Where an experiment has several seeds, a row stands for all of them: figures are means over the seeds, and their
intervals are percentiles of 10,000 resamples of the images, for these very seeds. seeds.csv has each seed by itself.
"""

from typing import TypedDict

from pipelines.report.reason_rows import CorrelationRow, ReasonRow, SoftLabelRow
from pipelines.report.robustness_rows import RobustnessRow


class TransferRow(TypedDict):
    """One surrogate, attack and target of transfer.csv, or the mean over a group of targets."""

    surrogate: str
    """The network or ensemble that the perturbations were crafted on: `source`, `aligned`, a variant or a control; or
    `external`, where the images were made elsewhere."""
    attack: str
    """The attack, by its name in the experiment file."""
    target: str
    """The attacked model; or a mean: `(mean)` over all targets, `(mean RELATION)` over those of one relation, and
    `(mean GROUP)` over those of each of the experiment's groups."""
    relation: str
    """Of the target to the source: same_architecture, same_family or cross_family; "" in `(mean)` and in groups."""
    n: int
    """Number of test images that count: the original source and the target both classify them correctly when clean.
    For a mean, the number of images that count for any of its targets."""
    gradients: int | None
    """What the attack cost per image: forward and backward passes, each member of an ensemble counted. None for images
    that were made elsewhere."""
    seeds: int
    """Number of seeds that the row stands for."""
    rate: float | None
    """Transfer rate, percent: share of the n images that the target misclassifies when attacked. A mean weights its
    targets equally."""
    rate_low: float | None
    """Lower end of the interval of `rate`: Wilson's for a target, and percentiles of 10,000 resamples for a mean."""
    rate_high: float | None
    """Upper end of the interval of `rate`."""
    rate_spread: float | None
    """Standard deviation of `rate` between the seeds, points. None where there is one seed."""
    rate_all: float | None
    """Share of all test images that the target misclassifies when attacked, percent: the rate that TransferAttack
    reports. It also counts images that the target misclassifies without an attack."""
    targeted_rate: float | None
    """For targeted attacks: share of the n images that the target takes for the class that they are led to, percent. A
    mean weights its targets equally. None for attacks that lead away from the label."""
    targeted_low: float | None
    """Lower end of the interval of `targeted_rate`, of the same kind as that of `rate`."""
    targeted_high: float | None
    """Upper end of the interval of `targeted_rate`."""
    gain: float | None
    """`rate` minus the rate of crafting on the surrogate's original source, on the same images, points; for targeted
    attacks `targeted_rate` minus that of the source. None for that source itself. Of images that were made elsewhere,
    it refers to the source under the attack in `compare_with`, and is None where there is none."""
    gain_low: float | None
    """Lower end of the paired interval of `gain`: Newcombe's method 10 for a target, resampled images for a mean."""
    gain_high: float | None
    """Upper end of the interval of `gain`."""
    gain_spread: float | None
    """Standard deviation of `gain` between the seeds, points. None where there is one seed."""
    gain_both_low: float | None
    """Lower end of the interval of `gain` over other images and other seeds: variance between seeds plus variance over
    images, Student's t with one degree of freedom less than there are seeds. None where there is one seed, and where a
    gain varies neither between the seeds nor between resamples."""
    gain_both_high: float | None
    """Upper end of that interval."""
    p_value: float | None
    """Two-sided exact McNemar test of `gain`, 0 to 1, not corrected for the number of comparisons; over several seeds
    that of the t-test over images and seeds. None for a mean, and where that interval is None."""
    p_holm: float | None
    """`p_value` after Holm's correction for all rows of this attack that have one. None for a mean."""


class MeanRow(TransferRow):
    """A row `(mean)` of transfer.csv beside the accuracy that the surrogate kept."""

    clean_accuracy: float | None
    """As in SurrogateRow."""


class ContrastRow(TypedDict):
    """One row of contrasts.csv: how much better one surrogate transfers than another, of which a control is one."""

    surrogate: str
    """The surrogate whose gain is measured: an aligned one, or the aligned ensemble."""
    baseline: str
    """The surrogate that it is compared with."""
    attack: str
    """The attack, by its name in the experiment file."""
    target: str
    """The attacked model; or `(mean)`, the mean over all targets that both have."""
    n: int
    """Number of test images that count, as in TransferRow."""
    seeds: int
    """Number of seeds that the row stands for."""
    gain: float | None
    """Rate of `surrogate` minus rate of `baseline` on the same images, points; of targeted attacks, targeted rates."""
    gain_low: float | None
    """Lower end of the interval of `gain`, as in TransferRow."""
    gain_high: float | None
    """Upper end of the interval of `gain`."""
    gain_spread: float | None
    """Standard deviation of `gain` between the seeds, as in TransferRow."""
    gain_both_low: float | None
    """Lower end of the interval of `gain` over images and seeds, as in TransferRow."""
    gain_both_high: float | None
    """Upper end of that interval."""
    p_value: float | None
    """Test of `gain`, as in TransferRow."""
    p_holm: float | None
    """`p_value` after Holm's correction, as in TransferRow."""


class SurrogateRow(TypedDict):
    """One surrogate and attack of surrogates.csv, or, with the attack `(all)`, what holds over all attacks together."""

    surrogate: str
    """The surrogate."""
    attack: str
    """An attack that was crafted on it, or `(all)`."""
    clean_accuracy: float | None
    """Share of all clean test images that the surrogate classifies correctly, percent."""
    clean_accuracy_low: float | None
    """Lower end of the Wilson interval of `clean_accuracy`."""
    clean_accuracy_high: float | None
    """Upper end of the Wilson interval of `clean_accuracy`. Over several seeds, the limits of the intervals in this
    table are the means of each seed's."""
    clean_spread: float | None
    """Standard deviation of `clean_accuracy` between the seeds, points. None where there is one seed."""
    clean_change: float | None
    """`clean_accuracy` minus that of the original source, points. None for that source itself."""
    clean_change_low: float | None
    """Lower end of the paired interval of `clean_change` over images, as in RobustnessRow."""
    clean_change_high: float | None
    """Upper end of the paired interval of `clean_change`."""
    clean_change_both_low: float | None
    """Lower end of the interval of `clean_change` over images and seeds; None where there is one seed."""
    clean_change_both_high: float | None
    """Upper end of the interval of `clean_change` over images and seeds."""
    witness_agreement: float | None
    """Share of clean test images on which surrogate and witness predict the same class, percent; the mean over several
    witnesses."""
    agreement_change: float | None
    """`witness_agreement` minus the same of the original source with the same witnesses, points. None for that source
    itself."""
    loss_before: float | None
    """Alignment loss to its witnesses before the first step, on training images as they are. None without witnesses."""
    loss_after: float | None
    """The same with the weights that were kept."""
    attacked_accuracy: float | None
    """Share of all test images that the surrogate itself still classifies correctly under `attack`, percent."""
    whitebox_rate: float | None
    """Of the test images that the surrogate classifies correctly when clean, the share that it misclassifies under
    `attack`, percent. None if there is no such image."""
    whitebox_targeted_rate: float | None
    """For targeted attacks: of the test images that the surrogate classifies correctly when clean, the share that it
    takes for the class that they are led to, percent. None for attacks that lead away from the label."""
    mean_l2: float | None
    """Mean l2 norm of the perturbations, in pixel fractions (1 is the step from black to white in one channel)."""
    mean_ssim: float | None
    """Mean structural similarity of the adversarial images to the clean ones (Wang et al. 2004): 1 where equal."""
    robust_accuracy: float | None
    """Share of all test images that the surrogate classifies correctly when clean and under every attack, percent: an
    upper bound on its true robustness. In the row `(all)` alone."""
    witnesses: str
    """The witnesses that the surrogate was aligned to; of a control, those that it is made of. Separated by blanks."""
    refinement: str
    """How it was made: the name of a refinement, or "" where it is used as it is."""
    steps: int | None
    """Updates of its weights. None where nothing was made, here and in the three columns that follow."""
    images_seen: int | None
    """Training images of all steps together, each as often as it was seen."""
    forward_passes: int | None
    """Forward passes of images through the source and its teachers."""
    backward_passes: int | None
    """Backward passes of images through the source."""


class SeedRow(TypedDict):
    """One seed of a surrogate in seeds.csv, under one attack and for one target or mean; empty where there is one."""

    surrogate: str
    """The surrogate, as in TransferRow."""
    seed: int
    """The seed of its fine-tune and of the attack."""
    attack: str
    """The attack."""
    target: str
    """The attacked model or mean, as in TransferRow."""
    n: int
    """Number of test images that count, as in TransferRow."""
    rate: float | None
    """Transfer rate, as in TransferRow."""
    targeted_rate: float | None
    """Targeted rate, as in TransferRow."""
    gain: float | None
    """Gain over the surrogate's original source under the same seed."""
    clean_accuracy: float | None
    """Clean accuracy, as in SurrogateRow."""


class TimeRow(TypedDict):
    """One row of times.csv: how long crafting took on one kind of worker, or how long a surrogate took to be made.

    Unlike the other tables, it is measured.
    """

    surrogate: str
    """The surrogate."""
    attack: str
    """The attack that was crafted on it, or `(fine-tune)`."""
    worker: str
    """The kind of worker: the GPU's name, or "cpu" with its number of threads; "" for a fine-tune."""
    gradients: int | None
    """Gradients per image, as in TransferRow; None for a fine-tune, whose passes are in SurrogateRow."""
    images: int
    """The number of images that such workers crafted; of a fine-tune, the images that it saw."""
    seconds: float
    """The sum of the workers' times; starting them and loading networks is left out. Of a fine-tune, the time from its
    start to its end, with starting its workers; of one that was interrupted, since it was resumed."""
    images_per_second: float
    """`images` over `seconds`: the rate of one worker; of a fine-tune, that of all its workers together."""


COLUMNS: dict[str, tuple[str, ...]] = {
    "transfer": tuple(TransferRow.__annotations__),
    "contrasts": tuple(ContrastRow.__annotations__),
    "surrogates": tuple(SurrogateRow.__annotations__),
    "robustness": tuple(RobustnessRow.__annotations__),
    "seeds": tuple(SeedRow.__annotations__),
    "times": tuple(TimeRow.__annotations__),
    "reasons": tuple(ReasonRow.__annotations__),
    "correlations": tuple(CorrelationRow.__annotations__),
    "soft_labels": tuple(SoftLabelRow.__annotations__),
}
"""The columns of each table, in the order of the CSV file."""
