"""How busy a device is kept: one that sleeps while others decode, read and write, through Parquet and an object store.

The device is simulated by an actor as a GPU has one. Crafting sleeps 0.3 s a chunk of 100 images of 224 pixels, and
evaluation 0.04 s a chunk and target; everything around it is what a run does. Tables are not joined meanwhile.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from align_core.images import Fit, ImageSetConfig, open_image_set, read_images
from pipelines.compute.cluster import connected
from pipelines.compute.ray_data import run_pipeline
from pipelines.run.request import Request, open_blueprint
from pipelines.stages import craft, evaluate
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.evaluations import in_turns
from pipelines.stages.payload import network_loader, test_images
from tests.benchmarks.simulated import CRAFTING_S, WORKER, Crafter, Evaluator, write_experiment
from tests.pipelines.s3_server import s3_server

CHUNKS, CHUNK, SIDE, TARGETS = 24, 100, 224, 10
LIMIT, ROUNDS = 0.9, 3
PICTURE = (500, 375)  # the usual size of ImageNet's


def measure() -> Iterator[str]:
    """Measures crafting and evaluation with one device, on a local disk and with an S3-compatible server (moto)."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with s3_server(folder / "log.txt") as server:
            for where, output in (("a disk", str(folder / "runs")), ("moto's S3", server.uri("runs"))):
                request = Request(_write_experiment(folder, output), quiet=True)
                blueprint = open_blueprint(request)
                with connected(None, request.experiment(), print):
                    yield _line("crafting", where, lambda: _crafting(blueprint), server.process.pid)  # noqa: B023
                    yield _line("evaluation", where, lambda: _evaluation(blueprint), server.process.pid)  # noqa: B023
        yield _decoded(folder / "pictures")


def _line(what: str, where: str, use: Callable[[], list[Any]], server: int) -> str:
    """The shares of the time, from the first use of the device to the end of the last, in which it was used."""
    shares, costs = [], []
    for _ in range(ROUNDS):
        before = [_cpu_seconds(server), time.process_time()]
        rows = use()
        after = [_cpu_seconds(server), time.process_time()]
        spans = [span for row in rows for span in json.loads(row["used"])]
        whole = max(end for _, end in spans) - min(begin for begin, _ in spans)
        shares.append(sum(end - begin for begin, end in spans) / whole)
        seconds = [row["cpu"] for row in rows]
        worker = (max(seconds) - min(seconds)) / (CHUNKS - 1)  # without its start
        costs.append((worker, *((now - then) / CHUNKS for now, then in zip(after, before, strict=True))))
    worker, moto, driver = map(min, zip(*costs, strict=True))
    return (
        f"busy: {what} of {CHUNKS} chunks of {CHUNK} images of {SIDE} pixels with {where}: the device is busy "
        f"{100 * max(shares):.0f} % of the time (at least {100 * LIMIT:.0f}; "
        f"{', '.join(f'{100 * own:.0f}' for own in shares)}); CPU seconds of a chunk: worker {worker:.2f}, driver "
        f"{driver:.2f}, moto {moto:.2f}"
    )


def _cpu_seconds(process: int) -> float:
    times = psutil.Process(process).cpu_times()
    return float(times.user + times.system)


def _crafting(blueprint: Blueprint) -> list[Any]:
    job = craft.craft_job(blueprint, "cuda", 1, 60.0)  # so that it takes actors
    items = [craft.CraftItem(surrogate="source", attack="pgd", chunk=chunk) for chunk in range(CHUNKS)]
    return list(run_pipeline(items, craft._read, job, Crafter, WORKER, 1))


def _evaluation(blueprint: Blueprint) -> list[Any]:
    turns = in_turns(blueprint.evaluations)
    (turn,) = (one for one in turns if one.images is not None and "/source/" in one.images.folder)
    positions = [number for number, own in enumerate(turn.predictions) if "target" in own.members[0]]
    job = evaluate.EvaluateJob(
        blueprint.store, network_loader(blueprint), test_images(blueprint), [turn], 0, "cuda", 1, TARGETS, 60.0
    )  # fmt: skip
    items = [evaluate.EvaluateItem(number=0, chunk=chunk, lacking=str(positions)) for chunk in range(CHUNKS)]
    return list(run_pipeline(items, evaluate._read, job, Evaluator, WORKER, 1))


def _decoded(folder: Path) -> str:
    """JPEG files are decoded once for all attacks; in the first pass a device of this speed needs so many cores."""
    count = 60
    rng = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize(
            PICTURE, Image.Resampling.BICUBIC
        )
        noisy = np.asarray(coarse).astype(np.int16) + rng.integers(-8, 9, (PICTURE[1], PICTURE[0], 3))
        file = folder / str(number % 2) / f"{number:03d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(file, quality=90)
    images = open_image_set(ImageSetConfig(kind="folder", path=str(folder)), Fit(SIDE), 3)
    ids = images.listing()[0]
    read_images(images, ids[:4])
    rates = []
    for _ in range(ROUNDS):
        start = time.process_time()
        read_images(images, ids)
        rates.append(count / (time.process_time() - start))
    rate, needed = statistics.median(rates), CHUNK / CRAFTING_S
    return (
        f"busy: {rate:.0f} JPEG files of {PICTURE[0]} x {PICTURE[1]} pixels are decoded and resized a second and core: "
        f"a device that crafts {needed:.0f} images/s needs {needed / rate:.1f} cores for it in its first attack, one "
        f"that takes them in {1 / 0.4:.1f} chunks/s (10 targets) {CHUNK / 0.4 / rate:.1f}"
    )


def _write_experiment(folder: Path, output: str) -> Path:
    attacks = {"pgd": {"method": "pgd", "eps": "4/255", "steps": 10}}
    compute = {"chunk": CHUNK, "workers": 1}
    return write_experiment(
        folder, output, CHUNKS * CHUNK, SIDE, TARGETS, controls=[], attacks=attacks, compute=compute
    )
