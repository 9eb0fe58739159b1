"""What is logged to MLflow of a sweep, read back from a real database, of trials that never ran."""

from pathlib import Path

import pytest
from empty_store import put_empty_store
from hand_made import HandMade, hand_made
from mlflow import MlflowClient
from mlflow.entities import Run
from sweeping import space_of, trial

from pipelines.failure import RunFailed
from pipelines.report.live import Live
from pipelines.sweep.entry import entry_of
from pipelines.sweep.record import Record
from pipelines.sweep.to_mlflow import log_sweep, sweep_shown

SPACE = space_of({"align.temperature": {"low": 1, "high": 64, "scale": "log"}, "align.weight": {"low": 0, "high": 1}})


def some_trials() -> dict[str, Record]:
    """Trials whose gain grows with the temperature; one failed before it was measured."""
    settings = [{"align.temperature": 2.0**number, "align.weight": number / 8} for number in range(6)]
    found = {f"trial-{own['align.temperature']}": trial(own["align.temperature"] / 8, settings=own) for own in settings}
    found["trial-1.0"].status, found["trial-1.0"].reason, found["trial-1.0"].measurements = "failed", "no memory", []
    return found


def log_trials(experiment: HandMade) -> list[Run]:
    """Logs them as a sweep that has ended; returns the run of the sweep, and those of the trials."""
    blueprint = experiment.blueprint()
    blueprint.store.write("sweeps/by-hand/trials.csv", b"trial\n")
    entry = entry_of(blueprint.experiment, "aligned", 4)
    assert log_sweep(blueprint, entry, SPACE, some_trials(), "f" * 16, "sweeps/by-hand", "trial-32.0", pytest.fail)
    return runs_of(experiment)


def runs_of(experiment: HandMade) -> list[Run]:
    """The run of the sweep, then those of its trials."""
    client = MlflowClient(tracking_uri=f"sqlite:///{experiment.output}/mlflow.db")
    runs = list(client.search_runs([client.get_experiment_by_name("by-hand").experiment_id]))
    return sorted(runs, key=lambda run: run.data.tags["witness.kind"])


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HandMade:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    made = hand_made(tmp_path)
    put_empty_store(made.output)
    return made


def test_trials_have_their_settings_and_the_figures_of_surrogates_under_the_same_names(experiment: HandMade) -> None:
    sweep, *trials = log_trials(experiment)
    assert {run.data.tags["mlflow.parentRunId"] for run in trials} == {sweep.info.run_id}
    for run in trials:
        temperature = float(run.data.params["align.temperature"])
        assert run.info.run_name == f"temperature {temperature:g}, weight {float(run.data.params['align.weight']):g}"
        assert run.data.params.keys() == {"align.temperature", "align.weight"}
        if temperature == 1:
            assert (run.info.status, run.data.metrics) == ("FAILED", {})
            continue
        figures = {"gain", "gain_low", "gain_high", "rate", "clean_accuracy", "clean_change"}
        assert (run.info.status, run.data.metrics.keys()) == ("FINISHED", figures)
        assert (run.data.metrics["gain"], run.data.metrics["rate"]) == (temperature / 8, 30 + temperature / 8)
        assert (run.info.start_time, run.info.end_time) == (10**12 - 2000, 10**12)


def test_a_sweep_says_what_it_searched_and_is_logged_once(experiment: HandMade) -> None:
    sweep, *trials = log_trials(experiment)
    text = sweep.data.tags["mlflow.note.content"]
    assert "Which `align.temperature`, `align.weight` make `aligned` transfer best" in text
    assert "**Trials.** 5 done, 1 failed." in text
    assert "**Chosen:** `align.temperature` 32.0, `align.weight` 0.625." in text
    (best,) = (run for run in trials if run.data.params["align.temperature"] == "32.0")
    assert sweep.data.metrics == best.data.metrics and sweep.data.metrics["gain"] == 4
    assert [run.info.run_id for run in log_trials(experiment)] == [run.info.run_id for run in (sweep, *trials)]


@pytest.mark.parametrize(("stopped_by", "status"), [(KeyboardInterrupt, "KILLED"), (RunFailed, "FAILED")])
def test_a_sweep_is_under_way_until_it_ends_or_is_stopped(
    experiment: HandMade, stopped_by: type[BaseException], status: str
) -> None:
    blueprint = experiment.blueprint()
    what = (blueprint, entry_of(blueprint.experiment, "aligned", 4), SPACE, "f" * 16)
    seen = []

    def stop() -> None:
        with sweep_shown(*what):
            seen.extend(run.info.status for run in runs_of(experiment))
            raise stopped_by("the machine is needed")

    with pytest.raises(stopped_by):
        stop()
    assert seen == ["RUNNING"]
    assert [run.info.status for run in runs_of(experiment)] == [status]
    with sweep_shown(*what):
        assert [run.info.status for run in runs_of(experiment)] == ["RUNNING"]
        log_trials(experiment)
    sweep, *trials = runs_of(experiment)
    assert sweep.info.status == "FINISHED" and len(trials) == 6


def test_a_sweep_whose_process_was_killed_is_marked_at_the_next_start(experiment: HandMade) -> None:
    blueprint = experiment.blueprint()
    killed = sweep_shown(blueprint, entry_of(blueprint.experiment, "aligned", 4), SPACE, "f" * 16)
    killed.__enter__()  # and nothing is said of its end
    assert Live(blueprint).look()
    (sweep,) = [run for run in runs_of(experiment) if run.data.tags["witness.kind"] == "sweep"]
    assert sweep.info.status == "KILLED" and sweep.data.tags["witness.killed"]
