"""The Ray cluster that a run works on, and what each of its workers takes of it."""

import errno
import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import IO, Any, Literal

from align_core.cpus import usable_cpus
from align_core.errors import InputError, reason_of
from pipelines.compute.courier import sending_files
from pipelines.compute.device_failures import device_failures, left_alone, said_of
from pipelines.compute.head import watching_head
from pipelines.compute.kept_gpus import KEPT
from pipelines.compute.ray_internals import missing_for_dashboard, sigterm_handler_kept, startable_nodes
from pipelines.environment import set_defaults, unset
from pipelines.experiment.config import ComputeConfig, Experiment, StageConfig
from pipelines.experiment.factories import modules_to_ship
from pipelines.failure import ONCE_MENDED, RunFailed
from pipelines.storage.credentials import hide_credentials, without_credentials
from pipelines.storage.store import Say, Store


@dataclass(frozen=True)
class Worker:
    """What one worker of a stage takes of the cluster.

    Attributes:
        device: where it computes.
        threads: CPU threads for torch.
        cpus, gpus, resources: what it takes, as Ray counts it.
        wanted: how many workers the experiment asks for.
    """

    device: Literal["cpu", "cuda"]
    threads: int
    cpus: float
    gpus: float
    resources: dict[str, float]
    wanted: int

    @property
    def needs(self) -> dict[str, float]:
        """What it takes, by the names of Ray's resources, without what is 0."""
        return {name: need for name, need in {"CPU": self.cpus, "GPU": self.gpus, **self.resources}.items() if need}

    @property
    def ray_options(self) -> dict[str, Any]:
        """The same as keyword arguments for Ray's tasks, actors and `Dataset.map`."""
        options: dict[str, Any] = {"num_cpus": self.cpus, "num_gpus": self.gpus, "resources": self.resources or None}
        return {name: value for name, value in options.items() if value is not None}


@contextmanager
def connecting(
    address: str | None, experiment: Experiment, say: Say, dashboard: bool = False
) -> Iterator[Callable[[], None]]:
    """Connects to Ray in the background for the duration of the block; starting a local cluster takes about 5 s.

    It connects to the cluster at `address` or $RAY_ADDRESS, otherwise to a local one that is started and stopped here.
    A process that is already connected uses that connection, and keeps it afterwards. The modules of the experiment's
    factories are sent to the workers, and its images and weights to nodes that lack them. `say` is told where the
    cluster is lost and, with `dashboard`, the address of Ray's dashboard, which a local cluster starts only then.

    Yields a function that waits until Ray can be used. It raises InputError where the cluster cannot be reached.
    """
    with ThreadPoolExecutor(1) as pool:
        connection = pool.submit(_connect, address, experiment, dashboard)
        try:
            with ExitStack() as watched:

                def wait() -> None:
                    connection.result()
                    if dashboard:
                        say(_where_dashboard())
                    watched.enter_context(watching_head(say))
                    watched.enter_context(sending_files(experiment))

                yield wait
        finally:
            if connection.exception() is None and connection.result():
                import ray

                ray.shutdown()


@contextmanager
def connected(address: str | None, experiment: Experiment, say: Say, dashboard: bool = False) -> Iterator[None]:
    """As `connecting`, and inside the block Ray can be used. Raises InputError where the cluster cannot be reached."""
    with connecting(address, experiment, say, dashboard) as wait:
        wait()
        yield


def _connect(address: str | None, experiment: Experiment, dashboard: bool) -> bool:
    """Returns whether this call has made the connection, and has to end it. Raises InputError."""
    set_defaults("ray")
    import ray

    if ray.is_initialized():
        return False
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    modules = modules_to_ship(experiment)
    environment: dict[str, Any] = {"py_modules": modules} if modules else {}
    options: dict[str, Any] = {"runtime_env": environment}
    if address == "local":
        # Inherited by the workers; an environment of Ray's own would cost every worker a second.
        set_defaults("workers")
        # One logical CPU more than may be used: beside workers that hold all of these, Ray's own work needs some.
        options |= {"num_cpus": usable_cpus() + 1, "include_dashboard": dashboard}
        if dashboard and (missing := missing_for_dashboard()):
            raise InputError(
                f"--dashboard: what Ray's dashboard needs is not installed here ({missing}); `pip install "
                f"'ray[default]=={ray.__version__}'` installs it"
            )
    else:
        environment["env_vars"] = unset("workers")
    if ":" in address and address.partition("://")[0] in (address, "ray"):
        _check_answers(address)
    try:
        with sigterm_handler_kept(), _without_chatter():
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **options)
    except Exception as problem:  # Ray raises some as plain Exception
        reason = hide_credentials(reason_of(problem), address).rstrip(".")
        if address == "local":
            raise InputError(f"no Ray cluster could be started here: {reason}. {_mend_of(problem)}") from problem
        raise InputError(f"no Ray cluster could be reached at {_shown(address)}: {reason}") from problem
    return True


def _where_dashboard() -> str:
    """Where the dashboard of the cluster is that this process is connected to, in a sentence."""
    import ray

    url = ray.init(ignore_reinit_error=True, logging_level=logging.ERROR).dashboard_url
    return f"Ray's dashboard: http://{url}" if url else "this Ray cluster was started without a dashboard"


