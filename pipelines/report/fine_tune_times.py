"""How long each surrogate took to be made, as its card has it: the rows `(fine-tune)` of times.csv."""

import math

from pipelines.experiment.surrogates import images_seen_by
from pipelines.report.rows import TimeRow
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.effects import steps_taken

FINE_TUNE = "(fine-tune)"
"""Stands in the column `attack`; no attack has brackets in its name."""


def fine_tune_times(blueprint: Blueprint) -> list[TimeRow]:
    """A row for each surrogate that is made here and whose card says how long that took."""
    images, rows = len(blueprint.inspected.manifests["train"]), list[TimeRow]()
    for surrogate in blueprint.surrogates:
        if surrogate.align is None:
            continue
        seconds = (blueprint.store.read_json(f"models/{surrogate.name}/card.json") or {}).get("seconds")
        if isinstance(seconds, float) and 0 < seconds < math.inf:
            seen = images_seen_by(surrogate, images, steps_taken(blueprint, surrogate.name))
            rows.append(
                {
                    "surrogate": surrogate.name,
                    "attack": FINE_TUNE,
                    "worker": "",
                    "gradients": None,
                    "images": seen,
                    "seconds": seconds,
                    "images_per_second": round(seen / seconds, 3),
                }
            )
    return rows
