"""Experiments from Python: run one, and take its results as DataFrames and arrays."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from align_core.errors import InputError, reason_of
from align_core.images.decoding import Pixels
from pipelines.compute.images import adversarial_images
from pipelines.experiment.config import Experiment
from pipelines.experiment.explain import nearest
from pipelines.experiment.surrogates import attacks_on, owners_of_made
from pipelines.failure import RunFailed
from pipelines.report.outcomes import read_table
from pipelines.report.page import read_report, report_fingerprint
from pipelines.run.request import Request, open_blueprint
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.cells import SELF
from pipelines.storage.chunked_table import ChunkedTable

if TYPE_CHECKING:
    import pandas as pd


def run_experiment(
    source: str | Path | Experiment,
    *,
    overrides: Sequence[str] = (),
    output: str | Path | None = None,
    address: str | None = None,
    quiet: bool = False,
    rehash: bool = False,
) -> "Results":
    """Does what `witness run` does, whatever of it is missing, and returns the results.

    Args:
        source: the experiment file, or an experiment that is checked already.
        overrides: `key.path=value`, as for `--set`.
        output: stands for the file's `output`.
        address: of a Ray cluster; None for $RAY_ADDRESS, else a local one for this call. A process that is connected to
            Ray already uses that connection.
        quiet: prints plain lines of progress on standard error, also on a terminal.
        rehash: reads every image again, also where a file has the path, size and modification time that it had before.

    Raises InputError (nothing was written), Busy, or RunFailed (what is finished is kept; the same call resumes).
    """
    from pipelines.run.command import run

    request = _request(source, overrides, output, address, quiet, rehash)
    run(request)
    return _results(request)


def load_results(
    source: str | Path | Experiment, *, overrides: Sequence[str] = (), output: str | Path | None = None
) -> "Results":
    """The results of an experiment that was run before; computes and writes nothing.

    Raises InputError, and RunFailed where something is missing or the report is not that of the present settings.
    """
    return _results(_request(source, overrides, output, None, True))


def _request(
    source: str | Path | Experiment,
    overrides: Sequence[str],
    output: str | Path | None,
    address: str | None,
    quiet: bool,
    rehash: bool = False,
) -> Request:
    if not isinstance(source, str | Path | Experiment):
        raise InputError(f"an experiment is a file or an Experiment, not {type(source).__name__}")
    if isinstance(overrides, str):
        raise InputError(f"overrides is a list of KEY.PATH=VALUE, not the string {overrides!r}")
    path = Path(source) if isinstance(source, str) else source
    return Request(path, tuple(overrides), None if output is None else str(output), address, quiet, rehash)


def _results(request: Request) -> "Results":
    blueprint = open_blueprint(request)
    blueprint.check_finished()
    stored = blueprint.store.read_json("report/report.json") or {}
    if stored.get("fingerprint") != report_fingerprint(blueprint):
        raise RunFailed(f"{blueprint.store.location}/report is missing or out of date; `witness report` makes it")
    try:
        return Results(blueprint)
    except (OSError, ValueError) as problem:
        raise RunFailed(
            f"{blueprint.store.location}/report cannot be used ({reason_of(problem)}); `witness report` makes it again"
        ) from problem


@dataclass(frozen=True)
class Images:
    """Images of one set, by image id.

    Attributes:
        ids: sorted image ids, N of them.
        labels_N: int64.
        pixels_NCHW: uint8.
    """

    ids: list[str]
    labels_N: npt.NDArray[np.int64]
    pixels_NCHW: Pixels

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {image_id: position for position, image_id in enumerate(self.ids)}

    def __getitem__(self, image_id: str) -> Pixels:
        """The image with this id, uint8 [C, H, W]. Raises KeyError."""
        return np.asarray(self.pixels_NCHW[self._positions[image_id]])

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[str]:
        """The ids, as a mapping's keys."""
        return iter(self.ids)


