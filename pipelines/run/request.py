"""What a command is asked for, and the blueprint that every command over one experiment begins with."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from align_core.errors import InputError
from pipelines.experiment.config import Experiment, load_experiment
from pipelines.experiment.factories import look_in
from pipelines.progress import Progress
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.inspect import inspect_inputs
from pipelines.storage.store import Store
from pipelines.tracking.runs import tracking_uri


@dataclass(frozen=True)
class Request:
    """One experiment, and the manner in which a command works on it.

    Args:
        source: the experiment file; or an experiment that is checked already, to which overrides do not apply.
        overrides: `key.path=value`, laid over the file.
        output: stands for the file's `output`.
        address: of a Ray cluster; None for $RAY_ADDRESS, else a local one for this command.
        quiet: prints plain lines of progress, also on a terminal.
    """

    source: Path | Experiment
    overrides: Sequence[str] = ()
    output: str | None = None
    address: str | None = None
    quiet: bool = False

    def experiment(self) -> Experiment:
        """The experiment, checked; its factories can be imported from then on. Raises InputError."""
        if isinstance(self.source, Experiment):
            assert not self.overrides and self.output is None
            experiment = self.source
        else:
            experiment = load_experiment(self.source, self.overrides, self.output)
        look_in(str(experiment.factories))
        return experiment


def open_blueprint(request: Request, progress: Progress | None = None, to_write: bool = False) -> Blueprint:
    """Checks the experiment and everything that it names, and writes nothing. Raises InputError.

    Args:
        progress: where the inspection of image sets reports; that of the request unless given.
        to_write: whether the command is going to write, so that the output folder must be writable.
    """
    experiment = request.experiment()
    store = Store(experiment.output, experiment.name)
    try:
        tracking_uri(experiment)
        if to_write:
            store.check_writable()
        inspected = inspect_inputs(experiment, store, progress or Progress(request.quiet))
    except InputError as problem:
        if isinstance(request.source, Experiment):
            raise
        raise InputError(f"{request.source}: {problem}") from problem
    return Blueprint(experiment, inspected, store)
