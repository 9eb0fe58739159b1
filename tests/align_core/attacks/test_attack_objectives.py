"""The objectives that an attack maximises."""

import numpy as np
import scipy.special
import torch
from attack_setting import linear

from align_core.attacks import AttackConfig, craft
from align_core.attacks.objectives import cross_entropy, margin


def test_the_objective_decides_the_direction():
    # Class 1 has the larger logit and grows with the pixel. Class 2 is close behind it and falls steeply.
    net = linear([[0.0], [1.0], [-10.0]], [0.0, 1.0, 0.9])
    image = torch.full((1, 1, 1, 1), 10, dtype=torch.uint8)
    for objective, expected in (("margin", 12), ("cross_entropy", 8)):
        attack = AttackConfig(method="fgsm", eps=2 / 255, objective=objective)
        assert craft(net, image, torch.tensor([0]), ["a"], attack, seed=0).item() == expected


def test_margin_by_hand():
    logits = torch.tensor([[3.0, 1.0, 2.5], [3.0, 1.0, 2.5], [-4.0, -4.0, -9.0]])
    assert margin(logits, torch.tensor([0, 1, 2])).tolist() == [-0.5, 2.0, 5.0]


def test_cross_entropy_is_per_image():
    logits, labels = torch.tensor([[3.0, 1.0, 2.5], [0.0, -2.0, 4.0]]), torch.tensor([1, 2])
    expected = -scipy.special.log_softmax(logits.double().numpy(), axis=1)[[0, 1], labels]
    np.testing.assert_allclose(cross_entropy(logits, labels), expected, rtol=1e-5)
