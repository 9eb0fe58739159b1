"""In which order networks are made: those that others wait for come first, and nothing starts before what it needs."""

import sys
from pathlib import Path

import pytest
from hand_made import hand_made
from one_worker import WORKER

from pipelines import recipes
from pipelines.compute.fine_tune import FineTune, fine_tune_alone
from pipelines.progress import Progress
from pipelines.run.request import Request, open_blueprint
from pipelines.stages import align as align_stage
from pipelines.stages.align import _label, _ready, _steps, make_networks
from pipelines.stages.blueprint import Blueprint

DEMO = Path(recipes.__file__).parent / "demo.yaml"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Blueprint:
    """The demo before its first run."""
    return open_blueprint(Request(DEMO, output=str(tmp_path_factory.mktemp("runs")), quiet=True))


def ready(blueprint: Blueprint, waiting: list[str]) -> list[str]:
    return [making.name for making in _ready(blueprint, waiting)]


def test_what_an_alignment_starts_from_comes_first(demo: Blueprint) -> None:
    """The demo's file has the ViT first, which takes longest, but no surrogate waits for it."""
    order = ready(demo, demo.missing("align"))
    assert order == ["cnn", "witness_cnn", "vit", "cnn_b", "small_cnn", "mlp"]


def test_an_alignment_is_ready_when_its_source_and_witnesses_are_there(tmp_path: Path) -> None:
    blueprint = open_blueprint(Request(DEMO, output=str(tmp_path), quiet=True))
    waiting = blueprint.missing("align")

    def make(name: str) -> None:
        (making,) = (making for making in blueprint.trainings() if making.name == name)
        card = {"fingerprint": making.fingerprint, "weights": f"hash of {name}"}
        blueprint.store.write_json(f"{making.folder}/card.json", card)
        blueprint.refresh()
        waiting.remove(name)

    make("cnn")
    assert ready(blueprint, waiting)[:3] == ["witness_cnn", "label_only", "vit"]
    make("witness_cnn")
    assert ready(blueprint, waiting)[:3] == ["aligned", "label_only", "vit"]


def test_the_progress_counts_all_of_it(demo: Blueprint) -> None:
    missing = demo.missing("align")
    assert _label(demo, missing) == "train 6 models, align 2 surrogates"
    assert _label(demo, ["aligned"]) == "align 1 surrogate"
    assert _label(demo, ["vit"]) == "train 1 model"
    # 1,000 images: 31 batches of 32 an epoch; 18 epochs of the ViT, 12 of the five others and of each alignment
    assert _steps(demo, missing) == 31 * (18 + 5 * 12 + 2 * 12)


def test_an_alignment_that_fails_says_how_far_it_came_and_counts_no_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With this rate the first step leads to weights on which the second finds no finite loss."""

    def alone(job: FineTune, run_name: str, worker: object) -> object:
        return fine_tune_alone(job, "cpu", f".train/{run_name}")

    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(align_stage, "room_for", lambda *_, **__: 1)  # there is no cluster here
    monkeypatch.setattr(align_stage, "fine_tune", alone)
    hot = {"align": {"optimizer": {"name": "sgd", "lr": 1e30}}}
    experiment = hand_made(
        tmp_path, align={"epochs": 10, "batch_size": 2, "augment": {"crop": "none"}}, variants={"hot": hot}, controls=[]
    )
    progress = Progress(quiet=True)
    assert make_networks(experiment.blueprint(), WORKER, progress) == 1
    said = capsys.readouterr().err
    assert "the alignment of hot failed (it had reported 1 of 20 steps): " in said
    assert "witness: align 2 surrogates: 21 of 40 steps in " in said
    assert [spent.done for spent in progress.spent] == [21]
