"""The settings of an early stop. Nothing here imports torch."""

from dataclasses import dataclass
from typing import Literal

from align_core.settings import Settings

_MOST = 10**9


@dataclass(frozen=True, kw_only=True)
class EarlyStopConfig(Settings):
    """When an alignment ends before its last step, and by what its weights are chosen. Raises ValueError.

    Args:
        by: what is measured on validation images: `agreement`, the share of predictions that are those of the
            witnesses; or `gain`, the rate at which attacks on the network fool the validation targets.
        every: steps between two checks; by default there is one at the end of every epoch. The last step has one, too.
        patience: number of checks in a row without a better one than before, after which it ends.
        attack: the name of the attack that is crafted, where it is by `gain`.
    """

    by: Literal["agreement", "gain"] = "agreement"
    every: int | None = None
    patience: int = 3
    attack: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("every", "patience"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= _MOST:
                raise ValueError(f"{name} must be from 1 to {_MOST:,}, not {value}")
        if self.by == "gain" and self.attack is None:
            raise ValueError("by gain, it needs an `attack`: the name of one of the experiment's")
        if self.by == "agreement" and self.attack is not None:
            raise ValueError(
                "by agreement, nothing is crafted; leave `attack` out (a variant: `attack: null`), or stop by gain"
            )
