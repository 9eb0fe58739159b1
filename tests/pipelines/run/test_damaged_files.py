"""Damaged files of our own, and files of other programs in our folders, cost work at most: no command fails."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hand_made import HandMade, hand_made

from pipelines.cli import main
from pipelines.compute.cluster import Worker
from pipelines.report.page import make_report
from pipelines.run.request import Request, open_blueprint
from pipelines.run.status import status_of
from pipelines.stages.align import _steps_under_way, _UnderWay
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.notes import notes_on
from pipelines.stages.payload import fine_tune_of
from pipelines.stages.speeds import Speeds
from pipelines.storage.store import Store

DAMAGED = {
    "empty": b"",
    "an empty object": b"{}",
    "a list": b"[]",
    "null": b"null",
    "a number": b"7",
    "truncated": None,
    "binary": bytes(range(256)),
    "deeply nested": b"[" * 100_000,
    "an endless number": b'{"fingerprint": ' + b"1" * 5000 + b"}",
    "other types": None,
}
"""What becomes of a JSON file. Truncated: its first half. Other types: every value is a list."""


def damaged(content: bytes, how: str) -> bytes:
    if how == "truncated":
        return content[: len(content) // 2]
    if how == "other types":
        return json.dumps({key: [key] for key in json.loads(content)}).encode()
    return DAMAGED[how] or b""


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> HandMade:
    """A finished experiment with a report, one that a run of its own looked at."""
    experiment = hand_made(tmp_path_factory.mktemp("damaged"))
    blueprint = experiment.finish()
    notes_on(blueprint)  # which finds out the sizes of the models' inputs
    blueprint.inspected.save(blueprint.store)
    make_report(blueprint)
    speeds = Speeds(blueprint)
    speeds.note("gradient", ["near"], "cpu", 10, 1.0)
    speeds.save()
    blueprint.store.write_json("report/logged.json", {"report": "of another day"})
    return experiment


@pytest.fixture
def restored(experiment: HandMade, monkeypatch: pytest.MonkeyPatch) -> Iterator[HandMade]:
    """The same; what a test changes in its output folder is undone afterwards."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    before = {file: file.read_bytes() for file in experiment.output.rglob("*") if file.is_file()}
    yield experiment
    for file in experiment.output.rglob("*"):
        if file.is_file() and file not in before:
            file.unlink()
    for file, content in before.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


def as_it_was(experiment: HandMade) -> bool:
    """Whether every network and table is there and the report is made, or read, without a word."""
    blueprint = open_blueprint(Request(experiment.file, quiet=True))
    return status_of(Request(experiment.file, quiet=True)).is_done and len(make_report(blueprint)[0].transfer) > 0


OWN_JSON = [
    *(f".seen/{name}.json" for name in ("files", "first_looks", "input-sizes", "models", "published", "rates")),
    *("report/report.json", "report/logged.json"),
]


@pytest.mark.parametrize(
    ("names", "how"),
    # Every file is read by the same function, which meets every kind of damage where all have it but the report, which
    # takes seconds to draw anew. What an object lacks each reader finds by itself: so each file has that alone as well.
    [([name for name in OWN_JSON if name != "report/report.json"], how) for how in DAMAGED]
    + [([name], how) for name in OWN_JSON for how in ("an empty object", "other types")],
    ids=lambda value: value if isinstance(value, str) else value[0] if len(value) == 1 else "every file",
)
def test_a_damaged_note_is_made_anew(restored: HandMade, names: list[str], how: str) -> None:
    said = notes_on(restored.blueprint())
    for name in names:
        file = restored.report.parent / name
        file.write_bytes(damaged(file.read_bytes(), how))
    assert as_it_was(restored)
    assert notes_on(restored.blueprint()) == said
    assert main(["status", str(restored.file), "--quiet"]) == 0
    assert main(["plan", str(restored.file), "--quiet"]) == 0


