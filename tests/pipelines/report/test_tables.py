"""The rows of the tables, compared with counts made by hand and with what pandas, scipy and statsmodels compute."""

from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hand_made import IMAGES, HandMade, hand_made
from limits_by_hand import limits_of_gain, limits_of_rate, newcombe
from scipy.stats import binomtest
from statsmodels.stats.proportion import proportion_confint

from align_core.transfer import resampled_counts
from pipelines.failure import RunFailed
from pipelines.report.outcomes import read_outcomes
from pipelines.report.tables import TableMaker
from pipelines.stages.blueprint import Blueprint

Row = dict[str, Any]  # of any of the three tables

TARGETS = ("twin", "cousin", "stranger")
RELATIONS = {
    "near": {"twin": "same_architecture", "cousin": "same_family", "stranger": "cross_family"},
    "other": {"twin": "cross_family", "cousin": "cross_family", "stranger": "same_family"},
}
GROUPS = {
    "near": {
        "(mean)": TARGETS,
        "(mean same_architecture)": ("twin",),
        "(mean same_family)": ("cousin",),
        "(mean cross_family)": ("stranger",),
    },
    "other": {"(mean)": TARGETS, "(mean same_family)": ("stranger",), "(mean cross_family)": ("twin", "cousin")},
}
OWN_GROUPS = {"outer": ["stranger", "twin"], "one": ["cousin"]}
for groups in GROUPS.values():
    groups |= {f"(mean {name})": tuple(own) for name, own in OWN_GROUPS.items()}
SOURCES = {
    "source": "near", "aligned": "near", "label_only": "near", "witness": "near", "ensemble": "near",
    "aligned_ensemble": "near", "warm": "near", "source-other": "other", "far": "other",
}  # fmt: skip
BASELINES = {"near": "source", "other": "source-other"}
CLEAN_NAMES = {"source": "near", "source-other": "other", "witness": "seer"}


def table_maker(blueprint: Blueprint) -> TableMaker:
    return TableMaker(blueprint, read_outcomes(blueprint))


def only(rows: list[Row], **wanted: str) -> Row:
    """Returns the only row with these values."""
    found = [row for row in rows if wanted.items() <= row.items()]
    assert len(found) == 1, f"{len(found)} rows for {wanted}"
    return found[0]


def flags(digits: str) -> pd.Series:
    return pd.Series([digit != "0" for digit in digits])


# Counted by hand


@pytest.fixture
def experiment(tmp_path) -> HandMade:
    return hand_made(tmp_path)


# When clean, the source misclassifies image 0 and `twin` image 1, so that the other ten images count.
BY_HAND = {
    "clean/near": "100000000000",
    "clean/twin": "020000000000",
    "outcomes/source/pgd/twin": "110012000000",
    "outcomes/aligned/pgd/twin": "000012112200",
}


def test_one_cell_counted_by_hand(experiment):
    rows = table_maker(experiment.finish(BY_HAND)).transfer()
    source = only(rows, surrogate="source", attack="pgd", target="twin")
    aligned = only(rows, surrogate="aligned", attack="pgd", target="twin")
    assert (source["n"], source["rate"], source["rate_all"]) == (10, 20.0, 33.3333)
    assert (aligned["n"], aligned["rate"], aligned["rate_all"]) == (10, 60.0, 50.0)
    assert (aligned["rate_low"], aligned["rate_high"]) == (31.2674, 83.1820)  # Wilson, 6 of 10
    assert aligned["gain"] == 40.0
    assert aligned["p_value"] == 0.125  # four images are wrong only on aligned, none only on source: 2 / 2**4
    assert aligned["gain_low"] < 40 < aligned["gain_high"]


@pytest.mark.parametrize("image", [0, 1])
def test_an_image_that_source_or_target_gets_wrong_when_clean_never_counts(experiment, image):
    def with_image(digit: str) -> dict[str, str]:
        changed = dict(BY_HAND)
        for key in ("outcomes/source/pgd/twin", "outcomes/aligned/pgd/twin"):
            changed[key] = changed[key][:image] + digit + changed[key][image + 1 :]
        return changed

    right, wrong = (table_maker(experiment.finish(with_image(digit))).transfer() for digit in "01")
    for surrogate in ("source", "aligned"):
        before, after = (only(rows, surrogate=surrogate, attack="pgd", target="twin") for rows in (right, wrong))
        assert after.pop("rate_all") == pytest.approx(before.pop("rate_all") + 100 / IMAGES, abs=1e-4)
        assert after == before


