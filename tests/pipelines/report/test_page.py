"""The files of a report: what they contain, when they are made again, and that page and figures can be displayed."""

import base64
import csv
import dataclasses
import io
import json
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from hand_made import IMAGES
from PIL import Image

from pipelines import RunFailed, load_results
from pipelines.cli import main
from pipelines.report.figures import gain_figure, transfer_heatmap
from pipelines.report.page import Report, html_page, make_report, read_report
from pipelines.report.sentences import notes, verdicts

FILES = [
    "contrasts.csv", "correlations.csv", "gain.png", "pareto.png", "reasons.csv", "report.html", "report.json",
    "robustness.csv",
    "seeds.csv", "soft_labels.csv", "surrogates.csv", "times.csv", "transfer.csv", "transfer.png",
]  # fmt: skip
GAIN = [
    "gain", "gain_low", "gain_high", "gain_spread", "gain_both_low", "gain_both_high", "p_value", "p_holm",
]  # fmt: skip


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


# The tables as files


def test_the_tables_have_the_columns_that_the_design_names_in_its_order(experiment, blueprint):
    make_report(blueprint)
    columns = {name: list(pd.read_csv(experiment.report / f"{name}.csv")) for name in ("transfer", "contrasts")}
    assert columns == {
        "transfer": [
            "surrogate", "attack", "target", "relation", "n", "gradients", "seeds", "rate", "rate_low",
            "rate_high", "rate_spread", "rate_all", "targeted_rate", "targeted_low", "targeted_high", *GAIN,
        ],
        "contrasts": ["surrogate", "baseline", "attack", "target", "n", "seeds", *GAIN],
    }  # fmt: skip
    assert list(pd.read_csv(experiment.report / "surrogates.csv")) == [
        "surrogate", "attack", "clean_accuracy", "clean_accuracy_low", "clean_accuracy_high",
        "clean_spread", "clean_change", "clean_change_low", "clean_change_high", "witness_agreement",
        "agreement_change", "loss_before", "loss_after",
        "attacked_accuracy", "whitebox_rate", "whitebox_targeted_rate", "mean_l2", "mean_ssim", "robust_accuracy",
        "refinement", "steps", "images_seen", "forward_passes", "backward_passes",
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


def test_two_reports_from_one_store_are_identical_byte_by_byte(experiment, blueprint):
    make_report(blueprint)
    first = contents(experiment.report)
    assert sorted(first) == FILES
    blueprint.store.delete_folder("report")
    make_report(experiment.blueprint())
    assert contents(experiment.report) == first


def test_a_report_is_not_made_again_when_nothing_changed(experiment, blueprint):
    report, made = make_report(blueprint)
    times = {file.name: file.stat().st_mtime_ns for file in experiment.report.iterdir()}
    assert made
    assert make_report(experiment.blueprint()) == (report, False)
    assert {file.name: file.stat().st_mtime_ns for file in experiment.report.iterdir()} == times


def test_a_report_is_made_again_when_the_family_of_a_target_changes(experiment, blueprint):
    before, _ = make_report(blueprint)
    models = dict(experiment.content()["models"])
    models["stranger"] = models["stranger"] | {"family": "narrow"}
    experiment.write(models=models)
    after, made = make_report(experiment.blueprint())
    assert made
    kinds = [{row["relation"] for row in report.transfer if row["target"] == "stranger"} for report in (before, after)]
    assert kinds == [{"cross_family"}, {"same_family"}]


# Each of these makes a report twice, so that two files stand for the others where time counts.
EVERY_FILE = [
    name if name in ("transfer.csv", "report.html") else pytest.param(name, marks=pytest.mark.slow)
    for name in FILES
    if name != "report.json"
]


@pytest.mark.parametrize("name", EVERY_FILE)
def test_a_file_that_was_removed_is_made_again(experiment, blueprint, name):
    make_report(blueprint)
    before = contents(experiment.report)
    (experiment.report / name).unlink()
    _, made = make_report(experiment.blueprint())
    assert made
    assert contents(experiment.report) == before


@pytest.mark.parametrize("name", EVERY_FILE)
def test_a_file_that_was_edited_is_made_again_and_that_is_said(experiment, blueprint, name):
    make_report(blueprint)
    before = contents(experiment.report)
    file = experiment.report / name
    file.write_bytes(file.read_bytes().replace(b"a", b"b", 1))
    said = []
    report, made = make_report(experiment.blueprint(), said.append)
    assert made
    assert said == [f"report: {name} is not as written; it is made again"]
    assert contents(experiment.report) == before
    assert read_report(blueprint.store) == report


def test_edited_rates_are_never_read_or_logged(experiment, blueprint, capsys):
    make_report(blueprint)
    file = experiment.report / "transfer.csv"
    true = file.read_text()
    header, *rows = true.splitlines()
    rate = header.split(",").index("rate")
    edited = [",".join([*row.split(",")[:rate], "99.0", *row.split(",")[rate + 1 :]]) for row in rows]
    file.write_text("\n".join([header, *edited]) + "\n")
    with pytest.raises(ValueError, match=r"transfer\.csv: edited, damaged or missing since the report was made"):
        read_report(blueprint.store)
    with pytest.raises(RunFailed, match=r"transfer\.csv: edited.*`witness report` makes it again"):
        load_results(experiment.file)
    assert main(["report", str(experiment.file), "--log", "--json"]) == 0
    said = capsys.readouterr()
    assert "report: transfer.csv is not as written; it is made again" in said.err
    assert json.loads(said.out)["means"][0]["rate"] != 99.0
    assert file.read_text() == true


@pytest.mark.parametrize("content", [
    b"", b"{}",
    *(pytest.param(own, marks=pytest.mark.slow) for own in (b"[]", b'{"fingerprint": 5}', b'{"files": [1]}', b"\xff")),
])  # fmt: skip
def test_a_damaged_report_json_is_made_anew(experiment, blueprint, content):
    make_report(blueprint)
    before = contents(experiment.report)
    (experiment.report / "report.json").write_bytes(content)
    assert make_report(experiment.blueprint())[1]
    assert contents(experiment.report) == before


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


def test_a_report_that_was_interrupted_is_never_taken_for_a_complete_one(experiment, blueprint):
    whole, _ = make_report(blueprint)
    models = experiment.content()["models"]
    experiment.write(models=models | {"stranger": models["stranger"] | {"family": "narrow"}})
    picture = experiment.report / "gain.png"
    content = picture.read_bytes()
    picture.unlink()
    picture.mkdir()  # so that the tables can be written and the figure cannot
    with pytest.raises(OSError, match=r"gain\.png"):
        make_report(experiment.blueprint())
    picture.rmdir()
    picture.write_bytes(content)
    experiment.write()
    assert make_report(experiment.blueprint()) == (whole, True)


def test_the_report_command_needs_no_cluster_and_prints_where_the_page_is(experiment, blueprint, capsys):
    assert main(["report", str(experiment.file)]) == 0
    shown = capsys.readouterr().out
    assert str(experiment.report / "report.html") in shown
    assert "aligned under pgd: transfers better than the source: +66.7 points" in shown


def test_the_report_command_names_what_is_missing(experiment, capsys):
    assert main(["report", str(experiment.file)]) == 1
    printed = capsys.readouterr().err
    assert "`witness align` has to come first: these are missing: aligned" in printed
    assert not experiment.report.exists()


# The page


class Page(HTMLParser):
    """The texts of an HTML page, and the addresses that it refers to; embedded images are addresses too."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "iframe")
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]


def test_the_page_needs_no_other_file_and_holds_all_figures(experiment, blueprint):
    make_report(blueprint)
    text = (experiment.report / "report.html").read_text()
    addresses = Page(text).addresses
    start = "data:image/png;base64,"
    assert all(address.startswith(start) for address in addresses)
    embedded = [base64.b64decode(address.removeprefix(start)) for address in addresses]
    assert embedded == [(experiment.report / name).read_bytes() for name in ("gain.png", "transfer.png", "pareto.png")]
    for address in addresses:
        text = text.replace(address, "")
    assert "://" not in text
    assert "url(" not in text


def test_the_page_shows_the_verdicts_the_caveats_and_every_row(blueprint, experiment):
    report, _ = make_report(blueprint)
    texts = Page((experiment.report / "report.html").read_text()).texts
    assert {*verdicts(report), *notes(report)} <= set(texts)
    for value in ("66.67", "same_architecture", "(mean)"):
        assert value in texts
    text = (experiment.report / "report.html").read_text()
    tables = report.tables().values()
    assert text.count("<tr") == sum(1 + len(rows) for rows in tables if rows)


def test_columns_that_are_blank_throughout_are_left_out_of_the_page(blueprint):
    report, _ = make_report(blueprint)
    page = html_page("x", report, {})
    assert ">gain low</th>" in page
    assert ">gain spread</th>" not in page and ">targeted rate</th>" not in page  # one seed, no targeted attack
    one_has_it = [row | {"gain_spread": 0.0} for row in report.transfer[:1]] + report.transfer[1:]
    assert ">gain spread</th>" in html_page("x", dataclasses.replace(report, transfer=one_has_it), {})


def test_names_cannot_break_the_page(blueprint):
    report, _ = make_report(blueprint)
    evil = "<b>&\"'</b>"
    rows = [row | {"surrogate": evil, "target": evil} for row in report.transfer]
    text = html_page(evil, Report("", rows, [], [], [], [], []), {})
    assert "<b>" not in text
    assert evil in Page(text).texts


# The figures


def assert_is_picture(content: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(content)) as picture:
        picture.load()
        colours = picture.convert("RGB").getcolors(maxcolors=1 << 24)
        assert picture.format == "PNG"
        assert len(colours) > 10  # the figure is not empty
        return picture.size


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"attacks": {"pgd": {"method": "pgd", "eps": "4/255", "step": "1/255", "steps": 4}}, "targets": ["twin"]},
        {"controls": []},
        {"attacks": {f"an-attack-with-a-long-name-{n}": {"method": "fgsm", "eps": "4/255"} for n in range(7)}},
        {"variants": {f"variant{n}": {"align": {"temperature": n + 5}} for n in range(12)}},
    ],
    ids=["plain", "one-attack-one-target", "no-controls", "many-attacks", "many-surrogates"],
)
def test_figures_are_drawn_whatever_the_experiment_holds(experiment, changes):
    experiment.write(**changes)
    make_report(experiment.finish())
    for name in ("gain.png", "transfer.png", "pareto.png"):
        width, height = assert_is_picture((experiment.report / name).read_bytes())
        assert max(width, height) < 4000  # pixels, so that the whole figure fits on a screen


def test_figures_are_drawn_even_if_no_image_counts_for_any_target(experiment):
    make_report(experiment.finish({f"clean/{target}": "1" * 12 for target in ("twin", "cousin", "stranger")}))
    for name in ("gain.png", "transfer.png", "pareto.png"):
        assert_is_picture((experiment.report / name).read_bytes())


def test_many_targets_with_long_names_are_drawn(blueprint):
    report, _ = make_report(blueprint)
    rows = [row for row in report.transfer if row["target"].startswith("(mean")]
    for n in range(30):
        rows += [
            row | {"target": f"a-target-with-a-long-name-{n}"} for row in report.transfer if row["target"] == "cousin"
        ]
    for content in (gain_figure(rows, "title"), transfer_heatmap(rows, "title")):
        assert max(assert_is_picture(content)) < 4000


def test_figures_show_the_rows(blueprint):
    report, _ = make_report(blueprint)
    other = [row | {"gain": 5.0} if row["gain"] is not None else row for row in report.transfer]
    assert gain_figure(other, "title") != gain_figure(report.transfer, "title")
    other = [row | {"rate": 5.0} for row in report.transfer]
    assert transfer_heatmap(other, "title") != transfer_heatmap(report.transfer, "title")
