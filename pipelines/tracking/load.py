"""The load of this machine and its GPUs, under the names of MLflow's system metrics and by MLflow's own monitors."""

import logging
from contextlib import suppress
from importlib import import_module
from typing import Any

from pipelines.tracking.runs import Point

# Each needs a package that Witness does not: psutil, nvidia-ml-py (imported as pynvml) and pyrsmi.
_MONITORS = (("cpu_monitor", "CPUMonitor"), ("gpu_monitor", "GPUMonitor"), ("rocm_monitor", "ROCMMonitor"))


class MachineLoad:
    """What is measured of this machine: CPU and memory where psutil is installed, GPUs where their package is.

    MLflow measures with `import mlflow`, which takes seconds: make it where MLflow is in use anyway.
    """

    def __init__(self) -> None:
        # What a GPU does not tell, as one that is split into instances does not, it would say at every look.
        logging.getLogger("mlflow.system_metrics").setLevel(logging.ERROR)
        self._monitors: list[Any] = []
        for module, name in _MONITORS:
            with suppress(ImportError, RuntimeError):  # no package, or no such device or driver
                self._monitors.append(getattr(import_module(f"mlflow.system_metrics.metrics.{module}"), name)())

    def points(self, now: float, since_begin: float) -> list[Point]:
        """The load now, at a step that is the second since the work began."""
        found: list[Point] = []
        for monitor in list(self._monitors):
            try:
                monitor.collect_metrics()
                measured = monitor.aggregate_metrics()
            except Exception:  # of a device that is gone; the loss curves go on without it
                self._monitors.remove(monitor)
                continue
            monitor.clear_metrics()
            found += [(f"system/{name}", float(value), now, int(since_begin)) for name, value in measured.items()]
        return found
