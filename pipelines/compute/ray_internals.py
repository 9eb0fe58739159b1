"""What Witness takes from Ray that has no public name. A test names the Ray version that it was last checked with."""

import ctypes
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ray.train import WorkerGroupError


@contextmanager
def sigterm_handler_kept() -> Iterator[None]:
    """Keeps this process's handler of SIGTERM over the block, in which Ray's core installs one of its own.

    Ray's prints a stack of C++ and ends the process at once, so that no `finally` is run. Python's `signal.signal` can
    only be called in the main thread, and Ray is started in another: hence CPython's own functions below it.
    """
    get, install = ctypes.pythonapi.PyOS_getsig, ctypes.pythonapi.PyOS_setsig
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.c_int]
    install.restype, install.argtypes = ctypes.c_void_p, [ctypes.c_int, ctypes.c_void_p]
    handler = get(signal.SIGTERM)
    try:
        yield
    finally:
        install(signal.SIGTERM, handler)


def startable_nodes() -> list[dict[str, float]]:
    """The resources of every node that the cluster's autoscaler may start, one entry per node; empty without one.

    Ray has no public way to ask for this: `ray.nodes()` and the state API tell of nodes that are up, and a request for
    more workers than are up should not be refused where the autoscaler would start their nodes.
    """
    from ray._private.state import state

    config = state.get_cluster_config()
    groups = [] if config is None else config.node_group_configs
    return [dict(group.resources) for group in groups for _ in range(max(group.max_count, 0))]


def missing_for_dashboard() -> str | None:
    """What Ray's dashboard needs and cannot be imported here; None where it can be started.

    `ray.init` would say so in its log, and raise an exception that names nothing.
    """
    from ray._private.utils import get_dashboard_dependency_error

    missing = get_dashboard_dependency_error()
    return None if missing is None else str(missing)


def raised_by_workers(problem: "WorkerGroupError") -> list[BaseException]:
    """What Ray Train's workers raised: it hands out an exception of its own, around theirs and the traceback's text."""
    return [getattr(own, "_base_exc", own) for own in problem.worker_failures.values()]
