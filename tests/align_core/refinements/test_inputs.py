"""Perturbed inputs: PGD and noise against loops written out, within their balls, and without a trace on the network."""

import pytest
import torch
from looks import at_of, grey, linear, losses_of, partly_evaluated, pixels, watched
from small_nets import cnn
from torch import Tensor, nn
from torch.nn import functional as F

from align_core.models import predicting
from align_core.refinements.at import gradient_in, within
from align_core.refinements.pgd import pgd
from align_core.refinements.pgd_l2 import pgd_l2
from align_core.refinements.random import random

EPS, STEP = 8 / 255, 2 / 255


class TestRandom:
    def test_is_even_noise_within_the_ball(self) -> None:
        middle = torch.full((40, 3, 16, 16), 0.5)
        noise = random(at_of(nn.Identity(), middle, torch.zeros(40)), EPS) - middle
        assert noise.abs().max() <= EPS + 1e-7 and noise.abs().max() > 0.99 * EPS
        assert noise.mean().item() == pytest.approx(0, abs=0.02 * EPS)
        assert noise.std().item() == pytest.approx(EPS / 3**0.5, rel=0.02)

    def test_stays_within_pixels(self) -> None:
        edges = torch.cat([torch.zeros(2, 3, 8, 8), torch.ones(2, 3, 8, 8)])
        found = random(at_of(nn.Identity(), edges, torch.zeros(4)), 0.3)
        assert found.min() == 0 and found.max() == 1
        assert (found[:2] == 0).float().mean().item() == pytest.approx(0.5, abs=0.1)


class TestPgd:
    def by_hand(self, network: nn.Module, images: Tensor, labels: Tensor, steps: int) -> Tensor:
        """Image by image, with the very start of the code under test."""
        start = images + EPS * (2 * torch.rand_like(images) - 1)
        found = []
        for image, label, now in zip(images, labels, start.clamp(0, 1), strict=True):
            for _ in range(steps):
                leaf = now.clone().requires_grad_()
                network.eval()
                loss = -torch.log_softmax(network(leaf[None])[0], dim=0)[label]
                (gradient,) = torch.autograd.grad(loss, leaf)
                moved = now + STEP * torch.sign(gradient)
                now = torch.minimum(torch.maximum(moved, image - EPS), image + EPS).clamp(0, 1)
            found.append(now)
        return torch.stack(found)

    @pytest.mark.parametrize("steps", [1, 5])
    def test_equals_a_loop(self, steps: int) -> None:
        images, labels = grey()
        net = cnn(0)
        torch.manual_seed(5)
        expected = self.by_hand(net, images, labels, steps)
        torch.manual_seed(5)
        found = pgd(at_of(net.train(), images, labels), EPS, STEP, steps)
        # The sign of a gradient that is zero but for rounding may differ.
        assert ((found - expected).abs() < 1e-6).float().mean() > 0.99

    def test_stays_in_the_ball_and_raises_the_loss_of_every_image(self) -> None:
        images, labels = grey(20)
        net = cnn(0)
        torch.manual_seed(0)
        noisy = random(at_of(net, images, labels), EPS)
        found = pgd(at_of(net, images, labels), EPS, STEP, 10)
        assert (found - images).abs().max() <= EPS + 1e-6
        assert found.min() >= 0 and found.max() <= 1 and not found.requires_grad
        assert (losses_of(net, found, labels) > losses_of(net, images, labels)).all()
        assert (losses_of(net, found, labels) > losses_of(net, noisy, labels)).all()

    def test_starts_at_random(self) -> None:
        (images, labels), net = grey(), cnn(0)
        starts = []
        for seed in (0, 0, 1):
            torch.manual_seed(seed)
            starts.append(pgd(at_of(net, images, labels), EPS, 0.0, 1))
        assert torch.equal(starts[0], starts[1]) and not torch.equal(starts[0], starts[2])
        assert ((starts[0] - images).abs() > EPS / 2).float().mean() > 0.3


