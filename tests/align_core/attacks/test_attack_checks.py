"""Arguments of `craft` and `distances` that do not fit are refused with one sentence, before any gradient."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from align_core.attacks import AttackConfig, Others, craft, distances
from align_core.errors import InputError

IMAGES = torch.arange(24, dtype=torch.uint8).reshape(2, 3, 2, 2) * 10
GOOD_LABELS = torch.tensor([0, 2])
TARGETED = AttackConfig(method="logit", eps=8 / 255)
ADMIX = AttackConfig(method="admix", eps=8 / 255)
GOOD: dict[str, Any] = {
    "surrogate": nn.Sequential(nn.Flatten(), nn.Linear(12, 3)),
    "images_BCHW": IMAGES,
    "labels_B": GOOD_LABELS,
    "image_ids": ["a", "b"],
    "attack": AttackConfig(method="pgd", eps=8 / 255),
    "seed": 0,
}


class Pair(nn.Module):
    """Returns logits and something else, as torchvision's Inception does in train mode."""

    def forward(self, images: Tensor) -> Any:
        return images.flatten(1)[:, :3], images


def test_what_the_cases_change_is_accepted() -> None:
    assert craft(**GOOD).shape == IMAGES.shape
    assert craft(**GOOD | {"image_ids": np.array(["a", "b"])}).equal(craft(**GOOD))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images_BCHW": IMAGES / 255}, "images must be uint8, from 0 to 255, not float32: (pixels * 255).round()"),
        ({"images_BCHW": IMAGES.long()}, "images must be uint8, from 0 to 255, not int64"),
        ({"images_BCHW": IMAGES.numpy()}, "images must be a tensor of uint8 [B, C, H, W], not numpy.ndarray"),
        ({"images_BCHW": IMAGES[0]}, "images must be a batch [B, C, H, W] of at least one image, not of"),
        ({"images_BCHW": IMAGES[:0], "labels_B": torch.tensor([]).long(), "image_ids": []}, "at least one image"),
        ({"images_BCHW": IMAGES.permute(0, 2, 3, 1)}, "have their channels last; permute(0, 3, 1, 2)"),
        ({"labels_B": torch.tensor([0])}, "there are 2 images, and labels of shape (1,)"),
        ({"labels_B": torch.tensor([[0, 1, 2], [0, 1, 2]])}, "there are 2 images, and labels of shape (2, 3)"),
        ({"labels_B": torch.tensor([0.0, 1.0])}, "labels must be a tensor of int64, the numbers of classes, not float"),
        ({"labels_B": torch.tensor([0, 1]).int()}, "must be a tensor of int64, the numbers of classes, not int32"),
        ({"labels_B": [0, 1]}, "labels must be a tensor of int64, the numbers of classes, not list"),
        ({"labels_B": torch.tensor([0, 3])}, "must lie below the 3 classes of the surrogate's logits, and one is 3"),
        ({"labels_B": torch.tensor([0, -1])}, "labels are numbers of classes, from 0, and one is -1"),
        ({"labels_B": torch.tensor([0, 1], device="meta")}, "the images are on cpu and the labels on meta"),
        ({"image_ids": ["a"]}, "there are 2 images and 1 ids"),
        ({"image_ids": ["a", "a"]}, "image_ids: 'a' is given 2 times; images of one id would get the same noise"),
        ({"image_ids": "ab"}, "image_ids must be a list of texts"),
        ({"image_ids": (name for name in "ab")}, "image_ids must be a list of texts"),
        ({"image_ids": {"a", "b"}}, "image_ids must be a list of texts"),
        ({"image_ids": None}, "image_ids must be a list of texts"),
        ({"image_ids": [1, 2]}, "image_ids must be a list of texts"),
        ({"attack": {"method": "pgd"}}, "attack must be an AttackConfig or a ForeignConfig, not dict"),
        ({"seed": 0.5}, "seed must be a whole number, not 0.5"),
        ({"attack": AttackConfig(method="ti", eps=8 / 255, kernel=7)}, "kernel must be at most 5 for images of 2"),
        ({"attack": TARGETED}, "the attack leads towards a class (towards: next); give wanted_B"),
        ({"attack": TARGETED, "wanted_B": torch.tensor([0, 1])}, "1 images would be led to their own label"),
        (
            {"attack": TARGETED, "wanted_B": torch.tensor([1, 3])},
            "below the 3 classes of the surrogate's logits, and one",
        ),
        (
            {"attack": TARGETED, "wanted_B": torch.tensor([1])},
            "there are 2 images, and classes to lead to of shape (1,)",
        ),
        (
            {"wanted_B": torch.tensor([1, 1])},
            "leads away from the labels, and is given classes to lead to; set towards",
        ),
        ({"attack": ADMIX}, "admix mixes in other images of the image set; give others=Others(images, labels)"),
        ({"attack": ADMIX, "others": Others(IMAGES / 255, GOOD_LABELS)}, "the images to mix in must be uint8"),
        (
            {"attack": ADMIX, "others": Others(IMAGES[:, :, :1], GOOD_LABELS)},
            "are of shape (3, 1, 2), and the images of",
        ),
        ({"attack": ADMIX, "others": Others(IMAGES, GOOD_LABELS[:1])}, "labels of the images to mix in of shape (1,)"),
        (
            {"attack": AttackConfig(method="pgd_l2", eps=3.5)},
            "eps must be at most 3.464 in the l2 ball for images of 3",
        ),
        ({"surrogate": Pair()}, "the surrogate must return logits [2, K] for 2 images, not tuple"),
        ({"surrogate": nn.Flatten(0)}, "the surrogate must return logits [2, K] for 2 images, not (24,)"),
        ({"surrogate": nn.Linear(2, 2, device="meta")}, "the images are on cpu and the surrogate on meta"),
    ],
)
def test_a_batch_that_would_give_nonsense_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        craft(**{**GOOD, **changes})


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        (IMAGES, IMAGES / 255, "the images must be uint8"),
        (IMAGES / 255, IMAGES, "the adversarial images must be uint8"),
        (IMAGES, IMAGES[:1], "batches of shape (2, 3, 2, 2) and (1, 3, 2, 2) cannot be compared"),
    ],
)
def test_distances_are_of_equal_batches_of_8_bit_images(one: Tensor, other: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        distances(one, other)
