"""Runs in MLflow while their work goes on: what a look sends, what a kill leaves, and what the report completes."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from empty_store import put_empty_store
from hand_made import CURVE, HandMade, hand_made
from logged import Logged, log
from mlflow.entities import Run

from pipelines.compute.ray_train import RUNS
from pipelines.report.live import Live, shown_live
from pipelines.stages.blueprint import Blueprint

# Looks once at the experiment, with the progress that is there, and is killed.
KILLED = """
import os, signal, sys
from pathlib import Path
from pipelines.report.live import Live
from pipelines.run.request import Request, open_blueprint
assert Live(open_blueprint(Request(Path(sys.argv[1]), quiet=True))).look()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HandMade:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    made = hand_made(tmp_path)
    put_empty_store(made.output)
    return made


def progress(blueprint: Blueprint, name: str, done: int) -> str:
    """Writes what the worker of a fine-tune writes after so many steps; returns the path in the store."""
    (making,) = (making for making in blueprint.alignments() if making.name == name)
    path = f"{RUNS}/{making.run_name}-progress.json"
    blueprint.store.write_json(path, {"done": done, "total": 4, "loss": CURVE[done - 1]["loss"], "said": []})
    return path


def losses(logged: Logged, run: Run, metric: str = "curve/loss") -> list[tuple[int, float]]:
    points = logged.client.get_metric_history(run.info.run_id, metric)
    return [(point.step, point.value) for point in points]


def live(experiment: HandMade, surrogate: str = "aligned") -> list[tuple[int, float]]:
    """The losses of a surrogate that were sent while it was made."""
    logged = Logged(experiment)
    return losses(logged, logged.parent, f"live loss/{surrogate}")


def test_a_run_is_there_while_its_surrogate_is_made_and_the_report_completes_it(experiment: HandMade) -> None:
    blueprint = experiment.blueprint()
    view = Live(blueprint)
    assert view.look()
    assert Logged(experiment).parent.info.status == "RUNNING"
    assert Logged(experiment).runs == []
    assert "None yet" in Logged(experiment).parent.data.tags["mlflow.note.content"]
    path = progress(blueprint, "aligned", 2)
    assert view.look() and view.look()
    under_way = Logged(experiment).named("aligned")
    assert under_way.info.status == "RUNNING"
    assert under_way.data.params["align.temperature"] == "4.0"
    assert live(experiment) == [(1, CURVE[1]["loss"])]
    blueprint.store.delete(path)
    view.end("FINISHED")
    experiment.finish()
    log(experiment)
    logged = Logged(experiment)
    assert logged.named("aligned").info.run_id == under_way.info.run_id
    assert sorted(run.info.run_name for run in logged.runs) == ["aligned", "source", "witness"]
    assert sorted(losses(logged, under_way)) == [(row["step"], row["loss"]) for row in CURVE]
    assert {run.info.status for run in [*logged.runs, *logged.parents]} == {"FINISHED"}
    assert len(logged.parents) == 1
    metrics = list(logged.client.get_run(under_way.info.run_id).data.metrics)
    assert metrics.index("gain") < metrics.index("curve/loss")  # what MLflow's plots show at first
    assert "None yet" not in logged.parent.data.tags["mlflow.note.content"]


def test_a_killed_run_is_marked_at_the_next_start_and_its_work_goes_on_in_the_same_run(experiment: HandMade) -> None:
    blueprint = experiment.blueprint()
    progress(blueprint, "aligned", 3)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    before = time.time()
    done = subprocess.run([sys.executable, "-c", KILLED, str(experiment.file)], env=environment)
    assert done.returncode == -9
    killed = Logged(experiment).named("aligned")
    assert killed.info.status == "RUNNING"  # nobody could say it
    view = Live(blueprint)
    blueprint.store.delete(progress(blueprint, "aligned", 2))
    assert view.look()
    marked = Logged(experiment).named("aligned")
    assert marked.info.status == "KILLED"
    assert before <= marked.info.end_time / 1000 <= time.time()
    assert "witness.killed" in marked.data.tags
    progress(blueprint, "aligned", 2)  # resumed from a checkpoint before the last loss that was sent
    assert view.look()
    resumed = Logged(experiment).named("aligned")
    assert (resumed.info.run_id, resumed.info.status) == (killed.info.run_id, "RUNNING")
    assert live(experiment) == [(2, CURVE[2]["loss"])]
    experiment.finish()
    log(experiment)
    logged = Logged(experiment)
    assert sorted(losses(logged, killed)) == [(row["step"], row["loss"]) for row in CURVE]
    assert logged.named("aligned").info.status == "FINISHED"
    assert [parent.info.status for parent in logged.parents] == ["FINISHED"]


def test_settings_that_changed_after_a_kill_are_another_run(experiment: HandMade) -> None:
    progress(experiment.blueprint(), "aligned", 2)
    assert Live(experiment.blueprint()).look()
    old = Logged(experiment).named("aligned").info.run_id
    experiment.write(align={"temperature": 2})
    experiment.finish()
    log(experiment)
    runs = {run.info.run_id: run for run in Logged(experiment).runs if run.info.run_name == "aligned"}
    assert len(runs) == 2
    assert runs.pop(old).data.params["align.temperature"] == "4.0"
    (new,) = runs.values()
    assert (new.data.params["align.temperature"], new.info.status) == ("2.0", "FINISHED")
    assert sorted(losses(Logged(experiment), new)) == [(row["step"], row["loss"]) for row in CURVE]


