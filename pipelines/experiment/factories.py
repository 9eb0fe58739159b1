"""Factories are the user's own code: looked for beside the experiment file, then on PYTHONPATH, and sent to workers."""

import importlib.util
import sys
from pathlib import Path

from align_core.errors import InputError
from pipelines.experiment.config import Experiment


def look_in(folder: str) -> None:
    """Modules in the folder of the experiment's factories are found before all others of the same name."""
    if folder not in sys.path[:1]:
        sys.path.insert(0, folder)


def modules_to_ship(experiment: Experiment) -> list[str]:
    """Files and package folders that the experiment's factories live in, for Ray's `py_modules`.

    Installed packages are left out: a cluster has them as it has Witness. Raises InputError for a missing module.
    """
    names = {config.factory.partition(":")[0] for config in experiment.models.values() if config.factory}
    places = set()
    for name in sorted(names):
        top = name.partition(".")[0]
        try:
            found = importlib.util.find_spec(top)
        except (ImportError, ValueError):
            found = None
        if found is None or (found.origin is None and not found.submodule_search_locations):
            raise InputError(f"factory {name}: no module {top!r} beside the experiment file or on PYTHONPATH")
        locations = list(found.submodule_search_locations or [])
        place = locations[0] if locations else str(found.origin)
        installed = "site-packages" in Path(place).parts or top == __package__.partition(".")[0]
        if not installed:
            places.add(place)
    return sorted(places)
