"""The environment variables that Witness sets for Ray, Ray Tune, MLflow and the C library: one table, with the reasons.

A variable that the user has set already keeps its value. Processes inherit what is set here, so each group is set
before its library is imported or its processes are started.
"""

import os
from collections.abc import Mapping
from typing import Literal

Group = Literal["ray", "tune", "mlflow", "workers"]

VARIABLES: Mapping[Group, Mapping[str, tuple[str, str]]] = {
    "ray": {
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": (
            "0.2",
            "Ray Train's controller polls its workers at this interval and takes one report a poll: its own 2 s is "
            "long for short epochs.",
        ),
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": (
            "0",
            "This will be Ray's default, and avoids its warning: workers without a GPU see the machine's variables "
            "unchanged.",
        ),
        "RAY_USAGE_STATS_ENABLED": ("0", "Nothing is reported about the user's work unless the user says so."),
        "RAY_BACKEND_LOG_LEVEL": (
            "fatal",
            "Ray Data's own actors make Ray's core print a warning, as an error, on every start.",
        ),
        "RAY_idle_worker_killing_time_threshold_ms": (
            "600000",
            "After a second a local cluster would end idle processes, with all that they have imported, and the next "
            "stage would start others.",
        ),
        "RAY_ENABLE_AUTO_CONNECT": (
            "0",
            "After Ctrl-C, the next call of a thread of Ray Tune's would start another cluster.",
        ),
    },
    "tune": {
        "RAY_AIR_NEW_OUTPUT": ("0", "The new output prints tables on standard output, whatever the verbosity."),
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": ("1", "Records and MLflow hold what these loggers would write."),
        "TUNE_GLOBAL_CHECKPOINT_S": ("5", "A sweep that is killed loses at most this many seconds of its own state."),
        "RAY_CHDIR_TO_TRIAL_DIR": ("0", "Relative paths mean the same in a trial as in the driver."),
        "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": (
            "0",
            "Writing the state every 5 s is intended, and is not worth a warning.",
        ),
    },
    "mlflow": {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": ("5", "Seconds. By default a server that is down holds up the run for minutes."),
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": ("1", "The same: results are files first, and can be logged again."),
        "MLFLOW_DISABLE_TELEMETRY": ("true", "Nothing is reported about the user's work unless the user says so."),
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": ("false", "Witness shows its own progress."),
    },
    "workers": {
        # By default glibc returns freed tensors to the system and then faults the same memory in again for the next
        # ones, which costs up to a fifth of an attack's time on CPUs.
        "MALLOC_ARENA_MAX": ("1", "Freed memory is kept in one arena, which all threads of a worker share."),
        "MALLOC_TRIM_THRESHOLD_": (str(2**30), "Bytes: freed memory below this is not returned to the system."),
        "MALLOC_MMAP_THRESHOLD_": (str(2**30), "Bytes: tensors below this come from the arena, not from mmap."),
    },
}


def unset(group: Group) -> dict[str, str]:
    """The variables of a group that the user has not set, with the values that they are to have."""
    return {name: value for name, (value, _) in VARIABLES[group].items() if name not in os.environ}


def set_defaults(group: Group) -> None:
    """Sets the variables of a group that the user has not set."""
    os.environ.update(unset(group))
