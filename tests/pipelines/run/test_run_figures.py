"""The figures of the report, recomputed from the stored predictions with pandas, scipy and statsmodels."""

import csv
import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from digits_experiment import Finished, read_table
from digits_folder import ATTACKS, MEMBERS, TARGETS
from scipy.stats import binomtest
from statsmodels.stats.proportion import proportion_confint

# The surrogate that a surrogate's gains refer to.
BASELINE = dict.fromkeys(MEMBERS, "source") | {"source-cnn_b": "source-cnn_b", "other": "source-cnn_b"}
SOURCE_MODEL = {"source": "cnn_a", "source-cnn_b": "cnn_b"}


class TestFigures:
    @pytest.fixture(scope="class")
    @classmethod
    def flags(cls, finished: Finished) -> dict[Any, np.ndarray]:
        """Which images are misclassified, by name of a model (clean) or by (surrogate, attack, target) (attacked)."""
        wrong: dict[Any, np.ndarray] = {}
        for folder in (finished.folder / "clean").iterdir():
            table = read_table(folder)
            wrong[folder.name] = (table["prediction"] != table["label"]).to_numpy()
        for folder in (finished.folder / "outcomes").glob("*/*/*"):
            table = read_table(folder)
            wrong[folder.parts[-3:]] = (table["adversarial_prediction"] != table["label"]).to_numpy()
        return wrong

    @pytest.fixture(scope="class")
    @classmethod
    def transfer(cls, finished: Finished) -> pd.DataFrame:
        return pd.read_csv(finished.folder / "report/transfer.csv").set_index(["surrogate", "attack", "target"])

    def test_every_cell_and_mean_has_a_row(self, finished: Finished, transfer: pd.DataFrame) -> None:
        with open(finished.folder / "report/transfer.csv") as file:
            assert ",".join(next(csv.reader(file))) == (
                "surrogate,attack,target,relation,n,gradients,seeds,rate,rate_low,rate_high,rate_spread,rate_all,"
                "targeted_rate,targeted_low,targeted_high,gain,gain_low,gain_high,gain_spread,gain_both_low,"
                "gain_both_high,p_value,p_holm"
            )
        targets = [*TARGETS, "(mean)", "(mean same_architecture)", "(mean cross_family)"]
        assert list(transfer.index) == [(s, a, t) for s in MEMBERS for a in ATTACKS for t in targets]

    def test_rates_and_gains_are_those_of_the_outcomes(
        self, flags: dict[Any, np.ndarray], transfer: pd.DataFrame
    ) -> None:
        for surrogate, baseline in BASELINE.items():
            for attack in ATTACKS:
                for target, kind in TARGETS.items():
                    row = transfer.loc[surrogate, attack, target]
                    counted = ~flags[SOURCE_MODEL[baseline]] & ~flags[target]
                    wrong = flags[surrogate, attack, target]
                    on_baseline = flags[baseline, attack, target][counted]
                    assert row["relation"] == kind
                    assert row["n"] == counted.sum() > 10
                    assert row["rate"] == pytest.approx(100 * wrong[counted].mean(), abs=1e-4)
                    assert row["rate_all"] == pytest.approx(100 * wrong.mean(), abs=1e-4)
                    low, high = proportion_confint(wrong[counted].sum(), counted.sum(), method="wilson")
                    assert [row["rate_low"], row["rate_high"]] == pytest.approx([100 * low, 100 * high], abs=1e-4)
                    if surrogate == baseline:
                        assert row[["gain", "gain_low", "gain_high", "p_value"]].isna().all()
                        continue
                    gain = 100 * (wrong[counted].mean() - on_baseline.mean())
                    more, less = int((wrong[counted] & ~on_baseline).sum()), int((~wrong[counted] & on_baseline).sum())
                    assert row["gain"] == pytest.approx(gain, abs=1e-4)
                    assert row["gain_low"] <= row["gain"] <= row["gain_high"]
                    expected = binomtest(more, more + less).pvalue if more + less else 1.0
                    assert row["p_value"] == pytest.approx(expected, rel=1e-5)

    def test_means_weigh_targets_equally(self, transfer: pd.DataFrame) -> None:
        for surrogate, baseline in BASELINE.items():
            for attack in ATTACKS:
                mean = transfer.loc[surrogate, attack, "(mean)"]
                rows = transfer.loc[[(surrogate, attack, target) for target in TARGETS]]
                assert mean["rate"] == pytest.approx(rows["rate"].mean(), abs=1e-3)
                assert mean["rate_all"] == pytest.approx(rows["rate_all"].mean(), abs=1e-3)
                assert mean["rate_low"] <= mean["rate"] <= mean["rate_high"]
                if surrogate != baseline:
                    assert mean["gain"] == pytest.approx(rows["gain"].mean(), abs=1e-3)
                    assert mean["gain_low"] <= mean["gain"] <= mean["gain_high"]

    def test_the_outcomes_are_diverse(self, transfer: pd.DataFrame) -> None:
        """With rates near 0 or 100, or gains of one sign, the tests above would prove little."""
        rates = transfer.loc[(slice(None), slice(None), list(TARGETS)), "rate"]
        gains = transfer["gain"].dropna()
        assert rates.min() < 40 and rates.max() > 60
        assert (gains > 0).any() and (gains < 0).any()

    def test_surrogates(self, finished: Finished, flags: dict[Any, np.ndarray]) -> None:
        rows = pd.read_csv(finished.folder / "report/surrogates.csv").set_index(["surrogate", "attack"])
        assert list(rows.index) == [(surrogate, attack) for surrogate in MEMBERS for attack in (*ATTACKS, "(all)")]
        names = {"source": "cnn_a", "witness": "wide", "source-cnn_b": "cnn_b"}
        for surrogate in MEMBERS:
            right = ~flags[names.get(surrogate, surrogate)]
            own = {attack: flags[surrogate, attack, "@self"] for attack in ATTACKS}
            for attack in ATTACKS:
                row = rows.loc[surrogate, attack]
                l2 = read_table(finished.folder / "adversarial" / surrogate / attack)["l2"]
                assert row["clean_accuracy"] == pytest.approx(100 * right.mean(), abs=1e-4)
                assert row["attacked_accuracy"] == pytest.approx(100 * (~own[attack]).mean(), abs=1e-4)
                assert row["whitebox_rate"] == pytest.approx(100 * own[attack][right].mean(), abs=1e-4)
                assert row["mean_l2"] == pytest.approx(l2.astype(float).mean(), abs=1e-4)
            robust = right & ~own["pgd"] & ~own["fgsm"]
            assert rows.loc[(surrogate, "(all)"), "robust_accuracy"] == pytest.approx(100 * robust.mean(), abs=1e-4)

    def test_times_are_of_every_image_that_was_crafted(self, finished: Finished) -> None:
        rows = pd.read_csv(finished.folder / "report/times.csv")
        rows = rows[rows["attack"] != "(fine-tune)"]
        assert list(zip(rows["surrogate"], rows["attack"], strict=True)) == [(s, a) for s in MEMBERS for a in ATTACKS]
        assert set(rows["images"]) == {60} and set(rows["worker"]) == {"cpu, 1 thread"}
        assert (rows["seconds"] > 0).all()
        assert (rows["images_per_second"] * rows["seconds"]).to_numpy() == pytest.approx(
            60, rel=0.1
        )  # both are rounded

    def test_times_are_of_every_fine_tune_as_its_card_has_it(self, finished: Finished) -> None:
        rows = pd.read_csv(finished.folder / "report/times.csv")
        rows = rows[rows["attack"] == "(fine-tune)"].set_index("surrogate")
        assert list(rows.index) == ["aligned", "label_only", "warm", "other"]
        for surrogate, row in rows.iterrows():
            card = json.loads((finished.folder / "models" / str(surrogate) / "card.json").read_text())
            assert row["seconds"] == card["seconds"] > 0
            assert row["images"] == 4 * 256  # epochs and images of each
            assert row["images_per_second"] == pytest.approx(row["images"] / row["seconds"], abs=1e-3)

    def test_contrasts(self, finished: Finished, flags: dict[Any, np.ndarray]) -> None:
        rows = pd.read_csv(finished.folder / "report/contrasts.csv")
        pairs = set(zip(rows["surrogate"], rows["baseline"], strict=True))
        assert pairs >= {("aligned", name) for name in ("label_only", "witness", "ensemble")}
        assert ("aligned_ensemble", "ensemble") in pairs
        for row in rows[rows["target"].isin(TARGETS)].to_dict("records"):
            source = "cnn_b" if row["surrogate"] == "other" else "cnn_a"
            counted = ~flags[source] & ~flags[row["target"]]
            wrong, against = (flags[row[s], row["attack"], row["target"]][counted] for s in ("surrogate", "baseline"))
            assert row["n"] == counted.sum()
            assert row["gain"] == pytest.approx(100 * (wrong.mean() - against.mean()), abs=1e-4)
