"""A script: work on a cluster with GPUs that are none, some of which fail. It prints what became of it, as JSON.

    python pretended_gpus.py chunks|alignment|sweep FOLDER NUMBER BAD

Ray hands out as many GPUs as it is told that there are, and asks no driver: NUMBER here, of which those of the ids BAD,
separated by commas, fail.
"""

import json
import logging
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
import yaml
from hand_made import CLASSES, HandMade, hand_made
from one_worker import WORKER
from ray import cloudpickle
from sweeping import space_file

from pipelines.compute.cluster import Worker
from pipelines.compute.device_failures import device_failures, given, left_alone
from pipelines.compute.kept_gpus import KEPT, naming_failed_devices
from pipelines.compute.ray_data import PipelineBroke, run_pipeline
from pipelines.compute.ray_train import fine_tune
from pipelines.failure import RunFailed
from pipelines.progress import Progress
from pipelines.stages.payload import fine_tune_of
from pipelines.sweep.command import _sweep
from pipelines.sweep.study import Options, Study

ERROR = "CUDA error: unspecified launch failure"
CHUNKS = 8
TRIALS = 3
cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Working:
    """Works on chunks on GPUs of which some fail."""

    def __init__(self, job: Any) -> None:
        self.bad = job.store.read_json("bad.json")["gpus"]

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        import torch

        gpu = given()[1]
        if gpu in self.bad:
            raise torch.AcceleratorError(ERROR)
        time.sleep(0.2)
        return {"chunk": item["chunk"], "gpu": gpu}


def chunks(job: Any) -> dict[str, Any]:
    """What becomes of chunks: pipeline after pipeline, as `fill` begins them."""
    done, broke, attempts = {}, [], 0
    worker = Worker(device="cuda", threads=1, cpus=0.5, gpus=1, resources={}, wanted=2)
    while len(done) < CHUNKS and attempts < 5:
        attempts += 1
        items = [{"chunk": chunk} for chunk in range(CHUNKS) if chunk not in done]
        try:
            for row in run_pipeline(items, lambda _, item: item, job, Working, worker, 2):
                done[row["chunk"]] = row["gpu"]
        except PipelineBroke as problem:
            broke.append(str(problem))
    return {"done": sorted(done), "gpus": sorted(set(done.values())), "broke": broke}


def sweep(made: HandMade, folder: Path) -> dict[str, Any]:
    """What becomes of the trials of a sweep."""
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (60, 8, 8, 1), dtype=np.uint8)
    np.savez(folder / "validation.npz", images=images, labels=np.arange(60) % CLASSES)
    content = yaml.safe_load(made.file.read_text())
    content["data"]["validation"] = {"kind": "npz", "path": "validation.npz"}
    made.file.write_text(yaml.safe_dump(content | {"targets": ["twin"], "validation_targets": ["stranger"]}))
    space = space_file(folder, {"align.temperature": {"choices": list(range(1, TRIALS + 1))}})
    study = Study(made.blueprint(), Options(space, searcher="grid", max_clean_drop=100))
    said: list[str] = []
    with naming_failed_devices(study.blueprint.store, said.append):
        _sweep(study, replace(WORKER, gpus=1), 1, Progress(quiet=True))
        kept = sum(KEPT.by_node().values())
    return {"trials": [own.status for own in study.records().values()], "said": said, "kept": kept}


def main(what: str, folder: Path, number: int, bad: str) -> None:
    chatter = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
    ray.init("local", num_cpus=4, num_gpus=number, **chatter)
    made = hand_made(folder)
    models = made.content()["models"]
    if what != "chunks":
        models["near"] |= {"factory": "faulty_networks:failing_on", "args": {"width": 2, "bad": bad}}
    made.write(models=models, align={"epochs": 2, "batch_size": 2})
    blueprint = made.blueprint()
    (making,) = (making for making in blueprint.alignments() if making.name == "aligned")
    job: Any = replace(fine_tune_of(blueprint, making, WORKER), progress_file=None)
    store = blueprint.store
    store.write_json("bad.json", {"gpus": bad.split(",")})
    found: dict[str, Any] = {}
    try:
        if what == "chunks":
            from pipelines.stages.craft import craft_job

            found = chunks(craft_job(blueprint, "cuda", threads=1, patience=60))  # so that it takes actors
        elif what == "sweep":
            found = sweep(made, folder)
        else:
            found = {"steps": len(fine_tune(job, making.run_name, replace(WORKER, gpus=1)).curve)}
    except RunFailed as problem:
        found["failed"] = str(problem)
    found["alone"] = [device.gpu for device in left_alone(device_failures(store))]
    found.setdefault("kept", sum(KEPT.by_node().values()))
    print(json.dumps(found))
    ray.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
