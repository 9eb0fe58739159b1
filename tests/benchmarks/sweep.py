"""What a trial of a sweep costs beyond its own work: the alignment and its evaluations, as the trial times them."""

import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import yaml

from pipelines.compute.cluster import connected
from pipelines.run.request import Request
from pipelines.sweep.command import search_settings
from pipelines.sweep.study import Options
from tests.benchmarks.experiment import data_folder, write_experiment

_TRIALS = 5


def measure() -> Iterator[str]:
    """Measures a sweep of one trial at a time: the time between the ends of two trials, over that of the work in it."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        file = write_experiment(folder, data_folder(folder), "sweep", 100, workers=1, threads=1)
        content = yaml.safe_load(file.read_text())
        data = content["data"]
        data["validation"] = {"kind": "npz", "path": data["train"]["path"], "take": [200, 500]}
        file.write_text(yaml.safe_dump(content | {"targets": ["resnet56"], "validation_targets": ["resnet44"]}))
        tried = {"why": "-", "low": 1, "high": 64, "grid": [4.0 + number for number in range(_TRIALS)]}
        (folder / "space.yaml").write_text(yaml.safe_dump({"why": "-", "keys": {"align.temperature": tried}}))
        options = Options(str(folder / "space.yaml"), searcher="grid", concurrent=1, max_clean_drop=100)
        with connected(None, Request(file, quiet=True).experiment(), print):
            start = time.time()
            result = search_settings(Request(file, quiet=True), options)
            seconds = time.time() - start
        records = [json.loads(record.read_text()) for record in (Path(result.location) / "trials").glob("*.json")]
    ends = sorted((record["looks"][-1]["timestamp"], record["seconds"]) for record in records)
    further = (ends[-1][0] - ends[0][0]) / (_TRIALS - 1)
    work = statistics.mean(worked for _, worked in ends[1:])
    rest = seconds - (ends[-1][0] - ends[0][0]) - ends[0][1]
    yield (
        f"sweep: a further trial takes {further:.1f} s for {work:.1f} s of its own work: {further / work:.2f} x, "
        f"{further - work:+.1f} s (limit 4 s above); and the sweep {rest:.1f} s once, on a cluster that is up"
    )
