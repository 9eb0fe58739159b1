"""Names in an experiment file: which are allowed, and which have a meaning in every experiment."""

import re
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator

from align_core.settings import described

Control = Literal["label_only", "witness", "ensemble", "aligned_ensemble"]
"""The controls: surrogates that need no alignment to a witness, and that a gain has to be compared with."""

RELATIONS = ("same_architecture", "same_family", "cross_family")
"""How a target may be related to the source; the tables have a mean over the targets of each relation."""

RESERVED_NAMES = {"source", "aligned", "mean", *get_args(Control)}
"""Names of surrogates in every experiment; `mean` stands for the row over all targets in MLflow's keys."""

EXTERNAL = "external"
"""The surrogate to which images that were made elsewhere belong. Without such images, it is a name as any other."""

RESERVED_ATTACKS = {"mean", "all"}
"""Names of no attack: they stand for rows over all targets, and over all attacks, in the tables and MLflow's keys."""

RESERVED_GROUPS = {"mean", "all_targets", "surrogate", "attack", *RELATIONS}
"""Names of no group of targets: beside the means over relations, `(mean mean)` would be taken for the mean over all
targets, and the others head columns of the table of gains."""

RESERVED_STARTS = ("source-", "witness-", "label_only-", "ensemble-")
"""How the names of sources, of witnesses and of controls begin, where an experiment has several."""

MLFLOW_NAMES = ("mlflow.db", "mlartifacts")
"""MLflow's default store in the output folder, where each experiment has a folder of its name."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def check_name(name: str) -> str:
    """Returns the name. Raises ValueError if it cannot be part of a path and of MLflow's keys."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is no name here: use letters, digits, '_', '-' and '.' alone, a letter or digit first, and at "
            "most 100 of them"
        )
    return name


Name = Annotated[str, AfterValidator(check_name)]
"""The type of a name in a file: a string that `check_name` accepts."""


def _surrogate_of_budget(budget: Any) -> Any:
    if budget is None or isinstance(budget, str):
        return budget
    raise ValueError(
        f"must be the name of a surrogate, of whose passes this one takes as many, such as aligned, not "
        f"{described(budget)}; a number of steps is align.limit_steps"
    )


def _pair(names: list[str]) -> list[str]:
    if len(names) != 2:
        raise ValueError(f"must be a pair of names of surrogates, such as [aligned, source], not {len(names)} names")
    return names


Budgeted = Annotated[str | None, BeforeValidator(_surrogate_of_budget)]
"""The name of the surrogate whose budget another one has, where it has one."""

Pair = Annotated[list[str], AfterValidator(_pair)]
"""Two surrogates that are compared."""
