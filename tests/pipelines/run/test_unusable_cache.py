"""A folder for decoded images that cannot be used is refused before any work, where it would be used on this node."""

import sys
from pathlib import Path

import pytest
from hand_made import HandMade, hand_made
from one_worker import WORKER

from pipelines.cli import main
from pipelines.compute.cluster import Worker, may_work_here
from pipelines.run.command import run
from pipelines.run.forecast import make_forecast
from pipelines.run.request import Request, open_blueprint
from pipelines.stages.cache_folder import check_cache
from pipelines.stages.makings import write_failure

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HandMade:
    """An experiment of which nothing is made; `a file` lies beside its file."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a file").write_text("of somebody")
    data = HandMade(tmp_path).content()["data"]
    validation = {"kind": "npz", "path": "images.npz", "take": [2, 4]}
    data["train"]["take"] = [0, 2]
    return hand_made(
        tmp_path, data=data | {"validation": validation}, targets=["twin", "stranger"], validation_targets=["cousin"]
    )


@pytest.mark.parametrize(
    "command", [("run",), ("align",), ("plan",), ("tune", "--space", "temperature", "--samples", "2")]
)
@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("{}/a file", "compute.cache: {}/a file is a file; name a folder that can be written, or leave the key out"),
        ("{}/a file/kept", "compute.cache: {}/a file is a file; name a folder that can be written, or leave the key"),
        ("/proc/kept", "compute.cache: /proc cannot be written (all that is there comes from the system itself); name"),
    ],
    ids=["a file", "below a file", "not writable"],
)
def test_it_is_refused_with_one_message_before_any_work(
    experiment: HandMade, capsys: pytest.CaptureFixture[str], folder: str, message: str, command: tuple[str, ...]
) -> None:
    here = str(experiment.folder)
    setting = f"compute.cache={folder.format(here)}"
    name, *flags = command
    assert main([name, str(experiment.file), *flags, "--set", setting]) == 2
    printed = capsys.readouterr().err
    said = [line for line in printed.splitlines() if "compute.cache" in line]
    assert len(said) == 1 and f"{experiment.file}: {message.format(here)}" in said[0]
    assert name == "tune" or "inspect" not in printed  # a sweep may be over, which is known only then
    assert not experiment.output.exists()
    assert (experiment.folder / "a file").read_text() == "of somebody"


def test_a_folder_that_is_not_there_yet_is_left_to_the_fine_tunes(experiment: HandMade) -> None:
    folder = experiment.folder / "scratch" / "kept"
    blueprint = open_blueprint(Request(experiment.file, [f"compute.cache={folder}"], quiet=True))
    check_cache(blueprint.experiment, may_work_here(WORKER))
    assert not folder.parent.exists()


def test_what_is_finished_needs_no_folder(experiment: HandMade) -> None:
    experiment.finish()
    setting = f"compute.cache={experiment.folder}/a file"
    assert run(Request(experiment.file, [setting], quiet=True)).made == {"report": 1}
    assert make_forecast(Request(experiment.file, [setting], quiet=True)).networks == []


def test_it_is_found_too_where_other_networks_must_be_made(
    experiment: HandMade, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether other weights must be made is known after the inspection."""
    experiment.finish()
    setting = f"compute.cache={experiment.folder}/a file"
    for command in ("plan", "run"):
        assert main([command, str(experiment.file), "--set", setting, "--set", "align.temperature=8"]) == 2
        assert f"{experiment.file}: compute.cache: {experiment.folder}/a file is a file" in capsys.readouterr().err


def test_what_could_not_be_made_needs_no_folder(experiment: HandMade) -> None:
    """Neither does what would be made of it: the rest is there, and the report is still made."""
    hot = {"align": {"temperature": 16}}
    experiment.write(variants={"hot": hot, "hotter": {**hot, "witnesses": ["hot"]}})
    blueprint = experiment.finish()
    diverged = next(making for making in blueprint.alignments() if making.name == "hot")
    for name in ("hot", "hotter"):
        blueprint.store.delete_folder(f"models/{name}")
    write_failure(blueprint.store, diverged, "its loss is not finite")
    request = Request(experiment.file, [f"compute.cache={experiment.folder}/a file"], quiet=True)
    result = run(request)
    assert result.made == {"report": 1} and [hole.split(":")[0] for hole in result.holes] == [
        "models/hot",
        "models/hotter",
    ]


def test_the_folder_of_other_nodes_is_theirs(experiment: HandMade) -> None:
    """No worker of this kind fits here: what lies on this disk says nothing of it."""
    setting = f"compute.cache={experiment.folder}/a file"
    blueprint = open_blueprint(Request(experiment.file, [setting], quiet=True))
    check_cache(blueprint.experiment, may_work_here(Worker("cpu", 1, 1, 0, {"mock_gpu": 2}, 1)))
    elsewhere = "compute.resources={elsewhere: 1}"
    assert make_forecast(Request(experiment.file, [setting, elsewhere], quiet=True)).networks != []