def test_the_runs_of_seeds_are_there_too(experiment: HandMade) -> None:
    experiment.write(seeds=[3, 5])
    blueprint = experiment.blueprint()
    path = progress(blueprint, "aligned~5", 1)
    assert Live(blueprint).look()
    blueprint.store.delete(path)
    assert live(experiment, "aligned 5") == [(0, CURVE[0]["loss"])]
    under_way = Logged(experiment).named("aligned").info.run_id
    experiment.finish()
    log(experiment)
    logged = Logged(experiment)
    assert logged.named("aligned").info.run_id == under_way
    seeds = logged.client.search_runs([logged.experiment.experiment_id], "tags.`witness.kind` = 'seed'")
    (own,) = (run for run in seeds if run.info.run_name == "aligned~5")
    assert sorted(losses(logged, own)) == [(row["step"], row["loss"]) for row in CURVE]
    assert {run.info.status for run in seeds} == {"FINISHED"}


@pytest.mark.parametrize(
    ("problem", "status"), [(KeyboardInterrupt(), "KILLED"), (ValueError("a fault"), "FAILED"), (None, "FINISHED")]
)
def test_how_the_work_ended_is_shown(experiment: HandMade, problem: BaseException | None, status: str) -> None:
    blueprint = experiment.blueprint()
    progress(blueprint, "aligned", 2)

    def work() -> None:
        with shown_live(blueprint):
            while not _is_logged(experiment):
                time.sleep(0.1)
            if problem is not None:
                raise problem

    if problem is None:
        work()
    else:
        with pytest.raises(type(problem)):
            work()
    assert {run.info.status for run in (Logged(experiment).parent, Logged(experiment).named("aligned"))} == {status}


def _is_logged(experiment: HandMade) -> bool:
    try:
        return live(experiment) != []
    except (AssertionError, IndexError, ValueError):
        return False


def test_the_load_of_the_machine_is_a_system_metric(experiment: HandMade) -> None:
    pytest.importorskip("psutil")
    view = Live(experiment.blueprint())
    assert view.look()
    logged = Logged(experiment)
    points: list[Any] = logged.client.get_metric_history(
        logged.parent.info.run_id, "system/system_memory_usage_percentage"
    )
    assert [0 < point.value <= 100 for point in points] == [True]


# Speaks of two GPUs as NVIDIA's package does, of which the second does not tell its load.
NVIDIA = """
from types import SimpleNamespace as Told
class NVMLError(Exception):
    pass
def nvmlInit(): {init}
def nvmlDeviceGetCount(): return 2
def nvmlDeviceGetHandleByIndex(index): return index
def nvmlDeviceGetMemoryInfo(gpu): return Told(used=20e9, total=80e9)
def nvmlDeviceGetUtilizationRates(gpu):
    if gpu == 1:
        raise NVMLError("not supported")
    return Told(gpu=93)
def nvmlDeviceGetPowerUsage(gpu): return 350_000
def nvmlDeviceGetEnforcedPowerLimit(gpu): return 700_000
"""


@pytest.mark.parametrize("has_driver", [True, False])
def test_the_load_of_gpus_is_shown_where_their_package_and_driver_are(
    experiment: HandMade, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], has_driver: bool
) -> None:
    init = "return None" if has_driver else "raise NVMLError('no driver')"
    (experiment.folder / "pynvml.py").write_text(NVIDIA.format(init=init))
    monkeypatch.syspath_prepend(experiment.folder)
    for module in ("pynvml", "mlflow.system_metrics.metrics.gpu_monitor"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    view = Live(experiment.blueprint())
    assert view.look() and view.look()
    monkeypatch.delitem(sys.modules, "mlflow.system_metrics.metrics.gpu_monitor", raising=False)
    metrics = Logged(experiment).parent.data.metrics
    assert {name.removeprefix("system/"): value for name, value in metrics.items() if "gpu" in name} == {
        **{f"gpu_{gpu}_memory_usage_percentage": 25.0 for gpu in (0, 1) if has_driver},
        **{f"gpu_{gpu}_memory_usage_megabytes": 20_000.0 for gpu in (0, 1) if has_driver},
        **{f"gpu_{gpu}_power_usage_watts": 350.0 for gpu in (0, 1) if has_driver},
        **{f"gpu_{gpu}_power_usage_percentage": 50.0 for gpu in (0, 1) if has_driver},
        **({"gpu_0_utilization_percentage": 93.0} if has_driver else {}),
    }
    assert "GPU" not in capfd.readouterr().err


def test_a_server_that_is_down_is_not_heard_of(experiment: HandMade, capfd: pytest.CaptureFixture[str]) -> None:
    experiment.write(tracking="http://127.0.0.1:9")
    view = Live(experiment.blueprint())
    capfd.readouterr()
    with shown_live(experiment.blueprint()):
        assert not view.look()
    assert "MLflow" not in capfd.readouterr().err