def test_a_target_without_countable_images_is_blank_and_left_out_of_the_mean(experiment):
    blueprint = experiment.finish({"clean/twin": "1" * 12, "outcomes/aligned/pgd/cousin": "111111000000"})
    rows = table_maker(blueprint).transfer()
    figures = ("rate", "rate_low", "rate_high", "gain", "gain_low", "gain_high", "p_value")
    for target in ("twin", "(mean same_architecture)"):
        row = only(rows, surrogate="aligned", attack="pgd", target=target)
        assert row["n"] == 0
        assert [row[figure] for figure in figures] == [None] * len(figures)
        assert row["rate_all"] == 0.0
    assert only(rows, surrogate="aligned", attack="pgd", target="(mean)")["gain"] == 25.0  # of 50 and 0


def test_a_surrogate_without_a_correct_clean_prediction_has_no_whitebox_rate(experiment):
    row = only(
        table_maker(experiment.finish({"clean/aligned": "1" * 12})).surrogates(), surrogate="aligned", attack="pgd"
    )
    assert (row["clean_accuracy"], row["clean_change"], row["whitebox_rate"]) == (0.0, -100.0, None)


def test_a_mean_over_a_relation_exists_only_if_a_target_has_it(experiment):
    experiment.write(targets=["cousin", "stranger"])
    rows = table_maker(experiment.finish()).transfer()
    groups = [row["target"] for row in rows if row["surrogate"] == "source" and row["attack"] == "pgd"]
    assert groups == ["cousin", "stranger", "(mean)", "(mean same_family)", "(mean cross_family)"]


def test_a_model_that_witness_aligned_keeps_its_family_as_a_target(experiment):
    experiment.finish()
    aligned = {"old": {"aligned": str(experiment.output / "by-hand" / "models" / "aligned")}}
    experiment.write(name="later", models=experiment.content()["models"] | aligned, source="cousin", targets=["old"])
    rows = table_maker(experiment.finish()).transfer()
    assert only(rows, surrogate="aligned", attack="pgd", target="old")["relation"] == "same_family"


def test_agreement_is_averaged_over_several_witnesses(experiment):
    experiment.write(witnesses=["seer", "other"], controls=["witness"])
    clean = {"clean/near": "120000000000", "clean/seer": "100000000000", "clean/other": "221111000000"}
    rows = table_maker(experiment.finish(clean)).surrogates()
    seer, other = 11, 7  # images on which `near` predicts the same as each
    agreement = only(rows, surrogate="source", attack="pgd")["witness_agreement"]
    assert agreement == pytest.approx(100 * (seer + other) / 24, abs=1e-4)
    assert only(rows, surrogate="witness-seer", attack="pgd")["clean_accuracy"] == pytest.approx(1100 / 12, abs=1e-4)


def test_a_table_that_does_not_hold_the_test_images_in_order_is_refused(experiment):
    blueprint = experiment.finish()
    table = next(cell.table for cell in blueprint.cells() if cell.target == "twin")
    rows = table.read(blueprint.store, ["image_id", "label", "adversarial_prediction"])
    for number, chunk in enumerate(blueprint.chunks):
        table.write_chunk(blueprint.store, number, rows.take(pa.array([11 - row for row in chunk])))
    blueprint.store.delete(table.finished_file)
    table.finish(blueprint.store, blueprint.rows)
    with pytest.raises(RunFailed, match="outcomes/source/pgd/twin"):
        read_outcomes(blueprint)


def test_a_damaged_table_is_named(experiment):
    blueprint = experiment.finish()
    blueprint.store.write(blueprint.clean()["twin"][1].finished_file, b"PAR1 cut off")
    with pytest.raises(RunFailed, match="clean/twin is damaged"):
        read_outcomes(blueprint)


