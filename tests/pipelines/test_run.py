"""`witness run` and its stages: what lies there afterwards, that its figures are right, and what is made again when."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from digits_experiment import IMAGE_SIZE, Finished, assert_same_tables, leave_under_way, read_table
from safetensors.torch import load_file, save_file
from scipy.stats import binomtest
from statsmodels.stats.proportion import proportion_confint

from align_core.data import ImageSetConfig, open_image_set, read_images
from align_core.models import Classifier
from align_core.weights import hash_weights
from pipelines.cli import main
from pipelines.run import STAGES, Request, run

# Whose logits a surrogate means, and the surrogate that its gains refer to.
MEMBERS = {
    "source": ["cnn_a"],
    "aligned": ["aligned"],
    "label_only": ["label_only"],
    "witness": ["wide"],
    "ensemble": ["cnn_a", "wide"],
    "aligned_ensemble": ["aligned", "wide"],
    "warm": ["warm"],
    "source-cnn_b": ["cnn_b"],
    "other": ["other"],
}
BASELINE = dict.fromkeys(MEMBERS, "source") | {"source-cnn_b": "source-cnn_b", "other": "source-cnn_b"}
SOURCE_MODEL = {"source": "cnn_a", "source-cnn_b": "cnn_b"}
ATTACKS = {"pgd": 12 / 255, "fgsm": 8 / 255}
TARGETS = {"cnn_c": "same_architecture", "mlp": "cross_family"}
IDS = [f"{row:05d}" for row in range(1200, 1260)]
CHUNKS = 3


def state(folder: Path) -> dict[str, tuple[int, int]]:
    """When each file was last written, and which file it is; the lock is written by every run."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(f.relative_to(folder)): (f.stat().st_mtime_ns, f.stat().st_ino) for f in files}


def changed(folder: Path, before: dict[str, tuple[int, int]]) -> set[str]:
    """First two parts of the paths of files that are new, gone or written again."""
    after = state(folder)
    paths = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    return {"/".join(path.split("/")[:2]) for path in paths}


@pytest.fixture(scope="module")
def networks(finished: Finished) -> dict[str, Classifier]:
    return {name: finished.network(name) for members in [*MEMBERS.values(), list(TARGETS)] for name in members}


@pytest.fixture(scope="module")
def clean_images() -> tuple[np.ndarray, np.ndarray]:
    digits = open_image_set(ImageSetConfig(kind="digits"), IMAGE_SIZE)
    return read_images(digits, IDS), digits.listing()[1][1200:1260]


def predicted(members: list[Classifier], images_BCHW: np.ndarray) -> torch.Tensor:
    with torch.no_grad():
        pixels_BCHW = torch.from_numpy(images_BCHW.astype(np.float32) / 255)
        return torch.stack([member(pixels_BCHW) for member in members]).mean(dim=0)


def assert_predictions(table: pd.DataFrame, logits_BK: torch.Tensor, labels: np.ndarray, prefix: str) -> None:
    assert list(table.columns) == ["image_id", "label", f"{prefix}prediction", f"{prefix}confidence"]
    assert table["image_id"].tolist() == IDS
    assert (table["label"] == labels).all()
    assert (table[f"{prefix}prediction"] == logits_BK.argmax(dim=1).numpy()).all()
    confidence = logits_BK.softmax(dim=1)[range(len(labels)), labels]
    np.testing.assert_allclose(table[f"{prefix}confidence"], confidence, atol=1e-5)


