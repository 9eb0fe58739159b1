"""Attacks: one iterative loop made of four kinds of parts. The published methods are presets of it.

`transforms` change the image before its gradient is computed, `gradients` smooth the gradient, `updates` turn it into a
step, keep the image in the eps-ball and round it to 8 bits there, and `objectives` are the functions that the attack
maximises. `loop.craft` puts them together. `config` holds the settings and the presets, and does not import torch; nor
does this module until `craft` or `distances` is asked for. A new preset is a line in `config.PRESETS` and one in
`config.DESCRIPTIONS`.
"""

from typing import TYPE_CHECKING, Any

from align_core.attacks.config import OBJECTIVES, PRESETS, AttackConfig, pixel_fraction

if TYPE_CHECKING:
    from align_core.attacks.loop import craft, crafted, distances

__all__ = ["OBJECTIVES", "PRESETS", "AttackConfig", "craft", "crafted", "distances", "pixel_fraction"]


def __getattr__(name: str) -> Any:
    if name in ("craft", "crafted", "distances"):
        from align_core.attacks import loop

        return getattr(loop, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
