"""An experiment of linear networks whose reasons are measured in this process, for the tests of them."""

from pathlib import Path
from typing import Any

from crafted_by_hand import crafted
from hand_made import HandMade

SAMPLE = 8
"""Of 12 test images, in chunks of 3."""


def reasoned(folder: Path, **changes: Any) -> HandMade:
    """The experiment of `hand_made` with reasons. One target, `squeezed`, is a JPEG that has no gradient."""
    models = HandMade(folder).content()["models"] | {"squeezed": {"wrap": "jpeg", "model": "stranger", "quality": 90}}
    settings = {"models": models, "targets": ["twin", "cousin", "squeezed"], "reasons": {"sample": SAMPLE}}
    return crafted(folder, **{**settings, "variants": {"warm": {"align": {"temperature": 16}}}, **changes})