def test_a_flipped_bit_and_a_missing_column_are_named(experiment):
    blueprint = experiment.finish()
    path = blueprint.clean()["twin"][1].finished_file
    whole = blueprint.store.read(path)
    damaged = bytearray(whole)
    damaged[70] ^= 1
    blueprint.store.write(path, bytes(damaged))
    with pytest.raises(RunFailed, match="clean/twin is damaged"):
        read_outcomes(blueprint)
    pq.write_table(pa.table({"image_id": ["a"]}), blueprint.store.path(path))
    with pytest.raises(RunFailed, match="clean/twin is damaged"):
        read_outcomes(blueprint)


# Row by row against an independent computation, on random outcomes of every kind of surrogate


@pytest.fixture(scope="module")
def outcomes() -> dict[str, str]:
    rng = np.random.default_rng(3)

    def digits(wrong: float) -> str:
        return "".join(map(str, rng.choice(3, IMAGES, p=[1 - wrong, wrong / 2, wrong / 2])))

    clean_names = {"seer", *SOURCES, *SOURCES.values(), *TARGETS} - set(CLEAN_NAMES)
    made = {f"clean/{name}": digits(0.2) for name in sorted(clean_names)}
    for surrogate, attack in product(SOURCES, ("pgd", "mi")):
        made |= {f"outcomes/{surrogate}/{attack}/{target}": digits(0.4) for target in TARGETS}
        made[f"outcomes/{surrogate}/{attack}/@self"] = digits(0.7)
        made[f"adversarial/{surrogate}/{attack}"] = "".join(map(str, rng.integers(1, 9, IMAGES)))
    return made


@pytest.fixture(scope="module")
def maker(outcomes, tmp_path_factory) -> TableMaker:
    experiment = hand_made(
        tmp_path_factory.mktemp("random"),
        controls=["label_only", "witness", "ensemble", "aligned_ensemble"],
        variants={"warm": {"align": {"temperature": 16}}, "far": {"source": "other", "witnesses": ["near"]}},
        groups=OWN_GROUPS,
        compute={"chunk": 5},
    )
    return table_maker(experiment.finish(outcomes))


def check_gain(row: Row, treated: pd.Series, baseline: pd.Series) -> None:
    assert row["gain"] == pytest.approx(100 * (treated.mean() - baseline.mean()), abs=1e-4)
    assert (row["gain_low"], row["gain_high"]) == pytest.approx(newcombe(treated, baseline), abs=1e-4)
    only_treated, only_baseline = int((treated & ~baseline).sum()), int((~treated & baseline).sum())
    discordant = only_treated + only_baseline
    p_value = binomtest(only_treated, discordant).pvalue if discordant else 1.0
    assert row["p_value"] == pytest.approx(p_value, rel=1e-5)


def eligible(outcomes: dict[str, str], surrogate: str, target: str) -> pd.Series:
    return ~flags(outcomes[f"clean/{SOURCES[surrogate]}"]) & ~flags(outcomes[f"clean/{target}"])


def test_every_transfer_row_of_one_target(maker, outcomes):
    rows = maker.transfer()
    for surrogate, attack, target in product(SOURCES, ("pgd", "mi"), TARGETS):
        row = only(rows, surrogate=surrogate, attack=attack, target=target)
        source = SOURCES[surrogate]
        counts = eligible(outcomes, surrogate, target)
        wrong = flags(outcomes[f"outcomes/{surrogate}/{attack}/{target}"])
        assert row["relation"] == RELATIONS[source][target]
        assert row["n"] == counts.sum()
        assert row["rate"] == pytest.approx(100 * wrong[counts].mean(), abs=1e-4)
        limits = 100 * np.array(proportion_confint(int(wrong[counts].sum()), int(counts.sum()), method="wilson"))
        assert (row["rate_low"], row["rate_high"]) == pytest.approx(tuple(limits), abs=1e-4)
        assert row["rate_all"] == pytest.approx(100 * wrong.mean(), abs=1e-4)
        if surrogate in BASELINES.values():
            assert [row[name] for name in ("gain", "gain_low", "gain_high", "p_value")] == [None] * 4
        else:
            baseline = flags(outcomes[f"outcomes/{BASELINES[source]}/{attack}/{target}"])
            check_gain(row, wrong[counts], baseline[counts])


