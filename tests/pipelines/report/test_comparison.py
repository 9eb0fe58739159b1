"""`witness compare`: cells of several experiments side by side, what differs between them, and what is refused."""

import csv
import hashlib
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

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


@pytest.fixture(scope="module")
def pair(
    reported: HandMade, outcomes: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[HandMade, HandMade]:
    """Two experiments that no test changes: the second has another name, temperature and mi, and one target less."""
    other = {folder: digits for folder, digits in outcomes.items() if not folder.endswith("/stranger")}
    other["outcomes/aligned/pgd/twin"] = "110000000000"
    attacks = reported.content()["attacks"]
    attacks["mi"] = attacks["mi"] | {"eps": "8/255", "step": "2/255"}
    changes = {"name": "hot", "align": {"temperature": 16}, "targets": ["twin", "cousin"], "attacks": attacks}
    return reported, finished(tmp_path_factory.mktemp("pair") / "b", other, **changes)


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
        "attacks.mi.eps": ["4/255", "8/255"],
        "attacks.mi.step": ["1/255", "2/255"],
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


def test_means_and_their_figure_are_there_where_the_targets_are_the_same(tmp_path, reported, outcomes, capsys):
    other = finished(tmp_path / "b", outcomes, seed=5, warning="A <b>try</b>.")
    places = [f"{own.output}/by-hand" for own in (reported, other)]
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


def test_what_cannot_be_compared_is_refused(tmp_path, reported):
    here = reported.output / "by-hand"
    data = reported.content()["data"]
    data["test"] = data["test"] | {"take": [3, 15]}
    data["train"] = data["train"] | {"take": [0, 3]}
    other = finished(tmp_path / "b", {}, data=data, name="others")
    assert "by-hand and others cannot be compared: they were measured on different test images" in refused(
        here, other.file
    )
    attacks = {"pgd": reported.content()["attacks"]["pgd"] | {"steps": 5}}
    fewer = finished(tmp_path / "c", {}, attacks=attacks, name="fewer")
    assert "no attack is the same in all, so that no cell can be compared. Left out, because" in refused(
        here, fewer.file
    )
    (tmp_path / "link").symlink_to(here)
    for again in (reported.file, here, f"{here}/", here / ".." / "by-hand", here / "report", tmp_path / "link"):
        assert f"this experiment is named twice, the first time as {here}; name another one" in refused(here, again)
    assert "named twice" in refused(here, f"file://{here}".replace(" ", "%20"))
    assert "a comparison needs at least two experiments" in refused(here)


def test_what_is_no_finished_report_is_refused(tmp_path, reported, capsys):
    one = reported.copied(tmp_path / "a")
    here = one.output / "by-hand"
    unfinished = _new(tmp_path / "unfinished")
    (unfinished / "experiment.yaml").touch()
    assert main(["compare", str(here), str(unfinished)]) == 2
    assert f"{unfinished}: no report ({unfinished}/report/results.json is missing)" in capsys.readouterr().err
    results = here / "report" / "results.json"
    results.write_text(results.read_text().replace('"count": 12', '"count": 13'))
    assert "was edited or damaged; `witness report` makes it again" in refused(here, tmp_path / "nowhere")
    results.unlink()
    assert "it has no report of this version of Witness" in refused(here, tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("nosuch", "nosuch: there is no folder {folder}/nosuch; name an experiment by its file"),
        ("empty", "empty: {folder}/empty holds no experiment; name an experiment by its file"),
        ("plain.txt", "plain.txt: it is a file, and no experiment file; name an experiment by its file"),
        ("", "an empty name: name an experiment by its file (.yaml or .yml), or by its folder <output>/<name>"),
        ("s3://", "s3://: it names no experiment; write s3://BUCKET/FOLDER/NAME"),
        ("s3://me:secret@bucket", "s3://***@bucket: it names no experiment; write s3://BUCKET/FOLDER/NAME"),
        ("nosuch.yaml", "nosuch.yaml"),
    ],
)
def test_a_place_without_an_experiment_is_refused(tmp_path, reported, monkeypatch, place, message):
    monkeypatch.chdir(tmp_path)
    _new(tmp_path / "empty")
    (tmp_path / "plain.txt").touch()
    assert message.format(folder=tmp_path) in refused(reported.output / "by-hand", place)


def test_an_experiment_that_was_never_run_is_said_to_be_so(tmp_path, reported):
    never = hand_made(_new(tmp_path / "b"))
    assert f"there is no folder {never.output}/by-hand; `witness run` makes it" in refused(reported.file, never.file)


@pytest.mark.parametrize(
    ("name", "kind"), [("report", "a file, and no folder"), ("results.json", "a folder, and no file")]
)
def test_files_and_folders_in_the_place_of_each_other_are_named(tmp_path, reported, name, kind):
    copy = Path(shutil.copytree(reported.output / "by-hand", tmp_path / "copy"))
    if name == "report":
        shutil.rmtree(copy / "report")
        (copy / "report").touch()
    else:
        (copy / "report" / name).unlink()
        _new(copy / "report" / name)
    assert f"{name} is {kind}; remove it, and `witness report` makes the report again" in refused(copy, reported.file)


