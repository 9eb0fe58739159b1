"""A wrong request for a sweep is refused before any work, with exit code 2 and one message that says how to mend it."""

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hand_made import HandMade, hand_made

from pipelines.cli import main
from pipelines.sweep import command

VALIDATION = {"kind": "npz", "path": "images.npz", "take": [4, 8]}


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> HandMade:
    """An experiment with validation images and a validation target, as a sweep needs them."""
    made = hand_made(tmp_path_factory.mktemp("sweep"))
    data = made.content()["data"]
    data["test"]["take"] = [8, 16]
    made.write(data=data | {"validation": VALIDATION}, targets=["twin", "stranger"], validation_targets=["cousin"])
    return made


@pytest.fixture(autouse=True)
def as_it_was(experiment: HandMade, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(experiment.folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)


def space(**keys: Any) -> dict[str, Any]:
    return {"why": "a test", "keys": {key: {"why": "a test", **value} for key, value in keys.items()}}


def temperature(**dimension: Any) -> dict[str, Any]:
    return space(**{"align.temperature": dimension})


MATRIX = ("matrix=[near, twin]", "source=null", "targets=null")
FLAGS = [
    (["--space", "temprature"], "--space temprature: there is no such space; did you mean 'temperature'?"),
    (["--space", "nowhere.yaml"], "nowhere.yaml: "),
    (["--space", "temperature", "--searcher", "optune"], "no searcher 'optune'; did you mean 'optuna'?"),
    (["--space", "temperature", "--scheduler", "pbt"], "no scheduler 'pbt'; there are: asha, none"),
    (["--space", "my space.yaml"], "--space my space.yaml: the sweep's folder gets the name of this file"),
    (["--space", 41 * "x" + ".yaml"], "the sweep's folder gets the name of this file"),
    (["--space", "elsewhere/temperature.yaml"], "a space that ships with Witness is called temperature too; rename"),
    (["--space", "temperature", "--attack", "pgdd"], "--attack: the experiment has no attack 'pgdd'; did you mean"),
    (["--space", "temperature", "--samples", "0"], "--samples 0: must be at least 1"),
    (["--space", "temperature", "--concurrent", "0"], "--concurrent 0: must be at least 1"),
    (["--space", "temperature", "--max-clean-drop", "-1"], "--max-clean-drop -1: must be points of clean accuracy"),
    (["--space", "temperature", "--max-clean-drop", "nan"], "--max-clean-drop nan: must be points of clean accuracy"),
    (["--space", "temperature", "--searcher", "grid", "--samples", "3"], "the grid of temperature has 7 points"),
    (["--space", "temperature", "--surrogate", "alinged"], "no surrogate 'alinged'; did you mean 'aligned'?"),
    (["--space", "temperature", "--surrogate", "source"], "--surrogate source: it is the model near as it is, so that"),
    (["--space", "temperature", "--surrogate", "witness"], "--surrogate witness: it is the model seer as it is, so"),
    (
        ["--space", "sam"],
        "sam.yaml: keys.align.update.rho: of aligned, `update` is plain; choose a space that suits it",
    ),
    (
        ["--space", "sam", "--set", "variants.lgv.refine=lgv", "--surrogate", "lgv"],
        "sam.yaml: keys.align.update.rho: of lgv, `update` is plain; choose a space that suits it",
    ),
    (
        ["--space", "lgv", "--set", "variants.rival.refine=lgv"],
        "of aligned, `keep` is last; choose a space that suits it, or a surrogate that has it: --surrogate rival",
    ),
    (
        ["--space", "pkt", "--set", "variants.rival.refine=lgv", "--surrogate", "rival"],
        "pkt.yaml: keys.align.loss.pkt.weight: rival has no alignment loss, because its `weight` is 0; choose a space",
    ),
    (["--space", "witness"], "there is nothing to choose: witnesses = ['seer'] is the only possibility"),
    (["--space", "temperature", "--set", "validation_targets=[]"], "validation_targets: must be given: a sweep"),
    (["--space", "temperature", "--set", "data.validation=null"], "data.validation: must be given: a sweep chooses"),
    (["--space", "temperature", "--set", "validation_targets=[twin]"], "validation_targets: twin is in targets too"),
    (["--space", "temperature", "--set", "validation_targets=[seer]"], "seer is named in witnesses too"),
    (
        ["--space", "temperature", *(part for key in MATRIX for part in ("--set", key))],
        "matrix: a sweep is over the alignment of one source; name `source` and `targets` instead",
    ),
    (["--space", "temperature", "--set", "name=" + 95 * "x"], "is no name"),
]


def refused(capsys: pytest.CaptureFixture[str], experiment: HandMade, *arguments: str) -> str:
    """Returns the message with which the arguments are refused, after checking that nothing was written."""
    before = set(experiment.folder.rglob("*"))
    assert main(["tune", str(experiment.file), *arguments]) == 2
    assert set(experiment.folder.rglob("*")) == before
    said = capsys.readouterr().err.splitlines()
    return "\n".join(line for line in said if "inspect data" not in line)


@pytest.mark.parametrize(("flags", "said"), FLAGS, ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_wrong_flags_are_refused(
    experiment: HandMade, capsys: pytest.CaptureFixture[str], flags: list[str], said: str
) -> None:
    samples = [] if "--samples" in flags or "grid" in flags else ["--samples", "2"]
    message = refused(capsys, experiment, *flags, *samples)
    assert message.startswith("witness: ")
    assert said in message


@pytest.mark.parametrize(
    "flags",
    [
        ["--space", "temprature"],
        ["--space", "nowhere.yaml"],
        ["--space", "sam"],
        ["--space", "temperature", "--searcher", "optune"],
        ["--space", "temperature", "--attack", "pgdd"],
        ["--space", "temperature", "--samples", "0"],
        ["--space", "temperature", "--surrogate", "alinged"],
        ["--space", "temperature", "--searcher", "grid", "--samples", "3"],
        ["--space", "temperature", "--set", "validation_targets=[]"],
    ],
    ids=" ".join,
)
def test_what_the_file_alone_tells_is_checked_before_images_and_models(
    experiment: HandMade, monkeypatch: pytest.MonkeyPatch, flags: list[str]
) -> None:
    monkeypatch.setattr(command, "open_blueprint", lambda *_, **__: pytest.fail("images and models are inspected"))
    samples = [] if "--samples" in flags or "grid" in flags else ["--samples", "2"]
    assert main(["tune", str(experiment.file), *flags, *samples]) == 2


def test_the_number_of_settings_must_be_given(experiment: HandMade, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, experiment, "--space", "temperature")
    assert "--samples: must be given: the number of settings that random tries" in said


SPACES = [
    (temperature(low=8, high=8), "keys.align.temperature: the range from 8 to 8 is empty; low must be below high"),
    (temperature(low=9, high=8), "the range from 9 to 8 is empty"),
    (temperature(low=0, high=8, scale="log"), "a log scale needs a low above 0"),
    (temperature(low=1), "a range needs both low and high"),
    (temperature(choices=[]), "choices is empty"),
    (temperature(low=1, high=8, choices=[1]), "give either low and high, or choices, or subsets_of"),
    (temperature(low=-4, high=8), "align.temperature = -4"),
    (space(**{"align.temprature": {"low": 1, "high": 8}}), "no such key; did you mean 'align.temperature'?"),
    (space(**{"attacks.pgd.eps": {"low": 0.01, "high": 0.1}}), "a sweep searches `align.*` and `witnesses` only"),
    (space(**{"align.workers": {"choices": [1, 2]}}), "align.workers: this key changes nothing that a sweep measures"),
    (space(witnesses={"choices": [["seeer"]]}), "seeer is not a witness of aligned; did you mean 'seer'?"),
    ({"why": "a test", "keys": {}}, "keys: Dictionary should have at least 1 item"),
    ({"why": "a test"}, "keys: this key is required"),
    ({"why": "a test", "kees": {}}, "kees: unknown key; did you mean 'keys'?"),
]


@pytest.mark.parametrize(("content", "said"), SPACES, ids=[said[:40] for _, said in SPACES])
def test_wrong_spaces_of_the_users_own_are_refused(
    experiment: HandMade, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: dict[str, Any], said: str
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(content))
    message = refused(capsys, experiment, "--space", str(file), "--samples", "2")
    assert f"{file}: " in message
    assert said in message


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--concurrent", "4"], "each trial needs 1 x (1 CPU); the cluster has room for 3 such workers, so for 3 at"),
        (
            ["--concurrent", "2", "--set", "align.workers=2"],
            "2 x (1 CPU); the cluster has room for 3 such workers, so for 1",
        ),
        (
            ["--set", "align.workers=4"],
            "align.workers: a trial needs 4 x (1 CPU), and this cluster has room for 3 such",
        ),
        # Three workers would take all three CPUs and leave none for the trial that waits for them.
        (["--set", "align.workers=3", "--set", "align.batch_size=48"], "3 such workers beside the trial itself"),
        (
            ["--set", "compute.threads=2", "--concurrent", "2"],
            "each trial needs 1 x (2 CPU); the cluster has room for 1",
        ),
        (
            ["--set", "compute.resources={mock_gpu: 1}", "--concurrent", "2"],
            "1 x (1 CPU, 1 mock_gpu); the cluster has room",
        ),
        (["--set", "compute.accelerator=cuda"], "GPU: 1 wanted, 0 there"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_more_than_the_cluster_holds_is_refused(
    ray_cluster: None,
    experiment: HandMade,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    said: str,
) -> None:
    """The tests' cluster has three CPUs and one mock_gpu."""
    message = refused(capsys, experiment, "--space", "temperature", "--samples", "2", *flags)
    assert said in message
