"""`witness run` and its single stages on a finished experiment: what they make again, and what they keep."""

import re
from pathlib import Path

import pandas as pd
import pytest
from digits_experiment import Finished
from digits_folder import ATTACKS, CHUNKS, MEMBERS, changed, state

from pipelines.cli import main
from pipelines.run.command import run
from pipelines.stages.blueprint import STAGES


class TestRunAgain:
    def test_a_finished_experiment_computes_nothing(
        self, finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        request, folder = finished.copied(tmp_path)
        before = state(folder)
        result = run(request)
        assert sum(result.made.values()) == 0
        assert changed(folder, before) <= {"experiment.yaml"}  # which contains the output folder, another one here
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
        kept = {path for path in before if path.split("/")[0] not in ("report", "experiment.yaml")} - {
            ".seen/rates.json",
            ".seen/models.json",
            ".seen/first_looks.json",
            ".seen/published.json",
        }
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
        # The variant sets a temperature of its own, and a control without a witness has none.
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
        printed = capsys.readouterr().err
        for path in networks | tables:
            (kept,) = (folder / ".stale").glob(f"*/{path}")
            assert re.search(
                f"witness: {path}: made with other settings.*; moved to {kept.relative_to(folder)}", printed
            )
        assert (next((folder / ".stale").glob("*/models/aligned")) / "card.json").read_bytes() == old_card

    def test_a_damaged_network_is_made_again_with_the_same_weights(
        self, finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        request, folder = finished.copied(tmp_path)
        file = folder / "models/aligned/model.safetensors"
        content = bytearray(file.read_bytes())
        content[-10] ^= 1
        file.write_bytes(content)
        assert run(request, ("align",)).made == {"align": 1}
        assert file.read_bytes() == (finished.folder / "models/aligned/model.safetensors").read_bytes()
        assert re.search(r"models/aligned: its files are damaged; moved to \.stale/", capsys.readouterr().err)
        assert run(request).made == {"report": 0}


class TestStages:
    @pytest.mark.slow
    def test_run_one_by_one_they_make_the_same_tables(self, finished: Finished, tmp_path: Path) -> None:
        request, folder = finished.copied(
            tmp_path, "trained", "adversarial", "clean", "outcomes", "report", "experiment.yaml"
        )
        later = [stage for stage in STAGES[1:] if stage != "reasons"]  # for which the experiment does not ask
        made = [run(request, (stage,)).made for stage in ("align", *later)]
        assert made == [{"align": 1}] + [{stage: finished.result.made[stage]} for stage in later]
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
        assert main([stage, str(request.source), "--output", str(request.output)]) == 1
        missing = Path(absent).name if first == "align" else absent
        assert f"`witness {first}` has to come first: these are missing: {missing}" in capsys.readouterr().err
        assert changed(folder, before) <= {"experiment.yaml"}
