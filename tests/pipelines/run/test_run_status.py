"""`witness status` on a finished experiment of which parts were removed, and under other settings."""

import json
import sys
from pathlib import Path

import pytest
from digits_experiment import Finished, leave_under_way
from digits_folder import ATTACKS, MEMBERS, TARGETS, changed, state, states
from hand_made import CURVE, hand_made

from align_core.models import build
from align_core.weights import to_bytes
from pipelines import recipes
from pipelines.cli import main
from pipelines.run.request import Request
from pipelines.run.status import watch
from pipelines.stages.align import commit

DEMO = Path(recipes.__file__).parent / "demo.yaml"


class TestStatus:
    def test_done_partial_and_missing(
        self, finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        request, folder = finished.copied(tmp_path, "outcomes/warm/fgsm/mlp")
        leave_under_way(folder / "adversarial/other/pgd", [1])
        before = state(folder)
        entries = states(request, capsys)
        assert changed(folder, before) == set()
        networks = {"trained/mlp", *(f"models/{name}" for name in ("aligned", "label_only", "warm", "other"))}
        tables = {f"adversarial/{s}/{a}" for s in MEMBERS for a in ATTACKS}
        tables |= {f"outcomes/{s}/{a}/{t}" for s in MEMBERS for a in ATTACKS for t in ("@self", *TARGETS)}
        assert {name for name in entries if not name.startswith("clean/")} == networks | tables
        others = {name: entry for name, entry in entries.items() if entry["state"] != "done"}
        assert others == {
            "outcomes/warm/fgsm/mlp": {"folder": "outcomes/warm/fgsm/mlp", "state": "missing", "done": 0, "chunks": 3},
            "adversarial/other/pgd": {"folder": "adversarial/other/pgd", "state": "partial", "done": 1, "chunks": 3},
        }

    def test_results_of_other_settings_count_as_missing(
        self, finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        request, _ = finished.copied(tmp_path)
        entries = states(request, capsys, "--set", "attacks.pgd.steps=2")
        missing = {name for name, entry in entries.items() if entry["state"] == "missing"}
        assert missing == {name for name in entries if "/pgd" in name}
        entries = states(request, capsys, "--set", "align.temperature=1.5")
        missing = {name for name, entry in entries.items() if entry["state"] == "missing"}
        assert missing >= {"models/aligned", "models/other", "outcomes/aligned/pgd/mlp"}
        assert not missing & {"models/warm", "trained/mlp"}


@pytest.mark.parametrize("command", ["status", "plan"])
def test_an_experiment_whose_source_has_still_to_be_trained(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The shipped demo on a fresh machine: every surrogate depends on a network that is not there."""
    assert main([command, str(DEMO), "--output", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    if command == "plan":
        assert {"cnn", "aligned", "label_only"} <= set(found["missing_networks"])
    else:
        assert {entry["state"] for entry in found["entries"]} == {"missing"}
        assert "outcomes/aligned/pgd/vit" in {entry["folder"] for entry in found["entries"]}
    assert not list(tmp_path.iterdir())


def test_an_experiment_whose_source_has_still_to_be_trained_is_watched(tmp_path: Path) -> None:
    """Each look takes up what was made since the last: first the source, then what is aligned from it."""
    experiment = hand_made(tmp_path)
    models = experiment.content()["models"]
    trained = {key: value for key, value in models["near"].items() if key != "weights"} | {"train": {}}
    experiment.write(models=models | {"near": trained})
    looks = watch(Request(experiment.file, quiet=True), every=0.0)
    assert {entry.state for entry in next(looks).entries} == {"missing"}
    blueprint = experiment.blueprint()
    for makings, name in ((blueprint.trainings, "trained/near"), (blueprint.alignments, "models/aligned")):
        (making,) = makings()
        network = build(making.model, 3, 1).net.state_dict()
        commit(blueprint.store, making, [to_bytes(network)], CURVE, seconds=1.0, shape=(1, 8, 8))
        blueprint.refresh()
        assert {entry.folder: entry.state for entry in next(looks).entries}[name] == "done"
    blueprint.store.delete("trained/near/card.json")
    states = {entry.folder: entry.state for entry in next(looks).entries}
    assert states["trained/near"] == states["models/aligned"] == "missing"  # the source would be another one


@pytest.mark.parametrize("is_final", [True, False])
def test_watching_ends_where_crafting_has_failed_and_it_is_said(
    is_final: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The outcomes on images that are not there would otherwise be waited for, for ever."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    experiment = hand_made(tmp_path)
    blueprint = experiment.finish()
    table = blueprint.adversarial(blueprint.by_name["aligned"], "pgd")
    cells = [cell.table for cell in blueprint.cells() if (cell.surrogate, cell.attack) == ("aligned", "pgd")]
    for own in (table, *cells):
        blueprint.store.delete(own.finished_file)
    looks = watch(Request(experiment.file, quiet=True), every=0.0)
    assert {entry.state for entry in next(looks).entries} == {"missing", "done"}
    table.write_failure(blueprint.store, 0, "chunk 0: the gradient is not finite for 00004", is_final)
    last = next(looks)
    states = {entry.folder: entry.state for entry in last.entries}
    assert {name for name, state in states.items() if state == "failed"} == {own.folder for own in (table, *cells)}
    assert list(looks) == []
    capsys.readouterr()
    assert main(["status", str(experiment.file), "--watch"]) == 0
    said = capsys.readouterr().err.splitlines()
    assert said[-2:] == [
        "witness: adversarial/aligned/pgd: chunk 0: the gradient is not finite for 00004",
        "witness: 5 networks and tables have failed; `witness run` tries again what may still be made",
    ]


@pytest.mark.parametrize("damage", [b"", b"{}", b"[]", b"nonsense", b'{"fingerprint": "x"}'])
def test_a_damaged_card_is_a_missing_network(
    damage: bytes, finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request, folder = finished.copied(tmp_path)
    (folder / "models/aligned/card.json").write_bytes(damage)
    found = states(request, capsys)
    assert found["models/aligned"]["state"] == "missing"


def test_a_damaged_manifest_is_made_again(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request, folder = finished.copied(tmp_path)
    for file in folder.glob(".seen/images-*.parquet"):
        file.write_bytes(file.read_bytes()[:100])
    assert {entry["state"] for entry in states(request, capsys).values()} == {"done"}