class TestWhatLiesThere:
    def test_networks_are_what_their_cards_say(self, finished: Finished) -> None:
        names = ["trained/mlp", "models/aligned", "models/label_only", "models/warm", "models/other"]
        folders = [finished.folder / name for name in names]
        tables = len(MEMBERS) * len(ATTACKS)
        assert finished.result.made == {
            "align": len(folders),
            "craft": tables * CHUNKS,
            "evaluate": (tables * len(["@self", *TARGETS]) + 11) * CHUNKS,
            "report": 1,
        }
        for folder in folders:
            assert {file.name for file in folder.iterdir()} == {"model.safetensors", "card.json", "curves.csv"}
            card = json.loads((folder / "card.json").read_text())
            assert card["weights"] == hash_weights(load_file(folder / "model.safetensors"))
            curve = pd.read_csv(folder / "curves.csv")
            assert curve["step"].tolist() == list(range(16 if folder.parent.name == "models" else 32))
            assert curve["loss"].notna().all() and curve["timestamp"].is_monotonic_increasing
        cards = {folder.name: json.loads((folder / "card.json").read_text()) for folder in folders}
        assert [cards[name]["settings"]["temperature"] for name in ("aligned", "warm")] == [4, 16]
        assert [cards[name]["start"] for name in ("mlp", "aligned", "other")] == [None, "cnn_a", "cnn_b"]
        assert [cards[name]["witnesses"] for name in ("aligned", "label_only")] == [["wide"], []]
        assert cards["label_only"]["settings"]["label_weight"] == 1
        assert len({card["weights"] for card in cards.values()}) == len(folders)

    def test_adversarial_images_lie_in_the_ball(
        self, finished: Finished, clean_images: tuple[np.ndarray, np.ndarray]
    ) -> None:
        images, labels = clean_images
        for surrogate in MEMBERS:
            for attack, eps in ATTACKS.items():
                folder = finished.folder / "adversarial" / surrogate / attack
                (file,) = folder.iterdir()
                schema = pq.read_schema(file)
                assert schema.names == ["image_id", "label", "image", "linf", "l2"]
                assert schema.field("image").type == pa.fixed_shape_tensor(pa.uint8(), [1, IMAGE_SIZE, IMAGE_SIZE])
                assert [schema.field(name).type for name in ("label", "linf", "l2")] == [
                    pa.int64(), pa.float32(), pa.float32()
                ]  # fmt: skip
                table = read_table(folder)
                assert table["image_id"].tolist() == IDS
                assert (table["label"] == labels).all()
                moved = (np.stack(table["image"]).astype(int) - images).reshape(len(IDS), -1) / 255
                np.testing.assert_allclose(table["linf"], abs(moved).max(axis=1), rtol=1e-6)
                np.testing.assert_allclose(table["l2"], np.sqrt((moved**2).sum(axis=1)), rtol=1e-5)
                assert eps / 2 < table["linf"].max() <= eps * (1 + 1e-6)

    def test_predictions_on_clean_images_are_the_networks_own(
        self, finished: Finished, networks: dict[str, Classifier], clean_images: tuple[np.ndarray, np.ndarray]
    ) -> None:
        images, labels = clean_images
        members = {name: [name] for name in ("cnn_a", "cnn_b", "cnn_c", "mlp", "wide")}
        members |= {name: names for name, names in MEMBERS.items() if name not in ("source", "source-cnn_b", "witness")}
        assert {folder.name for folder in (finished.folder / "clean").iterdir()} == members.keys()
        for name, names in members.items():
            logits_BK = predicted([networks[member] for member in names], images)
            assert_predictions(read_table(finished.folder / "clean" / name), logits_BK, labels, "")

    def test_outcomes_are_the_networks_own_predictions_on_the_stored_images(
        self, finished: Finished, networks: dict[str, Classifier], clean_images: tuple[np.ndarray, np.ndarray]
    ) -> None:
        for surrogate, members in MEMBERS.items():
            for attack in ATTACKS:
                images = np.stack(read_table(finished.folder / "adversarial" / surrogate / attack)["image"])
                for target, names in {"@self": members, "cnn_c": ["cnn_c"], "mlp": ["mlp"]}.items():
                    logits_BK = predicted([networks[name] for name in names], images)
                    table = read_table(finished.folder / "outcomes" / surrogate / attack / target)
                    assert_predictions(table, logits_BK, clean_images[1], "adversarial_")

    def test_the_resolved_experiment_says_every_setting_and_what_was_found(self, finished: Finished) -> None:
        text = (finished.folder / "experiment.yaml").read_text()
        resolved = yaml.safe_load(text)
        assert resolved["align"]["temperature"] == 4
        assert resolved["controls"] == ["label_only", "witness", "ensemble", "aligned_ensemble"]
        assert resolved["attacks"]["fgsm"]["eps"] == pytest.approx(8 / 255)
        found = text.partition("# What was found")[2]
        card = json.loads((finished.folder / "models/aligned/card.json").read_text())
        assert f"aligned: {card['weights']}" in found
        assert "torch:" in found and "ray:" in found


class TestFigures:
    @pytest.fixture(scope="class")
    @classmethod
    def flags(cls, finished: Finished) -> dict[Any, np.ndarray]:
        """Who is wrong: "name" on clean images, (surrogate, attack, target) on adversarial ones."""
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
                "surrogate,attack,target,relation,n,rate,rate_low,rate_high,rate_all,gain,gain_low,gain_high,p_value"
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

    def test_there_is_something_to_see(self, transfer: pd.DataFrame) -> None:
        """Else the agreement above would prove little: rates between 0 and 100, gains of both signs."""
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


