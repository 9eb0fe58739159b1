"""The rules that find the class a targeted attack leads to."""

import hashlib

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from align_core.target_classes import least_likely_classes, next_classes, random_classes

LABELS = torch.tensor([0, 1, 2, 4, 4])


def test_next_is_the_class_after_the_label() -> None:
    assert next_classes(LABELS, 5).tolist() == [1, 2, 3, 0, 0]


@pytest.mark.parametrize("classes", [2, 3, 10, 1000])
def test_random_is_any_class_but_the_label_with_equal_probability(classes: int) -> None:
    count = 20_000
    labels = torch.arange(count) % classes
    drawn = random_classes(labels, [f"image {number}" for number in range(count)], classes, 0)
    assert ((drawn >= 0) & (drawn < classes) & (drawn != labels)).all()
    ahead = ((drawn - labels) % classes).numpy()
    assert classes == 2 or chisquare(np.bincount(ahead, minlength=classes)[1:]).pvalue > 1e-3


def test_random_depends_on_seed_and_id_alone() -> None:
    ids = [f"{number:05d}" for number in range(200)]
    labels = torch.arange(200) % 10
    together = random_classes(labels, ids, 10, 3)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    shuffled = random_classes(labels[order], [ids[place] for place in order.tolist()], 10, 3)
    assert torch.equal(shuffled, together[order])
    assert torch.equal(random_classes(labels[7:8], ids[7:8], 10, 3), together[7:8])
    assert (random_classes(labels, ids, 10, 4) != together).float().mean() > 0.7
    assert (random_classes(labels, [f"x{one}" for one in ids], 10, 3) != together).float().mean() > 0.7


def test_random_classes_are_those_of_the_generator_by_hand() -> None:
    """SplitMix64 in Python's own integers: the stored results of today must come out tomorrow."""

    def mixed(bits: int) -> int:
        bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) % 2**64
        return bits ^ (bits >> 31)

    def hashed(text: str) -> int:
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")

    expected = []
    for image_id, label in (("00000", 0), ("00001", 9), ("dog/a.png", 4)):
        key = mixed(hashed(f"7/{image_id}") ^ hashed("towards"))
        drawn = (mixed((key + 0x9E3779B97F4A7C15) % 2**64) & (2**63 - 1)) % 9
        expected.append(drawn + (drawn >= label))
    assert random_classes(torch.tensor([0, 9, 4]), ["00000", "00001", "dog/a.png"], 10, 7).tolist() == expected


def test_least_likely_is_the_smallest_logit_but_for_the_label() -> None:
    logits = torch.tensor([[-5.0, 1.0, -2.0], [3.0, -9.0, 0.0], [1.0, 1.0, 1.0]])
    assert least_likely_classes(logits, torch.tensor([0, 0, 0])).tolist() == [2, 1, 1]
    with pytest.raises(FloatingPointError, match="NaN"):
        least_likely_classes(logits.log(), torch.tensor([0, 0, 0]))
