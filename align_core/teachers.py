"""What a source is aligned to."""

from collections.abc import Sequence

from torch import nn

from align_core.align_config import AlignConfig
from align_core.models import copy_of
from align_core.refinements.parts import NEED_TEACHER


def teachers_of(source: nn.Module, witnesses: Sequence[nn.Module], align: AlignConfig) -> list[nn.Module]:
    """The frozen networks that the source is aligned to: the witnesses, or a copy of itself as it is now."""
    if not align.weight:
        return []
    if align.teacher == "source":
        return [copy_of(source)]
    if not witnesses and not align.label_weight:
        raise ValueError("there is nothing to learn from: no witness, and label_weight is 0")
    if not witnesses and any(own["name"] in NEED_TEACHER for own in align.terms):
        raise ValueError("terms: self_adversarial aligns the source to its teacher, and there is no witness")
    if not isinstance(align.over_witnesses, str) and len(align.over_witnesses) != len(witnesses):
        raise ValueError(
            f"over_witnesses has {len(align.over_witnesses)} weights, and there are {len(witnesses)} witnesses"
        )
    return list(witnesses)
