"""Finished tables as arrays: who was right on what. What the tables of the report are computed from."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from align_core.transfer import Flags
from pipelines.failure import RunFailed
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.cells import SELF
from pipelines.storage.chunked_table import ChunkedTable


@dataclass(frozen=True)
class Outcomes:
    """All outcomes of an experiment over its N test images, in the order of their ids.

    Attributes:
        labels: int64 [N].
        prediction: name of a model or surrogate -> its clean predictions, int64 [N].
        wrong: (surrogate, attack, target) -> whether the target is wrong on the adversarial image, [N];
            target `@self` is the surrogate.
        l2: (surrogate, attack) -> l2 distances in pixel fractions, [N].
    """

    labels: npt.NDArray[np.int64]
    prediction: dict[str, npt.NDArray[np.int64]]
    wrong: dict[tuple[str, str, str], Flags]
    l2: dict[tuple[str, str], npt.NDArray[np.float32]]

    def right(self, name: str) -> Flags:
        """Whether `name` classifies each clean image correctly."""
        return np.asarray(self.prediction[name] == self.labels)

    def robust(self, surrogate: str, clean_name: str, attacks: list[str]) -> Flags:
        """Whether a surrogate is right on the clean image and under every one of its own attacks."""
        held = [~self.wrong[surrogate, attack, SELF] for attack in attacks]
        return np.asarray(np.logical_and.reduce([self.right(clean_name), *held]))


def read_outcomes(blueprint: Blueprint) -> Outcomes:
    """Reads the finished tables. Raises RunFailed where one is damaged, or does not hold exactly the test images."""
    manifest = blueprint.inspected.manifests["test"]

    def column(table: ChunkedTable, name: str) -> npt.NDArray[Any]:
        try:
            rows = table.read(blueprint.store, ["image_id", name])
        except pa.ArrowException as problem:
            raise RunFailed(f"{table.folder} is damaged ({problem}); delete this folder and run again") from problem
        if rows["image_id"].to_pylist() != manifest.ids:
            raise RunFailed(f"{table.folder} does not hold the test images; delete this folder and run again")
        return np.asarray(rows[name].to_numpy())

    prediction = {name: column(table, "prediction") for name, (_, table) in blueprint.clean().items()}
    wrong = {
        (cell.surrogate, cell.attack, cell.target): column(cell.table, "adversarial_prediction") != manifest.labels
        for cell in blueprint.cells()
    }
    l2 = {
        (surrogate.name, attack): column(blueprint.adversarial(surrogate, attack), "l2")
        for surrogate in blueprint.surrogates
        for attack in blueprint.experiment.attacks
    }
    return Outcomes(manifest.labels, prediction, wrong, l2)
