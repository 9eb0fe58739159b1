"""What is logged to MLflow of an experiment with several seeds, read back from a real database."""

import pytest
from empty_store import put_empty_store
from hand_made import CURVE, HandMade, hand_made
from logged import Logged, log

from pipelines.stages.makings import write_failure


@pytest.fixture
def experiment(tmp_path, monkeypatch) -> HandMade:
    """An experiment with an empty MLflow database."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    made = hand_made(tmp_path)
    put_empty_store(made.output)
    return made


def test_each_of_several_seeds_is_a_run_below_that_of_its_surrogate(experiment):
    experiment.write(seeds=[3, 5])
    experiment.finish({"outcomes/aligned~5/pgd/twin": "111100000000"})
    report = log(experiment)
    logged = Logged(experiment)
    assert sorted(run.info.run_name for run in logged.runs) == ["aligned", "source", "witness"]
    aligned = logged.named("aligned")
    assert (aligned.data.params["surrogate"], aligned.data.params["seed"]) == ("aligned", "3, 5")
    (row,) = (
        own
        for own in report.transfer
        if (own["surrogate"], own["attack"], own["target"]) == ("aligned", "pgd", "(mean)")
    )
    assert aligned.data.metrics["gain"] == row["gain"] == pytest.approx(100 * 4 / 12 / 2 / 3, abs=1e-4)
    assert aligned.data.metrics["gain_spread"] == row["gain_spread"] > 0
    runs = logged.client.search_runs([logged.experiment.experiment_id], "tags.`witness.kind` = 'seed'")
    below = {run.info.run_name: run for run in runs if run.data.tags["mlflow.parentRunId"] == aligned.info.run_id}
    assert sorted(below) == ["aligned~3", "aligned~5"]
    gains = [below[name].data.metrics["gain"] for name in sorted(below)]
    assert gains == pytest.approx([0, 100 * 4 / 12 / 3], abs=1e-4)
    assert all({"rate", "rate/mi", "gain/pgd", "clean_accuracy"} <= run.data.metrics.keys() for run in below.values())
    assert below["aligned~5"].data.params["seed"] == "5"
    assert len(logged.client.get_metric_history(below["aligned~5"].info.run_id, "curve/loss")) == len(CURVE)


def test_a_seed_that_is_added_stands_beside_those_that_were_there(experiment):
    for seeds in ([3, 5], [3, 5, 8]):
        experiment.write(seeds=seeds)
        experiment.finish()
        log(experiment)
    logged = Logged(experiment)
    (aligned,) = (run for run in logged.runs if (run.info.run_name, run.data.params["seed"]) == ("aligned", "3, 5, 8"))
    below = logged.client.search_runs(
        [logged.experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{aligned.info.run_id}'"
    )
    assert sorted(run.info.run_name for run in below) == ["aligned~3", "aligned~5", "aligned~8"]


def test_a_witness_that_is_a_surrogate_has_no_seed_in_the_run_of_all(experiment):
    experiment.write(seeds=[3, 5], variants={"pupil": {"witnesses": ["tutor"]}, "tutor": {}})
    experiment.finish()
    log(experiment)
    assert Logged(experiment).named("pupil").data.params["witnesses"] == "tutor"


def test_one_seed_that_is_left_has_a_run_of_its_own_too(experiment):
    experiment.write(seeds=[3, 5])
    experiment.finish({"outcomes/aligned~3/pgd/twin": "111100000000"})
    blueprint = experiment.blueprint()
    lost = next(making for making in blueprint.alignments() if making.name == "aligned~5")
    blueprint.store.delete(f"{lost.folder}/card.json")
    write_failure(blueprint.store, lost, "the loss is not finite")
    log(experiment)
    logged = Logged(experiment)
    aligned = logged.named("aligned")
    assert (aligned.data.params["surrogate"], aligned.data.params["seed"]) == ("aligned", "3")
    assert "gain" not in aligned.data.metrics  # no mean over fewer seeds
    runs = logged.client.search_runs([logged.experiment.experiment_id], "tags.`witness.kind` = 'seed'")
    (left,) = (run for run in runs if run.data.tags["mlflow.parentRunId"] == aligned.info.run_id)
    assert left.info.run_name == "aligned~3"
    assert left.data.metrics["gain"] == pytest.approx(100 * 4 / 12 / 3, abs=1e-4)