@pytest.mark.parametrize("how", DAMAGED)
def test_a_network_whose_card_is_damaged_is_missing(
    restored: HandMade, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = restored.report.parent / "models" / "aligned" / "card.json"
    file.write_bytes(damaged(file.read_bytes(), how))
    assert not restored.blueprint().is_made("aligned")
    assert main(["status", str(restored.file), "--quiet", "--cells"]) == 0
    assert re.search("missing +models/aligned\n", capsys.readouterr().out)


@pytest.mark.parametrize("how", ["empty", "null", "truncated", "binary"])
def test_a_damaged_manifest_is_made_anew(restored: HandMade, how: str) -> None:
    for file in (restored.report.parent / ".seen").glob("images-*.parquet"):
        file.write_bytes(damaged(file.read_bytes(), how))
    assert as_it_was(restored)


def test_leftovers_of_other_programs_are_no_results(restored: HandMade) -> None:
    folders = [restored.report.parent, *(entry for entry in restored.report.parent.rglob("*") if entry.is_dir())]
    fingerprints = {
        file.parent: file.stem for file in restored.report.parent.rglob("*.parquet") if file.parent.name != ".seen"
    }
    for folder in folders:
        (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
        (folder / "Thumbs.db").write_bytes(b"")
        (folder / "notes.json").write_bytes(b"[")
        (folder / "copy.parquet").write_bytes(b"PAR1")
        (folder / "kept by hand.part").write_bytes(b"")
    for folder, fingerprint in fingerprints.items():
        for number in ("abc", "", "-1", "1", "999999999999999999999"):
            (folder / f"{fingerprint}-chunk-{number}.parquet").write_bytes(b"")
    assert as_it_was(restored)
    assert main(["plan", str(restored.file), "--quiet"]) == 0
    store = Store(str(restored.output), "by-hand")
    with store.locked():
        assert not list(restored.report.parent.glob(".stale"))
    assert (restored.report.parent / "kept by hand.part").exists()
    blueprint = open_blueprint(Request(restored.file, quiet=True))
    said: list[str] = []
    for table in blueprint.all_adversarial().values():
        table.set_aside_others(store, store.listing(), said.append)
    assert said == []


def test_a_chunk_beyond_the_last_is_not_counted(restored: HandMade) -> None:
    blueprint = restored.blueprint()
    (table, *_) = blueprint.all_adversarial().values()
    blueprint.store.write(table.chunk_file(999_999), b"")
    blueprint.store.delete(table.finished_file)
    assert main(["plan", str(restored.file), "--quiet"]) == 0
    assert main(["status", str(restored.file), "--quiet"]) == 0


@pytest.mark.parametrize("written", [b"{}", b"[]", b'{"done": null}', b'{"done": "7"}', b"\0", b'{"done": 3}'])
def test_a_damaged_note_of_progress_counts_no_step(restored: HandMade, written: bytes) -> None:
    blueprint: Blueprint = restored.blueprint()
    making = next(iter(blueprint.alignments()))
    job = fine_tune_of(blueprint, making, Worker("cpu", 1, 1, 0, {}, 1))
    blueprint.store.write(str(job.progress_file), written)
    under_way = [_UnderWay(making, job, 0.0)]
    assert _steps_under_way(blueprint.store, under_way) == (3 if written == b'{"done": 3}' else 0)


def test_names_that_end_in_part_are_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An attack, a variant and an experiment of such a name: the lock is taken twice, and everything is found there."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    attack = {"method": "fgsm", "eps": "8/255"}
    names = ("x.part", "0123456789abcdef-chunk-000001.parquet", "y.01234567.part")
    experiment = hand_made(
        tmp_path, name="e.part", variants={"v.part": {}}, attacks=dict.fromkeys(names, attack), controls=[]
    )
    blueprint = experiment.finish()
    for _ in range(2):
        with blueprint.store.locked():
            blueprint.inspected.save(blueprint.store)
        assert status_of(Request(experiment.file, quiet=True)).is_done
        make_report(experiment.blueprint())
    left = experiment.output / "e.part" / "models" / f"card.json.{os.urandom(4).hex()}.part"
    left.write_bytes(b"half")
    with blueprint.store.locked():
        assert not left.exists()
