"""Finds the modules of `factory:` and of attacks `python:`, which are the user's own code, and names those that workers
must be sent.

They are looked for beside the experiment file first, then on PYTHONPATH.
"""

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path

from align_core.attacks import ForeignConfig
from align_core.errors import InputError
from pipelines.experiment.config import Experiment
from pipelines.experiment.factory_code import INSTALLED_IN, Code

_loaded: dict[str, Code] = {}  # the code of the modules that this process has imported


def look_in(folder: str) -> None:
    """Puts the folder of an experiment's factories first on `sys.path`, so that its modules are found before others."""
    if folder not in sys.path[:1]:
        sys.path.insert(0, folder)


def modules_to_ship(experiment: Experiment) -> list[str]:
    """Paths of the module files and package folders of the experiment's factories and attacks, for Ray's `py_modules`.

    Installed modules are left out, because every node of a cluster has them just as it has Witness itself. Call
    `look_in` first. Raises InputError for a module that is found nowhere.
    """
    kinds = {path.partition(":")[0]: "attack" for path in own_attacks(experiment).values()}
    kinds |= {config.factory.partition(":")[0]: "factory" for config in experiment.models.values() if config.factory}
    paths = set()
    for name, kind in sorted(kinds.items()):
        top = name.partition(".")[0]
        path = _path_of(top)
        if path is None:
            raise InputError(f"{kind} {name}: no module {top!r} beside the experiment file or on PYTHONPATH")
        if top != __package__.partition(".")[0] and not _is_installed(path, experiment.factories):
            paths.add(str(path))
    return sorted(paths)


def own_attacks(experiment: Experiment) -> dict[str, str]:
    """Name of an attack -> `module:callable`, for attacks that are the user's own code."""
    attacks = experiment.attacks.items()
    return {name: own.name for name, own in attacks if isinstance(own, ForeignConfig) and own.kind == "python"}


def note_code(factory: str, code: Code) -> None:
    """Notes what the files of a factory hold before this process imports it, for `check_not_outdated`."""
    name = factory.partition(":")[0]
    if name not in sys.modules:
        _loaded[name] = code
    _loaded.setdefault(name, code)


def check_not_outdated(key: str, factory: str, code: Mapping[str, str]) -> None:
    """Raises InputError where this process has imported a factory, or an attack, whose files have changed since.

    Python imports a module once, so in a notebook old code would go on to run, and its results would be taken for those
    of the new. `key` is that of the model or attack, and `code` what the files hold now.
    """
    if _loaded.get(factory.partition(":")[0], code) != code:
        raise InputError(
            f"{key}: the code of {factory} has changed since this process imported it, and Python does not "
            "import it again; start a new process (in a notebook, restart the kernel)"
        )


def _path_of(top: str) -> Path | None:
    try:
        found = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if found is None:
        return None
    locations = list(found.submodule_search_locations or ([found.origin] if found.origin else []))
    return Path(locations[0]) if locations else None


def _is_installed(path: Path, factories: str | None) -> bool:
    """Whether a worker can import the module by itself.

    Lying somewhere under site-packages does not suffice: the recipes of an installed Witness lie there too, and their
    modules are importable only because `look_in` put the recipes' folder on the path of this process.
    """
    if path.parent.name in INSTALLED_IN:
        return True
    beside = factories is not None and path.parent.resolve() == Path(factories).resolve()
    return not beside and not INSTALLED_IN.isdisjoint(path.parts)
