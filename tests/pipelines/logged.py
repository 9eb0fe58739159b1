"""What the MLflow database of a hand-made experiment contains, for tests of what is logged."""

from pathlib import Path

from hand_made import HandMade
from mlflow import MlflowClient
from mlflow.entities import Run

from pipelines.report.tabled import Report
from pipelines.run.command import run
from pipelines.run.request import Request


class Logged:
    """What an MLflow database contains of an experiment."""

    def __init__(self, experiment: HandMade, uri: str | None = None) -> None:
        self.client = MlflowClient(tracking_uri=uri or f"sqlite:///{experiment.output}/mlflow.db")
        self.experiment = self.client.get_experiment_by_name("by-hand")
        assert self.experiment is not None
        runs = list(self.client.search_runs([self.experiment.experiment_id], max_results=1000))
        # The newest first: where something else was asked before, there is a parent of that too.
        self.parents = [run for run in runs if run.data.tags["witness.kind"] == "experiment"]
        self.parent = self.parents[0]
        self.runs = [run for run in runs if run.data.tags["witness.kind"] == "surrogate"]

    def named(self, surrogate: str) -> Run:
        (run,) = (run for run in self.runs if run.info.run_name == surrogate)
        return run

    def histories(self) -> dict[tuple[str, str], list[tuple[float, int, int]]]:
        """Every point that was ever logged, by run and metric."""
        return {
            (run.info.run_id, key): [
                (point.value, point.step, point.timestamp)
                for point in self.client.get_metric_history(run.info.run_id, key)
            ]
            for run in self.runs
            for key in run.data.metrics
        }

    def artifacts(self, run: Run, folder: Path) -> dict[str, bytes]:
        folder.mkdir(exist_ok=True)
        downloaded = Path(self.client.download_artifacts(run.info.run_id, "", str(folder)))
        files = [file for file in downloaded.rglob("*") if file.is_file()]
        return {str(file.relative_to(downloaded)): file.read_bytes() for file in files}


def log(experiment: HandMade, again: bool = False) -> Report:
    """Does what `witness report` does; with `again`, what `witness report --log` does."""
    result = run(Request(experiment.file, quiet=True), ["report"], log=again)
    assert result.logged
    assert result.report is not None
    return result.report
