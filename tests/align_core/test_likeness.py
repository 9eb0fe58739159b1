"""Loss and agreement before and after an alignment, against loops over numbers, and what is said of them."""

import copy
import math

import numpy as np
import pytest
import torch
from small_nets import assert_identical, cnn, random_batches, tensors_of
from torch import Tensor, nn

from align_core.align_config import AlignConfig, OptimizerConfig
from align_core.alignment import Alignment
from align_core.effect import Effect, Likeness, effect_from

BATCHES = [*random_batches(2, 1, 8, 8, classes=10), tuple(own[:3] for own in random_batches(1, 1, 8, 8, classes=10)[0])]


def logits(net: nn.Module, images: Tensor) -> list[list[float]]:
    alone = copy.deepcopy(net).eval()
    with torch.no_grad():
        return [alone(image[None])[0].tolist() for image in images]


def softmax(values: list[float], temperature: float) -> list[float]:
    exponentials = [math.exp(value / temperature) for value in values]
    return [own / sum(exponentials) for own in exponentials]


def by_hand(net: nn.Module, witnesses: list[nn.Module], temperature: float) -> tuple[float, float]:
    """Mean over images of the mean over witnesses of T^2 KL(witness || source), and the agreement in percent."""
    losses, same = [], []
    for images, _ in BATCHES:
        own = logits(net, images)
        for witness in witnesses:
            for mine, theirs in zip(own, logits(witness, images), strict=True):
                p, q = softmax(theirs, temperature), softmax(mine, temperature)
                losses.append(temperature**2 * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))
                same.append(np.argmax(mine) == np.argmax(theirs))
    return float(np.mean(losses)), 100 * float(np.mean(same))


@pytest.mark.parametrize("count", [1, 2])
def test_it_equals_the_loops_before_and_after(count: int) -> None:
    """Perturbed inputs, dropout, the weight of the loss and that of the labels play no part in it."""
    witnesses: list[nn.Module] = [cnn(7), cnn(8)][:count]
    optimizer = OptimizerConfig(lr=0.05)
    align = AlignConfig(temperature=3.0, weight=5.0, label_weight=1.0, inputs="random", optimizer=optimizer)
    alignment = Alignment(cnn(0), witnesses, align, total_steps=4, seed=0)
    for step in range(3):
        found = alignment.likeness(lambda: BATCHES)
        assert found is not None
        assert (found.loss, found.agreement) == pytest.approx(by_hand(alignment.source, witnesses, 3), rel=1e-4)
        alignment.step(*BATCHES[step % 2])


def test_several_losses_have_their_weights_and_features_are_compared() -> None:
    witness, source = cnn(7), cnn(0)
    align = AlignConfig(loss=["kl", {"name": "mse", "weight": 0.5}, {"name": "hint", "weight": 2.0}], temperature=1.0)
    found = Alignment(source, [witness], align, 1, 0, shape=(1, 8, 8)).likeness(lambda: BATCHES[:1])
    images = BATCHES[0][0]
    own, theirs = (torch.tensor(logits(net, images)) for net in (source, witness))
    features = [copy.deepcopy(net[:-1]).eval()(images).detach() for net in (source, witness)]
    expected = sum(
        sum(a * math.log(a / b) for a, b in zip(softmax(t, 1), softmax(s, 1), strict=True))
        for s, t in zip(own.tolist(), theirs.tolist(), strict=True)
    ) / len(images)
    expected += 0.5 * float(((own - theirs) ** 2).mean()) + 2 * float(((features[0] - features[1]) ** 2).mean())
    assert found is not None and found.loss == pytest.approx(expected, rel=1e-4)


def test_a_look_changes_nothing_of_the_training() -> None:
    def trained(looks: bool) -> Alignment:
        align = AlignConfig(keep={"name": "ema", "decay": 0.9}, batchnorm="frozen")
        alignment = Alignment(cnn(0), [cnn(7)], align, total_steps=2, seed=0)
        for batch in BATCHES[:2]:
            if looks:
                alignment.likeness(lambda: BATCHES, [cnn(3).state_dict(), cnn(4).state_dict()])
            alignment.step(*batch)
            assert alignment.source.training and not alignment.source[1].training
        return alignment

    plain, looked = trained(False), trained(True)
    assert_identical(looked.state(), plain.state())


def test_of_several_networks_it_is_the_mean() -> None:
    witness, nets = cnn(7), [cnn(3), cnn(4)]
    alignment = Alignment(cnn(0), [witness], AlignConfig(temperature=2.0), total_steps=1, seed=0)
    found = alignment.likeness(lambda: BATCHES, [tensors_of(net) for net in nets])
    expected = np.mean([by_hand(net, [witness], 2) for net in nets], axis=0)
    assert found is not None and (found.loss, found.agreement) == pytest.approx(tuple(expected), rel=1e-4)


def test_without_a_witness_or_with_a_loss_that_is_not_finite_there_is_none() -> None:
    on_labels = AlignConfig(weight=0.0, label_weight=1.0)
    assert Alignment(cnn(0), [], on_labels, total_steps=1, seed=0).likeness(lambda: BATCHES) is None
    broken = cnn(7)
    with torch.no_grad():
        broken[-1].bias[0] = math.nan
    assert Alignment(cnn(0), [broken], AlignConfig(), total_steps=1, seed=0).likeness(lambda: BATCHES) is None


@pytest.mark.parametrize(
    ("after", "reason"),
    [
        ((0.5, 81.0), None),
        ((0.5, 80.0), None),
        ((0.5, 79.8), None),
        ((0.5, 74.2), None),  # 100 images disagreed and 129 do: 1.96 times the root of 229 are 29.7
        ((0.5, 74.0), "fewer predictions agree than before"),
        ((1.0, 81.0), "its loss did not fall"),
        ((1.5, 70.0), "fewer predictions agree than before and its loss did not fall"),
    ],
)
def test_an_alignment_that_did_not_work_is_said(after: tuple[float, float], reason: str | None) -> None:
    effect = Effect(500, Likeness(1.0, 80.0), Likeness(*after))
    warning = effect.warning()
    if reason is None:
        assert warning is None
    else:
        assert warning is not None and f"did not work, because {reason}: {effect.line()}" in warning
    assert effect_from(effect.as_dict()) == effect


def test_where_all_agreed_before_little_was_to_be_learnt() -> None:
    stayed, fell = Effect(500, Likeness(1.0, 100.0), Likeness(1.0, 100.0)), Likeness(1.5, 90.0)
    assert "found little to learn" in str(stayed.warning()) and stayed.line() in str(stayed.warning())
    assert Effect(500, Likeness(1.0, 100.0), Likeness(0.9, 100.0)).warning() is None
    assert "did not work, because fewer predictions agree" in str(Effect(500, stayed.before, fell).warning())


@pytest.mark.parametrize("damaged", [None, {}, {"images": 3, "before": [], "after": {}}, {"images": "x"}, "text"])
def test_what_is_not_an_effect_is_none(damaged: object) -> None:
    assert effect_from(damaged) is None