class Results:
    """What a finished experiment found. Tables are read when they are asked for.

    The columns are explained in align_core/README.md; rates, gains and accuracies are in percent and points.
    """

    def __init__(self, blueprint: Blueprint) -> None:
        self._blueprint = blueprint
        self._report = read_report(blueprint.store)

    @property
    def location(self) -> str:
        """The folder of the experiment."""
        return self._blueprint.store.location

    @property
    def holes(self) -> list[str]:
        """What of the experiment could not be made, each with the reason; the tables are without it."""
        return self._blueprint.holes()

    @cached_property
    def transfer(self) -> "pd.DataFrame":
        """transfer.csv: a row per surrogate, attack and target, and per group of targets."""
        return _frame(self._report.transfer)

    @cached_property
    def contrasts(self) -> "pd.DataFrame":
        """contrasts.csv: the aligned surrogates against each control."""
        return _frame(self._report.contrasts)

    @cached_property
    def surrogates(self) -> "pd.DataFrame":
        """surrogates.csv: clean accuracy, own robustness and agreement, a row per surrogate and attack."""
        return _frame(self._report.surrogates)

    @cached_property
    def seeds(self) -> "pd.DataFrame":
        """seeds.csv: what each of several seeds gave by itself; empty where there is one."""
        return _frame(self._report.seeds)

    @cached_property
    def times(self) -> "pd.DataFrame":
        """times.csv: how long crafting took, a row per surrogate, attack and kind of worker."""
        return _frame(self._report.times)

    @cached_property
    def reasons(self) -> "pd.DataFrame":
        """reasons.csv: what may explain the gains; empty, as the next two are, where the experiment has no reasons."""
        return _frame(self._report.reasons)

    @cached_property
    def correlations(self) -> "pd.DataFrame":
        """correlations.csv: which reasons go with the gain, across surrogates."""
        return _frame(self._report.correlations)

    @cached_property
    def soft_labels(self) -> "pd.DataFrame":
        """soft_labels.csv: what aligned surrogates were taught, by temperature, beside their gains."""
        return _frame(self._report.soft_labels)

    def reasons_of(self, surrogate: str, other: str = SELF) -> "pd.DataFrame":
        """image_id, label, and a column `MEASURE/POINT` for each reason, of the images of the sample.

        Args:
            other: the witness or target that the surrogate is compared with; `@self` for what needs none.

        Raises InputError for names that there are not.
        """
        tables = self._blueprint.reasons()
        if (surrogate, other) not in tables:
            near = nearest(f"{surrogate}, {other}", [", ".join(pair) for pair in tables])
            raise InputError(f"there are no reasons of {surrogate!r} and {other!r}{near}")
        return self._read(tables[surrogate, other], None).to_pandas()

    def clean_images(self) -> Images:
        """The test images: the centres of the eps-balls."""
        from pipelines.stages.clean_images import test_images

        images = test_images(self._blueprint)
        pixels = np.concatenate([images.read(chunk) for chunk in range(len(images.chunks))])
        return Images(images.image_ids, np.asarray(images.labels, dtype=np.int64), pixels)

    def adversarial_images(self, surrogate: str, attack: str) -> Images:
        """The images crafted on a surrogate, as they were evaluated. Raises InputError for a name that there is not."""
        self._check(surrogate, attack)
        table = self._blueprint.adversarial(self._blueprint.by_name[surrogate], attack)
        rows = self._read(table, ["image_id", "label", "image"])
        return Images(rows["image_id"].to_pylist(), rows["label"].to_numpy(), adversarial_images(rows))

    def outcomes(self, surrogate: str, attack: str, target: str) -> "pd.DataFrame":
        """image_id, label, adversarial_prediction and adversarial_confidence of one cell; `@self`: the surrogate's own.

        Raises InputError for a name that there is not.
        """
        self._check(surrogate, attack)
        own = self._blueprint.by_name[surrogate]
        targets = [*([SELF] if own.members else []), *own.unseen(self._blueprint.experiment.targets)]
        if target not in targets:
            raise InputError(f"there is no target {target!r}{nearest(target, targets)}")
        cell = self._blueprint.cell(surrogate, attack, target)
        columns = ["image_id", "label", "adversarial_prediction", "adversarial_confidence"]
        return self._read(cell.table, columns).to_pandas()

    def clean_predictions(self, name: str) -> "pd.DataFrame":
        """image_id, label, prediction and confidence of a model or surrogate on the clean test images.

        Raises InputError for a name that there is not.
        """
        surrogate = self._blueprint.by_name.get(name)
        clean = self._blueprint.clean()
        own = self._blueprint.clean_name(surrogate) if surrogate and surrogate.members else name
        if own not in clean:
            raise InputError(
                f"there is no model or surrogate {name!r}{nearest(name, {*clean, *self._blueprint.by_name})}"
            )
        return self._read(clean[own].table, ["image_id", "label", "prediction", "confidence"]).to_pandas()

    def _read(self, table: ChunkedTable, columns: Sequence[str] | None) -> pa.Table:
        """Columns of a table, or all of them for None. Raises RunFailed where it is damaged."""
        return read_table(self._blueprint.store, table, columns)

    def _check(self, surrogate: str, attack: str) -> None:
        for kind, name, known in (
            ("surrogate", surrogate, self._blueprint.by_name),
            ("attack", attack, self._blueprint.experiment.all_attacks),
        ):
            if name not in known:
                raise InputError(f"there is no {kind} {name!r}{nearest(name, known)}")
        experiment = self._blueprint.experiment
        if attack not in attacks_on(experiment, self._blueprint.by_name[surrogate]):
            raise InputError(f"{surrogate} has no images under {attack}: {owners_of_made(experiment)}")


def _frame(rows: Sequence[object]) -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame(rows)