@pytest.mark.parametrize("output", ["base.yaml", "base.yaml/below", "taken", "s3://bucket/folder"])
def test_an_output_that_cannot_be_written_is_refused_and_nothing_written(pair, tmp_path, monkeypatch, capsys, output):
    monkeypatch.chdir(_new(tmp_path / "here"))
    Path("base.yaml").write_text("mine")
    _new(Path("taken"))
    _new(Path("taken") / "comparison.html")
    before = sorted(Path().rglob("*"))
    assert main(["compare", *(str(own.file) for own in pair), "--output", output]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"witness: --output {output}: ") and "name " in said and "Errno" not in said
    assert sorted(Path().rglob("*")) == before and Path("base.yaml").read_text() == "mine"


def edited(folder: Path, **changes: object) -> None:
    """Changes keys of results.json, or takes them out where they are None, and the hash that report.json has of it."""
    file, kept = folder / "report" / "results.json", folder / "report" / "report.json"
    gone = {key for key, value in changes.items() if value is None}
    content = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in content.items() if key not in gone}))
    about = json.loads(kept.read_text())
    about["files"]["results.json"] = hashlib.sha256(file.read_bytes()).hexdigest()
    kept.write_text(json.dumps(about))


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        *(({key: None}, key) for key in ("tables", "settings", "images", "roles", "weights", "versions", "experiment")),
        ({"images": {}}, "images.test"),
        ({"settings": {"attacks": {}}}, "settings.models"),
        ({"tables": {"transfer": {"columns": ["surrogate"], "rows": [["a", "b"]]}}}, "tables.transfer"),
        ({"tables": {"transfer": {"columns": ["surrogate"], "rows": [["a"]]}}}, "tables.transfer"),
    ],
)
def test_a_results_json_without_what_is_compared_is_damaged(tmp_path, reported, changes, key):
    copy = Path(shutil.copytree(reported.output / "by-hand", tmp_path / "copy"))
    edited(copy, **changes)
    wanted = f"results.json is damaged ({key}); delete report.json beside it, and `witness report` makes both again"
    assert wanted in refused(reported.file, copy)


def test_what_is_advised_for_a_damaged_results_json_mends_it(tmp_path, reported):
    one = reported.copied(tmp_path / "a")
    edited(one.output / "by-hand", tables=None)
    assert "delete report.json beside it" in refused(one.file, reported.file)
    (one.report / "report.json").unlink()
    make_report(one.blueprint())
    assert read_finished([str(one.file)])[0].label == "by-hand"


