"""Reads the finished tables of an experiment into arrays, from which the tables of the report are computed."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from align_core.attacks import AttackConfig, ForeignConfig, MadeElsewhere
from align_core.corruptions.known import Corruption
from align_core.errors import reason_of
from align_core.transfer import Flags
from pipelines.failure import RunFailed
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.cells import SELF
from pipelines.storage.ahead import read_ahead
from pipelines.storage.chunked_table import ChunkedTable
from pipelines.storage.store import Store


@dataclass(frozen=True)
class Outcomes:
    """All outcomes of an experiment over its N test images, in the order of their ids.

    Attributes:
        labels: the true classes, int64 [N].
        prediction: by name of a model or surrogate, the classes that it predicts on the clean images, int64 [N].
        corrupted: by corruption and name, the classes that a surrogate predicts on corrupted images, int64 [N].
        wrong: by (surrogate, attack, target), whether the target misclassifies each adversarial image, bool [N]. The
            target `@self` is the surrogate itself.
        hit: the same for targeted attacks alone: whether the target takes each image for the class that it is led to.
        l2: by (surrogate, attack), the l2 norms of the perturbations in pixel fractions, float32 [N].
        gradients: by (surrogate, attack), the gradients per image counted of an attack whose code is not ours; of
            images that were made elsewhere, none.
        ssim: by (surrogate, attack), the structural similarity of each adversarial image to the clean one, float32 [N].
        passes: by (surrogate, attack), the sizes of the passes in which the images were crafted, the smallest first; of
            an attack whose code is not ours, and of images that were made elsewhere, none.
    """

    labels: npt.NDArray[np.int64]
    prediction: dict[str, npt.NDArray[np.int64]]
    corrupted: dict[tuple[Corruption, str], npt.NDArray[np.int64]]
    wrong: dict[tuple[str, str, str], Flags]
    hit: dict[tuple[str, str, str], Flags]
    l2: dict[tuple[str, str], npt.NDArray[np.float32]]
    ssim: dict[tuple[str, str], npt.NDArray[np.float32]]
    gradients: dict[tuple[str, str], float]
    passes: dict[tuple[str, str], list[int]]

    def right(self, name: str) -> Flags:
        """Whether the model or surrogate `name` classifies each clean image correctly, bool [N]."""
        return np.asarray(self.prediction[name] == self.labels)

    def robust(self, surrogate: str, clean_name: str, attacks: list[str]) -> Flags:
        """Whether a surrogate classifies each image correctly when clean and under every attack on itself, bool [N].

        `clean_name` is the name under which its clean predictions are stored (see `Blueprint.clean_name`).
        """
        right_under_attack = [~self.wrong[surrogate, attack, SELF] for attack in attacks]
        return np.asarray(np.logical_and.reduce([self.right(clean_name), *right_under_attack]))


def read_outcomes(blueprint: Blueprint) -> Outcomes:
    """Reads the finished tables from the store, of one that is far away some side by side.

    Raises RunFailed, naming the folder, if a table is damaged or does not hold exactly the test images in their order.
    """
    manifest = blueprint.inspected.manifests["test"]
    ids = pa.chunked_array([manifest.ids])

    def columns(wanted: tuple[ChunkedTable, Sequence[str]]) -> list[npt.NDArray[Any]]:
        table, names = wanted
        rows = read_table(blueprint.store, table, ["image_id", *names])
        if not rows["image_id"].equals(ids):
            raise RunFailed(f"{table.folder} does not hold the test images; delete this folder and run again")
        return [np.asarray(rows[name].to_numpy()) for name in names]

    def each(tables: Iterable[tuple[ChunkedTable, Sequence[str]]]) -> Iterator[list[npt.NDArray[Any]]]:
        return read_ahead(columns, tables, blueprint.store.reads_ahead())

    clean, corrupted, adversarial = blueprint.clean(), blueprint.corrupted(), blueprint.all_adversarial()
    cells, attacks = blueprint.cells(), blueprint.experiment.all_attacks
    unattacked = each((own.table, ["prediction"]) for own in chain(clean.values(), corrupted.values()))
    predictions = [predicted for (predicted,) in unattacked]
    prediction = dict(zip(clean, predictions[: len(clean)], strict=True))
    predicted_corrupted = dict(zip(corrupted, predictions[len(clean) :], strict=True))
    names = {pair: _columns_of(attacks[pair[1]]) for pair in adversarial}
    towards, l2, ssim, gradients, passes = {}, {}, {}, {}, {}
    for pair, found in zip(names, each((adversarial[pair], own) for pair, own in names.items()), strict=True):
        by_name = dict(zip(names[pair], found, strict=True))
        l2[pair], ssim[pair] = by_name["l2"], by_name["ssim"]
        if "towards" in by_name:
            towards[pair] = by_name["towards"]
        if "gradients" in by_name:
            gradients[pair] = float(by_name["gradients"].astype(np.float64).mean())
        if "pass_rows" in by_name:
            passes[pair] = np.unique(by_name["pass_rows"]).tolist()
    wrong, hit = {}, {}
    for cell, (predicted,) in zip(cells, each((own.table, ["adversarial_prediction"]) for own in cells), strict=True):
        pair = (cell.surrogate, cell.attack)
        wrong[(*pair, cell.target)] = predicted != manifest.labels
        if pair in towards:
            hit[(*pair, cell.target)] = predicted == towards[pair]
    return Outcomes(manifest.labels, prediction, predicted_corrupted, wrong, hit, l2, ssim, gradients, passes)


def _columns_of(attack: AttackConfig | ForeignConfig | MadeElsewhere) -> list[str]:
    """What is read of the images of an attack. In a store that is far away each chunk costs a request."""
    found = ["l2", "ssim", *(["towards"] if attack.is_targeted else [])]
    if isinstance(attack, ForeignConfig):
        return [*found, "gradients"]
    return [*found, "pass_rows"] if isinstance(attack, AttackConfig) else found


def read_table(store: Store, table: ChunkedTable, columns: Sequence[str] | None) -> pa.Table:
    """Reads columns of a finished table, or all of them for None.

    Raises RunFailed, naming the folder, where it is damaged, lacks a column or holds a number that is not finite.
    """
    try:
        return table.read(store, columns)
    except (OSError, KeyError, pa.ArrowException) as problem:
        if isinstance(problem, OSError) and problem.errno is not None:
            raise  # the disk or the store failed, not the file
        message = f"{table.folder} is damaged ({reason_of(problem)}); delete this folder and run again"
        raise RunFailed(message) from problem
