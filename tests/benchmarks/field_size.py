"""The size of the field: 20 surrogates x 10 attacks x 50 targets, planned for 50,000 images and run on 500 of them.

The planner and the stages are the real ones. Images of 32 pixels go to an S3-compatible server (moto) that takes 20 ms
longer for each request. One simulated device crafts a chunk of 100 images in 0.3 s / 4 and predicts on it in 0.04 s / 4
for each target: a quarter of the time, so that a run takes minutes, and four times the load on all the rest.
"""

import os
import re
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from pipelines.compute.cluster import connected
from pipelines.progress import Progress
from pipelines.report.outcomes import read_outcomes
from pipelines.run.command import run
from pipelines.run.forecast import forecast_of
from pipelines.run.request import Request, open_blueprint
from pipelines.stages import craft, evaluate
from pipelines.stages.blueprint import Blueprint
from tests.benchmarks import simulated
from tests.benchmarks.distant import distant
from tests.benchmarks.simulated import CRAFTING_S, PREDICTING_S, WORKER, write_experiment
from tests.pipelines.s3_server import s3_server

SURROGATES, ATTACKS, TARGETS, IMAGES = 20, 10, 50, 50_000
PART, CHUNK, SIDE, FASTER, LATENCY_S = 500, 100, 32, 4, 0.02
_REQUEST = re.compile(r'"(?:\x1b\[\d+m)*(GET|PUT|POST|HEAD|DELETE) (\S+) HTTP')  # moto colours some


class _Crafter(simulated.Crafter):
    seconds = CRAFTING_S / FASTER


class _Evaluator(simulated.Evaluator):
    seconds = PREDICTING_S / FASTER


