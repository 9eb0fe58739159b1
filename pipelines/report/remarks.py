"""What has to be known of an experiment before its tables are read: what is not there, and what is suspicious."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from align_core.attacks import AttackConfig, ForeignConfig, MadeElsewhere
from pipelines.report.repeats import repeats_of
from pipelines.report.rows import TransferRow
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.effects import without_effect
from pipelines.stages.first_look import compared, sample_of
from pipelines.stages.notes import not_there

if TYPE_CHECKING:
    from pipelines.report.outcomes import Outcomes


def remarks_on(blueprint: Blueprint, outcomes: "Outcomes", transfer: Sequence[TransferRow]) -> list[str]:
    """Every remark, a sentence each."""
    trained = _no_better_than_chance(blueprint, outcomes)
    return [
        *not_there(blueprint),
        *_own_targets(blueprint),
        *_weak_targets(blueprint, outcomes),
        *_blank_means(transfer),
        *_counted_once(blueprint),
        *blueprint.inspected.notes,
        *trained,
        *without_effect(blueprint),
        *_unperturbed(blueprint, outcomes),
        *uneven(outcomes),
    ]


def _own_targets(blueprint: Blueprint) -> list[str]:
    """What has to be known of the means of a matrix."""
    matrix = blueprint.experiment.matrix
    return matrix and [
        f"Each of {', '.join(matrix)} is a source, and a target of the others. A mean of a surrogate is over the "
        "models that it neither consists of nor was made from, so that means of surrogates of different sources are "
        "over different targets; gains and contrasts compare both surrogates on the same ones."
    ]


def _weak_targets(blueprint: Blueprint, outcomes: "Outcomes") -> list[str]:
    """Targets that get fewer than half of those images right that a source does, on which alone rates are counted."""
    targets, found = blueprint.experiment.targets, []
    as_much = ", and a mean counts it as much as any other target" if targets[1:] else ""
    for source in dict.fromkeys(surrogate.source for surrogate in blueprint.planned):
        right = {own: outcomes.right(own) for own in (source, *targets) if own in outcomes.prediction}
        if source not in right:
            continue
        if not right[source].any():
            found.append(f"{source} classifies no test image correctly, so that none counts for any of its surrogates.")
            continue
        both = {target: int((right[source] & right[target]).sum()) for target in targets if target in right}
        of = f"of the {right[source].sum()} test images correctly that {source} does"
        if none := [target for target, count in both.items() if not count]:
            verb = "classifies" if len(none) == 1 else "classify"
            found.append(f"{', '.join(none)} {verb} none {of}. There is no rate, and the means are over other targets.")
        found += [
            f"{target} classifies only {count} {of}. Its rates are over these alone{as_much}."
            for target, count in both.items()
            if 0 < count < right[source].sum() / 2
        ]
    return found


def _no_better_than_chance(blueprint: Blueprint, outcomes: "Outcomes") -> list[str]:
    """Models that were trained here, and have learnt nothing. Of the others, the inspection says so."""
    classes, rows = blueprint.experiment.data.classes_count, sample_of(outcomes.labels)
    found = []
    for name in blueprint.trained_for_run:
        if name in outcomes.prediction:
            look = compared(outcomes.prediction[name][rows], outcomes.labels[rows], classes)
            found.append(look.warning(name, trained_here=True))
    return [warning for warning in found if warning]


def _blank_means(transfer: Sequence[TransferRow]) -> list[str]:
    blank = [row for row in transfer if row["target"].startswith("(mean") and row["rate_all"] is None]
    return [
        f"The {row['target']} of {row['surrogate']} under {row['attack']} is blank, because not all of its targets and "
        "seeds are there for this surrogate and its source: a mean over others could not be compared."
        for row in blank
    ]


def _counted_once(blueprint: Blueprint) -> list[str]:
    """Surrogates with the same weights, where it is asked what goes with the gain across surrogates."""
    repeats = repeats_of(blueprint) if blueprint.experiment.reasons else {}
    return [
        f"{' and '.join([first, *(own for own in repeats if repeats[own] == first)])} are the same network with the "
        "same seed, and count as one surrogate in the rank correlations."
        for first in dict.fromkeys(repeats.values())
    ]


def _unperturbed(blueprint: Blueprint, outcomes: "Outcomes") -> list[str]:
    """Images that came out of an attack as they went in, and what is known of the reason."""
    attacks = blueprint.experiment.all_attacks
    found = {pair: int((l2 == 0).sum()) for pair, l2 in outcomes.l2.items()}
    return [
        f"{count} of {len(outcomes.labels)} images crafted on {surrogate} under {attack} are unperturbed: "
        f"{_why_unperturbed(attacks[attack])}"
        for (surrogate, attack), count in found.items()
        if count
    ]


def _why_unperturbed(attack: AttackConfig | ForeignConfig | MadeElsewhere) -> str:
    if isinstance(attack, MadeElsewhere):
        return "they were made elsewhere, and came as the test images are."
    if isinstance(attack, AttackConfig):  # it moves along the gradient, whatever the surrogate predicts
        return "the surrogate's gradient was zero there, or led out of the pixel range."
    if attack.kind == "autoattack":
        return (
            "they withstood the attack, or were misclassified before it, and AutoAttack returns such images as they "
            "were. In a transfer rate each of them counts as one that the target withstands, so that rates under it "
            "are lower than those of attacks that perturb every image."
        )
    return (
        f"{attack.method} returned them as they were, or changed them by less than the rounding to 8 bits keeps. Why, "
        "its own code decides; some attacks leave out images that are misclassified already, or that withstand them."
    )


def uneven(outcomes: "Outcomes") -> list[str]:
    """Tables of adversarial images whose chunks were crafted in passes of several sizes, a sentence each."""
    mixed = {pair: " and ".join(f"{size:,}" for size in sizes) for pair, sizes in outcomes.passes.items() if sizes[1:]}
    return [
        f"adversarial/{surrogate}/{attack}: its chunks were crafted in passes of {sizes} images, as happens where "
        "memory is short, or where a GPU begins and a CPU goes on. Single pixels can differ from those of one size; a "
        "`compute.pass` in the experiment file makes all chunks alike."
        for (surrogate, attack), sizes in mixed.items()
    ]
