"""Finished experiments as their results.json has them: found by an experiment file or a folder, and checked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align_core.errors import InputError
from pipelines.experiment.config import load_experiment
from pipelines.report.exports import SCHEMA, VERSION
from pipelines.report.page import changed_files
from pipelines.storage.store import Store

_FILE = "report/results.json"


@dataclass(frozen=True)
class Finished:
    """A finished experiment.

    Attributes:
        label: its name, or its folder where others have the same name.
        location: its folder.
        results: the content of its results.json.
    """

    label: str
    location: str
    results: Mapping[str, Any]

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
    locations = [store.location for store in stores]
    for number, location in enumerate(locations):
        if location in locations[:number]:
            raise InputError(f"{places[number]}: {location} is named twice; an experiment is compared with others")
    contents = [_read(place, store) for place, store in zip(places, stores, strict=True)]
    names = [str(content["experiment"]) for content in contents]
    labels = [name if names.count(name) == 1 else where for name, where in zip(names, locations, strict=True)]
    return [Finished(*own) for own in zip(labels, locations, contents, strict=True)]


def _store_of(place: str) -> Store:
    if place.endswith((".yaml", ".yml")):
        experiment = load_experiment(Path(place))
        return Store(experiment.output, experiment.name)
    folder = place.rstrip("/") if "://" in place else str(Path(place).absolute())
    output, _, name = folder.removesuffix("/report").rpartition("/")
    return Store(output, name)


def _read(place: str, store: Store) -> dict[str, Any]:
    if not store.exists(_FILE):
        there = "it has no report of this version of Witness" if store.exists("report/report.html") else "no report"
        raise InputError(f"{place}: {there} ({store.location}/{_FILE} is missing); `witness report` makes it")
    content = store.read_json(_FILE)
    if content is None or changed_files(store, ["results.json"]):
        raise InputError(f"{place}: {store.location}/{_FILE} was edited or damaged; `witness report` makes it again")
    if (content.get("schema"), content.get("version")) != (SCHEMA, VERSION):
        raise InputError(
            f"{place}: {_FILE} is {content.get('schema')} {content.get('version')}, and this version of Witness reads "
            f"{SCHEMA} {VERSION}; `witness report` makes it again"
        )
    return content
