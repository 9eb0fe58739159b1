"""A large matrix: the time to plan 20 surrogates x 10 attacks x 50 targets x 50,000 images, and the cost of a chunk."""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa

from align_core.images.manifest import Manifest
from align_core.transfer import Flags
from pipelines.compute.cluster import Worker, connected
from pipelines.compute.networks import Network
from pipelines.compute.ray_data import run_pipeline
from pipelines.experiment.config import Experiment
from pipelines.report.facts import Facts
from pipelines.report.outcomes import Outcomes
from pipelines.report.page import report_files
from pipelines.report.tabled import Report
from pipelines.report.tables import TableMaker
from pipelines.run.forecast import forecast_of
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.clean_images import test_images
from pipelines.stages.inspect import Inspected
from pipelines.stages.payload import network_loader
from pipelines.storage.chunked_table import ChunkedTable
from pipelines.storage.joint_table import JointFolder, JointTable
from pipelines.storage.store import Store
from tests.benchmarks.experiment import data_folder, write_experiment

SURROGATES, ATTACKS, TARGETS, IMAGES = 20, 10, 50, 50_000


def measure() -> Iterator[str]:
    """Measures time and memory of planning, the time to join chunks, and the driver's time for a chunk."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        yield _planned(folder)
        yield _joined(folder)
        yield _split(folder)
        yield _layouts(folder)
        yield _driven(folder)
        yield _reported(folder)
        yield _page(folder)


def _planned(folder: Path) -> str:
    experiment, inspected = _large(folder, SURROGATES, ATTACKS, TARGETS, IMAGES)
    before, start = psutil.Process().memory_info().rss, time.perf_counter()
    blueprint = Blueprint(experiment, inspected, Store(experiment.output, experiment.name))
    made = time.perf_counter() - start
    start = time.perf_counter()
    found = forecast_of(blueprint)
    seen = time.perf_counter() - start
    start = time.perf_counter()
    missing = blueprint.missing("align")
    asked = time.perf_counter() - start
    grown = (psutil.Process().memory_info().rss - before) / 1e6
    chunks = sum(part.chunks for part in found.parts)
    assert len(missing) == 0 and found.tables == SURROGATES * ATTACKS * (TARGETS + 2) + TARGETS + SURROGATES
    return (
        f"matrix: {SURROGATES} surrogates x {ATTACKS} attacks x {TARGETS} targets x {IMAGES:,} images, "
        f"{chunks:,} chunks of {found.tables:,} tables: planned in {made:.1f} s, "
        f"asked what is missing in {seen + asked:.1f} s, {grown:.0f} MB"
    )


def _large(folder: Path, surrogates: int, attacks: int, targets: int, images: int) -> tuple[Experiment, Inspected]:
    """An experiment that consists of names only: no image, network or table of it exists."""
    names = ["source", "witness", *(f"earlier{number}" for number in range(surrogates - 2))]
    seen_by = [f"target{number}" for number in range(targets)]
    model = {"factory": "nowhere:net", "weights": "gone.safetensors"}
    attack = {"method": "pgd", "eps": "4/255"}
    image_set = {"kind": "npz", "path": "gone.npz"}
    experiment = Experiment.model_validate(
        {
            "name": "large",
            "output": str(folder),
            "data": {"classes": 1000, "image_size": 224, "train": image_set, "test": image_set},
            "models": {f"m-{name}": model for name in names}
            | {f"m-{name}": model | {"args": {"width": at}} for at, name in enumerate(seen_by)},
            "source": "m-source",
            "witnesses": ["m-witness"],
            "targets": [f"m-{name}" for name in seen_by],
            "controls": ["witness"],
            "variants": {name: {"model": f"m-{name}"} for name in names[2:-1]},
            "attacks": {f"a{number}": attack | {"steps": number + 1} for number in range(attacks)},
        }
    )
    ids = [f"{row:05d}" for row in range(images)]
    manifest = Manifest(ids, np.zeros(images, np.int64), ids, ids, [], (3, 224, 224))
    networks = {name: Network(name, config, name) for name, config in experiment.models.items()}
    aligned = Network("aligned", experiment.models["m-source"], "aligned", "models/aligned/model.safetensors")
    inspected = Inspected({"train": manifest, "test": manifest}, networks)
    blueprint = Blueprint(experiment, inspected, Store(str(folder), "large"))
    (making,) = blueprint.alignments()
    blueprint.store.write_json(
        f"{making.folder}/card.json", {"fingerprint": making.fingerprint, "weights": aligned.digest}
    )
    return experiment, inspected


def _joined(folder: Path) -> str:
    store, rows = Store(str(folder), "joined"), [100] * 500
    table = ChunkedTable("outcomes/a/b/c", {})
    for chunk, count in enumerate(rows):
        table.write_chunk(store, chunk, _predicted(chunk, count))
    start = time.perf_counter()
    assert table.finish(store, rows) == []
    seconds = time.perf_counter() - start
    return (
        f"matrix: a table's {len(rows)} chunks are joined in {seconds:.1f} s, {1000 * seconds / len(rows):.1f} ms each"
    )


def _split(folder: Path) -> str:
    """The same for predictions of 16 networks, which share a file per chunk."""
    store, rows, networks = Store(str(folder), "split"), [100] * 500, 16
    tables = tuple(ChunkedTable(f"outcomes/a/b/{number}", {"number": number}) for number in range(networks))
    joint = JointTable(JointFolder(".evaluate/a/b", (tables,), "outcomes/a/b"), 0, ("image_id", "label"))
    for chunk, count in enumerate(rows):
        joint.write_chunk(store, chunk, dict.fromkeys(range(networks), _predicted(chunk, count)))
    files, start = store.usage()[0], time.perf_counter()
    assert joint.finish(store, rows) == []
    seconds = time.perf_counter() - start
    each = 1000 * seconds / len(rows) / networks
    return (
        f"matrix: {files} files of {networks} networks' predictions become tables in {seconds:.1f} s, "
        f"{each:.1f} ms for each chunk of a table"
    )


def _layouts(folder: Path) -> str:
    """Predictions of 16 networks in a file per chunk, and in a file per chunk and network: written, and made tables."""
    rows, networks, rounds = [100] * 50, 16, 5
    predicted = [_predicted(chunk, count) for chunk, count in enumerate(rows)]

    def tables(name: str) -> tuple[Store, tuple[ChunkedTable, ...]]:
        store = Store(str(folder / "layouts"), name)
        return store, tuple(ChunkedTable(f"outcomes/a/b/{number}", {"number": number}) for number in range(networks))

    def together(name: str) -> None:
        store, own = tables(name)
        joint = JointTable(JointFolder(".evaluate/a/b", (own,), "outcomes/a/b"), 0, ("image_id", "label"))
        for chunk, table in enumerate(predicted):
            joint.write_chunk(store, chunk, dict.fromkeys(range(networks), table))
        assert joint.finish(store, rows) == []

    def apart(name: str) -> None:
        store, own = tables(name)
        for chunk, table in enumerate(predicted):
            for one in own:
                one.write_chunk(store, chunk, table)
        for one in own:
            assert one.finish(store, rows) == []

    def seconds(work: Callable[[str], None], name: str) -> float:
        start = time.perf_counter()
        work(name)
        return time.perf_counter() - start

    pairs = [(seconds(together, f"t{number}"), seconds(apart, f"a{number}")) for number in range(rounds)]
    ratio = statistics.median(one / other for one, other in pairs)
    ours, theirs = (statistics.median(times) for times in zip(*pairs, strict=True))
    return (
        f"matrix: predictions of {networks} networks on {len(rows)} chunks become tables in {ours:.2f} s with a file "
        f"per chunk, in {theirs:.2f} s with a file per chunk and network: {ratio:.2f} x (median of {rounds})"
    )


def _predicted(chunk: int, count: int) -> pa.Table:
    ids, numbers = [f"{chunk * count + row:05d}" for row in range(count)], np.arange(count)
    columns = {"image_id": ids, "label": numbers, "prediction": numbers, "confidence": numbers.astype(np.float32)}
    return pa.table(columns)


def _nothing(job: Any, item: dict[str, Any]) -> dict[str, Any]:
    return item


class _Idle:
    """An actor of a pipeline that does no work."""

    def __init__(self, job: Any) -> None:
        pass

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        return {"number": item["number"], "chunk": item["chunk"], "made": "[[0, 0.1]]"}


def _driven(folder: Path) -> str:
    """Runs a pipeline without work on 500 and 4,500 chunks: the difference in time is the driver's for 4,000 chunks."""
    from pipelines.run.request import Request, open_blueprint

    file = write_experiment(folder, data_folder(folder), "driven", 1, 2, 1)
    request = Request(file, quiet=True)
    blueprint, worker = open_blueprint(request), Worker("cpu", 1, 1, 0, {}, 2)
    seconds = []
    with connected(None, request.experiment(), print):
        for count in (500, 500, 4_500):  # the first run warms up
            items = [{"number": 0, "chunk": number} for number in range(count)]
            job = _Job(blueprint)
            start = time.perf_counter()
            assert sum(1 for _ in run_pipeline(items, _nothing, job, _Idle, worker, 2)) == count
            seconds.append(time.perf_counter() - start)
    each = 1000 * (seconds[2] - seconds[1]) / 4_000
    return f"matrix: Ray Data and the driver take {each:.1f} ms for a chunk that is no work"