class TestAgain:
    def test_a_finished_experiment_computes_nothing(
        self, finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        request, folder = finished.copied(tmp_path)
        before = state(folder)
        result = run(request)
        assert sum(result.made.values()) == 0
        assert changed(folder, before) <= {"experiment.yaml"}  # it names the output folder, which is another one here
        assert "nothing to compute" in capsys.readouterr().err
        before = state(folder)
        run(request)
        assert changed(folder, before) == set()

    def test_a_target_added_later_runs_its_own_cells_alone(
        self, finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        request, folder = finished.copied(tmp_path, overrides=["targets=[cnn_c, mlp, cnn_d]"])
        before = state(folder)
        result = run(request)
        cells = len(MEMBERS) * len(ATTACKS)
        assert result.made == {"align": 0, "craft": 0, "evaluate": (cells + 1) * CHUNKS, "report": 1}
        after = state(folder)
        kept = {path for path in before if path.split("/")[0] not in ("report", "experiment.yaml")}
        assert {path: after[path] for path in kept} == {path: before[path] for path in kept}
        new = {str(Path(path).parent) for path in after.keys() - before.keys()}
        assert new == {"clean/cnn_d"} | {f"outcomes/{s}/{a}/cnn_d" for s in MEMBERS for a in ATTACKS}
        rows = pd.read_csv(folder / "report/transfer.csv")
        assert set(rows["target"]) >= {"cnn_c", "mlp", "cnn_d"}

    def test_changed_settings_remake_what_depends_on_them(
        self, finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        changes = ["align.temperature=1.5", "attacks.fgsm.eps=6/255", "variants={warm: {align: {temperature: 16}}}"]
        request, folder = finished.copied(tmp_path, overrides=changes)
        before = state(folder)
        old_card = (folder / "models/aligned/card.json").read_bytes()
        result = run(request, ("align", "craft"))
        # The variant has a temperature of its own, and where there is no witness the temperature is nowhere.
        networks = {"models/aligned"}
        tables = {f"adversarial/{surrogate}/pgd" for surrogate in ("aligned", "aligned_ensemble")}
        tables |= {f"adversarial/{surrogate}/fgsm" for surrogate in MEMBERS if "cnn_b" not in MEMBERS[surrogate]}
        tables -= {"adversarial/other/fgsm"}
        assert result.made == {"align": len(networks), "craft": len(tables) * CHUNKS}
        after = state(folder)
        written = {
            str(Path(path).parent) for path in before.keys() | after.keys() if before.get(path) != after.get(path)
        }
        assert {path for path in written if path.startswith(("models", "trained", "adversarial"))} == networks | tables
        assert not any(path.startswith(("outcomes", "clean", "report")) for path in written)
        said = capsys.readouterr().err
        for path in networks | tables:
            (kept,) = (folder / ".stale").glob(f"*/{path}")
            assert re.search(f"witness: {path}: made with other settings.*; moved to {kept.relative_to(folder)}", said)
        assert (next((folder / ".stale").glob("*/models/aligned")) / "card.json").read_bytes() == old_card


class TestStages:
    def test_one_by_one_they_lead_to_the_same_table(self, finished: Finished, tmp_path: Path) -> None:
        request, folder = finished.copied(
            tmp_path, "trained", "adversarial", "clean", "outcomes", "report", "experiment.yaml"
        )
        made = [run(request, (stage,)).made for stage in ("align", "craft", "evaluate", "report")]
        assert made == [{"align": 1}] + [{stage: finished.result.made[stage]} for stage in STAGES[1:]]
        for table in ("transfer", "surrogates", "contrasts"):
            name = f"report/{table}.csv"
            assert (folder / name).read_bytes() == (finished.folder / name).read_bytes()

    @pytest.mark.parametrize(
        ("stage", "absent", "first"),
        [
            ("craft", "models/aligned", "align"),
            ("evaluate", "adversarial/aligned/pgd", "craft"),
            ("report", "outcomes/aligned/pgd/mlp", "evaluate"),
            ("report", "trained/mlp", "align"),
        ],
    )
    def test_a_stage_out_of_order_names_the_one_that_comes_first(
        self,
        finished: Finished,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        stage: str,
        absent: str,
        first: str,
    ) -> None:
        later = "outcomes/aligned" if stage == "evaluate" else absent
        request, folder = finished.copied(tmp_path, absent, later)
        before = state(folder)
        assert main([stage, str(request.experiment_file), "--output", str(request.output)]) == 1
        missing = Path(absent).name if first == "align" else absent
        assert f"`witness {first}` comes first: not there yet: {missing}" in capsys.readouterr().err
        assert changed(folder, before) <= {"experiment.yaml"}


class TestStatus:
    def states(self, request: Request, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, dict[str, Any]]:
        capsys.readouterr()
        assert main(["status", str(request.experiment_file), "--output", str(request.output), "--json", *more]) == 0
        return {entry["folder"]: entry for entry in json.loads(capsys.readouterr().out)["entries"]}

    def test_done_partial_and_missing(
        self, finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        request, folder = finished.copied(tmp_path, "outcomes/warm/fgsm/mlp")
        leave_under_way(folder / "adversarial/other/pgd", [1])
        before = state(folder)
        entries = self.states(request, capsys)
        assert changed(folder, before) == set()
        networks = {"trained/mlp", *(f"models/{name}" for name in ("aligned", "label_only", "warm", "other"))}
        tables = {f"adversarial/{s}/{a}" for s in MEMBERS for a in ATTACKS}
        tables |= {f"outcomes/{s}/{a}/{t}" for s in MEMBERS for a in ATTACKS for t in ("@self", *TARGETS)}
        assert {name for name in entries if not name.startswith("clean/")} == networks | tables
        others = {name: entry for name, entry in entries.items() if entry["state"] != "done"}
        assert others == {
            "outcomes/warm/fgsm/mlp": {"folder": "outcomes/warm/fgsm/mlp", "state": "missing", "done": 0, "chunks": 3},
            "adversarial/other/pgd": {"folder": "adversarial/other/pgd", "state": "partial", "done": 1, "chunks": 3},
        }

    def test_what_other_settings_made_is_missing(
        self, finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        request, _ = finished.copied(tmp_path)
        entries = self.states(request, capsys, "--set", "attacks.pgd.steps=2")
        missing = {name for name, entry in entries.items() if entry["state"] == "missing"}
        assert missing == {name for name in entries if "/pgd" in name}
        entries = self.states(request, capsys, "--set", "align.temperature=1.5")
        missing = {name for name, entry in entries.items() if entry["state"] == "missing"}
        assert missing >= {"models/aligned", "models/other", "outcomes/aligned/pgd/mlp"}
        assert not missing & {"models/warm", "trained/mlp"}


class TestFailure:
    def test_a_diverging_alignment_says_what_to_change(
        self, finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        request, folder = finished.copied(tmp_path)
        settings = ["align.optimizer.lr=1e30", "controls=[]", "variants={}"]
        arguments = [part for setting in settings for part in ("--set", setting)]
        before = state(folder)
        assert main(["run", str(request.experiment_file), "--output", str(request.output), *arguments]) == 1
        said = capsys.readouterr().err
        assert "witness: the alignment of aligned failed" in said
        assert "lower align.optimizer.lr" in said
        assert "kept; the same command goes on" in said
        assert not (folder / "models/aligned").exists() or not list((folder / "models/aligned").iterdir())
        assert {path for path in changed(folder, before) if path[0] != "."} <= {"models/aligned", "experiment.yaml"}

    def test_a_surrogate_that_breaks_fails_alone(
        self, finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        request, folder = finished.copied(tmp_path, "adversarial/aligned/fgsm", "adversarial/source/fgsm")
        weights = folder / "models/aligned/model.safetensors"
        sound = weights.read_bytes()
        save_file({name: value * torch.nan if value.is_floating_point() else value
                   for name, value in load_file(weights).items()}, weights)  # fmt: skip
        assert main(["run", str(request.experiment_file), "--output", str(request.output)]) == 1
        said = capsys.readouterr().err
        assert "1 tables failed" in said
        assert "adversarial/aligned/fgsm: chunk " in said and "gradient is not finite" in said
        assert len(list((folder / "adversarial/source/fgsm").glob("*.parquet"))) == 1
        entries = TestStatus().states(request, capsys)
        assert {name: e["state"] for name, e in entries.items() if e["state"] != "done"} == {
            "adversarial/aligned/fgsm": "failed"
        }
        weights.write_bytes(sound)
        assert run(request, ("craft",)).made == {"craft": CHUNKS}
        assert_same_tables(finished.folder / "adversarial", folder / "adversarial")
