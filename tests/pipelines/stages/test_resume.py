"""An interrupted run resumes: it ends with the same weights and tables, and makes nothing twice."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from digits_experiment import Finished, assert_same_tables, leave_under_way

from pipelines.run.command import run

PATIENCE = 240


def wait_until(condition: Callable[[], bool], still: Callable[[], bool] = lambda: True) -> None:
    """Polls often, because what it waits for may exist for less than a second."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end and still()
        time.sleep(0.005)


class TestAlignment:
    ALIGNED_ALONE = ("controls=[]", "variants={}")

    def test_a_worker_that_dies_changes_no_weight(self, finished: Finished, tmp_path: Path) -> None:
        self.assert_same_with_a_death(finished, tmp_path, finished.folder)

    @pytest.mark.slow
    def test_a_death_of_one_of_two_workers_changes_no_weight(self, finished: Finished, tmp_path: Path) -> None:
        settings = [*self.ALIGNED_ALONE, "align.workers=2"]
        request, unbroken = finished.copied(tmp_path / "unbroken", "models/aligned", overrides=settings)
        assert run(request, ("align",)).made == {"align": 1}
        self.assert_same_with_a_death(finished, tmp_path, unbroken, "align.workers=2")

    def assert_same_with_a_death(self, finished: Finished, output: Path, unbroken: Path, *settings: str) -> None:
        overrides = [*self.ALIGNED_ALONE, *settings, "align.checkpoint_steps=1"]
        request, folder = finished.copied(output, "models/aligned", overrides=overrides)
        with ThreadPoolExecutor(1) as pool:
            killed = pool.submit(self.kill_a_worker, folder)
            assert run(request, ("align",)).made == {"align": 1}
        made, unbroken = folder / "models/aligned", unbroken / "models/aligned"
        assert (made / "model.safetensors").read_bytes() == (unbroken / "model.safetensors").read_bytes()
        curve, unbroken_curve = (pd.read_csv(network / "curves.csv") for network in (made, unbroken))
        figures = [column for column in curve if column != "timestamp"]
        pd.testing.assert_frame_equal(curve[figures], unbroken_curve[figures], check_exact=True)
        before = (curve["timestamp"] < killed.result()).sum()
        assert 1 <= before < len(curve)  # it resumed from a checkpoint and did not start again

    def kill_a_worker(self, folder: Path) -> float:
        """Ends one of the processes that align, in the middle; returns when."""
        import psutil

        seen: set[tuple[Path, int]] = set()

        def enough() -> bool:
            """Ray Train keeps two checkpoints, and may not have taken up the last; a single worker keeps one file."""
            files = [*folder.glob(".train/*/checkpoint_*"), *folder.glob(".train/*/checkpoint/state.safetensors")]
            seen.update((file, file.stat().st_mtime_ns) for file in files if file.exists())
            return len(seen) >= 6

        wait_until(enough)
        children = psutil.Process().children(recursive=True)
        names = ("RayTrainWorker", "fine_tune_alone")
        found = [child for child in children if any(name in part for part in child.cmdline() for name in names)]
        found[-1].kill()
        return time.time()


