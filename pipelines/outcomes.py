"""Finished tables as arrays: who was right on what. What the tables of the report are computed from."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from align_core.transfer import Flags
from pipelines.plan import SELF, Plan


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


def read_outcomes(plan: Plan) -> Outcomes:
    """Reads the finished tables. Raises ValueError where one does not hold exactly the test images."""
    manifest = plan.inspected.manifests["test"]
    ids = manifest.ids

    def column(table_ids: list[str], values: npt.NDArray[np.generic], folder: str) -> npt.NDArray[np.generic]:
        if table_ids != ids:
            raise ValueError(f"{folder}: does not hold the test images, each once and in order")
        return values

    prediction = {}
    for name, (_, table) in plan.clean().items():
        rows = table.read(plan.store, ["image_id", "prediction"])
        values = column(rows["image_id"].to_pylist(), rows["prediction"].to_numpy(), table.folder)
        prediction[name] = values.astype(np.int64)
    wrong = {}
    for cell in plan.cells():
        rows = cell.table.read(plan.store, ["image_id", "adversarial_prediction"])
        values = column(rows["image_id"].to_pylist(), rows["adversarial_prediction"].to_numpy(), cell.table.folder)
        wrong[cell.surrogate, cell.attack, cell.target] = values != manifest.labels
    l2 = {}
    for surrogate in plan.surrogates:
        for attack in plan.experiment.attacks:
            table = plan.adversarial(surrogate, attack)
            rows = table.read(plan.store, ["image_id", "l2"])
            values = column(rows["image_id"].to_pylist(), rows["l2"].to_numpy(), table.folder)
            l2[surrogate.name, attack] = values.astype(np.float32)
    return Outcomes(manifest.labels, prediction, wrong, l2)
