"""What the tables show of each surrogate, in words that say no more than the intervals bear."""

from collections.abc import Mapping, Sequence

from pipelines.experiment.surrogates import is_control
from pipelines.report.means import gain_of
from pipelines.report.rounding import signed
from pipelines.report.rows import ContrastRow, MeanRow, SurrogateRow
from pipelines.report.tabled import Report

_NOTES = (
    "Rates and accuracies are in percent, gains in percentage points. A rate is over the test images that the original "
    "source and the target both classify correctly when clean: the same images for every attack and every surrogate of "
    "that source.",
    "p_value is not corrected for the number of comparisons; p_holm is, for all rows of an attack that have one.",
    "targeted_rate is the share of the same images that the target takes for the class that a targeted attack leads "
    "to; it is blank for other attacks. Gains and contrasts of targeted attacks are differences of that rate, where "
    "rate counts every wrong class.",
    "mean_ssim is the structural similarity of attacked and clean images.",
    "robust_accuracy is the share still right under every attack of this experiment: an upper bound on true "
    "robustness.",
)
_ONE_SEED = (
    "Intervals (95 %) are over images, not over training seeds: another run of the same training would move the "
    "figures by more than they say."
)
_SEVERAL_SEEDS = (
    "Figures are means over {seeds} seeds, each with its own fine-tunes and attacks. Intervals (95 %) are over images, "
    "for these very seeds; gain_both is the interval over other images and other seeds, and the sentences above go by "
    "it. A spread is the standard deviation between the seeds."
)
_BROKEN_BY = -2.0
"""Points of clean accuracy: a control that lost more than that, beyond doubt, is no longer like the source."""


def notes(report: Report) -> list[str]:
    """What a reader has to know of the tables, a paragraph each."""
    seeds = max(row["seeds"] for row in report.transfer)
    return [_NOTES[0], _SEVERAL_SEEDS.format(seeds=seeds) if seeds > 1 else _ONE_SEED, *_NOTES[1:]]


def verdicts(report: Report) -> list[str]:
    """Says of each surrogate and attack whether it transfers better than the source, and what that is worth.

    By the mean over all targets: against the source; against the controls, beside which alone an effect counts, and
    against the other surrogates of contrasts.csv; at what cost in clean accuracy; and at what budget. One is called
    better or worse than another only where the 95 % interval of the difference excludes zero: over several seeds, that
    over images and seeds. Surrogates without a gain, such as the source itself, are left out; of images that were made
    elsewhere and are compared with nothing, their rate is said.
    """
    contrasts: dict[tuple[str, str], list[ContrastRow]] = {}
    for row in report.contrasts:
        if row["target"] == "(mean)":
            contrasts.setdefault((row["surrogate"], row["attack"]), []).append(row)
    about = {row["surrogate"]: row for row in report.surrogates}
    return [
        _sentence(report, row, contrasts.get((row["surrogate"], row["attack"]), []), about)
        if row["gain"] is not None
        else _alone(row)
        for row in report.means()
        if row["gain"] is not None or (report.is_made_elsewhere(row["surrogate"]) and row["rate"] is not None)
    ]


def broken_controls(surrogates: Sequence[SurrogateRow]) -> dict[str, str]:
    """The controls `label_only` that lost clean accuracy beyond doubt, with what has to be said of each.

    Such a control differs from the source in more than further training, so that to be better than it shows little.
    """
    found = {}
    for row in surrogates:
        name = row["surrogate"]
        if name != "label_only" and not name.startswith("label_only-"):
            continue
        change = clean_change_of(row)
        if change is not None and change[2] < 0 and change[0] <= _BROKEN_BY:
            found[name] = f"{name} lost {-change[0]:.1f} points of clean accuracy and is a broken control"
    return found


def clean_change_of(row: SurrogateRow) -> tuple[float, float, float] | None:
    """The change of clean accuracy, with the interval that decides, as `gain_of` has it."""
    value, low, high = row["clean_change"], row["clean_change_both_low"], row["clean_change_both_high"]
    if low is None or high is None:
        low, high = row["clean_change_low"], row["clean_change_high"]
    return None if value is None or low is None or high is None else (value, low, high)