class _Job:
    """The attributes of a job that `run_pipeline` uses."""

    def __init__(self, blueprint: Blueprint) -> None:
        self.images, self.device, self.store = test_images(blueprint), "cpu", blueprint.store
        self.loader, self.threads, self.patience, self.longest = network_loader(blueprint), 1, 300.0, 1.0


def _reported(folder: Path) -> str:
    """Computes the tables of 10 surrogates x 10 attacks x 50 targets x 10,000 images, from random outcomes."""
    surrogates, attacks, images = 10, 10, 10_000
    blueprint, outcomes = _random(folder / "reported", surrogates, attacks, images)
    before, start = psutil.Process().memory_info().rss, time.perf_counter()
    maker = TableMaker(blueprint, outcomes)
    rows = len(maker.transfer()) + len(maker.contrasts()) + len(maker.surrogates())
    seconds, grown = time.perf_counter() - start, (psutil.Process().memory_info().rss - before) / 1e6
    return (
        f"matrix: the tables of {surrogates} surrogates x {attacks} attacks x {TARGETS} targets x {images:,} images, "
        f"{rows:,} rows, are computed from outcomes in {seconds:.0f} s, {grown:.0f} MB"
    )


def _page(folder: Path) -> str:
    """Makes every file of the report of 20 surrogates x 10 attacks x 50 targets x 1,000 images, from random outcomes.

    Of the report of a real experiment, the files of the outcomes have to be read besides, and the pictures.
    """
    images = 1_000
    blueprint, outcomes = _random(folder / "page", SURROGATES, ATTACKS, images)
    start = time.perf_counter()
    maker = TableMaker(blueprint, outcomes)
    report = Report("", maker.transfer(), maker.contrasts(), maker.surrogates(), [], maker.seeds(), maker.times())
    tables = time.perf_counter() - start
    files = report_files(blueprint, report, [], Facts())
    seconds = time.perf_counter() - start
    size = len(files["report.html"]) / 1e6
    return (
        f"matrix: the report of {SURROGATES} surrogates x {ATTACKS} attacks x {TARGETS} targets x {images:,} images is "
        f"made from outcomes in {seconds:.0f} s, {tables:.0f} s of it its tables; {len(files)} files, a page of "
        f"{size:.0f} MB"
    )


def _random(folder: Path, surrogates: int, attacks: int, images: int) -> tuple[Blueprint, Outcomes]:
    """An experiment that consists of names only, and random outcomes of it."""
    experiment, inspected = _large(folder, surrogates, attacks, TARGETS, images)
    blueprint = Blueprint(experiment, inspected, Store(experiment.output, experiment.name))
    rng = np.random.default_rng(0)

    def flags(share: float) -> Flags:
        return np.asarray(rng.random(images) < share)

    outcomes = Outcomes(
        labels=np.zeros(images, np.int64),
        prediction={name: flags(0.2).astype(np.int64) for name in blueprint.clean()},
        wrong={(cell.surrogate, cell.attack, cell.target): flags(rng.random()) for cell in blueprint.cells()},
        hit={},
        l2={pair: np.ones(images, np.float32) for pair in blueprint.all_adversarial()},
        ssim={pair: np.ones(images, np.float32) for pair in blueprint.all_adversarial()},
        gradients={},
        passes={},
        corrupted={},
    )
    return blueprint, outcomes
