"""`witness plan`: what it says is finished, missing and needed, against counts made by hand."""

import json
import re
from pathlib import Path

import pytest
from digits_experiment import Finished
from hand_made import IMAGES, HandMade, hand_made

from pipelines.cli import main
from pipelines.run.forecast import FineTune, Forecast, Part, forecast_of, make_forecast
from pipelines.run.missing_work import missing_work, table_of
from pipelines.run.request import Request
from pipelines.run.status import status_of
from pipelines.stages.evaluations import in_turns
from pipelines.stages.inspect_published import Published
from pipelines.stages.speeds import Speeds

SURROGATES, ATTACKS, TARGETS, CHUNKS = 3, 2, 3, 3  # source, aligned, witness; pgd, mi; twin, cousin, stranger
CLEAN = 6  # near, seer, aligned and the three targets


@pytest.fixture
def experiment(tmp_path: Path) -> HandMade:
    return hand_made(tmp_path, compute={"chunk": IMAGES // CHUNKS, "workers": 2})


def sums(found: Forecast, stage: str) -> tuple[int, int, int, int]:
    parts = [part for part in found.parts if part.stage == stage]
    tables, chunks, done, units = (
        sum(getattr(p, name) for p in parts) for name in ("tables", "chunks", "done", "units")
    )
    return tables, chunks, done, units


def test_everything_is_missing_before_the_first_run(experiment: HandMade) -> None:
    found = make_forecast(Request(experiment.file, quiet=True))
    pairs = SURROGATES * ATTACKS
    cells = pairs * (1 + TARGETS)
    assert found.missing_networks == ["aligned"]
    assert sums(found, "craft") == (pairs, pairs * CHUNKS, 0, pairs * IMAGES)
    assert sums(found, "evaluate") == (cells + CLEAN, (cells + CLEAN) * CHUNKS, 0, (cells + CLEAN) * IMAGES)
    assert found.seconds("craft") is None
    assert found.tables == pairs + cells + CLEAN
    assert (found.files, found.bytes) == (0, 0)
    assert not experiment.output.exists()


def test_nothing_of_a_finished_experiment_is_missing(experiment: HandMade) -> None:
    blueprint = experiment.finish()
    found = forecast_of(blueprint)
    assert found.missing_networks == []
    assert sums(found, "craft")[3] == sums(found, "evaluate")[3] == 0
    assert all(part.done == part.chunks for part in found.parts)
    on_disk = [file for file in Path(blueprint.store.location).rglob("*") if file.is_file()]
    assert (found.files, found.bytes) == (len(on_disk), sum(file.stat().st_size for file in on_disk))
    assert sum(file.suffix == ".parquet" and ".seen" not in file.parts for file in on_disk) == found.tables
    tables = sum(file.stat().st_size for file in on_disk if file.suffix == ".parquet")
    assert tables > 0 and found.most_bytes >= IMAGES * SURROGATES * ATTACKS * 64


def test_a_table_that_is_partly_filled_counts_chunk_by_chunk(experiment: HandMade) -> None:
    blueprint = experiment.finish()
    table = blueprint.adversarial(blueprint.by_name["witness"], "mi")
    for chunk in (0, 2):
        table.write_chunk(blueprint.store, chunk, table.read_chunk(blueprint.store, chunk, IMAGES // CHUNKS))
    blueprint.store.delete(table.finished_file)
    (part,) = (part for part in forecast_of(blueprint).parts if part.name == "witness mi" and part.stage == "craft")
    assert (part.done, part.chunks, part.units) == (2, 3, IMAGES // CHUNKS)


def test_predictions_that_are_made_together_count_for_each_of_their_tables(experiment: HandMade) -> None:
    """Of the second image set, a file of one chunk holds two of three targets; nothing else of it is there."""
    blueprint = experiment.finish()
    one = blueprint.evaluations[1]
    assert one.images is not None and one.images.folder == "adversarial/source/pgd"
    (turn,) = one.turns
    rows = {
        position: own.table.read_chunk(blueprint.store, 1, IMAGES // CHUNKS)
        for position, own in enumerate(one.predictions)
        if own.table.folder.endswith(("twin", "cousin"))
    }
    for own in one.predictions:
        blueprint.store.delete(own.table.finished_file)
    turn.joint.write_chunk(blueprint.store, 1, rows)
    assert len(blueprint.missing("evaluate")) == TARGETS + 1
    (part,) = (part for part in forecast_of(blueprint).parts if part.name == "source pgd" and part.stage == "evaluate")
    each = IMAGES // CHUNKS
    assert (part.done, part.chunks, part.units) == (2, CHUNKS * (TARGETS + 1), (CHUNKS * (TARGETS + 1) - 2) * each)
    found = {entry.folder: entry for entry in status_of(Request(experiment.file)).entries}
    told = [(found[own.table.folder].state, found[own.table.folder].done) for own in one.predictions]
    assert told == [("missing", 0), ("partial", 1), ("partial", 1), ("missing", 0)]  # @self, twin, cousin, stranger


@pytest.mark.parametrize(("networks", "turns"), [(16, 1), (3, 2), (1, 4)])
def test_a_file_is_written_for_each_chunk_and_turn_of_networks(experiment: HandMade, networks: int, turns: int) -> None:
    experiment.write(compute={"chunk": IMAGES // CHUNKS, "workers": 2, "networks": networks})
    blueprint = experiment.blueprint()
    pairs, clean = SURROGATES * ATTACKS, -(-CLEAN // networks)
    assert forecast_of(blueprint).chunk_files == CHUNKS * (pairs + pairs * turns + clean)
    order = [(turn.images is not None, turn.joint.group) for turn in in_turns(blueprint.evaluations)]
    assert [group for _, group in order] == sorted(group for _, group in order)
    assert len(order) == pairs * turns + clean


def test_the_time_is_rate_times_gradients_over_workers(experiment: HandMade) -> None:
    blueprint = experiment.blueprint()
    speeds = Speeds(blueprint)
    for surrogate in blueprint.surrogates:
        speeds.note("gradient", surrogate.members, "cpu", count=100, seconds=50)  # half a second each
        speeds.note("prediction", surrogate.members, "cpu", count=10, seconds=1)
    for target in blueprint.experiment.targets:
        speeds.note("prediction", (target,), "cpu", count=10, seconds=1)
    speeds.save()
    found = forecast_of(blueprint)
    pairs, steps = SURROGATES * ATTACKS, 4
    assert found.seconds("craft") == pytest.approx(pairs * IMAGES * steps * 0.5 / 2)
    predictions = (pairs * (1 + TARGETS) + CLEAN) * IMAGES
    assert found.seconds("evaluate") == pytest.approx(predictions * 0.1 / 2)


def test_the_gradients_of_every_attack_are_printed(experiment: HandMade, capsys: pytest.CaptureFixture[str]) -> None:
    """Per image: steps x copies; of variance tuning 20 more for each step but the last; of a budget what it allows."""
    attacks = {
        "pgd": {"method": "pgd", "steps": 4},
        "long": {"method": "mi", "steps": 300, "views": [{"name": "scale", "copies": 5}]},
        "vmi": {"method": "vmi", "steps": 10},
        "bsr": {"method": "bsr", "budget": 139},  # six steps of 20 copies
    }
    experiment.write(attacks={name: {"eps": "4/255", **own} for name, own in attacks.items()})
    assert main(["plan", str(experiment.file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "attacks   gradients per image: pgd 4, long 1,500, vmi 190, bsr 120" in lines
    assert main(["plan", str(experiment.file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["gradients"] == {"pgd": 4, "long": 1500, "vmi": 190, "bsr": 120}


def test_trainings_and_alignments_are_counted_and_timed_before_their_source_is_there(
    experiment: HandMade, capsys: pytest.CaptureFixture[str]
) -> None:
    """The source is trained here, so that nothing is there yet that the aligned surrogate could start from."""
    models = experiment.content()["models"]
    trained = {key: value for key, value in models["near"].items() if key != "weights"}
    trained |= {"train": {"epochs": 3, "batch_size": 2}}
    experiment.write(models=models | {"near": trained}, align={"epochs": 5, "batch_size": 64})
    found = make_forecast(Request(experiment.file, quiet=True))
    told = [(network.stage, network.name, network.steps, network.seconds) for network in found.networks]
    # Four training images are two batches of 2, and one batch of 64.
    assert told == [("align", "aligned", 5, None), ("train", "near", 6, None)]
    assert found.seconds("align") is None
    assert main(["plan", str(experiment.file)]) == 0
    assert "aligned, near; 11 steps, time unknown until a run has measured the rates" in capsys.readouterr().out
    speeds = Speeds(experiment.blueprint())
    speeds.note("training", ("near",), "cpu", count=20, seconds=5)  # half a second for an image and its two passes
    speeds.save()
    assert make_forecast(Request(experiment.file, quiet=True)).seconds("align") is None
    speeds.note("training", ("near", "seer"), "cpu", count=30, seconds=20)
    speeds.save()
    found = make_forecast(Request(experiment.file, quiet=True))
    assert [network.seconds for network in found.networks] == pytest.approx([5 * 4 * 2, 6 * 2 * 0.5])
    assert found.seconds("align") == found.as_json()["seconds"]["align"] == pytest.approx(46)
    assert main(["plan", str(experiment.file), "--cells"]) == 0
    lines = capsys.readouterr().out
    assert "11 steps, about 46 s one after another, less where there is room for several" in lines
    assert "  align    aligned: 5 steps; about 40 s" in lines
    assert "times     leave out the start of processes" in lines
    experiment.write()
    experiment.finish()
    assert "times" not in "".join(forecast_of(experiment.blueprint()).lines())


def test_a_run_measures_the_rates_and_the_command_prints_times(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, folder = finished.copied(tmp_path, "adversarial/source", "outcomes/source")
    assert main(["plan", str(finished.file), "--output", str(tmp_path), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["seconds"]["craft"] > 0
    assert printed["seconds"]["align"] == 0 and printed["missing_networks"] == []
    assert printed["seconds"]["evaluate"] > 0
    assert printed["files"] == sum(file.is_file() for file in folder.rglob("*"))
    assert main(["plan", str(finished.file), "--output", str(tmp_path), "--cells"]) == 0
    lines = capsys.readouterr().out
    assert "craft     48 of 54 chunks of 18 tables finished; 120 images to make, about" in lines
    assert "source pgd: 0 of 3 chunks finished" in lines
    assert main(["plan", str(finished.file), "--output", str(tmp_path)]) == 0
    head, own = [re.split(" {2,}", line) for line in capsys.readouterr().out.splitlines() if "  " in line][-2:]
    assert head == ["missing", "images", "gradients", "predictions", "time of one worker"]
    assert own[:4] == ["source", "120", "240", "360"] and re.fullmatch(r"\d+ s", own[4])
    assert main(["plan", str(finished.file), "--output", str(tmp_path), "--json", "--set", "seed=1"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert {network["name"]: network["stage"] for network in printed["networks"]} == {
        "mlp": "train", "aligned": "align", "label_only": "align", "warm": "align", "other": "align",
    }  # fmt: skip
    assert all(0 < network["seconds"] < 60 for network in printed["networks"])


def test_what_is_missing_is_summed_over_seeds_attacks_and_stages(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three seeds, nine surrogates and three attacks, none of whose rates is known."""
    attacks = {name: {"method": name, "eps": "4/255", "steps": 5} for name in ("pgd", "mi", "di")}
    experiment = hand_made(
        tmp_path,
        seeds=[0, 1, 2],
        controls=["label_only", "witness", "ensemble", "aligned_ensemble"],
        variants={"t16": {"align": {"temperature": 16}}, "lgv": {"refine": "lgv"}, "pkt": {"align": {"epochs": 2}}},
        attacks=attacks,
    )
    assert main(["plan", str(experiment.file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 25
    assert any("make first: aligned x 3, label_only x 3, t16 x 3, lgv x 3, pkt x 3; " in line for line in lines)
    start = next(number for number, line in enumerate(lines) if line.startswith("missing "))
    each, predictions = 3 * 3 * IMAGES, 3 * 3 * IMAGES * (1 + TARGETS)
    crafted = [f"{each}", f"{5 * each:,}", f"{predictions}"]
    clean = 5 + 5 * 3  # the source, the witness and the targets; and the networks that are made
    assert [re.split(" {2,}", line) for line in lines[start : start + 11]] == [
        ["missing", "networks", "images", "gradients", "predictions"],
        ["clean images", f"{IMAGES * (clean + 3 * 2)}"],
        ["source", *crafted],
        ["aligned", "3", *crafted],
        ["label_only", "3", *crafted],
        ["witness", *crafted],
        ["ensemble", *crafted],
        ["aligned_ensemble", *crafted],
        *([name, "3", *crafted] for name in ("t16", "lgv", "pkt")),
    ]
    assert main(["plan", str(experiment.file), "--cells"]) == 0
    assert "  craft    t16~2 di: 0 of 1 chunks finished; time unknown" in capsys.readouterr().out.splitlines()
    assert main(["plan", str(experiment.file), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["parts"]) == 1 + 2 * 9 * 3 * 3


def _forecast(networks: list[FineTune], parts: list[Part]) -> Forecast:
    return Forecast(networks, parts, {"craft": 1, "evaluate": 1}, 0, 0, 0, 0, Published(), {}, [], 0)


def test_what_is_not_known_of_the_work_is_said() -> None:
    def part(attack: str, gradients: int | None, seconds: float | None) -> Part:
        return Part("craft", f"source {attack}", "source", 1, 1, 0, 10, gradients, seconds)

    networks = [FineTune("train", "cnn", 5, 3.0)]
    forecast = _forecast(networks, [part("pgd", 100, 2.0), part("aa", None, None)])
    assert table_of(missing_work(forecast)) == [
        ["missing", "networks", "images", "gradients", "time of one worker"],
        ["cnn", "1", "", "", "3 s"],
        ["source", "", "20", "unknown", "unknown"],
    ]
    assert table_of(missing_work(_forecast([], []))) == []
