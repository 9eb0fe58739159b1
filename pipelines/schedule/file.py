"""The schedule file, validated: every entry with its experiment checked and its command made, before any is run."""

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationError

from align_core.errors import InputError
from pipelines.experiment.config import Experiment, Section, load_experiment
from pipelines.experiment.explain import explained
from pipelines.experiment.names import Name
from pipelines.experiment.yaml_file import read_yaml
from pipelines.schedule.cron import check_cron
from pipelines.storage.credentials import without_credentials
from pipelines.storage.store import Store
from pipelines.tracking.runs import tracking_uri

Cron = Annotated[str, AfterValidator(check_cron)]
_SECRET = re.compile(r"://[^/?#\s]*@|[?&][^=&\s]*(password|secret|token|key)[^=&\s]*=", re.IGNORECASE)


class EntryConfig(Section):
    """One recurring evaluation.

    cron: five fields, in UTC. experiment: its file. overrides: as for `--set`. address: of the cluster's job server.
    working_dir: what is sent to the cluster, the folder of the experiment unless given; an experiment that is given by
    an absolute path lies where every node sees it, and nothing is sent. retries: how often a failed job is tried again.
    catch_up: whether the last of the minutes that nobody was there for is made up for.
    """

    cron: Cron
    experiment: str
    overrides: list[str] = Field(default_factory=list)
    address: str | None = None
    working_dir: str | None = None
    retries: int = Field(default=1, ge=0, le=10)
    catch_up: bool = True


class ScheduleConfig(Section):
    """A schedule file. state: where runs are remembered. address: of the entries that give none."""

    name: Name
    state: str | None = None
    address: str | None = None
    entries: dict[Name, EntryConfig] = Field(min_length=1)


@dataclass(frozen=True)
class Entry:
    """An entry, ready to be submitted.

    Attributes:
        schedule, name: of the schedule, and of the entry in it.
        config: as it was written.
        address: of the job server, http:// or https://.
        experiment: checked, with the entry's overrides.
        command: what the job runs.
        working_dir: sent to the cluster, but for the files that match `left_out`; None: nothing is sent.
    """

    schedule: str
    name: str
    config: EntryConfig
    address: str
    experiment: Experiment
    command: tuple[str, ...]
    working_dir: Path | None
    left_out: tuple[str, ...] = ()

    @property
    def entrypoint(self) -> str:
        """The command as Ray takes it."""
        return shlex.join(self.command)

    @property
    def results(self) -> Store:
        """Where the experiment's results lie."""
        return Store(self.experiment.output, self.experiment.name)


@dataclass(frozen=True)
class Schedule:
    """A schedule whose entries are checked; `store` is where its runs are remembered."""

    name: str
    store: Store
    entries: tuple[Entry, ...]


def load_schedule(
    path: Path, overrides: Sequence[str] = (), output: str | None = None, address: str | None = None
) -> Schedule:
    """Reads and checks a schedule and all its experiments. `output` and `address` stand for those of every entry.

    Raises InputError, which names the file and the key.
    """
    content = read_yaml(path, overrides)
    try:
        config = ScheduleConfig.model_validate(content)
    except ValidationError as problem:
        raise InputError(f"{path}: " + explained(problem, ScheduleConfig)) from problem
    entries = []
    for name, entry in config.entries.items():
        try:
            entries.append(_entry(path.absolute().parent, config, name, output, address or entry.address))
        except InputError as problem:
            raise InputError(f"{path}: entries.{name}: {problem}") from problem
    try:
        _check_apart(entries)
        return Schedule(config.name, _store(path, config, entries), tuple(entries))
    except InputError as problem:
        raise InputError(f"{path}: {problem}") from problem


def _entry(folder: Path, schedule: ScheduleConfig, name: str, output: str | None, address: str | None) -> Entry:
    config = schedule.entries[name]
    file = Path(os.path.expanduser(config.experiment))
    experiment = load_experiment(folder / file, config.overrides, output)
    tracking_uri(experiment)
    sent, seen_as = _sent(folder, file, config.working_dir)
    # A job's current folder is a copy that is thrown away: a plain `output` must not be relative to it.
    given = output if "://" in experiment.output else experiment.output
    command = ["witness", "run", seen_as, *(part for override in config.overrides for part in ("--set", override))]
    command += ["--output", given] if given is not None else []
    if any(_SECRET.search(part) for part in command):
        raise InputError(
            "overrides, output: everyone who sees the cluster's jobs would read the password in a URI; write it into "
            "the experiment file, or into the cluster's environment"
        )
    left_out: tuple[str, ...] = ()
    if sent is not None and Path(experiment.output).is_relative_to(sent) and Path(experiment.output) != sent:
        left_out = (f"/{Path(experiment.output).relative_to(sent)}",)
    place = _job_server(address or schedule.address)
    return Entry(schedule.name, name, config, place, experiment, (*command, "--quiet"), sent, left_out)


def _sent(folder: Path, file: Path, working_dir: str | None) -> tuple[Path | None, str]:
    """What is sent to the cluster, and the experiment file's path there."""
    if working_dir is None and file.is_absolute():
        return None, str(file)
    sent = (folder / (os.path.expanduser(working_dir) if working_dir else file.parent)).resolve()
    if not sent.is_dir():
        raise InputError(f"working_dir: {sent} is no folder")
    place = (folder / file).resolve()
    if not place.is_relative_to(sent):
        raise InputError(f"working_dir: {sent} does not hold the experiment {place}, which the job needs")
    return sent, str(place.relative_to(sent))


def _job_server(address: str | None) -> str:
    address = address or os.environ.get("RAY_API_SERVER_ADDRESS")
    if address is None or not address.startswith(("http://", "https://")):
        said = "is missing" if address is None else f"{without_credentials(address)!r} is not that of a job server"
        raise InputError(f"address: {said}; write the address of the cluster's dashboard, as http://127.0.0.1:8265")
    return address


def _check_apart(entries: Sequence[Entry]) -> None:
    """No two entries make the same folder: each would set aside what the other made."""
    places: dict[str, str] = {}
    for entry in entries:
        other = places.setdefault(entry.results.location, entry.name)
        if other != entry.name:
            raise InputError(
                f"entries.{entry.name}: writes to {without_credentials(entry.results.location)}, as {other} does; give "
                f"one of them a name of its own, with overrides: [name={entry.experiment.name}-{entry.name}]"
            )


def _store(path: Path, config: ScheduleConfig, entries: Sequence[Entry]) -> Store:
    outputs = {entry.experiment.output for entry in entries}
    if config.state is None and len(outputs) > 1:
        raise InputError("state: must be given where the outputs of the entries differ; name a folder")
    output, *settings = outputs.pop().split("?", 1)  # of an object store
    place = config.state or "?".join([f"{output}/.schedules", *settings])
    return Store(place if "://" in place else str(path.absolute().parent / os.path.expanduser(place)), config.name)
