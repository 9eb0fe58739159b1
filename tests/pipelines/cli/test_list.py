"""`witness list`: every name that can be used, as its own module has it, with what it means."""

import json
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

import tune_spaces
from align_core.attacks import PRESETS
from align_core.losses import LOSSES
from align_core.refinements import REFINEMENTS
from pipelines.cli import main
from pipelines.cli.catalogue import CONTROLS, LISTS
from pipelines.experiment.config import Experiment, load_experiment
from pipelines.sweep.entry import entry_of
from pipelines.sweep.space import load_space


def listed(capsys: pytest.CaptureFixture[str], what: str) -> dict[str, dict[str, Any]]:
    """The entries of one list by name."""
    assert main(["list", what, "--json"]) == 0
    captured = capsys.readouterr()
    assert (captured.out.count("\n"), captured.err) == (1, "")
    entries = json.loads(captured.out)
    assert isinstance(entries, list)
    return {entry.pop("name"): entry for entry in entries}


@pytest.mark.parametrize("what", LISTS)
def test_every_entry_has_a_line_with_its_name_and_what_it_is(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    entries = listed(capsys, what)
    assert main(["list", what]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(entries)
    for line, entry in zip(lines, entries.values(), strict=True):
        assert len(entry["what"]) > 5
        assert line.partition(" ")[2].strip().startswith(entry["what"])


def test_attacks_are_the_presets_with_their_settings(capsys: pytest.CaptureFixture[str]) -> None:
    entries = listed(capsys, "attacks")
    assert {name: entry["settings"] for name, entry in entries.items()} == {
        name: preset.settings for name, preset in PRESETS.items()
    }
    costs = {"fgsm": 1, "mi": 10, "gi": 15, "si": 50, "vmi": 190, "decowa": 400, "ops": 9010, "logit": 300}
    assert {name: entries[name]["gradients"] for name in costs} == costs
    assert {name: (entry["paper"], entry["year"]) for name, entry in entries.items()} == {
        name: (preset.paper, preset.year) for name, preset in PRESETS.items()
    }
    assert main(["list", "attacks"]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("sini "))
    assert '2020; 50 gradients) [momentum: 1.0, nesterov: true, views: ["scale"]]' in line


def test_losses(capsys: pytest.CaptureFixture[str]) -> None:
    assert {name: entry["what"] for name, entry in listed(capsys, "losses").items()} == {
        name: loss.what for name, loss in LOSSES.items()
    }


def test_refinements(capsys: pytest.CaptureFixture[str]) -> None:
    entries = listed(capsys, "refinements")
    assert {name: (own["paper"], own["year"], own["settings"]) for name, own in entries.items()} == {
        name: (own.paper, own.year, own.settings) for name, own in REFINEMENTS.items()
    }
    assert main(["list", "refinements"]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("dsm "))
    assert "2206.08316, 2023); their surrogate is trained from scratch; here the source is fine-tuned [" in line


def test_every_space_that_ships_with_its_keys(capsys: pytest.CaptureFixture[str]) -> None:
    entries = listed(capsys, "spaces")
    assert set(entries) == {file.stem for file in Path(tune_spaces.__file__).parent.glob("*.yaml")}
    assert REFINEMENTS.keys() < entries.keys()
    recipe = Path(listed(capsys, "experiments")["demo"]["path"])
    variants = {name: {"refine": name} for name in REFINEMENTS if name != "label_only"}
    variants |= {name: {"align": {"loss": name}} for name in LOSSES}
    witnesses = "witnesses=[witness_cnn, mid_cnn]"
    experiment = load_experiment(recipe, [witnesses, "validation_targets=[]", f"variants={json.dumps(variants)}"])
    for name, entry in entries.items():
        tuned = entry_of(experiment, name if name in {*variants, "label_only"} else "aligned", 1_000)
        space = load_space(name, tuned)
        assert set(entry["keys"]) == set(space.keys)
        assert entry["what"].split() == space.why.split()
        assert all(dimension["why"] for dimension in entry["keys"].values())


def test_the_controls_are_those_that_an_experiment_may_name(capsys: pytest.CaptureFixture[str]) -> None:
    (control,) = get_args(get_type_hints(Experiment)["controls"])
    assert tuple(CONTROLS) == get_args(control)
    assert {name: entry["what"] for name, entry in listed(capsys, "controls").items()} == CONTROLS


def test_every_experiment_that_ships_can_be_loaded_from_its_path(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for folder in ("CIFAR10", "IMAGENET", "NIPS17", "TABENCH"):
        monkeypatch.setenv(f"WITNESS_{folder}", str(tmp_path))
    (tmp_path / "classes.txt").write_text("\n".join(f"n{number:08d}" for number in range(1000)))
    entries = listed(capsys, "experiments")
    assert {"demo", "cifar10", "cifar10-sweep"} <= set(entries)
    assert "nightly" not in entries  # a schedule
    for name, entry in entries.items():
        assert load_experiment(Path(entry["path"])).name == name
        assert not entry["what"].startswith("#") and "  " not in entry["what"]


def test_the_lists_are_named_where_none_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["list"])
    assert "say of what: attacks, losses, " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("what", "mend"),
    [
        ("atack", "did you mean 'attacks'?"),
        ("loss", "did you mean 'losses'?"),
        ("zzz", "choose from attacks, losses, refinements, spaces, controls, experiments"),
    ],
)
def test_a_list_that_does_not_exist(what: str, mend: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["list", what])
    assert f"there is no list of {what!r}; {mend}" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--address", "--output", "--set", "--quiet"])
def test_it_has_no_flags_of_a_run(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["list", "attacks", flag])
    assert f"unrecognized arguments: {flag}" in capsys.readouterr().err


def test_lines_are_wrapped_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    assert main(["list", "controls"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > len(CONTROLS)
    assert max(map(len, lines)) <= 60
    assert [line.split()[0] for line in lines if line[0] != " "] == list(CONTROLS)
