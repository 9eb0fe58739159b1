"""One iterative attack made of four kinds of parts; the named methods are presets of it.

`transforms`: what is done to the image before the gradient is taken. `gradients`: what is done to the gradient.
`updates`: how it becomes a step. `objectives`: what is climbed. `loop` puts them together, and `config` names them
without importing torch.
"""

from typing import TYPE_CHECKING, Any

from align_core.attacks.config import OBJECTIVES, PRESETS, AttackConfig, pixel_fraction

if TYPE_CHECKING:
    from align_core.attacks.loop import craft, distances

__all__ = ["OBJECTIVES", "PRESETS", "AttackConfig", "craft", "distances", "pixel_fraction"]


def __getattr__(name: str) -> Any:
    if name in ("craft", "distances"):
        from align_core.attacks import loop

        return getattr(loop, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