def _sentence(report: Report, row: MeanRow, contrasts: Sequence[ContrastRow], about: Mapping[str, SurrogateRow]) -> str:
    own, several = about.get(row["surrogate"]), row["seeds"] > 1
    of_another = " under the attack that it is compared with" if report.is_made_elsewhere(row["surrogate"]) else ""
    parts = [f"{compared(row, 'transfers ', 'shows ')} the source{of_another}: {said_gain(row)}"]
    parts += _beside_others(contrasts, about, broken_controls(list(about.values())))
    change = None if own is None else clean_change_of(own)
    if change is not None:
        parts.append(f"clean accuracy {_interval(*change)}")
    if own is not None and own["forward_passes"] is not None and own["backward_passes"] is not None:
        each = f" for each of {row['seeds']} seeds" if several else ""
        parts.append(f"made in {own['forward_passes'] + own['backward_passes']:,} passes{each}")
    elif several:
        parts.append(f"over {row['seeds']} seeds")
    return f"{row['surrogate']} under {row['attack']}{of_targeted(row)}: " + "; ".join(parts)


def _alone(row: MeanRow) -> str:
    """What there is to say of images that were made elsewhere, where nothing says what they are compared with."""
    return (
        f"{row['surrogate']} under {row['attack']}: transfers at {rate_with_interval(row)}; `compare_with` in "
        f"attacks.{row['attack']} names an attack of this experiment, and gives the gain over the source under it"
    )


def rate_with_interval(row: MeanRow) -> str:
    """What an attack is for, in percent, with its interval: the targeted rate of a targeted attack, else the rate."""
    if row["targeted_rate"] is not None:
        return f"{row['targeted_rate']:.1f} % ({row['targeted_low']:.1f} to {row['targeted_high']:.1f}), targeted"
    return f"{row['rate']:.1f} % ({row['rate_low']:.1f} to {row['rate_high']:.1f})"


def of_targeted(row: MeanRow) -> str:
    """What stands behind the name of a targeted attack, whose gain is one of the targeted rate."""
    return "" if row["targeted_rate"] is None else " (targeted rate)"


def _beside_others(
    contrasts: Sequence[ContrastRow], about: Mapping[str, SurrogateRow], broken: Mapping[str, str]
) -> list[str]:
    """What comes of comparing a surrogate with the controls, and with other surrogates."""
    found = [
        f"{compared(row, '', '')} {row['baseline']}{_of_another_witness(row, about)}: {said_gain(row)}"
        for row in contrasts
        if row["gain"] is not None
    ]
    return found + [broken[row["baseline"]] for row in contrasts if row["baseline"] in broken]


def _of_another_witness(row: ContrastRow, about: Mapping[str, SurrogateRow]) -> str:
    """That a control was made from another witness than the surrogate that is compared with it."""
    own, other = (
        about[name]["witnesses"].split() if name in about else [] for name in (row["surrogate"], row["baseline"])
    )
    if not is_control(row["baseline"]) or not own or set(other) <= set(own):
        return ""
    return f" (of {' and '.join(other)}, and not of {' and '.join(own)})"


def said_gain(row: MeanRow | ContrastRow) -> str:
    """A gain in words, with the interval that decides whether there is a difference."""
    gain = gain_of(row)
    return f"{row['gain']:+.1f} points, without an interval" if gain is None else _interval(*gain)


def compared(row: MeanRow | ContrastRow, does: str, shows: str) -> str:
    """How a surrogate compares, with the verbs that stand before a difference, and before none that is detectable."""
    gain = gain_of(row)
    if gain is None:
        return f"{shows}a difference without an interval from"
    _, low, high = gain
    if low > 0:
        return f"{does}better than"
    return f"{does}worse than" if high < 0 else f"{shows}no detectable difference from"


def _interval(value: float, low: float, high: float) -> str:
    """A difference with its interval; an end has more digits where rounding would hide that the interval excludes 0."""
    excludes_zero = low > 0 or high < 0
    ends = [f"{end:+.1g}" if excludes_zero and abs(end) < 0.05 else signed(end) for end in (low, high)]
    return f"{signed(value)} points ({' to '.join(ends)})"
