"""The settings of a trial, and how their values are shown."""

import json
from typing import Any

Settings = dict[str, Any]
"""The values of the searched keys, by their dotted names."""

WITNESSES = "witnesses"
"""The one searched key that is not below `align`."""


def label_of(value: Any) -> str:
    """Returns a value as one word, for tables, MLflow and Optuna: lists joined by `+`, the rest as unquoted JSON."""
    if isinstance(value, list):
        return "+".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value)
