"""Whether images can be kept where `compute.cache` asks, which is found out before any work."""

from pathlib import Path

from align_core.errors import InputError
from pipelines.experiment.config import Experiment
from pipelines.experiment.surrogates import surrogates_of
from pipelines.storage.store import Store
from pipelines.storage.writable import check_writable


def check_cache(experiment: Experiment, may_work_here: bool) -> None:
    """Raises InputError where images cannot be kept as `compute.cache` asks, if fine-tunes may run on this node.

    Of other nodes it cannot be told: there, a fine-tune says so at its first step.
    """
    folder = experiment.compute.cache
    if folder is None or not may_work_here:
        return
    try:
        check_writable(Path(folder), "name another folder")
    except InputError as problem:
        raise InputError(f"compute.cache: {problem}, or leave the key out") from problem


def must_align(experiment: Experiment, store: Store) -> bool:
    """Whether a surrogate has certainly still to be made, told without looking at any input.

    Where one network could not be made, others that need it are not made either.
    """
    if not store.is_local:
        return False
    folders = [Path(store.path(folder)) for folder in ("models", "trained")]
    if any(failed for folder in folders for failed in folder.glob("*/failed.json")):
        return False
    made = [own.name for own in surrogates_of(experiment) if own.align is not None]
    return not all((folders[0] / name).is_dir() for name in made)
