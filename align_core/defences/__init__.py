"""Defences: what a target does to an image before its network sees it.

Each is a function in a file of its name, which maps float pixels [B, C, H, W] in [0, 1] to such pixels of the same
shape, image by image, so that neither the batch nor the worker has any influence. One that draws random numbers gets a
key per image besides, made of a seed and the image's id: two versions of one image meet the same draw. `known` names
them with their settings. Nothing here imports torch until `defended` is called. A new defence is a file and a line in
`known`.

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


def defence_function(wrap: Wrap, place: int = 0) -> "Callable[..., Tensor]":
    """The function of a defence: float pixels [B, C, H, W] in [0, 1], and the ids of the B images, to such pixels.

    Without ids (None), one that draws random numbers raises ValueError. `place` is the number of the defence among
    several, whose draws are independent.
    """
    function: Callable[..., Tensor] = getattr(import_module(f"align_core.defences.{wrap.name}"), wrap.name)
    return partial(_drawn if DEFENCES[wrap.name].draws else _plain, function, wrap, place)


def defended(classifier: "Classifier", wraps: Sequence[Wrap]) -> "Classifier":
    """The classifier, changed in place: images go through these defences, one after the other, before anything else."""
    classifier.defences = tuple(defence_function(wrap, place) for place, wrap in enumerate(wraps))
    return classifier


def _plain(
    function: "Callable[..., Tensor]", wrap: Wrap, place: int, images_BCHW: "Tensor", ids: Sequence[str] | None = None
) -> "Tensor":
    return function(images_BCHW, **wrap.settings)


def _drawn(
    function: "Callable[..., Tensor]", wrap: Wrap, place: int, images_BCHW: "Tensor", ids: Sequence[str] | None = None
) -> "Tensor":
    from align_core.randomness import image_keys, part_keys

    if ids is None:
        raise ValueError(
            f"the defence {wrap.name} is drawn by image id: give the network the ids of the images too, as in "
            "network(images, ids)"
        )
    return function(images_BCHW, part_keys(image_keys(wrap.seed or 0, ids), place, wrap.name), **wrap.settings)
