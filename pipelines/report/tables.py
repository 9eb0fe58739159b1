"""Outcomes -> the rows of transfer.csv, contrasts.csv and surrogates.csv. Rates and gains in percent and points."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from align_core.transfer import (
    NO_GAIN,
    Gain,
    Interval,
    MeanCell,
    mean_over_targets,
    paired_gain,
    relation,
    resampled_counts,
    wilson,
)
from pipelines.experiment.surrogates import Surrogate, contrasts_of
from pipelines.report.outcomes import Outcomes
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.cells import SELF

Row = dict[str, Any]
RELATIONS = ("same_architecture", "same_family", "cross_family")
_GAIN = ("gain", "gain_low", "gain_high", "p_value")
COLUMNS = {
    "transfer": (
        "surrogate", "attack", "target", "relation", "n", "rate", "rate_low", "rate_high", "rate_all", *_GAIN,
    ),
    "contrasts": ("surrogate", "baseline", "attack", "target", "n", *_GAIN),
    "surrogates": (
        "surrogate", "attack", "clean_accuracy", "clean_accuracy_low", "clean_accuracy_high", "clean_change",
        "clean_change_low", "clean_change_high", "witness_agreement", "attacked_accuracy", "whitebox_rate", "mean_l2",
        "robust_accuracy",
    ),
}  # fmt: skip


def target_relation(blueprint: Blueprint, source: str, target: str) -> str:
    """How the target's architecture is related to the source's."""
    about = {}
    for name in (source, target):
        config = blueprint.networks[name].config
        about[name] = {"architecture": config.architecture, "family": config.family or name}
    return relation(about[target], about[source])


class TableMaker:
    """Computes the tables of one experiment; images are resampled once, for all of them."""

    def __init__(self, blueprint: Blueprint, outcomes: Outcomes) -> None:
        self.blueprint, self.outcomes = blueprint, outcomes
        self.attacks, self.targets = list(blueprint.experiment.attacks), blueprint.experiment.targets
        self.counts = resampled_counts(len(outcomes.labels), blueprint.experiment.seed)

    def eligible(self, surrogate: Surrogate, target: str) -> np.ndarray:
        """Images that the surrogate's original source and the target both classify correctly, clean."""
        return self.outcomes.right(surrogate.source) & self.outcomes.right(target)

    def transfer(self) -> list[Row]:
        """A row per surrogate, attack and target, and per group of targets."""
        rows = []
        for surrogate in self.blueprint.surrogates:
            relations = {t: target_relation(self.blueprint, surrogate.source, t) for t in self.targets}
            for attack in self.attacks:
                rows += [self._transfer_row(surrogate, attack, t, relations[t]) for t in self.targets]
                groups = {"(mean)": self.targets}
                for kind in RELATIONS:
                    groups[f"(mean {kind})"] = [t for t in self.targets if relations[t] == kind]
                rows += [self._mean_row(surrogate, attack, name, group) for name, group in groups.items() if group]
        return rows

    def _transfer_row(self, surrogate: Surrogate, attack: str, target: str, kind: str) -> Row:
        eligible = self.eligible(surrogate, target)
        wrong = self.outcomes.wrong[surrogate.name, attack, target]
        baseline = self.outcomes.wrong[surrogate.baseline, attack, target]
        gain = NO_GAIN if surrogate.name == surrogate.baseline else paired_gain(wrong[eligible], baseline[eligible])
        head = {"surrogate": surrogate.name, "attack": attack, "target": target, "relation": kind}
        rate = wilson(int(wrong[eligible].sum()), int(eligible.sum()))
        return head | _rate_columns(int(eligible.sum()), rate, 100 * float(wrong.mean())) | _gain_columns(gain)

    def _mean_cells(
        self, surrogate: Surrogate, baseline: str | None, attack: str, group: Sequence[str]
    ) -> list[MeanCell]:
        wrong = self.outcomes.wrong
        return [
            MeanCell(
                self.eligible(surrogate, target),
                wrong[surrogate.name, attack, target],
                wrong[baseline, attack, target] if baseline else None,
            )
            for target in group
        ]

    def _mean_row(self, surrogate: Surrogate, attack: str, name: str, group: Sequence[str]) -> Row:
        baseline = None if surrogate.name == surrogate.baseline else surrogate.baseline
        cells = self._mean_cells(surrogate, baseline, attack, group)
        rate, gain = mean_over_targets(cells, self.counts)
        n = int(np.logical_or.reduce([cell.eligible for cell in cells]).sum())
        rate_all = 100 * float(np.mean([cell.wrong.mean() for cell in cells]))
        kind = name.strip("()").removeprefix("mean").strip()
        head = {"surrogate": surrogate.name, "attack": attack, "target": name, "relation": kind}
        return head | _rate_columns(n, rate, rate_all) | _gain_columns(gain)

    def contrasts(self) -> list[Row]:
        """Aligned surrogates against the controls, and the aligned ensemble against the plain one."""
        rows = []
        for name, baseline in contrasts_of(self.blueprint.surrogates):
            surrogate = self.blueprint.by_name[name]
            for attack in self.attacks:
                for target in self.targets:
                    eligible = self.eligible(surrogate, target)
                    pair = [self.outcomes.wrong[s, attack, target][eligible] for s in (name, baseline)]
                    rows.append(self._contrast(name, baseline, attack, target, int(eligible.sum()), paired_gain(*pair)))
                cells = self._mean_cells(surrogate, baseline, attack, self.targets)
                _, gain = mean_over_targets(cells, self.counts)
                n = int(np.logical_or.reduce([cell.eligible for cell in cells]).sum())
                rows.append(self._contrast(name, baseline, attack, "(mean)", n, gain))
        return rows

    @staticmethod
    def _contrast(name: str, baseline: str, attack: str, target: str, n: int, gain: Gain) -> Row:
        head = {"surrogate": name, "baseline": baseline, "attack": attack, "target": target, "n": n}
        return head | _gain_columns(gain)

    def surrogates(self) -> list[Row]:
        """A row per surrogate and attack, and one over all attacks: accuracy kept, own robustness, agreement."""
        return [row for surrogate in self.blueprint.surrogates for row in self._surrogate_rows(surrogate)]

    def _surrogate_rows(self, surrogate: Surrogate) -> list[Row]:
        outcomes, n = self.outcomes, len(self.outcomes.labels)
        name = self.blueprint.clean_name(surrogate)
        right = outcomes.right(name)
        clean = wilson(int(right.sum()), n)
        is_source = surrogate.name == surrogate.baseline
        change = NO_GAIN if is_source else paired_gain(right, outcomes.right(surrogate.source))
        witnesses = surrogate.witnesses or tuple(self.blueprint.experiment.witnesses)
        agreement = np.mean([(outcomes.prediction[name] == outcomes.prediction[w]).mean() for w in witnesses])
        common: Row = {
            "clean_accuracy": _figure(clean.value),
            "clean_accuracy_low": _figure(clean.low),
            "clean_accuracy_high": _figure(clean.high),
            "clean_change": _figure(change.value),
            "clean_change_low": _figure(change.low),
            "clean_change_high": _figure(change.high),
            "witness_agreement": _figure(100 * float(agreement)),
        }
        rows = []
        for attack in self.attacks:
            wrong = outcomes.wrong[surrogate.name, attack, SELF]
            own: Row = {
                "attacked_accuracy": _figure(100 * float((~wrong).mean())),
                "whitebox_rate": _figure(wilson(int((wrong & right).sum()), int(right.sum())).value),
                "mean_l2": _figure(float(outcomes.l2[surrogate.name, attack].astype(np.float64).mean())),
                "robust_accuracy": None,
            }
            rows.append({"surrogate": surrogate.name, "attack": attack} | common | own)
        robust = outcomes.robust(surrogate.name, name, self.attacks)
        over_all: Row = {"attacked_accuracy": None, "whitebox_rate": None, "mean_l2": None}
        over_all |= {"robust_accuracy": _figure(100 * float(robust.mean()))}
        return [*rows, {"surrogate": surrogate.name, "attack": "(all)"} | common | over_all]


def _figure(value: float | None) -> float | None:
    """Four decimals: more than any interval bears, and the same on every machine. No negative zero."""
    return None if value is None else round(value, 4) + 0.0


def _rate_columns(n: int, rate: Interval, rate_all: float) -> Row:
    columns = {"rate": rate.value, "rate_low": rate.low, "rate_high": rate.high, "rate_all": rate_all}
    return {"n": n} | {name: _figure(value) for name, value in columns.items()}


def _gain_columns(gain: Gain) -> Row:
    columns = {"gain": gain.value, "gain_low": gain.low, "gain_high": gain.high}
    p_value = None if gain.p_value is None else float(f"{gain.p_value:.6g}")
    return {name: _figure(value) for name, value in columns.items()} | {"p_value": p_value}
