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
        reasons: a pass of the reasons, with a second derivative where they take one; None likewise.
        on_gpu: the same on a GPU, where attention is computed in its plain form, and what lives spreads no further.
    """

    weights: int
    predicting: PassMemory
    gradient: PassMemory | None = None
    training: PassMemory | None = None
    reasons: PassMemory | None = None
    on_gpu: "Memory | None" = None

    def on(self, device: str) -> "Memory":
        """What it takes on a kind of device."""
        return self if device == "cpu" or self.on_gpu is None else self.on_gpu


_OF_AN_EARLIER_VERSION = {"weights", "predicting", "gradient", "training"}


def memory_from(written: Mapping[str, Any]) -> Memory | None:
    """What `dataclasses.asdict` made of a Memory; None where an earlier version did, which saw less.

    Raises KeyError, TypeError or ValueError for anything else.
    """
    if written.keys() == _OF_AN_EARLIER_VERSION:
        return None
    passes = {name: _pass_from(written[name]) for name in ("predicting", "gradient", "training", "reasons")}
    predicting = passes.pop("predicting")
    if predicting is None:
        raise ValueError("it does not say what predicting takes")
    on_gpu = None if written["on_gpu"] is None else memory_from(written["on_gpu"])
    return Memory(int(written["weights"]), predicting, **passes, on_gpu=on_gpu)


def _pass_from(written: Mapping[str, Any] | None) -> PassMemory | None:
    return None if written is None else PassMemory(int(written["fixed"]), int(written["per_image"]))
