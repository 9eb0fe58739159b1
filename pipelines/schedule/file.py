"""The schedule file: it is checked as a whole, experiments included, before any entry is submitted."""

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationError

from align_core.errors import InputError
from pipelines.experiment.config import Experiment, load_experiment
from pipelines.experiment.explain import explained
from pipelines.experiment.names import Name
from pipelines.experiment.section import Section
from pipelines.experiment.yaml_file import read_yaml
from pipelines.schedule.cron import check_cron
from pipelines.storage.credentials import without_credentials
from pipelines.storage.store import Store
from pipelines.tracking.runs import tracking_uri

Cron = Annotated[str, AfterValidator(check_cron)]
_SECRET = re.compile(r"://[^/?#\s]*@|[?&][^=&\s]*(password|secret|token|key)[^=&\s]*=", re.IGNORECASE)


class EntryConfig(Section):
    """One recurring evaluation, as the schedule file describes it.

    Attributes:
        cron: when it is due, as five fields in UTC.
        experiment: path of the experiment file, relative to the schedule file. An absolute path must be valid on every
            node of the cluster, and then nothing is sent.
        overrides: settings laid over the experiment, each written as for `--set`.
        address: of the cluster's job server; by default that of the schedule.
        working_dir: the folder that is sent to the cluster; by default the folder of the experiment file.
        retries: how many further attempts follow a job that failed.
        catch_up: whether to run once for the minutes that passed while no scheduler was running.
    """

    cron: Cron
    experiment: str
    overrides: list[str] = Field(default_factory=list)
    address: str | None = None
    working_dir: str | None = None
    retries: int = Field(default=1, ge=0, le=10)
    catch_up: bool = True


class ScheduleConfig(Section):
    """The content of a schedule file.

    Attributes:
        name: of the schedule; the ids of its jobs begin with it.
        state: folder or object store of the history; by default `.schedules` in the entries' common `output`.
        address: of the job server, for the entries that give none.
        entries: the recurring evaluations by their names.
    """

    name: Name
    state: str | None = None
    address: str | None = None
    entries: dict[Name, EntryConfig] = Field(min_length=1)


@dataclass(frozen=True)
class Entry:
    """A checked entry with everything that is needed to submit it.

    Attributes:
        schedule: the name of the schedule.
        name: the name of the entry in it.
        config: the entry as it is written in the file.
        address: URL of the job server, http:// or https://.
        experiment: the checked experiment, with the entry's overrides.
        command: the command that the job runs.
        working_dir: the folder of which a copy is sent to the cluster; None where nothing is sent.
        excludes: what of that folder is not sent, as patterns of .gitignore.
    """

    schedule: str
    name: str
    config: EntryConfig
    address: str
    experiment: Experiment
    command: tuple[str, ...]
    working_dir: Path | None
    excludes: tuple[str, ...] = ()

    @property
    def entrypoint(self) -> str:
        """The command as one line, quoted for the shell that Ray runs it in."""
        return shlex.join(self.command)

    @property
    def results(self) -> Store:
        """The store of the experiment's results."""
        return Store(self.experiment.output, self.experiment.name)


@dataclass(frozen=True)
class Schedule:
    """A schedule whose entries have all been checked. Its history is kept in `store`."""

    name: str
    store: Store
    entries: tuple[Entry, ...]


def load_schedule(
    path: Path, overrides: Sequence[str] = (), output: str | None = None, address: str | None = None
) -> Schedule:
    """Reads and checks a schedule file and the experiments of all its entries.

    Args:
        path: the schedule file.
        overrides: settings laid over the schedule file, each written as for `--set`.
        output: replaces the `output` of every experiment.
        address: replaces the address of every entry.

    Raises InputError, which names the file and the key.
    """
    content = read_yaml(path, overrides)
    try:
        config = ScheduleConfig.model_validate(content)
    except ValidationError as problem:
        raise InputError(f"{path}: " + explained(problem, ScheduleConfig)) from problem
    first = {name.lower(): name for name in reversed(config.entries)}
    entries = []
    for name, entry in config.entries.items():
        if first[name.lower()] != name:
            raise InputError(
                f"{path}: entries.{name}: differs from {first[name.lower()]} in capitals alone; rename one"
            )
        try:
            entries.append(_entry(path.absolute().parent, config, name, output, address or entry.address))
        except InputError as problem:
            raise InputError(f"{path}: entries.{name}: {problem}") from problem
    try:
        _check_outputs_differ(entries)
        return Schedule(config.name, _history_store(path, config, entries), tuple(entries))
    except InputError as problem:
        raise InputError(f"{path}: {problem}") from problem


