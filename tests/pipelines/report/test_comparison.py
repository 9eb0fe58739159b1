"""`witness compare`: cells of several experiments side by side, what differs between them, and what is refused."""

import csv
import json
from pathlib import Path

import pytest
import yaml
from hand_made import HandMade, hand_made
from read_page import ReadPage

from align_core.errors import InputError
from pipelines.cli import main
from pipelines.report.comparison import compared
from pipelines.report.finished import Finished, read_finished
from pipelines.report.page import make_report


def finished(folder: Path, outcomes: dict[str, str], **changes: object) -> HandMade:
    folder.mkdir()
    experiment = hand_made(folder, **changes)
    make_report(experiment.finish(outcomes))
    return experiment


@pytest.fixture
def pair(tmp_path: Path, outcomes: dict[str, str]) -> tuple[HandMade, HandMade]:
    """Two experiments: the second has another name and temperature, another mi, and one target less."""
    other = {folder: digits for folder, digits in outcomes.items() if not folder.endswith("/stranger")}
    other["outcomes/aligned/pgd/twin"] = "110000000000"
    attacks = hand_made(_new(tmp_path / "x")).content()["attacks"]
    attacks["mi"] = attacks["mi"] | {"eps": "8/255", "step": "2/255"}
    changes = {"name": "hot", "align": {"temperature": 16}, "targets": ["twin", "cousin"], "attacks": attacks}
    return finished(tmp_path / "a", outcomes), finished(tmp_path / "b", other, **changes)


