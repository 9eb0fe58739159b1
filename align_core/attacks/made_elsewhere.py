"""The settings of adversarial images that were made elsewhere: an attack whose results alone are known."""

from copy import copy
from dataclasses import dataclass
from typing import Any, Self

from align_core.attacks.lengths import NORMS, check_lengths, check_radius, pixel_fraction
from align_core.settings import Settings

_TOWARDS = ("away", "column")


@dataclass(frozen=True, kw_only=True)
class MadeElsewhere(Settings):
    """Adversarial images that another program made of the test images, in a ball around them.

    It answers to those questions of an `AttackConfig` that it can answer. Raises ValueError for values out of range.

    Args:
        images: a folder of picture files or of Parquet files, or a file Parquet, npz or npy; see
            `align_core.made_images`.
        eps: radius of the ball, as in `AttackConfig`, in which all of them must lie. Text such as "4/255" is turned
            into a number.
        norm: of the ball: `linf` or `l2`.
        towards: `away` from the label; or `column`: the images were led to the classes that the image set lists.
        compare_with: the attack, on the original source, with which their gain is measured; None for no gain.
        source: the model that is this source, where there are several, as in a matrix.
    """

    images: str
    eps: float
    norm: str = "linf"
    towards: str = "away"
    compare_with: str | None = None
    source: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.eps, str):
            object.__setattr__(self, "eps", pixel_fraction(self.eps))
        super().__post_init__()
        for name, known in (("norm", NORMS), ("towards", _TOWARDS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, not {getattr(self, name)}")
        check_lengths(self.eps, self.eps, self.norm)

    @property
    def is_targeted(self) -> bool:
        """Whether the images were led towards a class, rather than away from the label."""
        return self.towards != "away"

    @property
    def deciding(self) -> dict[str, Any]:
        """The settings that decide the stored images, beside the hash of the images, which who reads them adds."""
        return {"eps": self.eps, "norm": self.norm, "towards": self.towards}

    def for_images(self, channels: int, side: int) -> Self:
        """The same, for square images of this size. Raises InputError for a radius that does not suit them."""
        check_radius(self.eps, self.norm, channels, side)
        return copy(self)
