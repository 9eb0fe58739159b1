"""One iterative attack made of four kinds of parts; the named methods are presets of it.

`transforms`: what is done to the image before the gradient is taken. `gradients`: what is done to the gradient.
`updates`: how it becomes a step. `objectives`: what is climbed. `loop` puts them together.
"""

from align_core.attacks.config import PRESETS, AttackConfig, pixel_fraction
from align_core.attacks.loop import craft, distances

__all__ = ["PRESETS", "AttackConfig", "craft", "distances", "pixel_fraction"]
