"""The files of a report: which there are, when they are made again, and that none is taken for another."""

import csv
import json
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from empty_store import put_empty_store
from hand_made import IMAGES, HandMade

from pipelines import RunFailed, load_results
from pipelines.cli import main
from pipelines.report.facts import facts_of
from pipelines.report.outcomes import read_outcomes
from pipelines.report.page import make_report, read_report

ON_DEMAND = ["correlations", "reasons", "seeds", "soft_labels"]
TABLES = ["contrasts", *ON_DEMAND, "robustness", "surrogates", "times", "transfer"]
FIGURES = ["curves", "gain", "pareto", "relations", "transfer"]
FILES = sorted([
    *(f"{table}.csv" for table in TABLES),
    *(f"{figure}.{kind}" for figure in FIGURES for kind in ("png", "svg")),
    # of one seed, the table of seeds is empty, and so are those of reasons unless they are asked for
    *(f"tables/{table}.{kind}" for table in ("summary", *TABLES) if table not in ON_DEMAND for kind in ("md", "tex")),
    "report.html", "report.json", "results.json",
])  # fmt: skip
GAIN = [
    "gain", "gain_low", "gain_high", "gain_spread", "gain_both_low", "gain_both_high", "p_value", "p_holm",
]  # fmt: skip


@pytest.fixture
def changeable(reported, tmp_path) -> Iterator[HandMade]:
    """The experiment with its report, which is put back afterwards as it was before. Of a copy, paths would differ."""
    shutil.copytree(reported.folder, tmp_path / "before")
    yield reported
    shutil.rmtree(reported.folder)
    shutil.copytree(tmp_path / "before", reported.folder)


def contents(folder: Path) -> dict[str, bytes]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


# The tables as files


def test_the_tables_have_the_columns_that_the_design_names_in_its_order(reported):
    columns = {name: list(pd.read_csv(reported.report / f"{name}.csv")) for name in ("transfer", "contrasts")}
    assert columns == {
        "transfer": [
            "surrogate", "attack", "target", "relation", "n", "gradients", "seeds", "rate", "rate_low",
            "rate_high", "rate_spread", "rate_all", "targeted_rate", "targeted_low", "targeted_high", *GAIN,
        ],
        "contrasts": ["surrogate", "baseline", "attack", "target", "n", "seeds", *GAIN],
    }  # fmt: skip
    assert list(pd.read_csv(reported.report / "surrogates.csv")) == [
        "surrogate", "attack", "clean_accuracy", "clean_accuracy_low", "clean_accuracy_high",
        "clean_spread", "clean_change", "clean_change_low", "clean_change_high", "clean_change_both_low",
        "clean_change_both_high", "witness_agreement",
        "agreement_change", "loss_before", "loss_after",
        "attacked_accuracy", "whitebox_rate", "whitebox_targeted_rate", "mean_l2", "mean_ssim", "robust_accuracy",
        "witnesses", "refinement", "steps", "images_seen", "forward_passes", "backward_passes",
    ]  # fmt: skip


def test_a_table_without_rows_still_names_its_columns(experiment):
    experiment.write(controls=[])
    report, _ = make_report(experiment.finish())
    assert report.contrasts == []
    assert (experiment.report / "contrasts.csv").read_text() == ",".join(
        ["surrogate", "baseline", "attack", "target", "n", "seeds", *GAIN]
    ) + "\n"


def test_the_report_is_the_same_after_a_round_trip_through_its_files(experiment, outcomes):
    blueprint = experiment.finish(outcomes | {"clean/twin": "1" * 12})  # blanks too
    report, _ = make_report(blueprint)
    assert read_report(blueprint.store) == report
    with open(experiment.report / "transfer.csv") as file:
        blank = next(row for row in csv.DictReader(file) if row["target"] == "twin")
    assert (blank["n"], blank["rate"], blank["gain"]) == ("0", "", "")


# When a report is made


def test_two_reports_from_one_store_are_identical_byte_by_byte(changeable):
    blueprint = changeable.blueprint()
    first = contents(changeable.report)
    assert sorted(first) == FILES
    blueprint.store.delete_folder("report")
    make_report(changeable.blueprint())
    assert contents(changeable.report) == first


