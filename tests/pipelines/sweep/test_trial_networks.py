"""What a trial measures on its way: the networks that there would be if the training ended there."""

from pathlib import Path

import pytest
import torch
from digits_sweep import write_sweep

from align_core.models import Classifier, Ensemble
from pipelines.compute.cluster import Worker
from pipelines.compute.fine_tune import Trainer
from pipelines.run.request import Request, open_blueprint
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.payload import fine_tune_of
from pipelines.sweep.trial import _Kept

NAMES = ["aligned", "lgv", "mba", "swa", "sasd"]


@pytest.fixture(scope="module")
def blueprint(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Blueprint:
    variants = {name: {"refine": name} for name in NAMES[1:]}
    variants["mba"]["align"] = {"keep": {"samples": 3}}  # type: ignore[assignment]
    return open_blueprint(Request(write_sweep(tmp_path_factory.mktemp("networks"), weights, variants=variants)))


def trainer_of(blueprint: Blueprint, name: str) -> Trainer:
    making = next(making for making in blueprint.alignments() if making.name == name)
    return Trainer(fine_tune_of(blueprint, making, Worker("cpu", 1, 1, 0, {}, 1)), "cpu")


@pytest.mark.parametrize(
    ("name", "counts"), [("aligned", [1, 1]), ("lgv", [8, 16]), ("mba", [3, 3]), ("swa", [1, 1]), ("sasd", [1, 1])]
)
def test_the_last_are_those_of_a_run_and_looking_at_them_changes_nothing(
    blueprint: Blueprint, name: str, counts: list[int]
) -> None:
    alone = trainer_of(blueprint, name)
    alone.run()
    made = alone.result().weights
    watched = trainer_of(blueprint, name)
    kept, found = _Kept(watched, "cycle"), []

    def look() -> None:
        now = kept.now()
        networks = list(now.members) if isinstance(now, Ensemble) else [now]
        assert not any(network.training for network in networks)
        assert not any(parameter.requires_grad for parameter in now.parameters())
        assert len(networks) == 1 or (isinstance(now, Ensemble) and now.combine == "cycle")
        found.append([network.net.state_dict() for network in networks if isinstance(network, Classifier)])

    watched.run(look, {8, 16})
    assert [len(own) for own in found] == counts
    assert watched.result().weights == made
    for state, expected in zip(found[-1], alone.networks(), strict=True):
        assert all(torch.equal(value, expected[f"net.{key}"]) for key, value in state.items())
