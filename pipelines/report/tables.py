"""Computes the rows of the report's tables from the outcomes of an experiment.

The statistics are those of `align_core.transfer`. What each column means is said in `rows.py`.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import chain
from typing import Literal

import numpy as np
import numpy.typing as npt

from align_core.transfer import (
    NO_GAIN,
    NO_RATE,
    Flags,
    Gain,
    Interval,
    OnTargets,
    mean_gain,
    mean_interval,
    paired_gain,
    relation,
    resampled_counts,
    resampled_means,
    wilson,
)
from pipelines.experiment.names import RELATIONS
from pipelines.experiment.surrogates import Surrogate, attacks_on, contrasts_of
from pipelines.report.fine_tune_times import fine_tune_times
from pipelines.report.outcomes import Outcomes
from pipelines.report.p_values import corrected, p_value
from pipelines.report.rounding import figure
from pipelines.report.rows import ContrastRow, SeedRow, SurrogateRow, TimeRow, TransferRow
from pipelines.report.surrogate_rows import SurrogateRows
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.cells import SELF
from pipelines.stages.times import CraftingTimes

Draws = npt.NDArray[np.float64]
"""A rate or a gain in each resample of the images, [R]."""
Outcome = Literal["wrong", "hit"]
"""What is counted: images that a target gets wrong, or that it takes for the class that a targeted attack led to."""


def target_relation(blueprint: Blueprint, source: str, target: str) -> str:
    """How the architecture of a target is related to that of a source: one of RELATIONS. Both are names of models."""
    about = {}
    for name in (source, target):
        config = blueprint.networks[name].config
        about[name] = {"architecture": config.structure, "family": config.family or name}
    return relation(about[target], about[source])


class TableMaker:
    """Computes the tables of one experiment.

    Args:
        blueprint: the experiment.
        outcomes: all of its outcomes.

    The test images are resampled once, with the experiment's seed, so that every mean refers to the same draws.
    """

    def __init__(self, blueprint: Blueprint, outcomes: Outcomes) -> None:
        self.blueprint, self.outcomes = blueprint, outcomes
        self.attacks, self.targets = list(blueprint.experiment.attacks), blueprint.experiment.targets
        known = outcomes.prediction.keys()
        self._made = blueprint.experiment.made_elsewhere
        sources = {surrogate.source for surrogate in blueprint.planned}
        self._relations = {s: {t: target_relation(blueprint, s, t) for t in self.targets} for s in sources}
        right = {name: outcomes.right(name) for name in {*sources, *self.targets} & known}
        # By source and target, the test images that both classify correctly when clean.
        self._counted = {(s, t): right[s] & right[t] for s in sources for t in self.targets if {s, t} <= known}

    def transfer(self) -> list[TransferRow]:
        """The rows of transfer.csv: for each surrogate and attack the targets, then the means over groups of them."""
        rows = []
        for surrogate, attack in self._pairs():
            there = [t for t in self.targets if self._is_there(surrogate.name, attack, t)]
            rows += [self._target_row(surrogate, attack, target) for target in there]
            if there:
                kinds = [kind for kind in self._groups(surrogate) if not kind.startswith("@")]
                rows += [self._mean_row(surrogate, attack, kind) for kind in kinds]
        return corrected(rows)

    def _pairs(self) -> list[tuple[Surrogate, str]]:
        """Every surrogate and attack, and at the end the images that were made elsewhere."""
        owners = (*self.blueprint.surrogates, *self.blueprint.external)
        return [(own, attack) for own in owners for attack in attacks_on(self.blueprint.experiment, own)]

    def _baseline(self, surrogate: Surrogate, attack: str) -> tuple[str, str] | None:
        """The surrogate and the attack to which a gain refers; None of a source, and where nobody asked for a gain."""
        if attack in self._made:
            attack = self._made[attack].compare_with or ""
        return None if surrogate.name == surrogate.baseline or not attack else (surrogate.baseline, attack)

    def contrasts(self) -> list[ContrastRow]:
        """The rows of contrasts.csv; which pairs there are is decided by `contrasts_of`.

        Surrogates of two sources are compared on the images that count for both, and in a matrix on the targets that
        both have.
        """
        rows = []
        for name, baseline in contrasts_of(self.blueprint.planned, self.blueprint.experiment.contrasts):
            surrogate, other = self.blueprint.by_name[name], self.blueprint.by_name[baseline]
            both = surrogate.unseen(other.unseen(self.targets))
            for attack in self.attacks:
                there = [t for t in both if all(self._is_there(s, attack, t) for s in (name, baseline))]
                counted = {t: self._counted[surrogate.source, t] & self._counted[other.source, t] for t in there}
                for target in there:
                    own = counted[target]
                    outcome = self._success_of(attack, attack)
                    sides = [self._flags(outcome, s, attack, [target])[0][own] for s in (name, baseline)]
                    gain = paired_gain(*sides)
                    rows.append(_contrast_row(name, baseline, attack, target, int(own.sum()), gain))
                if there and len(there) == len(both):  # a mean over other targets could not be compared with any other
                    n = int(np.logical_or.reduce(list(counted.values())).sum())
                    gain = self._mean_gain(surrogate, other, attack, "(mean)", counted)
                    rows.append(_contrast_row(name, baseline, attack, "(mean)", n, gain))
        return corrected(rows)

    def rate_draws(self, outcome: Outcome, surrogate: str, attack: str, target: str) -> Draws | None:
        """A rate in each resample, float64 [R]: of a mean, or of a target where the experiment has several seeds."""
        return self._resampled.get((outcome, surrogate, attack, _kind(target)))

    def gain_draws(self, surrogate: str, baseline: str, attack: str, target: str) -> Draws:
        """The gain of one surrogate over another in each resample, float64 [R], for a target or a mean over targets.

        Surrogates of two sources are compared on the images that count for both, and in a matrix on the targets that
        both have.
        """
        one, other = self.blueprint.by_name[surrogate], self.blueprint.by_name[baseline]
        kind, groups = _kind(target), self._groups(one)
        compared = (self._made[attack].compare_with or attack) if attack in self._made else attack
        outcome = self._success_of(attack, compared)
        if one.source == other.source and groups[kind] == self._groups(other).get(kind):
            draws = self._resampled[outcome, surrogate, attack, kind]
            return draws - self._resampled[outcome, baseline, compared, kind]
        targets = other.unseen(groups[kind])
        eligible = [self._counted[one.source, own] & self._counted[other.source, own] for own in targets]
        sides = [self._flags(outcome, *pair, targets) for pair in ((surrogate, attack), (baseline, compared))]
        outcomes = [OnTargets(eligible, own, [range(len(targets))]) for own in sides]
        counts = resampled_counts(len(self.outcomes.labels), self.blueprint.experiment.seed)
        (draws,), (baseline_draws,) = resampled_means(outcomes, counts)
        return draws - baseline_draws

    def surrogates(self) -> list[SurrogateRow]:
        """The rows of surrogates.csv: a row per attack and one over all attacks, for each surrogate."""
        return SurrogateRows(self.blueprint, self.outcomes).rows()

    def seeds(self) -> list[SeedRow]:
        """The rows of seeds.csv: none, because every surrogate has one seed here."""
        return []

    def times(self) -> list[TimeRow]:
        """The rows of times.csv: what each surrogate was measured to take to be made, and each attack on it."""
        known = CraftingTimes(self.blueprint.store)
        return fine_tune_times(self.blueprint) + [
            {
                "surrogate": surrogate.name,
                "attack": attack,
                "worker": spent.worker,
                "gradients": self._cost(surrogate, attack),
                "images": spent.images,
                "seconds": round(spent.seconds, 3),
                "images_per_second": round(spent.images / spent.seconds, 3),
            }
            for surrogate in self.blueprint.surrogates
            for attack in self.attacks
            if (surrogate.name, attack, SELF) in self.outcomes.wrong
            for spent in known.of(self.blueprint.adversarial(surrogate, attack).fingerprint)
        ]

    def _is_there(self, surrogate: str, attack: str, target: str) -> bool:
        """Whether a cell was finished, and the clean predictions that say which of its images count."""
        source = self.blueprint.by_name[surrogate].source
        return (surrogate, attack, target) in self.outcomes.wrong and (source, target) in self._counted

    def _groups(self, surrogate: Surrogate) -> dict[str, list[str]]:
        """The groups of targets that have a mean: "" is all, then those by relation, then the experiment's own.

        In a matrix they hold the surrogate's own targets.
        """
        relations = self._relations[surrogate.source]
        groups = {"": list(self.targets)}
        groups |= {kind: [t for t in self.targets if relations[t] == kind] for kind in RELATIONS}
        groups |= self.blueprint.experiment.groups
        if self.blueprint.experiment.seeds:  # the intervals of single targets, too, are over resamples
            groups |= {f"@{target}": [target] for target in self.targets}
        return {kind: own for kind, group in groups.items() if (own := surrogate.unseen(group))}

    @cached_property
    def _resampled(self) -> dict[tuple[Outcome, str, str, str], Draws]:
        """(outcome, surrogate, attack, group of targets) -> its mean rate in each resample. One pass over all of them.

        A group is left out where one of its cells is not there.
        """
        keys: list[list[tuple[Outcome, str, str, str]]] = []
        outcomes: list[OnTargets] = []
        for surrogate, attack in self._pairs():
            name, groups = surrogate.name, self._groups(surrogate)
            there = [target for target in self.targets if self._is_there(name, attack, target)]
            whole = {kind: [there.index(t) for t in own] for kind, own in groups.items() if set(own) <= set(there)}
            if not whole:
                continue
            eligible = [self._counted[surrogate.source, target] for target in there]
            flags: dict[Outcome, list[Flags]] = {"wrong": self._flags("wrong", name, attack, there)}
            if self._is_targeted(attack):
                flags["hit"] = self._flags("hit", name, attack, there)
            keys += [[(outcome, name, attack, kind) for kind in whole] for outcome in flags]
            outcomes += [OnTargets(eligible, own, list(whole.values())) for own in flags.values()]
        counts = resampled_counts(len(self.outcomes.labels), self.blueprint.experiment.seed)
        means = resampled_means(outcomes, counts)
        return dict(zip(chain.from_iterable(keys), chain.from_iterable(means), strict=True))

    def _flags(self, outcome: Outcome, surrogate: str, attack: str, targets: Sequence[str]) -> list[Flags]:
        found = self.outcomes.wrong if outcome == "wrong" else self.outcomes.hit
        return [found[surrogate, attack, target] for target in targets]

    def _is_targeted(self, attack: str) -> bool:
        return self.blueprint.experiment.all_attacks[attack].is_targeted

    def _success_of(self, attack: str, compared: str) -> Outcome:
        """What a gain of one attack over another counts; mostly they are one, on two surrogates."""
        return "hit" if self._is_targeted(attack) and self._is_targeted(compared) else "wrong"

    def _images_in_any(self, source: str, targets: Sequence[str]) -> int:
        """Number of images that count for any of these targets."""
        return int(np.logical_or.reduce([self._counted[source, target] for target in targets]).sum())

    def _target_row(self, surrogate: Surrogate, attack: str, target: str) -> TransferRow:
        counted, kind = self._counted[surrogate.source, target], self._relations[surrogate.source][target]
        wrong = self.outcomes.wrong[surrogate.name, attack, target]
        baseline = self._baseline(surrogate, attack)
        n = int(counted.sum())
        rate = wilson(int(wrong[counted].sum()), n)
        hit = self.outcomes.hit.get((surrogate.name, attack, target))
        targeted = NO_RATE if hit is None else wilson(int(hit[counted].sum()), n)
        gain = NO_GAIN
        if baseline is not None and (*baseline, target) in self.outcomes.wrong:
            outcome = self._success_of(attack, baseline[1])
            sides = [self._flags(outcome, *pair, [target])[0] for pair in ((surrogate.name, attack), baseline)]
            gain = paired_gain(*(own[counted] for own in sides))
        cost, rate_all = self._cost(surrogate, attack), 100 * float(wrong.mean())
        return _transfer_row(surrogate.name, attack, target, kind, n, cost, rate, rate_all, targeted, gain)

    def _mean_row(self, surrogate: Surrogate, attack: str, kind: str) -> TransferRow:
        """The mean over a group of targets: those of a relation, of one of the experiment's groups, or all for "".

        It is blank unless all of them are there, for the surrogate and for its baseline: means over other targets could
        not be compared.
        """
        source, group = surrogate.source, self._groups(surrogate)[kind]
        name, relation = f"(mean {kind})" if kind else "(mean)", kind if kind in RELATIONS else ""
        cost, baseline = self._cost(surrogate, attack), self._baseline(surrogate, attack)
        needed = [(surrogate.name, attack), *([] if baseline is None else [baseline])]
        if not all(self._is_there(*pair, t) for pair in needed for t in group):
            return _transfer_row(surrogate.name, attack, name, relation, 0, cost, NO_RATE, None, NO_RATE, NO_GAIN)
        counted = {t: self._counted[source, t] for t in group}
        wrong = self._flags("wrong", surrogate.name, attack, group)
        eligible = list(counted.values())
        rate = mean_interval(eligible, wrong, self._resampled["wrong", surrogate.name, attack, kind])
        targeted, hits = NO_RATE, self._resampled.get(("hit", surrogate.name, attack, kind))
        if hits is not None:
            targeted = mean_interval(eligible, self._flags("hit", surrogate.name, attack, group), hits)
        gain = NO_GAIN
        if baseline is not None:
            gain = self._mean_gain(surrogate, self.blueprint.by_name[baseline[0]], attack, name, counted, baseline[1])
        rate_all = 100 * float(np.mean([wrong_N.mean() for wrong_N in wrong]))
        n = self._images_in_any(source, group)
        return _transfer_row(surrogate.name, attack, name, relation, n, cost, rate, rate_all, targeted, gain)

    def _cost(self, surrogate: Surrogate, attack: str) -> int | None:
        """Forward and backward passes per image: an ensemble needs one through each network that is seen at once.

        Of images that were made elsewhere they are not known.
        """
        if attack in self._made:
            return None
        gradients = self.blueprint.experiment.attacks[attack].gradients
        if gradients is None:  # its code is not ours, and was counted
            gradients = round(self.outcomes.gradients[surrogate.name, attack])
        return gradients * len(surrogate.seen_at_once)

    def _mean_gain(
        self,
        one: Surrogate,
        other: Surrogate,
        attack: str,
        mean: str,
        counted: Mapping[str, Flags],
        compared: str | None = None,
    ) -> Gain:
        """The mean gain of one surrogate over another over some targets, of which `counted` says which images count.

        `mean` is how these targets are called, such as `(mean)`, and `compared` the attack on the other surrogate,
        where that is another one.
        """
        outcome = self._success_of(attack, compared or attack)
        sides = [(one.name, attack), (other.name, compared or attack)]
        own, others = (self._flags(outcome, *side, list(counted)) for side in sides)
        draws = self.gain_draws(one.name, other.name, attack, mean)
        return mean_gain(list(counted.values()), own, others, draws)


def _kind(target: str) -> str:
    """The group of targets that a row is about: `@` and its name for a single target."""
    return target.strip("()").removeprefix("mean").strip() if target.startswith("(mean") else f"@{target}"


def _transfer_row(
    surrogate: str,
    attack: str,
    target: str,
    kind: str,
    n: int,
    gradients: int | None,
    rate: Interval,
    rate_all: float | None,
    targeted: Interval,
    gain: Gain,
) -> TransferRow:
    return {
        "surrogate": surrogate,
        "attack": attack,
        "target": target,
        "relation": kind,
        "n": n,
        "gradients": gradients,
        "seeds": 1,
        "rate": figure(rate.value),
        "rate_low": figure(rate.low),
        "rate_high": figure(rate.high),
        "rate_spread": None,
        "rate_all": figure(rate_all),
        "targeted_rate": figure(targeted.value),
        "targeted_low": figure(targeted.low),
        "targeted_high": figure(targeted.high),
        "gain": figure(gain.value),
        "gain_low": figure(gain.low),
        "gain_high": figure(gain.high),
        "gain_spread": None,
        "gain_both_low": None,
        "gain_both_high": None,
        "p_value": p_value(gain.p_value),
        "p_holm": None,
    }


def _contrast_row(surrogate: str, baseline: str, attack: str, target: str, n: int, gain: Gain) -> ContrastRow:
    return {
        "surrogate": surrogate,
        "baseline": baseline,
        "attack": attack,
        "target": target,
        "n": n,
        "seeds": 1,
        "gain": figure(gain.value),
        "gain_low": figure(gain.low),
        "gain_high": figure(gain.high),
        "gain_spread": None,
        "gain_both_low": None,
        "gain_both_high": None,
        "p_value": p_value(gain.p_value),
        "p_holm": None,
    }
