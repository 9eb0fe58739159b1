"""What an experiment makes of an early stop: fingerprints, the order of the work, the tables, and what is refused."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hand_made import CURVE, HandMade, hand_made
from one_worker import WORKER
from safetensors.torch import load_file, save_file

import pipelines.stages.align as align_stage
from align_core.errors import InputError
from pipelines.compute.fine_tune import FineTune, fine_tune_alone
from pipelines.compute.tuned import Stopped
from pipelines.progress import Progress
from pipelines.report.page import computed_report
from pipelines.stages.align import make_networks
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.payload import fine_tune_of
from pipelines.sweep.space import load_space
from pipelines.sweep.study import Options, Study

GAIN = {"by": "gain", "attack": "pgd"}
ALIGN = {"epochs": 4, "batch_size": 2}


@pytest.fixture(autouse=True)
def _own_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))


def experiment_in(folder: Path, stop: dict[str, Any] | None, images: int = 30, **changes: Any) -> HandMade:
    experiment = hand_made(folder)
    pixels = np.random.default_rng(5).integers(0, 256, (images, 8, 8, 1), dtype=np.uint8)
    np.savez(folder / "validation.npz", images=pixels, labels=np.arange(images) % 3)
    data = experiment.content()["data"] | {"validation": {"kind": "npz", "path": "validation.npz"}}
    own = {"targets": ["twin"], "validation_targets": ["cousin"], "align": ALIGN | {"early_stop": stop}}
    experiment.write(data=data, **own | changes)
    return experiment


def inputs_of(experiment: HandMade, name: str = "aligned") -> dict[str, Any]:
    (making,) = (own for own in experiment.blueprint().alignments() if own.name == name)
    return making.inputs


def other_images(experiment: HandMade) -> None:
    with np.load(experiment.folder / "validation.npz") as found:
        images, labels = found["images"], found["labels"]
    np.savez(experiment.folder / "validation.npz", images=255 - images, labels=labels)


def other_target(experiment: HandMade) -> None:
    path = experiment.folder / "cousin.safetensors"
    state = load_file(path)
    save_file(state | {"1.bias": state["1.bias"] + 1}, path)


@pytest.mark.parametrize(
    ("stop", "change", "is_made_again"),
    [
        (None, other_images, False),
        (None, other_target, False),
        ({"patience": 3}, other_images, True),
        ({"patience": 3}, other_target, False),
        (GAIN, other_images, True),
        (GAIN, other_target, True),
    ],
)
def test_what_it_is_measured_on_decides_the_result(
    stop: dict[str, Any] | None, change: Callable[[HandMade], None], is_made_again: bool, tmp_path: Path
) -> None:
    experiment = experiment_in(tmp_path, stop)
    before = inputs_of(experiment)
    change(experiment)
    after = inputs_of(experiment)
    assert (before != after) == is_made_again
    assert {key for key in before if before[key] != after[key]} == ({"early_stop"} if is_made_again else set())
    assert ("early_stop" in before) == (stop is not None)


def test_an_attack_is_crafted_on_a_stratified_sample_and_agreement_measured_on_all(tmp_path: Path) -> None:
    def checked(stop: dict[str, Any]) -> Any:
        (tmp_path / str(len(stop))).mkdir()
        blueprint = experiment_in(tmp_path / str(len(stop)), stop, images=450).blueprint()
        (making,) = (own for own in blueprint.alignments() if own.name == "aligned")
        return fine_tune_of(blueprint, making, WORKER).checked

    attacked, agreed = checked(GAIN), checked({"patience": 3})
    assert len(agreed.image_ids) == 450 and agreed.attack is None
    assert len(attacked.image_ids) == 200 == len(set(attacked.image_ids))
    assert sorted(np.bincount(attacked.labels).tolist()) == [66, 67, 67]
    assert attacked.labels == [int(own) % 3 for own in attacked.image_ids]
    known = dict(zip(agreed.image_ids, agreed.contents, strict=True))
    assert attacked.contents == [known[own] for own in attacked.image_ids]


def test_a_validation_target_that_is_trained_here_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where it is one with a defence. Without an early stop by gain, no run needs it."""
    experiment = experiment_in(tmp_path, None)
    models = experiment.content()["models"]
    cousin = {key: value for key, value in models["cousin"].items() if key != "weights"} | {"train": {"epochs": 1}}
    models |= {"cousin": cousin, "guarded": {"wrap": "bits", "model": "cousin"}}
    data = experiment.content()["data"] | {"validation": {"kind": "npz", "path": "validation.npz"}}
    own = {"data": data, "models": models, "targets": ["twin"], "validation_targets": ["guarded"], "controls": []}
    experiment.write(**own, align=ALIGN)
    assert experiment.blueprint().missing("align") == ["aligned"]
    experiment.write(**own, align=ALIGN | {"early_stop": GAIN})
    blueprint = experiment.blueprint()
    assert blueprint.missing("align") == ["aligned", "cousin"]
    made: list[str] = []

    def alone(job: FineTune, run_name: str, worker: object) -> object:
        made.append(job.name)
        return fine_tune_alone(job, "cpu", f".train/{run_name}")

    monkeypatch.setattr(align_stage, "room_for", lambda *_, **__: 1)
    monkeypatch.setattr(align_stage, "fine_tune", alone)
    make_networks(blueprint, WORKER, Progress(quiet=True))
    assert made == ["cousin", "aligned"] and not blueprint.missing("align")
    card = blueprint.store.read_json("models/aligned/card.json") or {}
    assert Stopped(**card["early_stop"]).line() in capsys.readouterr().err.replace("\n", " ")
    assert card["early_stop"]["total"] == 8 and len(card["early_stop"]["checks"]) >= 1
    assert not experiment.blueprint().missing("align")  # as the next command finds it