class TestPgdL2:
    def by_hand(
        self, network: nn.Module, images: Tensor, labels: Tensor, eps: float, reach: float, steps: int
    ) -> Tensor:
        found = []
        for image, label in zip(images, labels, strict=True):
            now = image
            for _ in range(steps):
                leaf = now.clone().requires_grad_()
                (gradient,) = torch.autograd.grad(F.cross_entropy(network(leaf[None]), label[None]), leaf)
                moved = now + reach * eps / steps * gradient / gradient.square().sum().sqrt() - image
                length = moved.square().sum().sqrt()
                now = (image + moved * min(1.0, eps / length.item())).clamp(0, 1)
            found.append(now)
        return torch.stack(found)

    @pytest.mark.parametrize(("eps", "steps"), [(0.3, 3), (1.5, 5)])
    def test_equals_a_loop(self, eps: float, steps: int) -> None:
        images, labels = pixels(8)
        net = linear()
        expected = self.by_hand(net, images, labels, eps, 2.0, steps)
        torch.testing.assert_close(pgd_l2(at_of(net, images, labels), eps, 2.0, steps), expected)

    def test_stays_in_the_ball_and_raises_the_loss_of_every_image(self) -> None:
        images, labels = grey(20)
        found = pgd_l2(at_of(cnn(0), images, labels), 0.5, 2.0, 3)
        lengths = (found - images).flatten(1).norm(dim=1)
        assert (lengths <= 0.5 + 1e-5).all() and (lengths > 0.4).all()
        assert found.min() >= 0 and found.max() <= 1
        assert (losses_of(cnn(0), found, labels) > losses_of(cnn(0), images, labels)).all()

    @pytest.mark.parametrize("flat", [False, True], ids=["a ball of radius 0", "a flat network"])
    def test_images_stay_where_there_is_no_way(self, flat: bool) -> None:
        images, labels = pixels()
        net = linear()
        if flat:
            net[1].weight.data.zero_()
        assert torch.equal(pgd_l2(at_of(net, images, labels), 0.5 if flat else 0.0, 2.0, 3), images)


@pytest.mark.parametrize("part", [lambda at: pgd(at, EPS, STEP, 2), lambda at: pgd_l2(at, 0.5, 2.0, 2)])
class TestTheNetwork:
    def test_predicts_in_eval_mode_and_is_left_as_it_was(self, part) -> None:  # type: ignore[no-untyped-def]
        images, labels = grey()
        net = partly_evaluated()
        net(images).sum().backward()  # a gradient that must stay
        before = watched(net)
        torch.manual_seed(0)
        found = part(at_of(net, images, labels))
        assert watched(net) == before
        torch.manual_seed(0)
        expected = part(at_of(net.eval(), images, labels))
        assert torch.equal(found, expected)

    def test_images_do_not_depend_on_each_other(self, part) -> None:  # type: ignore[no-untyped-def]
        (images, labels), net = grey(), cnn(0)
        torch.manual_seed(0)
        all_at_once = part(at_of(net, images, labels))
        images[1:] = images[1:].flip(0)
        torch.manual_seed(0)
        assert torch.allclose(part(at_of(net, images, labels))[0], all_at_once[0], atol=1e-5)


def test_predicting_puts_everything_back_after_an_error() -> None:
    net = partly_evaluated()
    before = watched(net)
    with pytest.raises(RuntimeError, match="within"), predicting(net, frozen=True):  # noqa: PT012
        assert not any(part.training for part in net.modules())
        assert not any(own.requires_grad for own in net.parameters())
        raise RuntimeError("within")
    assert watched(net) == before


def test_a_gradient_is_each_images_own() -> None:
    images, labels = pixels()
    net = linear()
    found = gradient_in(net, images, lambda logits: F.cross_entropy(logits, labels, reduction="none"))
    p = net(images).softmax(dim=1) - F.one_hot(labels, 4)
    torch.testing.assert_close(found.flatten(1), p @ net[1].weight)


def test_within_the_ball_and_pixels() -> None:
    found = within(torch.tensor([0.0, 0.9, -1.0, 2.0]), torch.tensor([0.5, 0.5, 0.05, 0.95]), 0.1)
    torch.testing.assert_close(found, torch.tensor([0.4, 0.6, 0.0, 1.0]))
