"""Everything that computes sets the numeric policy by itself, whatever the process did before."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hand_made import HandMade, hand_made
from one_worker import WORKER

from align_core.numerics import set_policy
from pipelines.compute.fine_tune import fine_tune_alone
from pipelines.compute.ray_data import _ChunkWorker
from pipelines.run.request import Request
from pipelines.run.verify import verify_experiment
from pipelines.stages.craft import craft_job
from pipelines.stages.payload import fine_tune_of, network_loader, others_pool
from pipelines.sweep.validation import ValidationSetup, Validator

PRODUCTS = {"fp32": "ieee", "tf32": "tf32", "bf16": "ieee"}


def policy() -> dict[str, Any]:
    return {
        "threads": torch.get_num_threads(),
        "products": torch.backends.cuda.matmul.fp32_precision,
        "convolutions": torch.backends.cudnn.conv.fp32_precision,
        "deterministic": torch.backends.cudnn.deterministic,
        "benchmark": torch.backends.cudnn.benchmark,
    }


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HandMade]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    threads = torch.get_num_threads()
    yield hand_made(tmp_path)
    set_policy(threads, "fp32")


def by_a_chunk_worker(experiment: HandMade, found: list[dict[str, Any]]) -> None:
    def work(job: Any) -> Callable[[Any], Any]:
        return lambda item: found.append(policy())

    _ChunkWorker(craft_job(experiment.blueprint(), "cpu", threads=1, patience=60), work, lambda job, item: item)({})


def by_a_trainer(experiment: HandMade, found: list[dict[str, Any]]) -> None:
    blueprint = experiment.blueprint()
    (making,) = (making for making in blueprint.alignments() if making.name == "aligned")
    fine_tune_alone(fine_tune_of(blueprint, making, WORKER), "cpu", "checkpoint")
    found.append(policy())


def by_a_validator(experiment: HandMade, found: list[dict[str, Any]]) -> None:
    blueprint = experiment.blueprint()
    data, manifest = blueprint.experiment.data, blueprint.inspected.manifests["test"]
    setup = ValidationSetup(
        images=data.test, fit=data.fit, image_ids=manifest.ids, labels=manifest.labels.tolist(),
        contents=manifest.contents, source="near", targets=("twin",), attack=blueprint.experiment.attacks["pgd"],
        seed=0, pass_rows=None, chunk=12, pool=others_pool(blueprint),
    )  # fmt: skip
    Validator(setup, network_loader(blueprint), "cpu", threads=1)
    found.append(policy())


def by_verify(experiment: HandMade, found: list[dict[str, Any]]) -> None:
    experiment.finish()
    verify_experiment(Request(experiment.file, quiet=True), sample=1)
    found.append(policy())


@pytest.mark.parametrize("work", [by_a_chunk_worker, by_a_trainer, by_a_validator, by_verify])
@pytest.mark.parametrize("precision", PRODUCTS)
def test_the_policy_is_set(experiment: HandMade, precision: str, work: Callable[..., None]) -> None:
    experiment.write(compute={"precision": precision, "threads": 1})
    found: list[dict[str, Any]] = []
    torch.set_num_threads(3)
    other = "ieee" if precision == "tf32" else "tf32"
    torch.backends.cuda.matmul.fp32_precision = torch.backends.cudnn.conv.fp32_precision = other
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = False, True
    work(experiment, found)
    products = PRODUCTS[precision]
    expected = {"products": products, "convolutions": products, "deterministic": True, "benchmark": False}
    assert found == [{"threads": 1, **expected}]
