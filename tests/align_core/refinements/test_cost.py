"""What a refinement is said to cost, against passes that hooks count, and the networks that it leaves."""

from typing import Any

import pytest
import torch
from small_nets import random_batches
from torch import nn

from align_core.align_config import AlignConfig, align_config_of
from align_core.alignment import Alignment
from align_core.models import Classifier
from align_core.refinements import REFINEMENTS, laid_over
from align_core.refinements.cost import networks_kept, passes_per_image

SHAPE = (3, 8, 8)
HAS_SECOND_DERIVATIVES = ("dra", "input_gradient")  # whose passes back are not counted by hooks


class Counting(nn.Module):
    """A network for images of 8 x 8 pixels that counts its passes forward, and those back to its first feature map."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.last = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU()), nn.Linear(4, 5)
        self.forwards = self.backwards = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.forwards += 1
        found = self.first(images)
        if found.requires_grad:
            found.register_hook(self._count)
        logits: torch.Tensor = self.last(found.mean(dim=(2, 3)))
        return logits

    def _count(self, gradient: torch.Tensor) -> None:
        self.backwards += 1


@pytest.mark.parametrize("name", REFINEMENTS)
def test_one_step_costs_what_is_stated(name: str) -> None:
    align = align_config_of(laid_over(REFINEMENTS[name].settings, {"batch_size": 8}))
    source, witnesses = Counting(0), [Counting(1), Counting(2)]
    teachers = [Classifier(own, (0.0,) * 3, (1.0,) * 3) for own in witnesses]
    classifier = Classifier(source, (0.0,) * 3, (1.0,) * 3)
    alignment = Alignment(classifier, teachers, align, total_steps=2, seed=0, shape=SHAPE)
    own = [alignment.source, *alignment.witnesses]
    counted = [network.net for network in own]
    for network in counted:
        network.forwards = network.backwards = 0  # finding the layers took passes, too
    alignment.step(*random_batches(1, *SHAPE, classes=5)[0])
    expected = passes_per_image(align, 2)
    assert sum(network.forwards for network in counted) == expected.forward
    if name not in HAS_SECOND_DERIVATIVES:
        assert sum(network.backwards for network in counted) == expected.backward


@pytest.mark.parametrize(
    ("keep", "epochs", "steps"),
    [
        ({"name": "collect", "per_epoch": 4}, 2, None),
        ({"name": "collect", "per_epoch": 2}, 3, 5),
        ({"name": "collect", "per_epoch": 9}, 1, None),  # more often than there are steps
        ({"name": "collect", "per_epoch": 1}, 1, 1),  # none is gathered, and the last weights are kept
        ({"name": "swag", "per_epoch": 2, "samples": 3}, 1, None),
        ("swa", 1, None),
        ("last", 1, None),
    ],
)
def test_as_many_networks_as_stated_are_left(keep: Any, epochs: int, steps: int | None) -> None:
    align = AlignConfig(weight=0.0, label_weight=1.0, keep=keep, epochs=epochs, limit_steps=steps, batch_size=8)
    images = 26  # three steps an epoch
    alignment = Alignment(Counting(0), [], align, align.steps(images), seed=0, steps_per_epoch=3, shape=SHAPE)
    batches = random_batches(align.steps(images), *SHAPE, classes=5)
    for batch in batches:
        alignment.step(*batch)
    found = alignment.networks(lambda: [own for own, _ in batches])
    assert len(found) == networks_kept(align, images)
