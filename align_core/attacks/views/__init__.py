"""Views: what is done to an image before its gradient is taken. A file holds one view, the function of its own name.

A view takes `Rows`, a batch of copies, and returns images of the same shape. It draws from the keys of its rows alone,
so that no copy depends on the others in the batch, and it is differentiable.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple

import torch
from torch import Tensor

from align_core.attacks.others import Others
from align_core.randomness import numbered_keys, part_keys


class Rows(NamedTuple):
    """Copies of images, as a view is given them.

    Args:
        images_NCHW: float pixels, which may lie outside of [0, 1].
        keys_N: a random key for each, int64.
        copies_N: the number of each among the copies of its image, from 0, int64.
        copies: how many copies the view makes.
        labels_N: the label of each.
        unit: eps in the l-infinity ball; in the l2 ball what eps is per pixel.
        others: images to mix in, or None.
        objective: what the attack maximises, of images [N, C, H, W] of these rows: float [N].
    """

    images_NCHW: Tensor
    keys_N: Tensor
    copies_N: Tensor
    copies: int
    labels_N: Tensor
    unit: float
    others: Others | None
    objective: Callable[[Tensor], Tensor]


ViewFunction = Callable[..., Tensor]


def view_function(name: str) -> ViewFunction:
    """The function of a view, from the file of its name."""
    function: ViewFunction = getattr(import_module(f"{__name__}.{name}"), name)
    return function


def seen_through(views: Sequence[Mapping[str, Any]], first: Rows, numbers: range, again: Callable[..., Any]) -> Rows:
    """The copies of images [P, C, H, W] that the views make, one view after the other: rows [P * copies].

    Args:
        views: as `parts.read_view` returns them.
        first: the images; `copies` and `copies_N` of it are not looked at.
        numbers: the copies that the first view makes, of `range(copies)`.
        again: given the number of copies of each image so far, returns the objective of rows of that many copies.
    """
    rows, made = first, 1
    for place, view in enumerate(views):
        wanted = numbers if place == 0 else range(view["copies"])
        made *= len(wanted)
        rows = _copied(rows, wanted, view["copies"], f"{place}/{view['name']}", again(made))
        settings = {key: value for key, value in view.items() if key not in ("name", "copies")}
        rows = rows._replace(images_NCHW=view_function(view["name"])(rows, **settings))
    return rows


def _copied(rows: Rows, numbers: range, copies: int, part: str, objective: Callable[[Tensor], Tensor]) -> Rows:
    """Each row as often as there are numbers, one after the other, with keys of their own."""
    images_NCHW, count = rows.images_NCHW, len(rows.keys_N)
    number_M = torch.arange(numbers.start, numbers.stop, device=rows.keys_N.device)
    keys_NM = numbered_keys(part_keys(rows.keys_N, 0, part)[:, None], number_M)
    return rows._replace(
        images_NCHW=images_NCHW[:, None].expand(-1, len(numbers), -1, -1, -1).flatten(0, 1),
        keys_N=keys_NM.flatten(),
        copies_N=number_M.expand(count, -1).flatten(),
        copies=copies,
        labels_N=rows.labels_N[:, None].expand(-1, len(numbers)).flatten(),
        objective=objective,
    )