def test_the_same_images_count_for_every_surrogate_of_a_source_and_every_attack(maker):
    rows = pd.DataFrame(maker.transfer())
    rows["source"] = rows["surrogate"].map(SOURCES)
    assert (rows.groupby(["source", "target"])["n"].nunique() == 1).all()


def test_every_mean_row(maker, outcomes):
    """Repeats the resampling draw by draw: the same images for all targets, and targets weighted equally."""
    draws = np.concatenate(list(resampled_counts(IMAGES, seed=0))).astype(int)
    rows = maker.transfer()

    def shares(surrogate: str, attack: str, counts: pd.DataFrame, weights: np.ndarray) -> np.ndarray:
        """Percent of its images that each target misclassifies in each draw; NaN if it has no image in that draw."""
        wrong = pd.DataFrame({t: flags(outcomes[f"outcomes/{surrogate}/{attack}/{t}"]) for t in counts})
        with np.errstate(invalid="ignore"):
            return 100 * (weights @ (wrong & counts).to_numpy(int)) / (weights @ counts.to_numpy(int))

    def wrong_on(surrogate: str, attack: str, target: str) -> np.ndarray:
        return flags(outcomes[f"outcomes/{surrogate}/{attack}/{target}"]).to_numpy()

    once = np.ones((1, IMAGES), int)
    for surrogate, attack in product(SOURCES, ("pgd", "mi")):
        source = SOURCES[surrogate]
        for name, targets in GROUPS[source].items():
            row = only(rows, surrogate=surrogate, attack=attack, target=name)
            counts = pd.DataFrame({target: eligible(outcomes, surrogate, target) for target in targets})
            assert row["n"] == counts.any(axis=1).sum()
            kind = name.strip("()").removeprefix("mean").strip()
            assert row["relation"] == ("" if kind in OWN_GROUPS else kind)
            assert row["p_value"] is None
            assert row["rate"] == pytest.approx(shares(surrogate, attack, counts, once).mean(), abs=1e-4)
            drawn = shares(surrogate, attack, counts, draws)
            some = ~np.isnan(drawn).all(axis=1)
            own = [(counts[t].to_numpy(), wrong_on(surrogate, attack, t)) for t in targets]
            limits = limits_of_rate(own, np.nanmean(drawn[some], axis=1))
            assert (row["rate_low"], row["rate_high"]) == pytest.approx(limits, abs=1e-3)
            everyone = [flags(outcomes[f"outcomes/{surrogate}/{attack}/{target}"]).mean() for target in targets]
            assert row["rate_all"] == pytest.approx(100 * np.mean(everyone), abs=1e-4)
            baseline = BASELINES[source]
            if surrogate == baseline:
                assert [row[column] for column in ("gain", "gain_low", "gain_high")] == [None] * 3
                continue
            gain = shares(surrogate, attack, counts, once) - shares(baseline, attack, counts, once)
            assert row["gain"] == pytest.approx(gain.mean(), abs=1e-4)
            drawn = drawn[some] - shares(baseline, attack, counts, draws)[some]
            own = [(*pair, wrong_on(baseline, attack, t)) for pair, t in zip(own, targets, strict=True)]
            limits = limits_of_gain(own, np.nanmean(drawn, axis=1))
            assert (row["gain_low"], row["gain_high"]) == pytest.approx(limits, abs=1e-3)


def test_rows_are_ordered_by_surrogate_and_attack_with_targets_before_their_means(maker):
    expected = [
        (surrogate, attack, target)
        for surrogate in [s.name for s in maker.blueprint.surrogates]
        for attack in ("pgd", "mi")
        for target in (*TARGETS, *GROUPS[SOURCES[surrogate]])
    ]
    assert [(row["surrogate"], row["attack"], row["target"]) for row in maker.transfer()] == expected
    assert {surrogate for surrogate, _, _ in expected} == set(SOURCES)


CONTRASTS = [
    ("aligned", "label_only"), ("aligned", "witness"), ("aligned", "ensemble"),
    ("warm", "label_only"), ("warm", "witness"), ("warm", "ensemble"),
    ("warm", "aligned"), ("aligned_ensemble", "ensemble"),
]  # fmt: skip


