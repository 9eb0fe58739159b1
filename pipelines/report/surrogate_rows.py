"""The rows of surrogates.csv, computed from the outcomes of an experiment."""

from collections.abc import Sequence

import numpy as np

from align_core.transfer import NO_GAIN, Flags, paired_gain, wilson
from pipelines.experiment.surrogates import Surrogate, images_seen_by, is_control, passes_of, series_of
from pipelines.report.outcomes import Outcomes
from pipelines.report.robustness_rows import RobustnessRow
from pipelines.report.rounding import figure
from pipelines.report.rows import SurrogateRow
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.cells import SELF
from pipelines.stages.effects import effect_of, steps_taken


def with_clean_intervals(rows: Sequence[SurrogateRow], robustness: Sequence[RobustnessRow]) -> list[SurrogateRow]:
    """The rows with the intervals of clean accuracy and its change that robustness.csv has, so that both agree.

    For one seed they are the same anyway; over several, those of the rows are means of each seed's limits.
    """
    clean = {row["surrogate"]: row for row in robustness if row["kind"] == "clean"}
    found: list[SurrogateRow] = []
    for row in rows:
        own = clean[row["surrogate"]]
        found.append(
            {
                **row,
                "clean_accuracy_low": own["accuracy_low"],
                "clean_accuracy_high": own["accuracy_high"],
                "clean_change_low": own["change_low"],
                "clean_change_high": own["change_high"],
                "clean_change_both_low": own["change_both_low"],
                "clean_change_both_high": own["change_both_high"],
            }
        )
    return found


class SurrogateRows:
    """Computes what the tables say of the surrogates themselves.

    Args:
        blueprint: the experiment.
        outcomes: all of its outcomes.
    """

    def __init__(self, blueprint: Blueprint, outcomes: Outcomes) -> None:
        self.blueprint, self.outcomes, self.attacks = blueprint, outcomes, list(blueprint.experiment.attacks)

    def rows(self) -> list[SurrogateRow]:
        """A row per attack and one over all attacks, for each surrogate whose clean predictions are there."""
        measured = [
            own for own in self.blueprint.surrogates if self.blueprint.clean_name(own) in self.outcomes.prediction
        ]
        return [row for surrogate in measured for row in self._surrogate_rows(surrogate)]

    def _surrogate_rows(self, surrogate: Surrogate) -> list[SurrogateRow]:
        outcomes, clean_name = self.outcomes, self.blueprint.clean_name(surrogate)
        right = outcomes.right(clean_name)
        over_all = self._over_all_attacks(surrogate, clean_name, right)
        rows: list[SurrogateRow] = []
        for attack in self.attacks:
            if (surrogate.name, attack, SELF) not in outcomes.wrong:
                continue
            wrong, hit = outcomes.wrong[surrogate.name, attack, SELF], outcomes.hit.get((surrogate.name, attack, SELF))
            targeted = None if hit is None else wilson(int((hit & right).sum()), int(right.sum())).value
            row: SurrogateRow = {
                **over_all,
                "attack": attack,
                "attacked_accuracy": figure(100 * float((~wrong).mean())),
                "whitebox_rate": figure(wilson(int((wrong & right).sum()), int(right.sum())).value),
                "whitebox_targeted_rate": figure(targeted),
                "mean_l2": figure(float(outcomes.l2[surrogate.name, attack].astype(np.float64).mean())),
                "mean_ssim": figure(float(outcomes.ssim[surrogate.name, attack].astype(np.float64).mean())),
                "robust_accuracy": None,
            }
            rows.append(row)
        return [*rows, over_all]

    def _over_all_attacks(self, surrogate: Surrogate, clean_name: str, right: Flags) -> SurrogateRow:
        """The row with the attack `(all)`; `right` says which clean images the surrogate classifies correctly."""
        outcomes = self.outcomes
        clean = wilson(int(right.sum()), len(outcomes.labels))
        has_no_change = surrogate.name == surrogate.baseline or surrogate.source not in outcomes.prediction
        change = NO_GAIN if has_no_change else paired_gain(right, outcomes.right(surrogate.source))
        witnesses = surrogate.witnesses or tuple(self.blueprint.experiment.witnesses)
        agreement, agreement_change, robust = None, None, None
        align, images = surrogate.align, len(self.blueprint.inspected.manifests["train"])
        effect, steps = effect_of(self.blueprint, surrogate.name), steps_taken(self.blueprint, surrogate.name)
        if witnesses and outcomes.prediction.keys() >= set(witnesses):
            agreement = self._agreement(clean_name, witnesses)
            agreement_change = None if has_no_change else agreement - self._agreement(surrogate.source, witnesses)
        if all((surrogate.name, attack, SELF) in outcomes.wrong for attack in self.attacks):
            robust = 100 * float(outcomes.robust(surrogate.name, clean_name, self.attacks).mean())
        return {
            "surrogate": surrogate.name,
            "attack": "(all)",
            "clean_accuracy": figure(clean.value),
            "clean_accuracy_low": figure(clean.low),
            "clean_accuracy_high": figure(clean.high),
            "clean_spread": None,
            "clean_change": figure(change.value),
            "clean_change_low": figure(change.low),
            "clean_change_high": figure(change.high),
            "clean_change_both_low": None,
            "clean_change_both_high": None,
            "witness_agreement": figure(agreement),
            "agreement_change": figure(agreement_change),
            "loss_before": None if effect is None else figure(effect.before.loss),
            "loss_after": None if effect is None else figure(effect.after.loss),
            "attacked_accuracy": None,
            "whitebox_rate": None,
            "whitebox_targeted_rate": None,
            "mean_l2": None,
            "mean_ssim": None,
            "robust_accuracy": figure(robust),
            "witnesses": " ".join(map(series_of, self._seen_of_witnesses(surrogate))),
            "refinement": surrogate.refine or "",
            "steps": None if align is None else steps or align.steps(images),
            "images_seen": None if align is None else images_seen_by(surrogate, images, steps),
            "forward_passes": None if align is None else passes_of(surrogate, images, steps).forward,
            "backward_passes": None if align is None else passes_of(surrogate, images, steps).backward,
        }

    def _seen_of_witnesses(self, surrogate: Surrogate) -> Sequence[str]:
        """The witnesses that a surrogate was aligned to; of a control those that it is made of."""
        is_control_of = is_control(surrogate.role) and not surrogate.align
        witnesses = self.blueprint.experiment.witnesses
        return [own for own in surrogate.members if own in witnesses] if is_control_of else surrogate.witnesses

    def _agreement(self, name: str, witnesses: Sequence[str]) -> float:
        """Percent of the clean images for which a network and a witness predict the same; the mean over witnesses."""
        known = self.outcomes.prediction
        return 100 * float(np.mean([(known[name] == known[witness]).mean() for witness in witnesses]))
