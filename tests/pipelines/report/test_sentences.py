"""What the report says in words: no more than the intervals bear, and beside the controls."""

from typing import Any

from pipelines.report.page import computed_report
from pipelines.report.sentences import broken_controls, said_gain, verdicts


def test_verdicts_claim_a_difference_only_where_the_interval_excludes_zero(blueprint):
    report = computed_report(blueprint)
    means = {(row["surrogate"], row["attack"]): row for row in report.means()}
    for attack, gain in (("pgd", 0), ("mi", -8.3333)):  # on no image, and on one: too few for a difference
        row = means["witness", attack]
        assert row["gain"] == gain and row["gain_low"] < min(0, gain) <= 0 < row["gain_high"]

    def shown(row: Any, name: str) -> str:
        return f"{row[name]:+.1f} points ({row[name + '_low']:+.1f} to {row[name + '_high']:+.1f})"

    about = {row["surrogate"]: row for row in report.surrogates}
    beside = {
        (row["surrogate"], row["baseline"], row["attack"]): row for row in report.contrasts if row["target"] == "(mean)"
    }
    no_difference = "no detectable difference from"
    passes = about["aligned"]["forward_passes"] + about["aligned"]["backward_passes"]
    made = f"clean accuracy {shown(about['aligned'], 'clean_change')}; made in {passes:,} passes"
    assert verdicts(report) == [
        f"aligned under pgd: transfers better than the source: {shown(means['aligned', 'pgd'], 'gain')}; "
        f"better than witness: {shown(beside['aligned', 'witness', 'pgd'], 'gain')}; {made}",
        f"aligned under mi: transfers worse than the source: {shown(means['aligned', 'mi'], 'gain')}; "
        f"worse than witness: {shown(beside['aligned', 'witness', 'mi'], 'gain')}; {made}",
        f"witness under pgd: shows {no_difference} the source: {shown(means['witness', 'pgd'], 'gain')}; "
        f"clean accuracy {shown(about['witness'], 'clean_change')}",
        f"witness under mi: shows {no_difference} the source: {shown(means['witness', 'mi'], 'gain')}; "
        f"clean accuracy {shown(about['witness'], 'clean_change')}",
    ]


def test_a_control_that_lost_clean_accuracy_is_called_broken(blueprint):
    report = computed_report(blueprint)
    row = next(own for own in report.surrogates if own["surrogate"] == "witness")

    def control(change: float, low: float, high: float) -> Any:
        return {
            **row, "surrogate": "label_only",
            "clean_change": change, "clean_change_low": low, "clean_change_high": high,
        }  # fmt: skip

    assert broken_controls([control(-17, -20, -14)]) == {
        "label_only": "label_only lost 17.0 points of clean accuracy and is a broken control"
    }
    assert not broken_controls([control(-3, -7, 1)])  # not beyond doubt
    assert not broken_controls([control(-1, -1.5, -0.5)])  # as much as any further training may cost
    contrast = next(own for own in report.contrasts if own["target"] == "(mean)" and own["attack"] == "pgd")
    report.contrasts.append({**contrast, "baseline": "label_only"})
    report.surrogates.append(control(-17, -20, -14))
    assert "and is a broken control" in verdicts(report)[0]


def test_without_a_measured_gain_there_is_no_verdict(experiment):
    report = computed_report(
        experiment.finish({f"clean/{target}": "1" * 12 for target in ("twin", "cousin", "stranger")})
    )
    assert verdicts(report) == []


def test_a_control_of_another_witness_is_named_as_such(experiment):
    experiment.write(variants={"other_way": {"witnesses": ["stranger"]}}, targets=["twin", "cousin"])
    lines = verdicts(computed_report(experiment.finish()))
    (own,) = (line for line in lines if line.startswith("other_way under pgd"))
    assert "no detectable difference from witness (of seer, and not of stranger)" in own
    assert "no detectable difference from aligned:" in own
    (own,) = (line for line in lines if line.startswith("aligned under pgd"))
    assert "from witness:" in own


def test_an_end_that_rounding_would_bring_to_zero_has_more_digits():
    row: Any = {"gain": -21.4, "gain_low": -42.8, "gain_high": -0.012, "seeds": 1}
    assert said_gain(row) == "-21.4 points (-42.8 to -0.01)"
    assert said_gain(row | {"gain_high": 0.0}) == "-21.4 points (-42.8 to +0.0)"