def test_every_contrast(maker, outcomes):
    """The variant `far` has another source than the controls, so that it is not compared with them."""
    rows = maker.contrasts()
    assert list(dict.fromkeys((row["surrogate"], row["baseline"]) for row in rows)) == CONTRASTS
    for (surrogate, baseline), attack in product(CONTRASTS, ("pgd", "mi")):
        gains = []
        for target in TARGETS:
            row = only(rows, surrogate=surrogate, baseline=baseline, attack=attack, target=target)
            counts = eligible(outcomes, surrogate, target)
            pair = [flags(outcomes[f"outcomes/{s}/{attack}/{target}"])[counts] for s in (surrogate, baseline)]
            assert row["n"] == counts.sum()
            check_gain(row, *pair)
            gains.append(row["gain"])
        mean = only(rows, surrogate=surrogate, baseline=baseline, attack=attack, target="(mean)")
        assert mean["gain"] == pytest.approx(np.mean(gains), abs=1e-3)
        assert mean["gain_low"] <= mean["gain"] <= mean["gain_high"]
        assert mean["p_value"] is None


def test_every_row_about_the_surrogates_themselves(maker, outcomes):
    rows = maker.surrogates()
    assert [(row["surrogate"], row["attack"]) for row in rows] == [
        (surrogate.name, attack) for surrogate in maker.blueprint.surrogates for attack in ("pgd", "mi", "(all)")
    ]
    for surrogate in SOURCES:
        name = CLEAN_NAMES.get(surrogate, surrogate)
        source, witness = SOURCES[surrogate], "near" if surrogate == "far" else "seer"
        right = ~flags(outcomes[f"clean/{name}"])
        low, high = proportion_confint(int(right.sum()), IMAGES, method="wilson")
        same = np.mean([a == b for a, b in zip(outcomes[f"clean/{name}"], outcomes[f"clean/{witness}"], strict=True)])
        held = right.copy()
        for attack in ("pgd", "mi"):
            row = only(rows, surrogate=surrogate, attack=attack)
            wrong = flags(outcomes[f"outcomes/{surrogate}/{attack}/@self"])
            held &= ~wrong
            assert row["attacked_accuracy"] == pytest.approx(100 * (~wrong).mean(), abs=1e-4)
            assert row["whitebox_rate"] == pytest.approx(100 * wrong[right].mean(), abs=1e-4)
            eighths = [int(digit) for digit in outcomes[f"adversarial/{surrogate}/{attack}"]]
            assert row["mean_l2"] == pytest.approx(np.mean(eighths) / 8, abs=1e-4)
            assert row["mean_ssim"] == pytest.approx(1 - np.mean(eighths) / 16, abs=1e-4)
            assert row["robust_accuracy"] is None
        over_all = only(rows, surrogate=surrogate, attack="(all)")
        assert over_all["robust_accuracy"] == pytest.approx(100 * held.mean(), abs=1e-4)
        of_attacks = ("attacked_accuracy", "whitebox_rate", "whitebox_targeted_rate", "mean_l2", "mean_ssim")
        assert [over_all[column] for column in of_attacks] == [None] * 5
        for attack in ("pgd", "mi", "(all)"):
            row = only(rows, surrogate=surrogate, attack=attack)
            assert row["clean_accuracy"] == pytest.approx(100 * right.mean(), abs=1e-4)
            assert (row["clean_accuracy_low"], row["clean_accuracy_high"]) == pytest.approx(
                (100 * low, 100 * high), abs=1e-4
            )
            assert row["witness_agreement"] == pytest.approx(100 * same, abs=1e-4)
            change = [row[column] for column in ("clean_change", "clean_change_low", "clean_change_high")]
            if surrogate in BASELINES.values():
                assert change == [None] * 3
                assert row["agreement_change"] is None
            else:
                of_source = ~flags(outcomes[f"clean/{source}"])
                expected = (100 * (right.mean() - of_source.mean()), *newcombe(right, of_source))
                assert change == pytest.approx(list(expected), abs=1e-4)
                before = [
                    a == b for a, b in zip(outcomes[f"clean/{source}"], outcomes[f"clean/{witness}"], strict=True)
                ]
                assert row["agreement_change"] == pytest.approx(100 * (same - np.mean(before)), abs=1e-4)