def _entry(folder: Path, schedule: ScheduleConfig, name: str, output: str | None, address: str | None) -> Entry:
    config = schedule.entries[name]
    path = Path(os.path.expanduser(config.experiment))
    keys = [override.partition("=")[0] for override in config.overrides]
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice is not None:
        raise InputError(f"--set {twice}: is given twice; give it once")
    experiment = load_experiment(folder / path, config.overrides, output)
    tracking_uri(experiment)  # raises where it is required and missing
    working_dir, path_in_job = _working_dir(folder, path, config.working_dir)
    # A job runs in a temporary copy of the working directory, so a local `output` is given as an absolute path.
    job_output = output if "://" in experiment.output else experiment.output
    command = ["witness", "run", path_in_job, *(part for override in config.overrides for part in ("--set", override))]
    command += ["--output", job_output] if job_output is not None else []
    if any(_SECRET.search(part) for part in command):
        raise InputError(
            "overrides, output: a URI contains a password, which everyone who can list the cluster's jobs would see; "
            "write it into the experiment file, or set it in the cluster's environment"
        )
    excludes: tuple[str, ...] = ()
    results = Path(experiment.output)
    if working_dir is not None and results.is_relative_to(working_dir) and results != working_dir:
        excludes = (f"/{results.relative_to(working_dir)}",)
    job_server = _job_server(address or schedule.address)
    return Entry(schedule.name, name, config, job_server, experiment, (*command, "--quiet"), working_dir, excludes)


def _working_dir(folder: Path, experiment: Path, working_dir: str | None) -> tuple[Path | None, str]:
    """The folder that is sent to the cluster, and the path of the experiment file as the job sees it."""
    if working_dir is None and experiment.is_absolute():
        return None, str(experiment)
    sent = (folder / (os.path.expanduser(working_dir) if working_dir else experiment.parent)).resolve()
    if not sent.is_dir():
        raise InputError(f"working_dir: {sent} is not a folder")
    path = (folder / experiment).resolve()
    if not path.is_relative_to(sent):
        raise InputError(
            f"working_dir: {sent} does not contain the experiment file {path}, which the job needs; name a folder that "
            "contains it"
        )
    return sent, str(path.relative_to(sent))


def _job_server(address: str | None) -> str:
    """The address of the entry, or $RAY_API_SERVER_ADDRESS. Raises InputError unless it is an HTTP address."""
    address = address or os.environ.get("RAY_API_SERVER_ADDRESS")
    if address is None or not address.startswith(("http://", "https://")):
        wrong = "is missing" if address is None else f"{without_credentials(address)!r} is not that of a job server"
        raise InputError(f"address: {wrong}; write the address of the cluster's dashboard, as http://127.0.0.1:8265")
    return address


def _check_outputs_differ(entries: Sequence[Entry]) -> None:
    """Raises InputError where two entries write to one folder, since each would move the other's results away."""
    owners: dict[str, str] = {}
    for entry in entries:
        owner = owners.setdefault(entry.results.location, entry.name)
        if owner != entry.name:
            raise InputError(
                f"entries.{entry.name}: writes to {without_credentials(entry.results.location)}, as {owner} does; "
                f"rename one of the two experiments, with overrides: [name={entry.experiment.name}-{entry.name}]"
            )


def _history_store(path: Path, config: ScheduleConfig, entries: Sequence[Entry]) -> Store:
    outputs = {entry.experiment.output for entry in entries}
    if config.state is None and len(outputs) > 1:
        raise InputError("state: must be given where the outputs of the entries differ; name a folder")
    output, *parameters = outputs.pop().split("?", 1)  # an object store may have parameters, such as ?region=...
    location = config.state or "?".join([f"{output}/.schedules", *parameters])
    is_local = "://" not in location
    return Store(str(path.absolute().parent / os.path.expanduser(location)) if is_local else location, config.name)