@pytest.fixture
def interrupted(finished: Finished) -> Iterator[Callable[..., None]]:
    """Starts `witness run` on a cluster of its own, and kills it once `count` files match `pattern`."""
    processes: list[subprocess.Popen[bytes]] = []

    def run_and_kill(folder: Path, pattern: str, count: int, *settings: str) -> None:
        import psutil

        command = [sys.executable, "-m", "pipelines.cli", "run", str(finished.file), "--output", str(folder.parent)]
        command += [part for setting in settings for part in ("--set", setting)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        with open(folder.parent / "log.txt", "wb") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        processes.append(process)
        wait_until(lambda: len(list(folder.glob(pattern))) >= count, lambda: process.poll() is None)
        children = psutil.Process(process.pid).children(recursive=True)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        # Ray's processes end when their driver is gone; its two agents check for that only once a minute.
        left = [child for child in children if "Agent" not in child.name()]
        assert len(left) > 3
        _, alive = psutil.wait_procs(left, timeout=60)
        assert alive == []

    yield run_and_kill
    for process in processes:
        process.kill()


def chunks_there(folder: Path) -> set[tuple[str, int]]:
    """The folders of tables and the numbers of their chunks that are there, in whatever files they are."""
    found = set()
    for file in folder.rglob("*.parquet"):
        table, (_, marker, chunk) = str(file.parent.relative_to(folder)), file.stem.partition("-chunk-")
        if table.startswith(".evaluate"):
            held = json.loads(pq.read_schema(file).metadata[b"witness.tables"])
            found |= {(own, int(chunk)) for own in held}
        elif marker:
            found.add((table, int(chunk)))
        elif not table.startswith("."):
            found |= {(table, group) for group in range(pq.ParquetFile(file).num_row_groups)}
    return found


class TestRun:
    def assert_same_end(self, finished: Finished, folder: Path) -> None:
        for table in ("transfer", "surrogates", "contrasts"):
            made, unbroken = ((results / f"report/{table}.csv").read_bytes() for results in (folder, finished.folder))
            assert made == unbroken
        for name in ("adversarial", "outcomes", "clean"):
            assert_same_tables(finished.folder / name, folder / name)

    @pytest.mark.parametrize(
        ("stage", "absent"),
        [
            pytest.param("craft", ("adversarial", "outcomes", "clean", "report"), marks=pytest.mark.slow),
            pytest.param("evaluate", ("outcomes", "clean", "report"), marks=pytest.mark.slow),
        ],
    )
    def test_a_killed_run_resumes_and_makes_no_chunk_twice(
        self,
        finished: Finished,
        tmp_path: Path,
        interrupted: Callable[..., None],
        stage: str,
        absent: tuple[str, ...],
    ) -> None:
        request, folder = finished.copied(tmp_path, *absent)
        pattern = "adversarial/*/*/*-chunk-*.parquet" if stage == "craft" else ".evaluate/*/*/*/*-chunk-*.parquet"
        interrupted(folder, pattern, 3)
        there = [own for own in chunks_there(folder) if own[0].startswith("adversarial") == (stage == "craft")]
        assert not list(folder.glob("report/*"))
        result = run(request)
        assert result.made[stage] == finished.result.made[stage] - len(there) > 0
        assert not list(folder.rglob("*-chunk-*"))
        self.assert_same_end(finished, folder)

    @pytest.mark.slow
    def test_a_run_that_is_killed_during_alignment_resumes(
        self, finished: Finished, tmp_path: Path, interrupted: Callable[..., None]
    ) -> None:
        request, folder = finished.copied(tmp_path, "models/aligned")
        interrupted(folder, ".train/aligned-*/checkpoint/state.safetensors", 1, "align.checkpoint_steps=1")
        assert not (folder / "models/aligned").exists()
        result = run(request)
        # The weights are the same, so that what was crafted on them and evaluated is still valid.
        assert result.made == {"align": 1, "craft": 0, "evaluate": 0, "report": 0}
        self.assert_same_end(finished, folder)

    def test_predictions_that_an_earlier_version_left_one_by_one_are_kept_and_joined(
        self, finished: Finished, tmp_path: Path
    ) -> None:
        """Until they were made together, each chunk of each table was a file in the table's own folder."""
        request, folder = finished.copied(tmp_path)
        for target in ("@self", "cnn_c", "mlp"):
            leave_under_way(folder / "outcomes/aligned/pgd" / target, [0, 2] if target == "mlp" else [1])
        assert run(request).made == {"align": 0, "craft": 0, "evaluate": 5, "report": 0}
        self.assert_same_end(finished, folder)
        assert not list(folder.rglob("*-chunk-*")) and not (folder / ".evaluate").exists()

    def test_chunk_files_that_were_left_beside_a_finished_table_are_deleted(
        self, finished: Finished, tmp_path: Path
    ) -> None:
        """A run that is killed while it deletes them leaves rows that would otherwise be counted twice."""
        request, folder = finished.copied(tmp_path)
        table = folder / "outcomes/aligned/pgd/mlp"
        (file,) = table.iterdir()
        whole = file.read_bytes()
        leave_under_way(table, [0, 2])
        file.write_bytes(whole)
        assert ds.dataset(table).count_rows() == 100
        assert sum(run(request).made.values()) == 0
        assert ds.dataset(table).count_rows() == 60
        self.assert_same_end(finished, folder)