def measure(images: int = PART, surrogates: int = SURROGATES) -> Iterator[str]:
    """Plans, crafts, evaluates and reads the outcomes; says what that takes, and what it would take for all images."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with s3_server(folder / "log.txt") as server, distant(server.port, LATENCY_S) as port:
            file = _write_experiment(folder, replace(server, port=port).uri("runs"), images, surrogates)
            request = Request(file, quiet=True)
            run(request, ["align"])
            yield from _stages(request, folder / "log.txt")


def _stages(request: Request, log: Path) -> Iterator[str]:
    with _memory() as peaks:
        before = psutil.Process().memory_info().rss / 1e6
        with _phase("plan", log, peaks) as planned:
            blueprint = open_blueprint(request)
            found = forecast_of(blueprint)
        yield planned.line(f"{sum(part.chunks for part in found.parts):,} chunks of {found.tables:,} tables")
        craft.Crafter, evaluate.Evaluator = _Crafter, _Evaluator  # type: ignore[misc]
        phases = [planned]
        with connected(None, request.experiment(), print):
            for name, stage in (("craft", craft.craft_all), ("evaluate", evaluate.evaluate_all)):
                progress = Progress(quiet=True)
                with _phase(name, log, peaks) as phase:
                    made = stage(blueprint, WORKER, progress)
                waited = progress.spent[-1].waited or 0.0
                yield phase.line(f"{made:,} chunks, the device waited {100 * waited:.0f} % of its time")
                phases.append(phase)
        with _phase("read", log, peaks) as phase:
            outcomes = read_outcomes(blueprint)
        yield phase.line(f"{len(outcomes.wrong):,} tables of outcomes")
        phases.append(phase)
        files, size = blueprint.store.usage()
        yield (
            f"field: {files:,} files, {size / 1e6:,.0f} MB; peak memory in MB: {_peaks(peaks)} (the driver had "
            f"{before:,.0f} before it planned)"
        )
        yield _extrapolated(blueprint, phases)


@dataclass
class _Phase:
    """A part of a run: seconds, and its requests by whether they are for a chunk or for a table."""

    name: str
    seconds: float
    for_chunks: int
    for_tables: int
    kinds: "Counter[str]"
    driver: float

    def line(self, what: str) -> str:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in self.kinds.most_common())
        return (
            f"field: {self.name}: {what}; {self.seconds:.0f} s; {self.for_chunks + self.for_tables:,} requests "
            f"({self.for_chunks:,} for chunks, {self.for_tables:,} for tables; {kinds}); driver at most "
            f"{self.driver:.0f} MB"
        )


@contextmanager
def _phase(name: str, log: Path, peaks: dict[str, float]) -> Iterator[_Phase]:
    phase = _Phase(name, 0.0, 0, 0, Counter(), 0.0)
    before, start = log.stat().st_size, time.perf_counter()
    peaks["driver"] = 0.0
    yield phase
    phase.seconds, phase.driver = time.perf_counter() - start, peaks["driver"]
    with open(log, "rb") as lines:
        lines.seek(before)
        for method, path in _REQUEST.findall(lines.read().decode(errors="replace")):
            phase.kinds[method] += 1
            # Of images whose table is finished, each chunk is read by itself.
            is_read = (
                name in ("evaluate", "read")
                and method in ("GET", "HEAD")
                and "/adversarial/" in path
                and "?" not in path
            )
            if "-chunk-" in path or is_read:
                phase.for_chunks += 1
            else:
                phase.for_tables += 1


@contextmanager
def _memory() -> Iterator[dict[str, float]]:
    """The peaks of resident memory in MB, by kind of process, sampled twice a second."""
    peaks: dict[str, float] = {}
    done = threading.Event()

    def sample() -> None:
        own = psutil.Process()
        while not done.wait(0.5):
            for process in [own, *own.children(recursive=True)]:
                try:
                    name, used = _kind_of(process), process.memory_info().rss / 1e6
                except psutil.Error:
                    continue
                peaks[name] = max(peaks.get(name, 0.0), used)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield peaks
    finally:
        done.set()
        thread.join()


def _kind_of(process: psutil.Process) -> str:
    if process.pid == os.getpid():
        return "driver"
    line = process.cmdline()
    if "moto.server" in line:
        return "moto"
    return line[0].split("(")[0].split()[0] if line and line[0].startswith("ray::") else process.name()


def _peaks(peaks: dict[str, float]) -> str:
    return ", ".join(f"{name} {size:,.0f}" for name, size in sorted(peaks.items(), key=lambda own: -own[1])[:8])


def _extrapolated(blueprint: Blueprint, phases: list[_Phase]) -> str:
    """Requests for chunks grow with the images, those for tables do not; a device takes its full times."""
    times = IMAGES / sum(blueprint.rows)
    pairs = len(blueprint.crafted())
    crafting = pairs * IMAGES / CHUNK * CRAFTING_S / 3600
    predicting = pairs * IMAGES / CHUNK * (TARGETS + 1) * PREDICTING_S / 3600
    requests = sum(own.for_chunks * times + own.for_tables for own in phases)
    return (
        f"field: for {IMAGES:,} images, by {times:.0f} times the requests for chunks and the device's full times: "
        f"{requests / 1e6:.1f} million requests in {crafting:.1f} h of crafting and {predicting:.1f} h of evaluation "
        f"by one device, {requests / (crafting + predicting) / 3600:.0f} a second"
    )


def _write_experiment(folder: Path, output: str, images: int, surrogates: int) -> Path:
    earlier = [f"earlier{number}" for number in range(surrogates - 3)]  # beside source, aligned and witness
    return write_experiment(
        folder,
        output,
        images,
        SIDE,
        TARGETS,
        models=earlier,
        controls=["witness"],
        variants={f"v-{name}": {"model": name} for name in earlier},
        align={"epochs": 1, "batch_size": 8},
        attacks={f"a{number}": {"method": "pgd", "eps": "4/255", "steps": number + 1} for number in range(ATTACKS)},
        compute={"chunk": CHUNK, "workers": 1},
    )
