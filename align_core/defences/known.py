"""The defences there are, with their settings. Nothing here imports torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from align_core.bounds import Bound, nearest_of, read_numbers


class Wrap(NamedTuple):
    """One defence around a model: a name in `DEFENCES`, every setting of it, and what seeds its random numbers.

    The seed is None for a defence that draws none.
    """

    name: str
    settings: Mapping[str, Any]
    seed: int | None = None

    def seeded(self, seed: int) -> "Wrap":
        """The same defence, of which this seed and the images' ids decide the random numbers, if it draws any."""
        return self._replace(seed=seed if DEFENCES[self.name].draws else None)


@dataclass(frozen=True)
class Defence:
    """What a defence does, with its paper, the settings of the function in `<name>.py`, and whether it draws."""

    what: str
    settings: Mapping[str, Bound]
    draws: bool = False


DEFENCES: dict[str, Defence] = {
    "jpeg": Defence(
        "the image is stored as JPEG and read again (Guo et al., 1711.00117)", {"quality": Bound(75, 1, 100)}
    ),
    "bits": Defence(
        "pixels are rounded to 2^depth levels (feature squeezing; Xu et al., 1704.01155)", {"depth": Bound(5, 1, 8)}
    ),
    "median": Defence(
        "each pixel becomes the median of a square around it (feature squeezing; Xu et al., 1704.01155)",
        {"size": Bound(2, 2, 31)},
    ),
    "resize_pad": Defence(
        "the image is shrunk at random and placed at random on black (Xie et al., 1711.01991)",
        {"smallest": Bound(0.9, 0.01, 1)},
        draws=True,
    ),
}
"""Name of a wrap -> the defence. A new one is a line here and a file of its name."""


def read_wrap(name: str, written: Mapping[str, Any]) -> Wrap:
    """A defence with the settings that a file gives, and the defaults of the others.

    Raises ValueError, which says what to change, for a name or a setting that there is not, or a number out of range.
    """
    if name not in DEFENCES:
        raise ValueError(f"there is no wrap {name!r}; {nearest_of(name, DEFENCES)}")
    return Wrap(name, read_numbers(f"wrap {name}", written, DEFENCES[name].settings))
