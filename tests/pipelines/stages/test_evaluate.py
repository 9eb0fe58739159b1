"""One chunk in an evaluator's hands: what it predicts is one file, and what fails does not take the rest with it."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hand_made import HandMade, hand_made
from torch import nn

from pipelines.stages.blueprint import Blueprint
from pipelines.stages.clean_images import test_images as images_of
from pipelines.stages.evaluate import EvaluateJob, Evaluator
from pipelines.stages.evaluations import Turn, in_turns
from pipelines.stages.payload import network_loader
from pipelines.storage.chunked_table import Failure


@pytest.fixture
def experiment(tmp_path: Path) -> HandMade:
    models = HandMade(tmp_path).content()["models"]
    models["drawn"] = {"wrap": "resize_pad", "smallest": 0.5, "model": "twin"}
    made = hand_made(tmp_path, compute={"chunk": 5}, models=models, targets=["twin", "drawn", "cousin", "stranger"])
    made.finish()
    return made


def clean_turn(blueprint: Blueprint) -> Turn:
    """The predictions on clean images, none of which is there."""
    turn = in_turns(blueprint.evaluations)[0]
    for own in turn.predictions:
        blueprint.store.delete(own.table.finished_file)
    return turn


def evaluator_of(blueprint: Blueprint, turn: Turn) -> Evaluator:
    job = EvaluateJob(
        store=blueprint.store, loader=network_loader(blueprint), images=images_of(blueprint), turns=[turn], seed=0,
        device="cpu", threads=1, most_networks=16, patience=60,
    )  # fmt: skip
    return Evaluator(job)


def evaluate(evaluator: Evaluator, chunk: int, lacking: tuple[int, ...]) -> list[int]:
    """Works on a chunk; returns the positions of the predictions that were made."""
    images = evaluator.job.images.read(chunk)
    done = evaluator({"number": 0, "chunk": chunk, "lacking": json.dumps(lacking), "images": images})
    assert (done["number"], done["chunk"]) == (0, chunk)
    return [position for position, _ in json.loads(done["made"])]


def missing(blueprint: Blueprint, turn: Turn) -> dict[int, tuple[int, ...]]:
    return dict(turn.joint.missing(blueprint.store, blueprint.store.listing(), len(blueprint.rows)))


def test_what_all_networks_predict_on_a_chunk_is_one_file_and_becomes_their_tables(experiment: HandMade) -> None:
    blueprint = experiment.blueprint()
    turn, everyone = clean_turn(blueprint), tuple(range(len(blueprint.clean())))
    evaluator = evaluator_of(blueprint, turn)
    assert missing(blueprint, turn) == dict.fromkeys(range(3), everyone)
    for chunk, lacking in missing(blueprint, turn).items():
        assert evaluate(evaluator, chunk, lacking) == list(everyone)
    assert len(blueprint.store.listing(".evaluate")[".evaluate/clean"]) == 3
    assert turn.joint.finish(blueprint.store, blueprint.rows) == []
    assert blueprint.store.listing(".evaluate") == {}
    assert turn.joint.is_finished(blueprint.store.listing())
    manifest, images = blueprint.inspected.manifests["test"], images_of(blueprint)
    pixels = torch.from_numpy(np.concatenate([images.read(chunk) for chunk in range(3)])) / 255
    for members, table in turn.predictions:
        rows = table.read(blueprint.store, ["image_id", "label", "prediction", "confidence"])
        with torch.no_grad():
            logits = evaluator.networks.mean_of(members)(pixels, manifest.ids)
        assert rows["image_id"].to_pylist() == manifest.ids
        assert rows["label"].to_pylist() == manifest.labels.tolist()
        assert rows["prediction"].to_pylist() == logits.argmax(dim=1).tolist()
        confidence = logits.softmax(dim=1)[torch.arange(len(manifest)), torch.from_numpy(manifest.labels)]
        assert rows["confidence"].to_pylist() == pytest.approx(confidence.tolist(), abs=1e-5)


class Broken(nn.Module):
    def __init__(self, problem: type[Exception]) -> None:
        super().__init__()
        self.problem = problem

    def forward(self, images_BCHW: torch.Tensor, ids: list[str]) -> torch.Tensor:
        raise self.problem("this network is broken")


@pytest.mark.parametrize("is_alone", [False, True])
@pytest.mark.parametrize("problem", [RuntimeError, FloatingPointError])
def test_a_network_that_fails_loses_only_its_own_prediction(
    experiment: HandMade, problem: type[Exception], is_alone: bool
) -> None:
    blueprint = experiment.blueprint()
    turn = clean_turn(blueprint)
    (at,) = (number for number, own in enumerate(turn.predictions) if own.members == ("twin",))
    others = [] if is_alone else [number for number in range(len(turn.predictions)) if number != at]
    evaluator = evaluator_of(blueprint, turn)
    healthy = evaluator.networks.mean_of
    evaluator.networks.mean_of = lambda names: Broken(problem) if names == ("twin",) else healthy(names)  # type: ignore[method-assign]
    assert evaluate(evaluator, 1, tuple(sorted([*others, at]))) == others
    listing = blueprint.store.listing()
    failed = Failure("chunk 1: this network is broken", is_final=problem is FloatingPointError)
    assert turn.joint.failures(blueprint.store, listing) == {"clean/twin": failed}
    lacking = missing(blueprint, turn)[1]
    assert at in lacking and not set(lacking) & set(others)
    turn.joint.forget_failure(blueprint.store, listing)
    evaluator.networks.mean_of = healthy  # type: ignore[method-assign]
    assert evaluate(evaluator, 1, (at,)) == [at]
    assert at not in missing(blueprint, turn).get(1, ())


def test_only_what_is_lacking_is_made(experiment: HandMade) -> None:
    blueprint = experiment.blueprint()
    turn = clean_turn(blueprint)
    assert evaluate(evaluator_of(blueprint, turn), 0, (1, 3)) == [1, 3]
    ((name,),) = blueprint.store.listing(".evaluate").values()
    with blueprint.store.open_input(f".evaluate/clean/{name}") as source:
        names = pa.parquet.read_schema(source).names
    tables = [turn.predictions[position].table.folder for position in (1, 3)]
    assert names == ["image_id", "label", *(f"{t}/{c}" for t in tables for c in ("prediction", "confidence"))]
