"""The main memory of a GPU's worker in `witness plan`: by hand, and against what reading and writing a chunk takes."""

import subprocess
import sys
from pathlib import Path

import pytest
from hand_made import IMAGES, HandMade, hand_made

from pipelines.run.main_memory import COPIES_IN_HAND, MAIN_MEMORY
from pipelines.run.worker_memory import WorkerMemory, worker_memory

GB = 10**9
PIXELS = 64


def machine_with_gpus(
    made: HandMade, monkeypatch: pytest.MonkeyPatch, cards: int, memory: int = 64 * GB
) -> list[WorkerMemory]:
    """What `plan` says on a machine with so many GPUs of 16 GB, and so much memory of its own."""
    monkeypatch.setattr("pipelines.run.worker_memory.gpu_memory", lambda: [16 * GB] * cards)
    monkeypatch.setattr("pipelines.run.worker_memory.machine_memory", lambda: memory)
    monkeypatch.setattr("pipelines.run.worker_memory.usable_cpus", lambda: 16)
    return worker_memory(made.blueprint())


def test_it_holds_decoded_images_chunks_in_hand_and_a_network_on_its_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = hand_made(tmp_path, compute={"chunk": 5, "workers": 4})
    largest = max(own.memory.weights for own in made.blueprint().networks.values() if own.memory)
    found = machine_with_gpus(made, monkeypatch, cards=2)
    of_gpus_own, of_machine = found[:3], found[3:]
    assert [own.stage for own in of_gpus_own] == ["craft", "evaluate", "align"]
    assert {own.room.where for own in of_gpus_own} == {"a GPU"}
    assert {own.room.where for own in of_machine} == {"this machine"}
    craft, evaluate = of_machine
    held = IMAGES * PIXELS + 8 * 7 * 5 * PIXELS + 2 * largest
    assert craft.bytes == evaluate.bytes == int(1.2 * held) + 1_500 * 10**6
    assert (craft.of, craft.key, craft.images, craft.room.workers) == (MAIN_MEMORY, "compute.chunk", 5, 2)
    assert craft.line == "craft 1.5 GB a worker (main memory, 5 images in a chunk)"


def test_where_it_does_not_fit_plan_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = hand_made(tmp_path, compute={"workers": 4})
    craft = machine_with_gpus(made, monkeypatch, cards=2, memory=2 * GB)[3]
    said = craft.warning()
    assert said is not None and said.startswith(
        "compute.chunk: a worker of the stage craft takes 1.5 GB with 12 images in "
    )
    assert "(main memory); this machine has 2.0 GB, and 2 share it: no compute.chunk fits; so do fewer " in said
    assert machine_with_gpus(made, monkeypatch, cards=2)[3].warning() is None
    assert (
        machine_with_gpus(hand_made(tmp_path, compute={"accelerator": "cpu"}), monkeypatch, cards=2)[0].room.where
        != "a GPU"
    )


def test_a_stage_of_reasons_is_counted_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = hand_made(tmp_path, reasons={"sample": 6})
    found = {(own.stage, own.room.where): own for own in machine_with_gpus(made, monkeypatch, cards=1)}
    assert found["reasons", "this machine"].images == found["reasons", "a GPU"].images == 6


IN_HAND = """
import sys, tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipelines.stages.crafted_chunk import crafted_chunk
from pipelines.storage.chunked_table import ChunkedTable
from pipelines.storage.store import Store

ROWS, SHAPE = 50, (3, 128, 128)
store, table, ids = Store(sys.argv[1], "x"), ChunkedTable("adversarial/a/b", {}), [f"{row:02}" for row in range(ROWS)]
pixels = np.random.default_rng(0).integers(0, 256, (ROWS, *SHAPE), dtype=np.uint8)
pool = pa.default_memory_pool()
tracemalloc.start()


def most(work):
    tracemalloc.reset_peak()
    before = pool.bytes_allocated(), tracemalloc.get_traced_memory()[0]
    work()
    return pool.max_memory() - before[0] + tracemalloc.get_traced_memory()[1] - before[1]


def write(pixels=pixels):
    columns = {"image_id": ids[: len(pixels)], "image": pa.FixedShapeTensorArray.from_numpy_ndarray(pixels)}
    table.write_chunk(store, 0, pa.table(columns))


write(pixels[:1])  # what is imported meanwhile does not count
writing = most(write)  # Arrow's pool knows only the most since the process began: so the least comes first
reading = most(lambda: crafted_chunk(store, table, 0, ids))
print(2 + writing / pixels.nbytes, 1 + reading / pixels.nbytes)
"""


def test_a_chunk_in_hand_takes_no_more_than_is_counted(tmp_path: Path) -> None:
    """What Python and Arrow allocate while it is written, beside its images, clean and attacked, or is read."""
    command = [sys.executable, "-c", IN_HAND, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    writing, reading = map(float, done.stdout.split())
    assert 0.8 * COPIES_IN_HAND <= max(writing, reading) <= 1.02 * COPIES_IN_HAND  # there are ids, too