def test_a_report_is_not_made_again_when_nothing_changed(changeable):
    report = read_report(changeable.blueprint().store)
    times = {file.name: file.stat().st_mtime_ns for file in changeable.report.iterdir()}
    assert make_report(changeable.blueprint()) == (report, False)
    assert {file.name: file.stat().st_mtime_ns for file in changeable.report.iterdir()} == times


def test_a_report_is_made_again_when_the_family_of_a_target_changes(changeable):
    before = read_report(changeable.blueprint().store)
    models = dict(changeable.content()["models"])
    models["stranger"] = models["stranger"] | {"family": "narrow"}
    changeable.write(models=models)
    after, made = make_report(changeable.blueprint())
    assert made
    kinds = [{row["relation"] for row in report.transfer if row["target"] == "stranger"} for report in (before, after)]
    assert kinds == [{"cross_family"}, {"same_family"}]


def test_a_figure_for_which_there_is_nothing_any_more_is_removed(changeable):
    (changeable.report / "my-notes.txt").write_text("mine")
    changeable.write(targets=["twin"])
    make_report(changeable.finish())
    there = {file.name for file in changeable.report.iterdir()}
    assert {"gain.png", "my-notes.txt"} <= there and not {"relations.png", "relations.svg"} & there


# Each of these makes a report twice, so that three files stand for the others where time counts.
QUICK = ("transfer.csv", "report.html", "tables/summary.tex")
EVERY_FILE = [
    name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in FILES if name != "report.json"
]


@pytest.mark.parametrize("name", EVERY_FILE)
def test_a_file_that_was_removed_is_made_again(changeable, name):
    before = contents(changeable.report)
    (changeable.report / name).unlink()
    _, made = make_report(changeable.blueprint())
    assert made
    assert contents(changeable.report) == before


@pytest.mark.parametrize("name", EVERY_FILE)
def test_a_file_that_was_edited_is_made_again_and_that_is_said(changeable, name):
    before = contents(changeable.report)
    file = changeable.report / name
    file.write_bytes(file.read_bytes().replace(b"a", b"b", 1))
    said = []
    report, made = make_report(changeable.blueprint(), said.append)
    assert made
    assert said == [f"report: {name} is not as written; it is made again"]
    assert contents(changeable.report) == before
    assert read_report(changeable.blueprint().store) == report


def test_edited_rates_are_never_read_or_logged(changeable, capsys):
    put_empty_store(changeable.output)
    file = changeable.report / "transfer.csv"
    true = file.read_text()
    header, *rows = true.splitlines()
    rate = header.split(",").index("rate")
    edited = [",".join([*row.split(",")[:rate], "99.0", *row.split(",")[rate + 1 :]]) for row in rows]
    file.write_text("\n".join([header, *edited]) + "\n")
    with pytest.raises(ValueError, match=r"transfer\.csv: edited, damaged or missing since the report was made"):
        read_report(changeable.blueprint().store)
    with pytest.raises(RunFailed, match=r"transfer\.csv: edited.*`witness report` makes it again"):
        load_results(changeable.file)
    assert main(["report", str(changeable.file), "--log", "--json"]) == 0
    said = capsys.readouterr()
    assert "report: transfer.csv is not as written; it is made again" in said.err
    assert json.loads(said.out)["means"][0]["rate"] != 99.0
    assert file.read_text() == true


@pytest.mark.parametrize("content", [
    b"", b"{}",
    *(pytest.param(own, marks=pytest.mark.slow) for own in (b"[]", b'{"fingerprint": 5}', b'{"files": [1]}', b"\xff")),
])  # fmt: skip
def test_a_damaged_report_json_is_made_anew(changeable, content):
    before = contents(changeable.report)
    (changeable.report / "report.json").write_bytes(content)
    assert make_report(changeable.blueprint())[1]
    assert contents(changeable.report) == before


