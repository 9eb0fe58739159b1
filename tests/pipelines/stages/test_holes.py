"""What cannot be made is left out, alone and with its reason: the rest is reported, and the hole is shown."""

import json
import sys
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from hand_made import CURVE, HandMade, _weights, hand_made
from one_worker import WORKER

from align_core.alignment import NonFiniteLoss
from align_core.weights import to_bytes
from pipelines.cli import main
from pipelines.compute.fill import _failures
from pipelines.compute.tuned import Tuned
from pipelines.failure import RunFailed
from pipelines.progress import Progress
from pipelines.report.page import computed_report, make_report
from pipelines.run.command import run
from pipelines.run.request import Request
from pipelines.run.results import load_results
from pipelines.run.status import status_of, watch
from pipelines.stages.align import _commit_result, _UnderWay
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.makings import Making, write_failure
from pipelines.stages.payload import fine_tune_of

VARIANTS = {"hot": {"align": {"temperature": 1e30}}, "warm": {"align": {"temperature": 8.0}}}
CONTROLS = ["label_only", "witness", "aligned_ensemble"]
REASON = "its alignment failed: the loss is nan"


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HandMade:
    monkeypatch.setattr(sys, "path", list(sys.path))
    return hand_made(tmp_path, variants=VARIANTS, controls=CONTROLS)


def making_of(blueprint: Blueprint, name: str) -> Making:
    return next(making for making in blueprint.alignments() if making.name == name)


def lose(experiment: HandMade, *names: str) -> Blueprint:
    """The experiment as a run leaves it in which these alignments diverged."""
    blueprint = experiment.finish()
    for name in names:
        blueprint.store.delete(f"models/{name}/card.json")
        write_failure(blueprint.store, making_of(blueprint, name), REASON)
    return experiment.blueprint()


def break_table(blueprint: Blueprint, folder: str, final: bool = True) -> Blueprint:
    """Leaves a finished table as a chunk does whose logits are not finite."""
    tables = [own.table for own in blueprint.clean().values()] + [cell.table for cell in blueprint.cells()]
    (table,) = (own for own in [*tables, *blueprint.all_adversarial().values()] if own.folder == folder)
    blueprint.store.delete(table.finished_file)
    table.write_failure(blueprint.store, 0, "chunk 0: the logits of twin are not finite for 00004", final)
    return blueprint


def rows(table: Sequence[Any], **values: str) -> list[Any]:
    return [row for row in table if all(row[column] == value for column, value in values.items())]


class TestNetworks:
    def test_the_rest_is_reported_as_if_it_had_never_been_asked_for(self, experiment: HandMade) -> None:
        blueprint = lose(experiment, "hot")
        assert blueprint.missing("align") == blueprint.missing("craft") == blueprint.missing("evaluate") == []
        report = computed_report(blueprint)
        experiment.write(variants={"warm": VARIANTS["warm"]}, controls=CONTROLS)
        without = computed_report(experiment.blueprint())
        assert report.tables() == without.tables()
        assert rows(report.transfer, surrogate="warm")

    def test_the_page_names_it_and_the_reason(self, experiment: HandMade) -> None:
        make_report(lose(experiment, "hot"))
        page = (experiment.report / "report.html").read_text()
        assert "Not there: models/hot: its alignment failed: the loss is nan. The same settings would diverge" in page

    def test_the_exit_code_is_1_each_time_and_the_result_is_there(
        self, experiment: HandMade, capsys: pytest.CaptureFixture[str]
    ) -> None:
        lose(experiment, "hot")
        for _ in range(2):
            assert main(["run", str(experiment.file), "--json"]) == 1
            output, errors = capsys.readouterr()
            (hole,) = json.loads(output)["holes"]
            assert hole.startswith("models/hot: its alignment failed")
            assert hole in errors
            assert "delete models/hot/failed.json to try once more" in hole
        assert load_results(experiment.file).holes == [hole]

    def test_the_status_is_failed(self, experiment: HandMade) -> None:
        lose(experiment, "hot")
        states = {entry.folder: entry.state for entry in status_of(Request(experiment.file)).entries}
        assert states.pop("models/hot") == "failed"
        assert set(states.values()) == {"done"}
        assert not any("hot" in folder for folder in states)
        assert len(list(watch(Request(experiment.file)))) == 1  # it waits for nothing

    def test_other_settings_or_a_deleted_note_try_again(self, experiment: HandMade) -> None:
        blueprint = lose(experiment, "hot")
        blueprint.store.delete("models/hot/failed.json")
        assert experiment.blueprint().missing("align") == ["hot"]
        write_failure(blueprint.store, making_of(blueprint, "hot"), REASON)
        assert experiment.blueprint().missing("align") == []
        experiment.write(variants=VARIANTS | {"hot": {"align": {"temperature": 2.0}}}, controls=CONTROLS)
        assert experiment.blueprint().missing("align") == ["hot"]

    def test_what_needs_the_aligned_one_goes_with_it_and_the_rest_stays(self, experiment: HandMade) -> None:
        blueprint = lose(experiment, "aligned")
        report = computed_report(blueprint)
        names = ["source", "label_only", "witness", "hot", "warm"]
        assert [row["surrogate"] for row in report.means()][::2] == names
        assert {(row["surrogate"], row["baseline"]) for row in report.contrasts} == {
            (variant, control) for variant in ("hot", "warm") for control in ("label_only", "witness")
        }

    def test_a_source_that_cannot_be_trained_leaves_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "path", list(sys.path))
        experiment = hand_made(tmp_path)
        models = experiment.content()["models"]
        models["near"] = {key: value for key, value in models["near"].items() if key != "weights"} | {"train": {}}
        experiment.write(models=models)
        blueprint = experiment.blueprint()
        write_failure(blueprint.store, next(blueprint.trainings()), "its training failed")
        blueprint = experiment.blueprint()
        assert blueprint.missing("align") == []
        assert [own.name for own in blueprint.surrogates] == []
        assert blueprint.lost["aligned"] == "it needs near, which could not be made"

    def test_a_target_that_cannot_be_trained(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "path", list(sys.path))
        experiment = hand_made(tmp_path)
        models = experiment.content()["models"]
        models["twin"] = {key: value for key, value in models["twin"].items() if key != "weights"} | {"train": {}}
        experiment.write(models=models)
        blueprint = experiment.blueprint()
        write_failure(blueprint.store, next(blueprint.trainings()), "its training failed")
        report = computed_report(experiment.finish())
        assert {row["target"] for row in report.transfer} >= {"cousin", "stranger", "(mean cross_family)"}
        assert not rows(report.transfer, target="twin")
        assert {row["rate"] for row in rows(report.transfer, target="(mean)")} == {None}


