"""How alike two networks are, and the orthogonal share: against numpy and cases computed by hand."""

import math

import numpy as np
import pytest
import torch

from align_core.errors import InputError
from align_core.losses.kl import kl
from align_core.losses.seen import Seen
from align_core.reasons import cosine, orthogonal_share, prediction_divergence, top1_agreement


def test_the_cosine_is_that_of_numpy() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 5, 3, 4, 4))
    expected = [
        np.dot(a.ravel(), b.ravel()) / np.sqrt((a**2).sum() * (b**2).sum()) for a, b in zip(one, other, strict=True)
    ]
    found = cosine(torch.from_numpy(one), torch.from_numpy(other))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(
        orthogonal_share(torch.from_numpy(one), torch.from_numpy(other)).numpy(), 1 - np.square(expected), rtol=1e-12
    )


def test_by_hand() -> None:
    gradient = torch.tensor([[2.0, 0.0], [1.0, 1.0], [0.0, -3.0]]).view(3, 1, 1, 2)
    perturbation = torch.tensor([[-5.0, 0.0], [1.0, 0.0], [7.0, 0.0]]).view(3, 1, 1, 2)
    torch.testing.assert_close(cosine(perturbation, gradient), torch.tensor([-1.0, 0.5**0.5, 0.0]).double())
    torch.testing.assert_close(orthogonal_share(perturbation, gradient), torch.tensor([0.0, 0.5, 1.0]).double())


def test_length_does_not_matter_and_zero_gives_a_blank() -> None:
    one = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(cosine(one, 1e-35 * one), torch.ones(3).double())
    assert torch.equal(cosine(one, one).round(decimals=12), torch.ones(3).double())
    one[1] = 0
    for found in (cosine(one, one), orthogonal_share(one, torch.ones_like(one))):
        assert found.isnan().tolist() == [False, True, False]


def test_random_directions_are_orthogonal_up_to_one_over_the_pixels() -> None:
    generator = torch.Generator().manual_seed(0)
    one, other = torch.randn(2, 2000, 1, 4, 5, generator=generator)
    assert orthogonal_share(one, other).mean().item() == pytest.approx(1 - 1 / 20, abs=0.006)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_divergence_is_the_sum_of_its_definition(temperature: float) -> None:
    rng = np.random.default_rng(0)
    witness, own = rng.normal(size=(2, 6, 5)) * 3
    p, q = (np.exp(z / temperature) / np.exp(z / temperature).sum(axis=1, keepdims=True) for z in (witness, own))
    found = prediction_divergence(torch.from_numpy(witness), torch.from_numpy(own), temperature)
    np.testing.assert_allclose(found.numpy(), (p * np.log(p / q)).sum(axis=1), rtol=1e-10)
    loss = kl(Seen(torch.from_numpy(own)), Seen(torch.from_numpy(witness)), temperature)
    np.testing.assert_allclose(found.numpy() * temperature**2, loss.numpy(), rtol=1e-4)


def test_equal_networks_agree_wholly() -> None:
    logits = torch.randn(50, 10, generator=torch.Generator().manual_seed(0)) * 30
    found = prediction_divergence(logits, logits + 5.0)
    assert (found >= 0).all() and (found < 1e-6).all()
    assert top1_agreement(logits, 2 * logits).all()


def test_saturated_predictions_have_a_finite_divergence() -> None:
    sure, other = torch.tensor([[500.0, 0.0]]), torch.tensor([[0.0, 500.0]])
    assert prediction_divergence(sure, other).item() == pytest.approx(500.0)
    assert prediction_divergence(sure, torch.zeros(1, 2)).item() == pytest.approx(math.log(2))


def test_first_classes_by_hand() -> None:
    one, other = torch.tensor([[1.0, 2.0], [2.0, 1.0]]), torch.tensor([[0.0, 9.0], [1.0, 3.0]])
    assert top1_agreement(one, other).tolist() == [True, False]


def test_what_is_not_finite_or_does_not_fit_is_refused() -> None:
    fine, broken = torch.zeros(2, 3), torch.zeros(2, 3)
    broken[1, 2] = torch.inf
    for pair in ((fine, broken), (broken, fine)):
        for measure in (prediction_divergence, top1_agreement):
            with pytest.raises(FloatingPointError, match=r"not finite in 1 rows: \[1\]"):
                measure(*pair)
    with pytest.raises(InputError, match="of one shape"):
        top1_agreement(fine, fine[:1])
    with pytest.raises(InputError, match="of one shape"):
        cosine(torch.zeros(2, 1, 2, 2), torch.zeros(2, 1, 4, 4))
    with pytest.raises(InputError, match="at least two classes"):
        prediction_divergence(fine[:, :1], fine[:, :1])
    for temperature in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="temperature"):
            prediction_divergence(fine, fine, temperature)
