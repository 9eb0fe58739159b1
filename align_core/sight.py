"""What source and teachers make of images, as the losses of an alignment ask for it."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from align_core.errors import InputError
from align_core.features import Taps, find_last_layer, find_map_layer
from align_core.losses import LOSSES, compares
from align_core.losses.seen import Seen
from align_core.models import predicting
from align_core.refinements.at import logits


class Sight(nn.Module):
    """A network in training with the projections of its features, as one module that can be made data-parallel.

    Args:
        source: the network.
        taps: on it; None where the losses compare logits alone.
        widths: for each teacher, the widths of the source's features and of its own, where a loss needs them equal.
    """

    def __init__(self, source: nn.Module, taps: Taps | None, widths: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.source, self.taps = source, taps
        self.projections = nn.ModuleList(
            nn.Identity() if own == other else nn.Linear(own, other) for own, other in widths
        )

    def forward(self, images_BCHW: Tensor) -> tuple[Tensor, list[Tensor], Tensor | None]:
        """Logits [B, K], the features [B, D] as each teacher's are compared with them, and logits at places."""
        logits_BK = logits(self.source, images_BCHW)
        if self.taps is None or self.taps.features_BD is None:
            return logits_BK, [], None
        # Data-parallel workers wait for a gradient of every parameter: the last layer gets one of 0 where no loss sees
        # the logits.
        nothing = 0 * logits_BK.sum()
        features_BD, places_BKHW = self.taps.features_BD + nothing, self.taps.places_BKHW
        if places_BKHW is not None:
            places_BKHW = places_BKHW + nothing
        return logits_BK, [project(features_BD) for project in self.projections], places_BKHW


def sight_of(
    source: nn.Module, teachers: Sequence[nn.Module], losses: Sequence[Mapping[str, Any]], image_1CHW: Tensor | None
) -> tuple[Sight, list[Taps | None]]:
    """The source as its losses see it, and the taps on each teacher.

    Projections are linear layers with a bias, on the source's side, as in the research code of Ma et al. (2024); they
    are drawn from torch's global random numbers.

    Args:
        image_1CHW: an image on which layers are found; needed where a loss sees more than logits.

    Raises InputError where a network has not what a loss compares.
    """
    if not compares(losses, "features") and not compares(losses, "places"):
        return Sight(source, None, []), [None for _ in teachers]
    if image_1CHW is None:
        raise ValueError("losses that compare features need the shape of the images")
    taps = [_taps_on(network, losses, image_1CHW) for network in (source, *teachers)]
    widths = [_width_of(own, image_1CHW) for own in taps]
    are_projected = any(LOSSES[own["name"]].projected for own in losses)
    pairs = [(widths[0], width if are_projected else widths[0]) for width in widths[1:]]
    return Sight(source, taps[0], pairs), list(taps[1:])


def taught(teacher: nn.Module, taps: Taps | None, images_BCHW: Tensor) -> Seen:
    """What a teacher makes of images, without a gradient."""
    with torch.no_grad():
        logits_BK = logits(teacher, images_BCHW)
    return Seen(logits_BK) if taps is None else Seen(logits_BK, taps.features_BD, taps.places_BKHW)


def _taps_on(network: nn.Module, losses: Sequence[Mapping[str, Any]], image_1CHW: Tensor) -> Taps:
    needing = next(own["name"] for own in losses if LOSSES[own["name"]].sees != "logits")
    try:
        with predicting(network):
            last = find_last_layer(network, image_1CHW)
            places = find_map_layer(network, image_1CHW) if compares(losses, "places") else ()
    except InputError as problem:
        raise InputError(f"loss {needing}: {problem}") from problem
    return Taps(network, last, *places)


def _width_of(taps: Taps, image_1CHW: Tensor) -> int:
    with torch.no_grad(), predicting(taps.network):
        logits(taps.network, image_1CHW)
    assert taps.features_BD is not None
    return taps.features_BD.shape[1]
