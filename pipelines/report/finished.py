"""Finished experiments as their results.json has them: found by an experiment file or a folder, and checked."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyarrow.fs import FileType

from align_core.errors import InputError
from pipelines.experiment.config import load_experiment
from pipelines.report.exports import SCHEMA, VERSION
from pipelines.report.page import changed_files
from pipelines.report.recorded_code import recorded_code
from pipelines.report.results_file import unsound_key
from pipelines.storage.credentials import without_credentials
from pipelines.storage.store import Store

_FILE = "report/results.json"
_PARTS = ("experiment.yaml", "report", "trained", "models", "clean", "adversarial")
_NAMED = "name an experiment by its file (.yaml or .yml), or by its folder <output>/<name>"


@dataclass(frozen=True)
class Finished:
    """A finished experiment.

    Attributes:
        label: its name, or its folder where others have the same name.
        location: its folder.
        results: the content of its results.json.
        code: of attacks and models whose code is not Witness's, as `recorded_code` has it.
    """

    label: str
    location: str
    results: Mapping[str, Any]
    code: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def settings(self) -> Mapping[str, Any]:
        """Its experiment file, with every setting that took effect."""
        return dict(self.results["settings"])

    @property
    def targets(self) -> list[str]:
        """The names of the targets on which this experiment measured transfer."""
        return list(self.results["roles"]["targets"])

    def rows(self, table: str) -> list[dict[str, Any]]:
        """The rows of one of its tables."""
        own = self.results["tables"][table]
        return [dict(zip(own["columns"], row, strict=True)) for row in own["rows"]]


def read_finished(places: Sequence[str]) -> list[Finished]:
    """The experiments in these places, in their order.

    Args:
        places: experiment files, output folders `<output>/<name>`, or URIs of such.

    Raises InputError, naming the place, where there is no finished report, or one that is damaged; and where two places
    are the same experiment.
    """
    stores = [_store_of(place) for place in places]
    seen: dict[str, str] = {}
    for place, store in zip(places, stores, strict=True):
        folder = _resolved(store)
        if folder in seen:
            raise InputError(
                f"{_shown(place)}: this experiment is named twice, the first time as {_shown(seen[folder])}; name "
                "another one to compare it with"
            )
        seen[folder] = place
    contents = [_read(_shown(place), store) for place, store in zip(places, stores, strict=True)]
    codes = [recorded_code(store, content["settings"]) for store, content in zip(stores, contents, strict=True)]
    names = [str(content["experiment"]) for content in contents]
    locations = [store.location for store in stores]
    labels = [name if names.count(name) == 1 else where for name, where in zip(names, locations, strict=True)]
    return [Finished(*own) for own in zip(labels, locations, contents, codes, strict=True)]


def _store_of(place: str) -> Store:
    """The store that a place names. Raises InputError where it names none."""
    if not place:
        raise InputError(f"an empty name: {_NAMED}")
    if "://" in place:
        base, mark, parameters = place.partition("?")
        scheme, _, path = base.partition("://")
        output, _, name = path.rstrip("/").removesuffix("/report").rpartition("/")
        if not output:
            raise InputError(f"{_shown(place)}: it names no experiment; write {scheme}://BUCKET/FOLDER/NAME")
        return Store(f"{scheme}://{output}{mark}{parameters}", name)
    path_given = Path(place)
    if place.endswith((".yaml", ".yml")) and not path_given.is_dir():
        experiment = load_experiment(path_given)
        return Store(experiment.output, experiment.name)
    folder = path_given.absolute()
    if folder.name == "report" and not (folder / "report").is_dir():
        folder = folder.parent
    return Store(str(folder.parent), folder.name)


def _resolved(store: Store) -> str:
    """The same text for every name of one folder, through whichever links and parents it leads."""
    path = store.path("")
    if store.is_local:
        return str(Path(path).resolve())
    return f"{store.filesystem.type_name}:{re.sub('/+', '/', path)}"


def _shown(place: str) -> str:
    return without_credentials(place) if "://" in place else place


def _read(place: str, store: Store) -> dict[str, Any]:
    """The content of results.json. Raises InputError, naming the place, where it cannot be compared with others."""
    _check_is_there(place, store)
    content = store.read_json(_FILE)
    if content is None or changed_files(store, ["results.json"]):
        raise InputError(f"{place}: {store.location}/{_FILE} was edited or damaged; `witness report` makes it again")
    if (content.get("schema"), content.get("version")) != (SCHEMA, VERSION):
        raise InputError(
            f"{place}: {_FILE} is {content.get('schema')} {content.get('version')}, and this version of Witness reads "
            f"{SCHEMA} {VERSION}; `witness report` makes it again"
        )
    if (key := unsound_key(content)) is not None:
        # report.json has the hash of this very file, so that a report would be taken for finished.
        raise InputError(
            f"{place}: {store.location}/{_FILE} is damaged ({key}); delete report.json beside it, and `witness report` "
            "makes both again"
        )
    return content


def _check_is_there(place: str, store: Store) -> None:
    """Raises InputError unless the folder, and results.json in it, are there."""
    kind = _kind(store, "")
    if kind == FileType.NotFound:
        mend = "`witness run` makes it" if place.endswith((".yaml", ".yml")) else _NAMED
        raise InputError(f"{place}: there is no folder {store.location}; {mend}")
    if kind == FileType.File:
        raise InputError(f"{place}: it is a file, and no experiment file; {_NAMED}")
    for path, wanted in (("report", FileType.Directory), (_FILE, FileType.File)):
        found = _kind(store, path)
        if found not in (wanted, FileType.NotFound):
            words = ("a file", "a folder") if found == FileType.File else ("a folder", "a file")
            raise InputError(
                f"{place}: {store.location}/{path} is {words[0]}, and no {words[1][2:]}; remove it, and "
                "`witness report` makes the report again"
            )
    if store.exists(_FILE):
        return
    if all(_kind(store, part) == FileType.NotFound for part in _PARTS):
        raise InputError(f"{place}: {store.location} holds no experiment; {_NAMED}")
    there = "it has no report of this version of Witness" if store.exists("report/report.html") else "no report"
    raise InputError(f"{place}: {there} ({store.location}/{_FILE} is missing); `witness report` makes it")


def _kind(store: Store, path: str) -> FileType:
    return store.filesystem.get_file_info(store.path(path).rstrip("/")).type