def _mend_of(problem: Exception) -> str:
    """What helps where a local cluster cannot be started: its processes meet in a folder of Ray's."""
    folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    name = "RAY_TMPDIR" if "RAY_TMPDIR" in os.environ else "TMPDIR"
    if "AF_UNIX" in str(problem):
        return f"Its sockets lie below {folder}, which is too long a path for them; set {name} to a short one, as /tmp"
    if isinstance(problem, OSError) and problem.errno == errno.EINVAL:
        return "The system's clock may have been set meanwhile; the same command starts it again"
    if isinstance(problem, OSError):
        return f"Its files lie below {folder}, which must be a folder that can be written; {name} names another"
    return f"Ray's own logs are in {folder}/ray/session_latest/logs"


def _shown(address: str) -> str:
    """An address without credentials, which may be in it with or without a scheme."""
    return without_credentials(address if "://" in address else f"ray://{address}").removeprefix(
        "" if "://" in address else "ray://"
    )


@contextmanager
def _without_chatter() -> Iterator[None]:
    """Discards within the block what Ray's core prints on standard error, below Python. Errors are still raised.

    What Python prints there, perhaps in another thread, goes where it always does.
    """
    sys.stderr.flush()
    original, kept, nowhere = sys.stderr, os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        if _is_the_real(original):
            sys.stderr = os.fdopen(kept, "w", buffering=1, closefd=False)
        os.dup2(nowhere, 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        sys.stderr = original
        os.close(nowhere)  # `kept` stays open: another thread may be about to write to the stream that used it


def _is_the_real(stream: IO[str]) -> bool:
    """Whether a stream writes to the process's standard error; under pytest it may write to memory."""
    try:
        return stream.fileno() == 2
    except OSError:
        return False


def _check_answers(address: str) -> None:
    """Raises InputError unless something listens at the address: Ray would wait for minutes, then end the process."""
    host, _, port = address.removeprefix("ray://").rpartition("@")[2].partition("?")[0].rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError, OverflowError) as problem:
        reason = hide_credentials(str(problem), address)
        raise InputError(f"no Ray cluster could be reached at {_shown(address)}: {reason}") from problem


def worker_of(compute: ComputeConfig, stage: str = "align") -> Worker:
    """What each worker of a stage takes of the cluster. Raises InputError where not even one fits a node."""
    nodes = _nodes()
    own = getattr(compute, stage, StageConfig())
    cuda = compute.accelerator == "cuda" or (
        compute.accelerator == "auto" and any(node.get("GPU", 0) >= 1 for node in nodes)
    )
    worker = Worker(
        device="cuda" if cuda else "cpu",
        threads=compute.threads,
        cpus=compute.threads,
        gpus=(own.gpus or 1) if cuda else 0,
        resources=dict(compute.resources if own.resources is None else own.resources),
        wanted=own.workers or compute.workers,
    )
    if room_for(worker) < 1:
        most = {name: max(node.get(name, 0) for node in nodes) for name in worker.needs}
        wanted = "; ".join(f"{name}: {need:g} wanted, {most[name]:g} there" for name, need in worker.needs.items())
        raise InputError(f"compute: a worker does not fit any node of this cluster ({wanted})")
    return worker


def _nodes() -> list[dict[str, float]]:
    """The resources of the nodes that are up or, where the autoscaler may start more, of all that it may start.

    GPUs that are left alone are none of them.
    """
    import ray

    kept = KEPT.by_node()
    up = [
        {name: amount - (kept[node["NodeID"]] if name == "GPU" else 0) for name, amount in node["Resources"].items()}
        for node in ray.nodes()
        if node["Alive"]
    ]
    startable = startable_nodes()
    return startable if len(startable) > len(up) else up


def room_for(worker: Worker, spare_cpus: float = 0) -> int:
    """How many such workers fit the nodes together, beside `spare_cpus` on one of them. No worker spans two nodes."""
    nodes = _nodes()
    roomiest = max(nodes, key=lambda node: node.get("CPU", 0))
    roomiest["CPU"] = roomiest.get("CPU", 0) - spare_cpus
    return sum(max(0, int(min((n.get(name, 0) + 1e-9) // need for name, need in worker.needs.items()))) for n in nodes)


def may_work_here(worker: Worker) -> bool:
    """Whether such a worker fits the node that this process runs on, whose disk is the one that it can look at."""
    import ray

    return any(
        node["Alive"]
        and node["NodeManagerHostname"] == socket.gethostname()
        and all(node["Resources"].get(name, 0) >= need for name, need in worker.needs.items())
        for node in ray.nodes()
    )


def works_here(address: str | None, compute: ComputeConfig) -> bool:
    """Whether it is certain, before any connection is made for it, that fine-tunes may run on this machine.

    Args:
        address: of a Ray cluster, as a command is given it.
        compute: what each of their workers takes.
    """
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return (address or os.environ.get("RAY_ADDRESS") or "local") == "local"
    with suppress(InputError):  # none fits, which is said where workers are needed
        return may_work_here(worker_of(compute))
    return False


def room_beside_failed_gpus(store: Store, worker: Worker, needed: int = 1) -> int:
    """Keeps the GPUs that are left alone from all workers, and returns how many such workers fit the other ones.

    Raises RunFailed where fewer fit than are needed.
    """
    KEPT.keep(store)
    room, said = room_for(worker), [said_of(*one) for one in left_alone(device_failures(store)).items()]
    if said and room < needed:
        left = "no GPU is left" if room < 1 else f"{room} workers fit the GPUs that are left, and {needed} are needed"
        raise RunFailed(f"{left}: {'; '.join(said)}. {ONCE_MENDED}")
    return max(room, needed)


def workers_that_fit(worker: Worker) -> int:
    """How many workers run at once: as many as are wanted, or as fit the cluster, but at least one."""
    return max(1, min(worker.wanted, room_for(worker)))