class TestTheEndOfAFineTune:
    def ended(self, blueprint: Blueprint, name: str, outcome: Any) -> tuple[bool, list[str]]:
        making, failures = making_of(blueprint, name), list[str]()
        future: Future[Any] = Future()
        future.set_exception(outcome) if isinstance(outcome, Exception) else future.set_result(outcome)
        under_way = _UnderWay(making, fine_tune_of(blueprint, making, WORKER), 0.0)
        curve = _commit_result(blueprint, future, under_way, Progress(quiet=True), failures)
        return curve is not None, failures

    def test_one_that_diverged_is_noted(self, experiment: HandMade) -> None:
        blueprint = experiment.blueprint()
        assert self.ended(blueprint, "hot", NonFiniteLoss("the loss is nan")) == (False, [])
        assert "its alignment failed: the loss is nan" in blueprint.lost["hot"]
        assert "hot" not in blueprint.missing("align")

    def test_any_other_failure_is_not(self, experiment: HandMade) -> None:
        blueprint = experiment.blueprint()
        made, failures = self.ended(blueprint, "hot", OSError("disk"))
        assert (made, failures) == (False, ["the alignment of hot failed (it had reported 0 of 1 steps): disk"])
        assert "hot" in blueprint.missing("align")

    def test_success_takes_an_old_note_away(self, experiment: HandMade) -> None:
        blueprint = experiment.blueprint()
        making = making_of(blueprint, "hot")
        write_failure(blueprint.store, making, REASON)
        weights = to_bytes(_weights(making.fingerprint, making.model))
        assert self.ended(blueprint, "hot", Tuned([weights], CURVE)) == (True, [])
        assert not blueprint.store.exists(making.failed_file)
        assert blueprint.lost == {}


