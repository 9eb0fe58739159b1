"""The objectives that an attack maximises, by hand and against scipy."""

import numpy as np
import pytest
import scipy.special
import torch
from attack_setting import linear

from align_core.attacks import AttackConfig, craft
from align_core.attacks.objectives import objective_function
from align_core.attacks.parts import read_objective

LOGITS = torch.tensor([[3.0, 1.0, 2.5], [3.0, 1.0, 2.5], [-4.0, -4.0, -9.0]])
LABELS, WANTED = torch.tensor([0, 1, 2]), torch.tensor([1, 2, 0])


def values(name: str, wanted: torch.Tensor | None = None, **settings: float) -> list[float]:
    objective = objective_function(read_objective({"name": name, **settings}))
    found: list[float] = objective(LOGITS, LABELS, wanted).tolist()
    return found


def test_the_objective_decides_the_direction() -> None:
    # Class 1 has the larger logit and grows with the pixel. Class 2 is close behind it and falls steeply.
    net = linear([[0.0], [1.0], [-10.0]], [0.0, 1.0, 0.9])
    image = torch.full((1, 1, 1, 1), 10, dtype=torch.uint8)
    for objective, expected in (("margin", 12), ("cross_entropy", 8)):
        attack = AttackConfig(method="fgsm", eps=2 / 255, objective=objective)
        assert craft(net, image, torch.tensor([0]), ["a"], attack, seed=0).item() == expected


def test_margin_by_hand() -> None:
    assert values("margin") == [-0.5, 2.0, 5.0]
    assert values("margin", WANTED) == [-2.0, -0.5, 0.0]


def test_logit_by_hand() -> None:
    assert values("logit") == [-3.0, -1.0, 9.0]
    assert values("logit", WANTED) == [1.0, 2.5, -4.0]


@pytest.mark.parametrize(
    ("name", "settings", "heat"), [("cross_entropy", {}, 1), ("logit_margin", {"temperature": 2.0}, 2)]
)
def test_cross_entropy_is_per_image(name: str, settings: dict[str, float], heat: float) -> None:
    expected = -scipy.special.log_softmax(LOGITS.double().numpy() / heat, axis=1)
    np.testing.assert_allclose(values(name, **settings), expected[range(3), LABELS], rtol=1e-5)
    np.testing.assert_allclose(values(name, WANTED, **settings), -expected[range(3), WANTED], rtol=1e-5)


def test_probability_is_that_of_the_class() -> None:
    expected = scipy.special.softmax(LOGITS.double().numpy(), axis=1)
    np.testing.assert_allclose(values("probability"), -expected[range(3), LABELS], rtol=1e-5)
    np.testing.assert_allclose(values("probability", WANTED), expected[range(3), WANTED], rtol=1e-5)


@pytest.mark.parametrize(("name", "heat"), [("cross_entropy", 1), ("logit_margin", 5)])
@pytest.mark.parametrize("wanted", [None, torch.tensor([0])])
def test_a_confident_image_keeps_its_gradient(name: str, heat: float, wanted: torch.Tensor | None) -> None:
    """The usual form loses the class's half once its probability rounds to 1, and the attack its direction.

    The class leads by 40 nats. In exact arithmetic its gradient is minus the sum of all others.
    """
    objective = objective_function(read_objective(name))
    logits = (heat * torch.tensor([[50.0, 0.0, 10.0]])).requires_grad_()
    (gradient,) = torch.autograd.grad(objective(logits, torch.tensor([0]), wanted).sum(), logits)
    assert gradient[0, 0] != 0
    assert gradient[0, 0].item() == pytest.approx(-float(gradient[0, 1:].sum()), rel=1e-5)


def test_po_trip_by_hand() -> None:
    """Logits (3, -1), led from class 0 to class 1: the point is (3/4, -1/4), the goal (0, 1 - 1e-5)."""
    objective = objective_function(read_objective({"name": "po_trip", "weight": 0.5}))
    value = objective(torch.tensor([[3.0, -1.0]], dtype=torch.float64), torch.tensor([0]), torch.tensor([1])).item()
    goal = 1 - 1e-5
    theta = 2 * (0.75**2 + (0.25 + goal) ** 2) / ((1 - 0.75**2 - 0.25**2) * (1 - goal**2))
    assert value == pytest.approx(-np.arccosh(1 + theta) - 0.5 * (3 / 10**0.5 - 1 / 10**0.5 + 0.007), rel=1e-9)
