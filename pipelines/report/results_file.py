"""What has to be in a results.json so that its experiment can be compared with others."""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ValidationError, model_validator

_NAMES = ("surrogate", "attack", "target")
_NUMBERS = ("rate", "rate_low", "rate_high", "gain", "gain_low", "gain_high")


class _Roles(BaseModel):
    sources: list[str]
    targets: list[str]


class _ImageSet(BaseModel):
    hash: str
    count: int


class _ImageSets(BaseModel, extra="allow"):
    __pydantic_extra__: dict[str, _ImageSet]
    test: _ImageSet


class _Settings(BaseModel):
    attacks: dict[str, dict[str, Any]]
    models: dict[str, dict[str, Any]]
    compute: dict[str, Any] = {}


class _Transfer(BaseModel):
    columns: list[str]
    rows: list[list[str | int | float | None]]

    @model_validator(mode="after")
    def _check_cells(self) -> Self:
        """Every row has a cell for each column; those of names are texts, and those of rates and gains are none."""
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError("a row has more or fewer cells than there are columns")
        for name, is_text in (*((name, True) for name in _NAMES), *((name, False) for name in _NUMBERS)):
            place = self.columns.index(name)  # raises ValueError where there is no such column
            if any(isinstance(row[place], str) != is_text for row in self.rows):
                raise ValueError(f"{name} has a cell of another kind")
        return self


class _Tables(BaseModel):
    transfer: _Transfer


class _Results(BaseModel):
    experiment: str
    warning: str | None
    roles: _Roles
    images: _ImageSets
    weights: dict[str, str | None]
    versions: dict[str, str]
    settings: _Settings
    tables: _Tables


def unsound_key(results: Mapping[str, Any]) -> str | None:
    """The first key, with dots, that is missing or whose content is not of its kind; None where all is sound."""
    try:
        _Results.model_validate(results)
    except ValidationError as problem:
        return ".".join(map(str, problem.errors()[0]["loc"]))
    return None