class TestTables:
    def test_a_cell_that_failed_blanks_the_means_that_it_belongs_to(self, experiment: HandMade) -> None:
        whole = computed_report(experiment.finish())
        blueprint = break_table(experiment.blueprint(), "outcomes/aligned/pgd/twin")
        blueprint.check_finished()
        report, _ = make_report(blueprint)
        lost = rows(whole.transfer, surrogate="aligned", attack="pgd", target="twin")
        assert rows(report.transfer, surrogate="aligned", attack="pgd", target="twin") == []
        blank = [row for row in report.transfer if row["rate"] is None]
        assert {(row["surrogate"], row["attack"]) for row in blank} == {("aligned", "pgd")}
        assert {row["target"] for row in blank} == {"(mean)", "(mean same_architecture)"}
        gone = {(row["surrogate"], row["attack"], row["target"]) for row in [*lost, *blank]}
        kept = [row for row in whole.transfer if (row["surrogate"], row["attack"], row["target"]) not in gone]
        assert [row for row in report.transfer if row not in blank] == kept
        assert not rows(report.contrasts, surrogate="aligned", attack="pgd", target="(mean)")
        assert rows(report.contrasts, surrogate="aligned", attack="mi", target="(mean)")
        page = (experiment.report / "report.html").read_text()
        assert "Not there: outcomes/aligned/pgd/twin: chunk 0: the logits of twin are not finite for 00004" in page
        assert "The (mean) of aligned under pgd is blank, because not all of its targets" in page

    def test_a_cell_of_the_source_takes_the_gains_over_it(self, experiment: HandMade) -> None:
        experiment.finish()
        blueprint = break_table(experiment.blueprint(), "outcomes/source/pgd/twin")
        blueprint.check_finished()
        report, _ = make_report(blueprint)
        (row,) = rows(report.transfer, surrogate="aligned", attack="pgd", target="twin")
        assert row["rate"] is not None
        assert row["gain"] is None
        assert {row["rate"] for row in rows(report.transfer, attack="pgd", target="(mean)")} == {None}
        assert None not in {row["rate"] for row in rows(report.transfer, attack="mi", target="(mean)")}

    def test_a_target_without_clean_predictions_has_no_rows(self, experiment: HandMade) -> None:
        experiment.finish()
        blueprint = break_table(experiment.blueprint(), "clean/twin")
        blueprint.check_finished()
        report = computed_report(blueprint)
        assert not rows(report.transfer, target="twin")
        assert {row["rate"] for row in rows(report.transfer, target="(mean)")} == {None}

    @pytest.mark.parametrize("folder", ["outcomes/hot/pgd/@self", "clean/hot", "clean/seer"])
    def test_figures_of_the_surrogates_are_blank(self, experiment: HandMade, folder: str) -> None:
        experiment.finish()
        blueprint = break_table(experiment.blueprint(), folder)
        blueprint.check_finished()
        report, _ = make_report(blueprint)
        own = rows(report.surrogates, surrogate="hot")
        if folder == "clean/hot":
            assert own == []
        elif folder == "clean/seer":
            assert {row["witness_agreement"] for row in report.surrogates} == {None}
        else:
            assert [row["attack"] for row in own] == ["mi", "(all)"]
            assert own[-1]["robust_accuracy"] is None

    def test_images_that_could_not_be_crafted_take_their_cells(self, experiment: HandMade) -> None:
        blueprint = experiment.finish()
        for cell in list(blueprint.cells()):
            if (cell.surrogate, cell.attack) == ("hot", "mi"):
                blueprint.store.delete(cell.table.finished_file)
        blueprint = break_table(experiment.blueprint(), "adversarial/hot/mi")
        blueprint.check_finished()
        report = computed_report(blueprint)
        assert {row["attack"] for row in rows(report.transfer, surrogate="hot")} == {"pgd"}
        assert len(blueprint.holes()) == 1

    def test_a_failure_that_may_not_come_again_is_no_hole(self, experiment: HandMade) -> None:
        experiment.finish()
        blueprint = break_table(experiment.blueprint(), "outcomes/aligned/pgd/twin", final=False)
        with pytest.raises(RunFailed, match="has to come first: these are missing: outcomes/aligned/pgd/twin"):
            blueprint.check_finished()
        listing = blueprint.store.listing()
        tables = [cell.table for cell in blueprint.cells()]
        with pytest.raises(RunFailed, match=r"1 tables failed.*\n.*not finite for 00004"):
            _failures(blueprint.store, tables, listing, print)

    def test_one_that_would_come_again_is_said_and_left(self, experiment: HandMade) -> None:
        experiment.finish()
        blueprint = break_table(experiment.blueprint(), "outcomes/aligned/pgd/twin")
        said: list[str] = []
        tables = [cell.table for cell in blueprint.cells()]
        found = _failures(blueprint.store, tables, blueprint.store.listing(), said.append)
        assert found == {"outcomes/aligned/pgd/twin"}
        assert "the logits of twin are not finite for 00004; all other tables are made" in said[0]
        assert blueprint.missing("evaluate") == ["outcomes/aligned/pgd/twin"]  # a run tries it again

    def test_nothing_at_all_is_no_report(self, experiment: HandMade) -> None:
        experiment.finish()
        blueprint = break_table(experiment.blueprint(), "clean/near")
        blueprint.check_finished()
        with pytest.raises(RunFailed, match="there is nothing to report: clean/near"):
            make_report(blueprint)

    def test_unperturbed_images_are_counted_on_the_page(self, experiment: HandMade) -> None:
        l2 = {
            f"adversarial/{own.name}/{attack}": "1" * 12
            for own in experiment.blueprint().surrogates
            for attack in ("pgd", "mi")
        }
        experiment.finish(l2 | {"adversarial/hot/mi": "011111110111"})
        run(Request(experiment.file, quiet=True))
        page = (experiment.report / "report.html").read_text()
        assert page.count("are unperturbed") == 1
        assert "2 of 12 images crafted on hot under mi are unperturbed" in page
