"""Attacks whose code is not ours, in an experiment: what is refused before any work, what identifies them, a run."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import attacks_by_hand
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from crafted_by_hand import crafted
from digits_experiment import read_table, write_experiment
from one_worker import crafter_of
from tiny_experiment import content, write_tiny_experiment

from pipelines.cli import main
from pipelines.experiment.factories import modules_to_ship
from pipelines.run.forecast import forecast_of
from pipelines.run.request import Request, open_blueprint
from pipelines.run.verify import verify_experiment
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.craft import CraftItem

PGD = Path(attacks_by_hand.__file__).read_text()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_tiny_experiment(tmp_path)
    (tmp_path / "attacks_of_mine.py").write_text(PGD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "attacks_of_mine", raising=False)
    return tmp_path


@pytest.fixture
def planned(folder: Path) -> Callable[..., Blueprint]:
    """The blueprint of the tiny experiment with one attack of these settings."""

    def opened(**settings: object) -> Blueprint:
        settings = {"method": "python:attacks_of_mine:pgd", "eps": "8/255", **settings}
        (folder / "tiny.yaml").write_text(yaml.safe_dump(content() | {"attacks": {"mine": settings}}))
        return open_blueprint(Request(folder / "tiny.yaml", quiet=True))

    return opened


def fingerprint(blueprint: Blueprint) -> str:
    return blueprint.adversarial(blueprint.by_name["source"], "mine").fingerprint


def test_the_code_and_the_numbers_are_in_the_fingerprint_and_comments_are_not(
    folder: Path, planned: Callable[..., Blueprint]
) -> None:
    file = folder / "attacks_of_mine.py"
    before = fingerprint(planned())
    file.write_text("# a comment\n" + PGD.replace("def pgd", "\n\ndef pgd"))
    assert fingerprint(planned()) == before
    assert fingerprint(planned(args={"tries": 2})) != before
    assert fingerprint(planned(steps=3)) != before
    file.write_text(PGD.replace("2 * torch", "3 * torch"))
    assert fingerprint(planned()) != before


def test_the_version_of_torchattack_is_in_the_fingerprint(
    planned: Callable[..., Blueprint], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fingerprint(planned(method="torchattack:MIFGSM"))
    monkeypatch.setattr("align_core.attacks.foreign_config.version", lambda package: "1.7.3")
    assert fingerprint(planned(method="torchattack:MIFGSM")) != before


def test_the_module_is_sent_to_workers_and_the_plan_says_what_is_unknown(
    folder: Path, planned: Callable[..., Blueprint]
) -> None:
    blueprint = planned()
    assert str(folder / "attacks_of_mine.py") in modules_to_ship(blueprint.experiment)
    forecast = forecast_of(blueprint)
    lines = forecast.lines()
    assert "attacks   gradients per image: mine unknown until it is measured" in lines
    assert any("mine: python:attacks_of_mine:pgd sees a chunk as a whole" in line for line in lines)
    assert [note for note in lines if "its results depend on compute.chunk (100)" in note]
    assert forecast.as_json()["gradients"] == {"mine": None}
    assert forecast.seconds("craft") is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "torchattack:NoSuch"}, "attacks.mine: torchattack has no attack 'NoSuch'"),
        ({"method": "torchattack:LTP"}, "attacks.mine: torchattack's LTP cannot be used: it downloads a generator"),
        ({"method": "torchattack:MIFGSM", "args": {"dekay": 1}}, "attacks.mine: torchattack's MIFGSM has no argument"),
        ({"method": "python:gone:pgd"}, "attacks.mine: attack gone: no module 'gone' beside the experiment file"),
        ({"method": "python:attacks_of_mine:none"}, "attacks.mine: attack attacks_of_mine:none: module"),
        ({"args": {"attempts": 2}}, "attacks.mine: attack attacks_of_mine:pgd: got an unexpected keyword"),
        (
            {"towards": "next"},
            "attacks.mine: attack attacks_of_mine:pgd: got an unexpected keyword argument 'wanted_B'",
        ),
        ({"kernel": 3}, "attacks.mine.kernel: unknown key; there are: args, eps, method, norm, step, steps, towards"),
        ({"arg": {}}, "attacks.mine.arg: unknown key; did you mean 'args'?"),
        ({"method": "python:attacks_of_mine"}, "attacks.mine: method must be written as python:module:callable"),
        ({"method": "pgd", "args": {}}, "attacks.mine.args: unknown key"),
    ],
)
def test_bad_input_is_one_message_before_any_work(
    folder: Path, settings: dict[str, object], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    attack = {"method": "python:attacks_of_mine:pgd", "eps": "8/255", **settings}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(content() | {"attacks": {"mine": attack}}))
    assert main(["plan", str(folder / "tiny.yaml")]) == 2
    assert message in capsys.readouterr().err
    assert not (folder / "runs").exists()


def test_without_torchattack_it_is_named_how_to_install_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from importlib.metadata import PackageNotFoundError

    def missing(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr("align_core.attacks.foreign_config.version", missing)
    attack = {"method": "torchattack:MIFGSM", "eps": "8/255"}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(content() | {"attacks": {"mine": attack}}))
    assert main(["plan", str(folder / "tiny.yaml")]) == 2
    assert (
        "attacks.mine: the package torchattack is not installed; `pip install '.[torchattack]'` in the"
        in capsys.readouterr().err
    )


def test_a_worker_crafts_with_them_and_records_one_that_misbehaves(folder: Path) -> None:
    numbers = {"eps": "12/255", "step": "4/255", "steps": 4}
    attacks = {
        "ours": {"method": "mi", **numbers},
        "theirs": {"method": "torchattack:MIFGSM", **numbers},
        "mine": {"method": "python:attacks_of_mine:pgd", **numbers},
        "bad": {"method": "python:attacks_of_mine:too_far", **numbers},
    }
    (folder / "tiny.yaml").write_text(yaml.safe_dump(content() | {"attacks": attacks}))
    blueprint = open_blueprint(Request(folder / "tiny.yaml", quiet=True))
    tables = {name: blueprint.adversarial(blueprint.by_name["source"], name) for name in attacks}
    crafter = crafter_of(blueprint)
    clean = crafter.job.images.read(0)
    done = {name: crafter(CraftItem(surrogate="source", attack=name, chunk=0, clean=clean)) for name in attacks}
    assert {name: one["made"] for name, one in done.items()} == {
        "ours": True, "theirs": True, "mine": True, "bad": False,
    }  # fmt: skip
    assert [done[name]["gradients"] for name in ("ours", "theirs", "mine")] == [4 * 8] * 3
    rows = {name: tables[name].read_chunk(blueprint.store, 0, 8) for name in ("ours", "theirs", "mine")}
    assert rows["ours"].column_names == [*rows["theirs"].column_names[:-1], "pass_rows"]
    assert rows["theirs"].column_names[-1] == "gradients"
    assert rows["theirs"]["gradients"].to_pylist() == [4.0] * 8
    assert rows["theirs"]["image"].combine_chunks().equals(rows["ours"]["image"].combine_chunks())
    assert max(rows["mine"]["linf"].to_pylist()) == pytest.approx(12 / 255)
    failure = tables["bad"].final_failure(blueprint.store, blueprint.store.listing())
    assert failure is not None
    assert failure.startswith("chunk 0: attack python:attacks_of_mine:too_far leaves the linf ball of radius 0.04706")


def test_their_tables_are_verified_and_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    attack = {"method": "torchattack:MIFGSM", "eps": "12/255", "steps": 2}
    experiment = crafted(tmp_path, attacks={"theirs": attack}, compute={"chunk": 5})
    found = verify_experiment(Request(experiment.file, quiet=True))
    assert found.findings == []
    page = (experiment.report / "report.html").read_text()
    assert "torchattack:MIFGSM sees a chunk as a whole" in page
    assert "its results depend on compute.chunk (5)" in page
    assert set(pd.read_csv(experiment.report / "transfer.csv")["gradients"]) == {2}  # as they were counted


@pytest.mark.slow
def test_a_run(
    ray_cluster: None,
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The images of torchattack's MI-FGSM are those of `mi`; one attack that misbehaves fails alone."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "attacks_by_hand.py").write_text(PGD)
    numbers = {"eps": "12/255", "step": "4/255", "steps": 4}
    attacks = {
        "ours": {"method": "mi", **numbers},
        "theirs": {"method": "torchattack:MIFGSM", **numbers},
        "mine": {"method": "python:attacks_by_hand:pgd", **numbers},
        "bad": {"method": "python:attacks_by_hand:too_far", **numbers},
    }
    file = write_experiment(tmp_path, weights, attacks=attacks, variants={}, targets=["cnn_c"], controls=[])
    code = main(["run", str(file), "--json"])
    output, errors = capfd.readouterr()
    assert code == 1 and output, errors
    result = json.loads(output)
    assert "attacks.theirs: torchattack:MIFGSM sees a chunk as a whole" in errors
    why = ": attack python:attacks_by_hand:too_far leaves the linf ball of radius 0.04706"
    assert [hole.partition(": ")[0] for hole in result["holes"]] == [
        "adversarial/source/bad",
        "adversarial/aligned/bad",
    ]
    assert all(why in hole for hole in result["holes"])
    folder = tmp_path / "runs" / "digits"
    ours, theirs, mine = (read_table(folder / "adversarial" / "aligned" / name) for name in ("ours", "theirs", "mine"))
    same = np.stack(list(ours["image"])) == np.stack(list(theirs["image"]))
    assert same.mean() > 0.99
    assert "gradients" not in ours
    assert (theirs["gradients"] == 4).all() and (mine["gradients"] == 4).all()
    assert theirs["gradients"].dtype == np.float32
    (table,) = (folder / "adversarial" / "aligned" / "mine").iterdir()
    assert "attacks_by_hand" in json.loads(pq.read_schema(table).metadata[b"witness.inputs"])["attack"]["code"]
