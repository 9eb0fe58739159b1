"""Reports of experiments that are not as usual: they are right, readable, and say what is not there."""

import json

import pytest
from read_page import ReadPage

from pipelines.failure import RunFailed
from pipelines.report.html_page import Page, html_page
from pipelines.report.page import computed_report, make_report


def page_of(experiment) -> ReadPage:
    page = ReadPage((experiment.report / "report.html").read_text())
    assert page.outside == [] and set(page.anchors) <= set(page.ids)
    return page


def test_one_target_and_one_surrogate(experiment):
    attacks = {"pgd": {"method": "pgd", "eps": "4/255", "step": "1/255", "steps": 4}}
    experiment.write(targets=["stranger"], controls=[], attacks=attacks)
    report, _ = make_report(experiment.finish({"outcomes/aligned/pgd/stranger": "110000000000"}))
    page = page_of(experiment)
    assert [row[0] for row in page.tables["summary"][1:]] == ["source", "aligned"]
    assert [row[0] + row[2] for row in page.tables["transfer"][1:]] == [
        "sourcestranger", "source(mean)", "alignedstranger", "aligned(mean)"
    ]  # fmt: skip
    assert len(report.transfer) == 6  # the CSV file has the mean over the relation, too
    assert "gains" not in page.tables
    for rows in (report.transfer, report.surrogates):
        rows[:] = [row for row in rows if row["surrogate"] == "source"]
    alone = ReadPage(html_page(Page("alone", report)))
    assert len(alone.tables["summary"]) == 2 and alone.tables["summary"][1][2].startswith("0.0 (")
    assert any("No gain could be measured" in text for text in alone.texts)


def test_cells_that_failed_are_named_first_and_their_means_are_blank(experiment, outcomes):
    blueprint = experiment.finish(outcomes)
    table = blueprint.cell("aligned", "pgd", "twin").predictions.table
    blueprint.store.delete(table.finished_file)
    table.write_failure(blueprint.store, 0, "chunk 0: the logits of twin are not finite for <00004>", final=True)
    blueprint.check_finished()
    make_report(blueprint)
    page = page_of(experiment)
    said = [text for text in page.texts if text.strip()]
    assert said[2].startswith("Not there: outcomes/aligned/pgd/twin") and "<00004>" in said[2]
    rows = {tuple(row[:3]): row for row in page.tables["transfer"][1:]}
    assert ("aligned", "pgd", "twin") not in rows and ("aligned", "pgd", "cousin") in rows
    (mean,) = (row for row in page.tables["summary"][1:] if row[:2] == ["aligned", "pgd"])
    assert mean[2:4] == ["", ""]
    results = json.loads((experiment.report / "results.json").read_text())
    assert len(results["missing"]) == 1 and results["remarks"][0] == said[2]
    assert "fools 0 of 3" in " ".join(page.texts)  # of the pictures, whose first attack has one cell less


def test_no_attack_that_worked(experiment):
    make_report(experiment.finish())
    page = page_of(experiment)
    rates = {row[2].split()[0] for row in page.tables["summary"][1:]}
    assert rates == {"0.0"}
    assert {row[3] for row in page.tables["summary"][1:]} == {"", "+0.0 (-24.2 to +24.2)"}  # Newcombe, 0 of 12
    assert sum("shows no detectable difference from the source" in text for text in page.texts) == 4


def test_several_seeds(experiment):
    experiment.write(seeds=[3, 4, 8], controls=[])
    of = {f"outcomes/aligned~{seed}/pgd/twin": "1" * (seed) + "0" * (12 - seed) for seed in (3, 4, 8)}
    make_report(experiment.finish(of))
    page = page_of(experiment)
    said = " ".join(" ".join(page.texts).split())
    assert "seeds 3, 4, 8" in said and "Figures are means over 3 seeds" in said
    head = page.tables["summary"][0]
    assert {"gain spread", "gain both"} <= set(head)
    assert [row[:2] for row in page.tables["summary"][1:]] == [
        [name, attack] for name in ("source", "aligned") for attack in ("pgd", "mi")
    ]
    (twin,) = (row for row in page.tables["transfer"][1:] if row[:3] == ["aligned", "pgd", "twin"])
    assert twin[page.tables["transfer"][0].index("gain")].startswith("+41.7 (")  # of 3, 4 and 8 in 12
    assert len(page.tables["seeds"]) == 1 + 3 * 2 * 2 * 7


def test_fifty_targets(blueprint):
    report = computed_report(blueprint)
    rows = [row for row in report.transfer if row["target"].startswith("(mean")]
    one = [row for row in report.transfer if row["target"] == "cousin"]
    report.transfer[:] = rows + [row | {"target": f"target-{n}"} for row in one for n in range(50)]
    page = ReadPage(html_page(Page("many", report)))
    assert len(page.tables["transfer"]) == 1 + len(report.transfer) - 6 > 300  # all have one relation, whose mean goes
    assert len(page.tables["summary"]) == 1 + len(report.means())


@pytest.mark.parametrize(
    ("is_file", "place", "said"),
    [
        (True, "", "by-hand/report is no folder, and one of this name"),
        (True, "tables", "report/tables is no folder, and one of this name"),
        (False, "results.json", "report/results.json is a folder, and a file of this name"),
        (False, "report.json", "report/report.json is a folder, and a file of this name"),
        (False, "tables/transfer.md", "report/tables/transfer.md is a folder, and a file of this name"),
    ],
)
def test_what_is_in_the_way_of_the_report_is_named_and_nothing_is_lost(experiment, is_file, place, said):
    blueprint = experiment.finish()
    in_the_way = experiment.report / place
    if is_file:
        in_the_way.parent.mkdir(exist_ok=True)
        in_the_way.write_text("my notes")
    else:
        in_the_way.mkdir(parents=True)
    before = sorted(experiment.output.rglob("*"))
    with pytest.raises(RunFailed, match=f"{said} has to be .*; rename or delete it. What was finished is kept"):
        make_report(blueprint)
    assert sorted(experiment.output.rglob("*")) == before and (not is_file or in_the_way.read_text() == "my notes")


def test_the_report_is_made_once_nothing_is_in_the_way_any_more(experiment):
    blueprint = experiment.finish()
    in_the_way = experiment.report / "results.json"
    in_the_way.mkdir(parents=True)
    with pytest.raises(RunFailed, match="rename or delete it"):
        make_report(blueprint)
    in_the_way.rename(experiment.folder / "elsewhere")
    assert make_report(blueprint)[1] and in_the_way.is_file()