def test_a_report_of_an_older_version_on_confidences_that_are_not_finite_is_not_believed(
    experiment, blueprint, monkeypatch
):
    """Such a version took NaN among the logits for a prediction of class 0, and the report is of that."""
    table = blueprint.clean()["twin"].table
    rows = table.read(blueprint.store, ["image_id", "label", "prediction"])
    monkeypatch.setattr("pipelines.report.page._REVISION", 2)
    make_report(blueprint)
    monkeypatch.undo()
    rows = rows.append_column("confidence", pa.array([float("nan")] * 2 + [0.5] * (IMAGES - 2)))
    with table.writing(blueprint.store, rows.schema, [IMAGES]) as write:
        write(rows)
    with pytest.raises(RunFailed, match=r"clean/twin is damaged \(confidence is not finite for 00004, 00005\); delete"):
        make_report(experiment.blueprint())


def test_a_report_that_was_interrupted_is_never_taken_for_a_complete_one(changeable):
    whole = read_report(changeable.blueprint().store)
    models = changeable.content()["models"]
    changeable.write(models=models | {"stranger": models["stranger"] | {"family": "narrow"}})
    tables = {name: (changeable.report / name).read_bytes() for name in ("transfer.csv", "gain.png")}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))  # the tables can be written and the figures cannot
    try:
        with pytest.raises(OSError, match="too large"):
            make_report(changeable.blueprint())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [name for name, content in tables.items() if (changeable.report / name).read_bytes() != content] == [
        "transfer.csv"
    ]
    changeable.write()
    assert make_report(changeable.blueprint()) == (whole, True)


def test_the_report_command_needs_no_cluster_and_prints_where_the_page_is(experiment, blueprint, capsys):
    put_empty_store(experiment.output)
    assert main(["report", str(experiment.file)]) == 0
    shown = capsys.readouterr().out
    assert str(experiment.report / "report.html") in shown
    assert "aligned under pgd: transfers better than the source: +66.7 points" in shown


def test_the_report_command_names_what_is_missing(experiment, capsys):
    assert main(["report", str(experiment.file)]) == 1
    printed = capsys.readouterr().err
    assert "`witness align` has to come first: these are missing: aligned" in printed
    assert not experiment.report.exists()


def test_refinements_are_named_with_the_losses_of_their_surrogates(experiment):
    pkt = {"align": {"loss": [{"name": "pkt", "weight": 30000}, {"name": "kl", "weight": 1}]}}
    experiment.write(variants={"pkt": pkt, "flat": {"refine": "sam"}, "same": {"align": {"epochs": 3}}}, controls=[])
    blueprint = experiment.finish()
    rows = [
        (row["refinement"], row["surrogates"], row["loss"])
        for row in facts_of(blueprint, read_outcomes(blueprint)).refinements
    ]
    assert rows == [
        ("alignment", "aligned, same", "kl (temperature 4)"),
        ("alignment", "pkt", "pkt × 30,000 + kl (temperature 4)"),
        ("sam", "flat", ""),
    ]


@pytest.mark.parametrize(
    ("align", "duration"),
    [
        ({"epochs": 3}, "3 epochs, batches of 128"),
        ({"limit_steps": 1}, "1 step, batches of 128"),
        (
            {"limit_steps": 2000, "early_stop": {"by": "agreement"}},
            "2,000 steps at most, with an early stop by agreement, batches of 128",
        ),
        (
            {"early_stop": {"by": "gain", "attack": "mi"}},
            "1 epoch at most, with an early stop by gain under mi, batches of 128",
        ),
    ],
)
def test_the_length_of_the_alignment_is_that_which_was_asked(experiment, align, duration):
    data = experiment.content()["data"]
    data |= {"train": {**data["train"], "take": [0, 2]}, "validation": {**data["train"], "take": [2, 4]}}
    experiment.write(align=align, data=data, validation_targets=["other"])
    blueprint = experiment.finish()
    asked = dict(facts_of(blueprint, read_outcomes(blueprint)).asked)
    assert asked["alignment"] == f"loss kl, temperature 4, weight 1; {duration}; sgd, lr 0.001"