def differences(reported: HandMade, one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """What differs between two experiments with these settings; only the texts of settings are looked at."""
    (own,) = read_finished([str(reported.file)])
    both = [json.loads(json.dumps(own.results)) for _ in range(2)]
    for results, changes in zip(both, (one, other), strict=True):
        for key, value in changes.items():
            results["settings"][key] = value
    return compared([Finished(label, label, results) for label, results in zip("ab", both, strict=True)]).differences


def test_a_key_is_left_out_by_its_place_and_not_by_its_name(reported):
    one = {
        "name": "a",
        "align": {"optimizer": {"name": "adamw"}, "mix": {"name": "cutmix"}, "checkpoint_steps": 1},
        "variants": {"path": {"align": {"temperature": 2, "checkpoint_steps": 3}}, "weights": {"align": {}}},
        "data": {"test": {"path": "/here", "limit": 5, "labels": "/here.csv"}, "classes": 3},
        "compute": {"workers": 2, "chunk": 5},
    }
    other = {
        "name": "b",
        "align": {"optimizer": {"name": "sgd"}, "mix": {"name": "mixup"}, "checkpoint_steps": 2},
        "variants": {"path": {"align": {"temperature": 9, "checkpoint_steps": 4}}},
        "data": {"test": {"path": "/there", "limit": 6, "labels": "/there.csv"}, "classes": 3},
        "compute": {"workers": 4, "chunk": 6},
    }
    assert differences(reported, one, other) == {
        "align.optimizer.name": ["adamw", "sgd"],
        "align.mix.name": ["cutmix", "mixup"],
        "variants.path.align.temperature": ["2", "9"],
        "variants.weights.align": ["{}", ""],
        "data.test.limit": ["5", "6"],
        "compute.chunk": ["5", "6"],
    }


def test_a_text_is_not_taken_for_a_number_or_for_nothing(reported):
    assert differences(reported, {"new": {"a": "20", "b": ""}}, {"new": {"a": 20}}) == {
        "new.a": ['"20"', "20"],
        "new.b": ['""', ""],
    }


def test_a_target_is_what_its_whole_settings_make_of_its_weights(reported):
    """Also arguments that are named as places are, and those of the model within a defended one."""
    (own,) = read_finished([str(reported.file)])
    one, other, elsewhere = (json.loads(json.dumps(own.results)) for _ in range(3))
    for results, name in ((one, "a"), (other, "b"), (elsewhere, "a")):
        models = results["settings"]["models"]
        models["twin"]["args"]["name"] = name
        models["near"]["mean"] = [0.5 if name == "a" else 0.25]
        models["cousin"] = {"wrap": "jpeg", "model": "near", "quality": 75}
        models["stranger"]["weights"] = f"/{id(results)}"
    attempt = compared([Finished("a", "a", one), Finished("b", "b", other)])
    assert attempt.remarks[0] == "Left out, because this target is not the same in all: twin, cousin."
    assert compared([Finished("a", "a", one), Finished("b", "b", elsewhere)]).remarks == []


class TestCode:
    """Of attacks and factories that are not part of Witness, as tables record it."""

    @pytest.fixture(autouse=True)
    def as_it_was(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "path", list(sys.path))

    def with_attack(self, folder: Path, code: str, **changes: object) -> HandMade:
        attacks = {"mine": {"method": "python:attack_here:run", "eps": "4/255"}, "mi": {"method": "mi", "eps": "4/255"}}
        folder.mkdir()
        (folder / "attack_here.py").write_text(code)
        experiment = hand_made(folder, **({"attacks": attacks} | changes))
        make_report(experiment.finish())
        return experiment

    def test_an_attack_of_other_code_is_another_attack(self, tmp_path):
        code = "def run(net, images, labels, eps, step, steps):\n    return images\n"
        one = self.with_attack(tmp_path / "a", code)
        other = self.with_attack(tmp_path / "b", code.replace("return images", "return images + 0"), name="other")
        found = compared(read_finished([str(one.file), str(other.file)]))
        assert found.remarks == ["Left out, because this attack is not the same in all: mine."]
        assert {row["attack"] for row in found.rows} == {"mi"}
        first, second = found.differences.pop("code of attack mine")
        assert re.fullmatch("attack_here [0-9a-f]{16}", first) and first != second and found.differences == {}
        copy = shutil.copytree(one.report, tmp_path / "copy" / "report")
        found = compared(read_finished([str(other.file), str(copy)]))
        assert {row["attack"] for row in found.rows} == {"mi", "mine"} and found.differences == {}
        assert found.remarks == [
            "Of these, it is not known whether the code is the same in all, because the tables that record it are not "
            "in the folder of by-hand: attack mine, model twin, model cousin, model stranger."
        ]

    def test_the_version_of_a_package_is_compared(self, tmp_path, monkeypatch):
        attacks = {
            "aa": {"method": "autoattack:apgd-ce", "eps": "4/255"},
            "mi": {"method": "mi", "eps": "4/255"},
        }
        one = self.with_attack(tmp_path / "a", "", attacks=attacks)
        monkeypatch.setattr("align_core.attacks.foreign_config.version", lambda package: "9.9")
        other = self.with_attack(tmp_path / "b", "", attacks=attacks, name="other")
        found = compared(read_finished([str(one.file), str(other.file)]))
        assert found.remarks == ["Left out, because this attack is not the same in all: aa."]
        assert found.differences["code of attack aa"][1] == "pyautoattack 9.9"

    def test_other_code_of_a_target_is_said(self, reported):
        (own,) = read_finished([str(reported.file)])
        assert re.fullmatch("hand_made_networks [0-9a-f]{16}", own.code["model twin"] or "")
        changed = Finished("b", "b", own.results, {**own.code, "model twin": "hand_made_networks 0"})
        found = compared([own, changed])
        assert found.remarks == [
            "Of these, the code is not the same in all, so that they may be other networks: model twin."
        ]
        assert "twin" in {row["target"] for row in found.rows} and "code of model twin" in found.differences


def test_other_weights_of_a_target_are_another_target(reported):
    (own,) = read_finished([str(reported.file)])
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


def test_results_json_is_what_the_readme_says(reported):
    report = reported.output / "by-hand" / "report"
    content = json.loads((report / "results.json").read_text())
    text = (Path(__file__).parents[3] / "pipelines" / "README.md").read_text()
    section = text.partition("### results.json")[2].partition("\n## ")[0].partition("\n### ")[0]
    named = [
        name for line in section.splitlines() if line.startswith("| `") for name in line.split("|")[1].split("`")[1::2]
    ]
    assert named == list(content)
    assert (content["schema"], content["version"]) == ("witness-results", 1)
    assert yaml.safe_load(reported.file.read_text())["name"] == content["experiment"] == content["settings"]["name"]
    assert not {"output", "tracking", "factories"} & content["settings"].keys()
    assert set(content["figures"]) == {file.name for kind in ("png", "svg") for file in report.glob(f"*.{kind}")}
    for name, table in content["tables"].items():
        with (report / f"{name}.csv").open() as file:
            rows = list(csv.reader(file))
        assert table["columns"] == rows[0]
        assert [["" if cell is None else str(cell) for cell in row] for row in table["rows"]] == rows[1:]