def _new(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_the_files_show_the_cells_that_both_have(pair, tmp_path, capsys):
    one, other = pair
    places = [str(one.file), str(other.output / "hot")]  # an experiment file, and an output folder
    assert main(["compare", *places, "--output", str(tmp_path / "out"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["experiments"] == ["by-hand", "hot"]
    assert said["differences"] == {
        "targets": ['["twin", "cousin", "stranger"]', '["twin", "cousin"]'],
        "align.temperature": ["4.0", "16.0"],
        "attacks.mi.eps": [str(4 / 255), str(8 / 255)],
        "attacks.mi.step": [str(1 / 255), str(2 / 255)],
    }
    assert said["remarks"] == [
        "Left out, because this attack is not the same in all: mi.",
        "Left out, because not every experiment has this target: stranger.",
        "Means are left out: the experiments have different targets.",
    ]
    with (tmp_path / "out" / "comparison.csv").open() as file:
        rows = list(csv.DictReader(file))
    cells = [(row["surrogate"], row["attack"], row["target"], row["experiment"]) for row in rows]
    assert cells == [
        (surrogate, "pgd", target, label)
        for surrogate in ("source", "aligned", "witness")
        for target in ("twin", "cousin")
        for label in ("by-hand", "hot")
    ]
    for own in pair:
        with (
            (own.output / own.content()["name"] / "report" if own is one else other.output / "hot" / "report")
            .joinpath("transfer.csv")
            .open() as file
        ):
            table = {(row["surrogate"], row["attack"], row["target"]): row for row in csv.DictReader(file)}
        label = "by-hand" if own is one else "hot"
        for row in (row for row in rows if row["experiment"] == label):
            whole = table[row["surrogate"], row["attack"], row["target"]]
            assert row.items() - {("experiment", label)} <= whole.items()


def test_the_page_needs_no_network_and_shows_both_beside_each_other(pair, tmp_path, capsys):
    one, other = pair
    main(["compare", str(one.file), str(other.file), "--output", str(tmp_path / "out")])
    assert "align.temperature: 4.0 | 16.0" in capsys.readouterr().out
    page = ReadPage((tmp_path / "out" / "comparison.html").read_text())
    assert page.outside == [] and "://" not in page.source
    head, *cells = page.tables["cells"]
    assert head == ["surrogate", "attack", "target", "rate, by-hand", "rate, hot", "gain, by-hand", "gain, hot"]
    twin = next(row for row in cells if row[:3] == ["aligned", "pgd", "twin"])
    assert [cell.split()[0] for cell in twin[3:]] == ["75.0", "16.7", "+66.7", "+8.3"]
    assert ["align.temperature", "4.0", "16.0"] in page.tables["differences"]


def test_means_and_their_figure_are_there_where_the_targets_are_the_same(tmp_path, outcomes, capsys):
    one = finished(tmp_path / "a", outcomes)
    other = finished(tmp_path / "b", outcomes, seed=5, warning="A <b>try</b>.")
    places = [f"{own.output}/by-hand" for own in (one, other)]
    found = compared(read_finished(places))
    assert found.labels == places  # they have the same name
    assert {row["target"] for row in found.rows} == {"twin", "cousin", "stranger", "(mean)"}
    assert found.differences["seed"] == ["0", "5"] and found.remarks == []
    main(["compare", *places, "--output", str(tmp_path / "out")])
    page = ReadPage((tmp_path / "out" / "comparison.html").read_text())
    assert page.tags.count("svg") == 1
    assert f"{places[1]}: A <b>try</b>." in page.texts and "b" not in page.tags


def refused(*places: object) -> str:
    with pytest.raises(InputError) as refusal:
        compared(read_finished([str(place) for place in places]))
    return str(refusal.value)


def test_what_cannot_be_compared_is_refused(tmp_path, outcomes):
    one = finished(tmp_path / "a", outcomes)
    here = one.output / "by-hand"
    data = one.content()["data"]
    data["test"] = data["test"] | {"take": [3, 15]}
    data["train"] = data["train"] | {"take": [0, 3]}
    other = finished(tmp_path / "b", {}, data=data, name="others")
    assert "by-hand and others cannot be compared: they were measured on different test images" in refused(
        here, other.file
    )
    attacks = {"pgd": one.content()["attacks"]["pgd"] | {"steps": 5}}
    fewer = finished(tmp_path / "c", {}, attacks=attacks, name="fewer")
    assert "no attack is the same in all, so that no cell can be compared. Left out, because" in refused(
        here, fewer.file
    )
    assert "is named twice" in refused(here, one.file)
    assert "a comparison needs at least two experiments" in refused(here)


def test_what_is_no_finished_report_is_refused(tmp_path, outcomes, capsys):
    one = finished(tmp_path / "a", outcomes)
    here = one.output / "by-hand"
    assert main(["compare", str(here), str(tmp_path / "nowhere")]) == 2
    assert (
        f"{tmp_path}/nowhere: no report ({tmp_path}/nowhere/report/results.json is missing)" in capsys.readouterr().err
    )
    results = here / "report" / "results.json"
    results.write_text(results.read_text().replace('"count": 12', '"count": 13'))
    assert "was edited or damaged; `witness report` makes it again" in refused(here, tmp_path / "nowhere")
    results.unlink()
    assert "it has no report of this version of Witness" in refused(here, tmp_path / "nowhere")


def test_other_weights_of_a_target_are_another_target(tmp_path, outcomes):
    one = finished(tmp_path / "a", outcomes)
    (own,) = read_finished([str(one.file)])
    results = json.loads(json.dumps(own.results))
    results["weights"]["twin"] = "0" * 64
    found = compared([own, Finished("other", "elsewhere", results)])
    assert found.remarks == [
        "Left out, because this target is not the same in all: twin.",
        "Means are left out: the experiments have different targets.",
    ]
    assert {row["target"] for row in found.rows} == {"cousin", "stranger"}
    assert found.differences["weights of twin"][1] == "0" * 12
    results["weights"]["near"] = "1" * 64
    assert compared([own, Finished("other", "elsewhere", results)]).remarks[-1].startswith("The sources differ.")


def test_results_json_is_what_the_readme_says(tmp_path, outcomes):
    one = finished(tmp_path / "a", outcomes)
    report = one.output / "by-hand" / "report"
    content = json.loads((report / "results.json").read_text())
    text = (Path(__file__).parents[3] / "pipelines" / "README.md").read_text()
    section = text.partition("### results.json")[2].partition("\n## ")[0].partition("\n### ")[0]
    named = [
        name for line in section.splitlines() if line.startswith("| `") for name in line.split("|")[1].split("`")[1::2]
    ]
    assert named == list(content)
    assert (content["schema"], content["version"]) == ("witness-results", 1)
    assert yaml.safe_load(one.file.read_text())["name"] == content["experiment"] == content["settings"]["name"]
    assert not {"output", "tracking", "factories"} & content["settings"].keys()
    assert set(content["figures"]) == {file.name for kind in ("png", "svg") for file in report.glob(f"*.{kind}")}
    for name, table in content["tables"].items():
        with (report / f"{name}.csv").open() as file:
            rows = list(csv.reader(file))
        assert table["columns"] == rows[0]
        assert [["" if cell is None else str(cell) for cell in row] for row in table["rows"]] == rows[1:]
