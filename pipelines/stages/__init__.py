"""What has to be made for an experiment, and the making of it.

An experiment and its inputs become a `Blueprint`, which says for every network and every table what determines it and
whether it is there. The stages then make what is missing: networks (`align`), adversarial images (`craft`), predictions
and outcomes (`evaluate`), and measures of what may explain the gains (`reasons`). Each writes to the store and returns
how much it made. Where to begin:

* `inspect`: looks at every image set (`inspect_images`; a large one, `inspect_large`), model (`inspect_models`,
  `inspect_published`), attack that is not ours (`inspect_attacks`) and set of adversarial images made elsewhere
  (`inspect_made`) once; `known` keeps what was found out, `file_hashes` tells which weights files have changed, and
  `sudden_ends` names a model whose code ends the process.
* `blueprint`: the whole experiment; `makings` and `cells` say what determines a network and a table, with `revisions`.
* `evaluations`: which predictions are made together, and kept in one file per chunk until their tables are finished.
* `measurings`: which reasons are measured of which surrogate, on which images, and what determines them.
* `payload`: what workers are sent; `cache_folder`: whether they can keep decoded images where they are to.
* `resizing`: which models resize the images; `notes`: everything that a command says before it computes.
* `align`, `craft`, `evaluate`, `reasons`: the stages themselves; `take_in` copies images that were made elsewhere;
  `speeds` records how fast they went for the forecast, and `saving` saves that, however the work ends.
"""

from typing import TYPE_CHECKING

from pipelines.exports import lazy_exports

if TYPE_CHECKING:
    from pipelines.stages.align import make_networks as make_networks
    from pipelines.stages.blueprint import Blueprint as Blueprint
    from pipelines.stages.cells import Cell as Cell
    from pipelines.stages.cells import Predictions as Predictions
    from pipelines.stages.craft import craft_all as craft_all
    from pipelines.stages.evaluate import evaluate_all as evaluate_all
    from pipelines.stages.inspect import Inspected as Inspected
    from pipelines.stages.inspect import inspect_inputs as inspect_inputs
    from pipelines.stages.makings import Making as Making

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "align": ("make_networks",),
        "blueprint": ("Blueprint",),
        "cells": (
            "Cell",
            "Predictions",
        ),
        "craft": ("craft_all",),
        "evaluate": ("evaluate_all",),
        "inspect": (
            "Inspected",
            "inspect_inputs",
        ),
        "makings": ("Making",),
    },
)
