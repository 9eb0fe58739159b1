"""The alignment losses against scipy and by hand, and their mean over witnesses."""

import numpy as np
import pytest
import torch
from scipy import special, stats

from align_core.losses.known import read_loss
from align_core.losses.over_witnesses import over_witnesses
from align_core.losses.seen import Seen, load_loss

TEMPERATURES = [1.0, 4.0, 16.0]


def logits(seed, batch=6, classes=10, scale=5.0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(batch, classes)) * scale).float()


def kl(source, witness, temperature):
    """The loss of each image, averaged over the batch."""
    return over_witnesses([load_loss(read_loss("kl"), temperature)(Seen(source), Seen(witness))])


def kl_by_scipy(source, witness, temperature):
    """The mean over the batch of T^2 KL(witness || source), computed by scipy in float64."""
    p_witness, p_source = (special.softmax(x.double().numpy() / temperature, axis=1) for x in (witness, source))
    return np.mean([temperature**2 * stats.entropy(p, q) for p, q in zip(p_witness, p_source, strict=True)])


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_kl_is_scipys_from_witness_to_source(temperature):
    source, witness = logits(0), logits(1)
    assert kl(source, witness, temperature).item() == pytest.approx(kl_by_scipy(source, witness, temperature), rel=1e-5)
    assert kl_by_scipy(source, witness, temperature) != pytest.approx(
        kl_by_scipy(witness, source, temperature), rel=1e-2
    )


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_kl_of_one_image_does_not_depend_on_the_batch_but_for_the_mean(temperature):
    source, witness = logits(0), logits(1)
    alone = [kl(source[i : i + 1], witness[i : i + 1], temperature).item() for i in range(len(source))]
    assert kl(source, witness, temperature).item() == pytest.approx(np.mean(alone), rel=1e-5)


def test_kl_by_hand():
    # At T = 2 the witness predicts (3/4, 1/4) and the source (1/2, 1/2).
    source, witness = torch.tensor([[1.0, 1.0]]), torch.tensor([[2 * np.log(3), 0.0]])
    by_hand = 4 * (0.75 * np.log(1.5) + 0.25 * np.log(0.5))
    assert kl(source, witness, 2.0).item() == pytest.approx(by_hand, rel=1e-6)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_kl_is_zero_with_zero_gradient_where_the_predictions_are_equal(temperature):
    source = logits(0).requires_grad_()
    loss = kl(source, source.detach() + 3, temperature)  # adding a constant does not change a softmax
    (gradient,) = torch.autograd.grad(loss, source)
    assert loss.item() == pytest.approx(0, abs=1e-4)
    assert gradient.abs().max() < 1e-6


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_gradient_is_temperature_times_the_difference_of_the_softmaxes(temperature):
    source, witness = logits(0).requires_grad_(), logits(1)
    (gradient,) = torch.autograd.grad(kl(source, witness, temperature), source)
    p_source, p_witness = (
        special.softmax(x.detach().double().numpy() / temperature, axis=1) for x in (source, witness)
    )
    np.testing.assert_allclose(gradient.numpy(), temperature * (p_source - p_witness) / len(source), atol=1e-6)


def test_temperature_squared_keeps_the_size_of_the_gradient():
    source, witness = logits(0).requires_grad_(), logits(1)
    sizes = [torch.autograd.grad(kl(source, witness, t), source)[0].norm().item() for t in (50.0, 100.0)]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.05)


def test_several_witnesses_count_equally():
    source, first, second, third = (logits(seed) for seed in range(4))
    by_hand = np.mean([kl_by_scipy(source, witness, 4.0) for witness in (first, second, third)])
    losses = [load_loss(read_loss("kl"), 4.0)(Seen(source), Seen(own)) for own in (first, second, third)]
    assert over_witnesses(losses).item() == pytest.approx(by_hand, rel=1e-5)


def test_without_a_witness_the_loss_is_zero():
    nothing = over_witnesses([])
    assert nothing.item() == 0 and nothing.shape == () and nothing.dtype == torch.float32


def test_bf16_logits_give_the_float32_loss_of_their_values():
    source, witness = logits(0).bfloat16(), logits(1).bfloat16()
    loss = kl(source, witness, 4.0)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(kl_by_scipy(source.float(), witness.float(), 4.0), rel=1e-5)


def test_logits_of_two_shapes_are_refused_rather_than_broadcast():
    with pytest.raises(ValueError, match=r"logits of one shape \[B, K\], not \(4, 3\) and \(1, 3\)"):
        kl(torch.zeros(4, 3), torch.zeros(1, 3), 4.0)
