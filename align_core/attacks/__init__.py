"""Attacks: one iterative loop made of parts. The published methods are presets of it.

`views` change the image before its gradient is taken, `samples` combine the gradients at several points, `objectives`
are what the attack maximises, `gradients` smooth, `updates` turn a gradient into a step, keep the image in the ball and
round it to 8 bits there. `loop.craft` puts them together. `parts` names them with their settings, `presets` has the
published methods, `config` the settings of an attack. `foreign` runs attacks that are not ours, with settings of
their own (`foreign_config`), and `made_elsewhere` has those of images that another program made. None of the settings
imports torch, nor does this module until `craft` or `distances` is asked for. A new view, rule or objective is a file
of its name and a line in `parts`; a new method is an entry in `presets`.
"""

from typing import TYPE_CHECKING, Any

from align_core.attacks.config import PASS_ROWS, TOWARDS, AttackConfig, kernel_for
from align_core.attacks.foreign_config import ForeignConfig
from align_core.attacks.lengths import NORMS, pixel_fraction
from align_core.attacks.made_elsewhere import MadeElsewhere
from align_core.attacks.parts import OBJECTIVES, RULES, VIEWS
from align_core.attacks.presets import PRESETS

if TYPE_CHECKING:
    from align_core.attacks.loop import Crafted, craft, crafted, distances
    from align_core.attacks.others import Others

__all__ = [
    "NORMS", "OBJECTIVES", "PASS_ROWS", "PRESETS", "RULES", "TOWARDS", "VIEWS", "AttackConfig", "Crafted",
    "ForeignConfig", "MadeElsewhere", "Others", "craft", "crafted", "distances", "kernel_for", "pixel_fraction",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in ("Crafted", "craft", "crafted", "distances"):
        from align_core.attacks import loop

        return getattr(loop, name)
    if name == "Others":
        from align_core.attacks.others import Others

        return Others
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
