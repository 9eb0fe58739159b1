"""What a network takes in memory, as `align_core.peak_memory` measures it. Nothing here imports torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class PassMemory:
    """Bytes that a kind of pass holds at its peak, beside the weights: some whatever the images, and some for each."""

    fixed: int
    per_image: int

    def of(self, images: int) -> int:
        """Bytes of a pass of so many images."""
        return self.fixed + images * self.per_image


@dataclass(frozen=True)
class Memory:
    """What a network takes in memory.

    Attributes:
        weights: bytes of its parameters and buffers.
        predicting: a pass without gradients.
        gradient: a pass and the gradient with respect to the pixels; None where none is taken, or it is not known.
        training: a step, with the gradients of the weights and the optimizer's state; None likewise.
    """

    weights: int
    predicting: PassMemory
    gradient: PassMemory | None = None
    training: PassMemory | None = None


def memory_from(written: Mapping[str, Any]) -> Memory:
    """What `dataclasses.asdict` made of a Memory. Raises KeyError, TypeError or ValueError for anything else."""
    passes = {name: _pass_from(written[name]) for name in ("predicting", "gradient", "training")}
    predicting = passes.pop("predicting")
    if predicting is None:
        raise ValueError("it does not say what predicting takes")
    return Memory(int(written["weights"]), predicting, **passes)


def _pass_from(written: Mapping[str, Any] | None) -> PassMemory | None:
    return None if written is None else PassMemory(int(written["fixed"]), int(written["per_image"]))
