"""The request that a command is given, and the first step of every command: to check it and inspect its inputs."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from align_core.errors import InputError
from align_core.images.manifest import Manifest
from pipelines.compute.cluster import works_here
from pipelines.experiment.checks import checked
from pipelines.experiment.config import Experiment, load_experiment
from pipelines.experiment.factories import check_not_outdated, look_in, own_attacks
from pipelines.progress import Progress
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.cache_folder import check_cache, must_align
from pipelines.stages.inspect import inspect_inputs
from pipelines.stages.inspect_images import manifests
from pipelines.stages.inspect_large import LargeSets
from pipelines.storage.store import Store
from pipelines.tracking.checks import check_tracking
from pipelines.tracking.runs import tracking_uri


@dataclass(frozen=True)
class Request:
    """One experiment, and how a command is to work on it.

    Args:
        source: the experiment file; or an experiment that is checked already, which takes neither overrides nor output.
        overrides: settings `key.path=value` that replace those of the file.
        output: the output folder, instead of that of the file.
        address: of a Ray cluster. If None, that is $RAY_ADDRESS, or a local cluster for the time of this command.
        quiet: prints plain lines of progress, even on a terminal.
        rehash: reads every image again, also where a file has the path, size and modification time that it had before.
        dashboard: shows Ray's dashboard while the command runs.
    """

    source: Path | Experiment
    overrides: Sequence[str] = ()
    output: str | None = None
    address: str | None = None
    quiet: bool = False
    rehash: bool = False
    dashboard: bool = False

    def experiment(self) -> Experiment:
        """Loads and checks the experiment, and makes its factories importable. Raises InputError."""
        if isinstance(self.source, Experiment):
            if self.overrides or self.output is not None:
                raise InputError("overrides and output apply to an experiment file; change the Experiment itself")
            experiment = checked(self.source)
        else:
            experiment = load_experiment(self.source, self.overrides, self.output)
        look_in(str(experiment.factories))
        return experiment


def open_blueprint(
    request: Request,
    progress: Progress | None = None,
    to_write: bool = False,
    experiment: Experiment | None = None,
    trusting: bool = True,
    connect: Callable[[], None] | None = None,
) -> Blueprint:
    """Checks the experiment and inspects everything that it names. Raises InputError.

    Nothing is written, but for what a command that will write finds in the shards of a large image set.

    Args:
        progress: shows the inspection of image sets. By default, one as the request asks for.
        to_write: whether the command will write, so that the output folder is checked to be writable.
        trusting: whether weights of unchanged path, size and modification time are taken for unchanged. A command that
            computes reads them; one that only looks trusts them, and answers at once.
        connect: connects to Ray, and is called only where a very large image set has to be inspected; without it, that
            is done in threads of this process.
        experiment: that of the request, where it has been loaded already.
    """
    experiment = experiment or request.experiment()
    store = Store(experiment.output, experiment.name)
    with naming_its_file(request):
        tracking_uri(experiment)
        _check_output(store, to_write)
        if to_write:
            check_tracking(experiment)
        inspected = inspect_inputs(
            experiment,
            store,
            progress or Progress(request.quiet),
            trust_weights=trusting and not to_write,
            trust_images=not request.rehash,
            large=LargeSets(keeps=to_write, connect=connect),
        )
        for name, network in inspected.networks.items() if to_write else ():
            if network.code is not None:
                check_not_outdated(f"models.{name}", str(network.config.factory), network.code)
        for name, code in inspected.attacks.code.items() if to_write else ():
            check_not_outdated(f"attacks.{name}", own_attacks(experiment)[name], code)
        blueprint = Blueprint(experiment, inspected, store)
    if to_write:
        blueprint.hash_weights()
    return blueprint


def open_manifests(request: Request, progress: Progress) -> tuple[Experiment, dict[str, Manifest]]:
    """Checks the experiment and inspects its image sets, and nothing that its models and attacks name.

    Returns the experiment, and the manifests by role. Nothing is written. Raises InputError.
    """
    experiment = request.experiment()
    store = Store(experiment.output, experiment.name)
    with naming_its_file(request):
        _check_output(store, to_write=False)
        found, _ = manifests(experiment, store, progress, trusting=not request.rehash)
    return experiment, found


def _check_output(store: Store, to_write: bool) -> None:
    if to_write or not store.is_local:  # what an object store denies would else pass for a fault of an input
        store.check_writable()
    else:
        store.check_folder()


def check_cache_at_once(request: Request, experiment: Experiment) -> None:
    """Raises InputError where `compute.cache` cannot be used, as far as that is certain before any input is inspected.

    That is where a surrogate has still to be made, and on this machine.
    """
    if experiment.compute.cache is not None and must_align(experiment, Store(experiment.output, experiment.name)):
        with naming_its_file(request):
            check_cache(experiment, works_here(request.address, experiment.compute))


@contextmanager
def naming_its_file(request: Request) -> Iterator[None]:
    """Begins the message of what is wrong in an experiment file with the path of that file."""
    try:
        yield
    except (InputError, OSError) as problem:
        if isinstance(request.source, Experiment):
            raise
        raise InputError(f"{request.source}: {problem}") from problem