def with_steps(blueprint: Blueprint, name: str, steps: int) -> None:
    card = blueprint.store.read_json(f"models/{name}/card.json") or {}
    noted = {"by": "agreement", "checks": [[2, 50.0]], "steps": steps, "total": 8}
    blueprint.store.write_json(f"models/{name}/card.json", card | {"early_stop": noted})


def test_the_table_has_the_steps_that_were_taken(tmp_path: Path) -> None:
    experiment = experiment_in(tmp_path, {"patience": 3}, controls=["label_only"])
    blueprint = experiment.finish()
    with_steps(blueprint, "aligned", 5)
    rows = {row["surrogate"]: row for row in computed_report(blueprint).surrogates if row["attack"] == "(all)"}

    def cost(name: str) -> list[Any]:
        return [rows[name][column] for column in ("steps", "images_seen", "forward_passes", "backward_passes")]

    assert cost("aligned") == [5, 10, 20, 10]  # the source's own passes, and those of the witness
    assert cost("label_only") == [8, 16, 16, 16]  # it has no witness to agree with, and takes all steps
    assert len(CURVE) not in (5, 8)


def test_a_control_stops_on_gain_too(tmp_path: Path) -> None:
    experiment = experiment_in(tmp_path, GAIN, controls=["label_only"])
    settings = {own.name: own.align.early_stop for own in experiment.blueprint().alignments()}
    assert settings["label_only"] == settings["aligned"] is not None


def test_sweeps_refuse_it(tmp_path: Path) -> None:
    blueprint = experiment_in(tmp_path, {"patience": 3}).blueprint()
    with pytest.raises(InputError, match=r"early_stop: a sweep measures every trial"):
        Study(blueprint, Options(space="temperature"))
    (tmp_path / "space.yaml").write_text("why: x\nkeys: {align.early_stop.patience: {why: x, choices: [1, 2]}}\n")
    with pytest.raises(InputError, match=r"keys\.align\.early_stop\.patience: trials take all steps"):
        load_space(str(tmp_path / "space.yaml"), replace_stop(blueprint))


def replace_stop(blueprint: Blueprint) -> Any:
    experiment = blueprint.experiment
    return experiment.model_copy(update={"align": replace(experiment.align, early_stop=None)})
