"""Defences: what a target does to an image before its network sees it.

Each is a function in a file of its name, which maps float pixels [B, C, H, W] in [0, 1] to such pixels of the same
shape, image by image, so that neither the batch nor the worker has any influence. `known` names them with their
settings. Nothing here imports torch until `defended` is called. A new defence is a file and a line in `known`.

None of them is differentiable in a useful way: they stand before networks that are predicted with, and never before
those that are crafted on or aligned.
"""

from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

from align_core.defences.known import DEFENCES, Wrap, read_wrap

if TYPE_CHECKING:
    from torch import Tensor

    from align_core.models import Classifier

__all__ = ["DEFENCES", "Wrap", "defence_function", "defended", "read_wrap"]


def defence_function(wrap: Wrap) -> "Callable[[Tensor], Tensor]":
    """The function of a defence, with its settings: float pixels [B, C, H, W] in [0, 1] to such pixels."""
    function: Callable[..., Tensor] = getattr(import_module(f"align_core.defences.{wrap.name}"), wrap.name)
    return partial(function, **wrap.settings)


def defended(classifier: "Classifier", wraps: Sequence[Wrap]) -> "Classifier":
    """The classifier, changed in place: images go through these defences, one after the other, before anything else."""
    classifier.defences = tuple(defence_function(wrap) for wrap in wraps)
    return classifier
