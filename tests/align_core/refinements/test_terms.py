"""Further terms of the loss: against formulas whose every derivative is known, and loops written out."""

import copy
import itertools
from collections.abc import Iterator

import pytest
import timm
import torch
from looks import at_of, curved, grey, linear, partly_evaluated, pixels, softmax_score, watched
from small_nets import cnn, mlp
from torch import Tensor, nn
from torch.nn import functional as F

from align_core.models import Classifier
from align_core.refinements.input_gradient import input_gradient
from align_core.refinements.score_matching import score_matching
from align_core.refinements.self_adversarial import self_adversarial

SIGNS = [torch.tensor(own).view(1, 1, 3) for own in itertools.product((-1.0, 1.0), repeat=3)]


def gradients_of(value: Tensor, network: nn.Module) -> list[Tensor]:
    return list(torch.autograd.grad(value, list(network.parameters()), allow_unused=True))


class TestInputGradient:
    def test_of_a_softmax_model_is_known(self) -> None:
        """The gradient of the cross-entropy is W^T (p - y): once differentiated, where the term is twice."""
        images, labels = pixels(5)
        net = linear()
        p = net(images).softmax(dim=1)
        by_hand = ((p - F.one_hot(labels, 4)) @ net[1].weight).square().sum(dim=1).sqrt().mean()
        value = input_gradient(at_of(net, images, labels))
        torch.testing.assert_close(value, by_hand)
        for found, expected in zip(gradients_of(value, net), gradients_of(by_hand, net), strict=True):
            torch.testing.assert_close(found, expected)

    def test_is_the_mean_of_each_images_own_length_in_eval_mode(self) -> None:
        images, labels = grey()
        net = cnn(0)
        value = input_gradient(at_of(net.train(), images, labels)).item()
        lengths = []
        for image, label in zip(images, labels, strict=True):
            leaf = image.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(F.cross_entropy(net.eval()(leaf[None]), label[None]), leaf)
            lengths.append(gradient.double().square().sum().sqrt().item())
        assert value == pytest.approx(sum(lengths) / len(lengths), rel=1e-4)

    def test_a_flat_network_has_none_and_no_gradient_that_is_not_finite(self) -> None:
        net = linear()
        net[1].weight.data.zero_()
        value = input_gradient(at_of(net, *pixels()))
        assert value.item() == pytest.approx(0, abs=1e-12)
        assert all(own.isfinite().all() for own in gradients_of(value, net) if own is not None)

    def test_falls_where_it_is_minimised(self) -> None:
        net, (images, labels) = cnn(0), grey(10)
        optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
        values = []
        for _ in range(10):
            optimiser.zero_grad()
            value = input_gradient(at_of(net, images, labels))
            value.backward()
            optimiser.step()
            values.append(value.item())
        assert values[-1] < 0.8 * values[0]


class TestScoreMatching:
    IMAGES, LABELS = torch.tensor([[[[0.2, 0.7, 0.4]]]]), torch.tensor([2])

    def drawn(self, network: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
        """Each sign vector of three pixels once, and the term's value with it."""
        left = {tuple(own.flatten().tolist()) for own in SIGNS}
        for seed in itertools.count():
            torch.manual_seed(seed)
            signs = torch.empty(1, 1, 1, 3).bernoulli_(0.5) * 2 - 1
            if (key := tuple(signs.flatten().tolist())) in left:
                left.remove(key)
                torch.manual_seed(seed)
                yield signs, score_matching(at_of(network, self.IMAGES, self.LABELS))
            if not left:
                return

    def log_probability(self, network: nn.Module, image: Tensor) -> Tensor:
        return network(image.view(1, 1, 1, 3)).log_softmax(dim=1)[0, 2]

    def test_averaged_over_all_signs_has_the_exact_trace(self) -> None:
        net = curved()
        exact = copy.deepcopy(net).double()
        image = self.IMAGES.flatten().double()
        score = torch.autograd.functional.jacobian(lambda x: self.log_probability(exact, x), image)
        hessian = torch.autograd.functional.hessian(lambda x: self.log_probability(exact, x), image)
        values = [value.item() for _, value in self.drawn(net)]
        assert len(values) == 8 and max(values) - min(values) > 1e-3
        assert sum(values) / 8 == pytest.approx((score.square().sum() + 2 * hessian.trace()).item(), rel=1e-4)

    def test_of_a_softmax_model_averaged_over_all_signs_is_known(self) -> None:
        net = linear(pixels=3)
        weight, bias = net[1].weight.tolist(), net[1].bias.tolist()
        score, trace = softmax_score(weight, bias, self.IMAGES.flatten().tolist(), 2)
        values = [value.item() for _, value in self.drawn(net)]
        assert sum(values) / 8 == pytest.approx(sum(own**2 for own in score) + 2 * trace, rel=1e-4)

    def test_value_and_gradient_with_given_signs(self) -> None:
        net = curved()
        exact = copy.deepcopy(net).double()
        image = self.IMAGES.flatten().double()
        for signs, value in self.drawn(net):
            v = signs.flatten().double()
            score = torch.autograd.functional.jacobian(
                lambda x: self.log_probability(exact, x), image, create_graph=True
            )
            hessian = torch.autograd.functional.hessian(
                lambda x: self.log_probability(exact, x), image, create_graph=True
            )
            by_hand = score.square().sum() + 2 * v @ hessian @ v
            assert value.item() == pytest.approx(by_hand.item(), rel=1e-4)
            for found, expected in zip(gradients_of(value, net), gradients_of(by_hand, exact), strict=True):
                torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-5)

    def test_is_the_mean_over_images(self) -> None:
        """Of a linear network before the softmax, whose second derivative along signs is known for each image."""
        images, labels = pixels(6, 1, 1, 3)
        net = linear(pixels=3)
        torch.manual_seed(3)
        signs = torch.empty(6, 1, 1, 3).bernoulli_(0.5).flatten(1) * 2 - 1
        torch.manual_seed(3)
        found = score_matching(at_of(net, images, labels)).item()
        values = []
        for image, label, v in zip(images, labels, signs, strict=True):
            p, weight = net(image[None]).softmax(dim=1)[0], net[1].weight
            score = weight[label] - p @ weight
            values.append((score @ score - 2 * ((p * (weight @ v) ** 2).sum() - (p @ weight @ v) ** 2)).item())
        assert found == pytest.approx(sum(values) / 6, rel=1e-4)


@pytest.mark.parametrize("term", [input_gradient, score_matching])
class TestBoth:
    def test_leave_the_network_as_it_was(self, term) -> None:  # type: ignore[no-untyped-def]
        images, labels = grey()
        net = partly_evaluated()
        net(images).sum().backward()
        before = watched(net)
        value = term(at_of(net, images, labels))
        assert watched(net) == before
        value.backward()
        assert net[0].bias.grad is None and net[0].weight.grad is not None

    def test_of_a_transformer(self, term) -> None:  # type: ignore[no-untyped-def]
        """Whose fused attention has no second derivative. The images are enlarged, as a Classifier does."""
        torch.manual_seed(0)
        net = Classifier(timm.create_model("test_vit", num_classes=4, img_size=32), (0.5,) * 3, (0.5,) * 3, 32)
        images, labels = torch.rand(3, 3, 24, 24), torch.tensor([0, 1, 2])
        torch.manual_seed(0)
        value = term(at_of(net.train(), images, labels))
        value.backward()
        lengths = [own.grad.norm().item() for own in net.parameters() if own.grad is not None]
        assert value.isfinite() and len(lengths) > 20 and min(lengths) >= 0 and max(lengths) > 0
        assert all(part.training for part in net.modules())
        # The slope along the gradient, by finite differences of the value.
        with torch.no_grad():
            step = 1e-3 / sum(own**2 for own in lengths) ** 0.5
            for own in net.parameters():
                if own.grad is not None:
                    own.add_(step * own.grad)
        torch.manual_seed(0)
        risen = term(at_of(net, images, labels)).item() - value.item()
        assert risen == pytest.approx(1e-3 * sum(own**2 for own in lengths) ** 0.5, rel=0.1)


class TestSelfAdversarial:
    EPS, STEP = 0.1, 0.03

    def run(self, source: nn.Module, teachers: list[nn.Module], steps: int) -> Tensor:
        """The images at which the losses are taken."""
        images, labels = pixels(6)
        met: list[Tensor] = []

        def towards(images_BCHW: Tensor, labels_B: Tensor) -> dict[str, Tensor]:
            assert torch.equal(labels_B, labels)
            met.append(images_BCHW)
            return {"kl": source(images_BCHW).sum()}

        def taught(images_BCHW: Tensor) -> list[Tensor]:
            return [own(images_BCHW).detach() for own in teachers]

        at = at_of(source, images, labels, towards, {"kl": 1.0}, taught, temperature=2.0)
        torch.manual_seed(1)
        self_adversarial(at, local=0.02, eps=self.EPS, step=self.STEP, steps=steps)
        (found,) = met
        return found

    def divergence(
        self, source: nn.Module, teachers: list[nn.Module], images: Tensor, temperature: float = 2.0
    ) -> Tensor:
        """KL(teacher on the clean image || source) at images, where the teacher is the mean prediction of all."""
        clean, _ = pixels(6)
        p = sum((own(clean) / 2).softmax(dim=1) for own in teachers) / len(teachers)
        return (p * (p.log() - (source(images) / 2).log_softmax(dim=1))).sum(dim=1)

    @pytest.mark.parametrize("teachers", [1, 2])
    def test_images_equal_a_loop(self, teachers: int) -> None:
        source, others = mlp(0), [mlp(seed) for seed in range(1, 1 + teachers)]
        images, _ = pixels(6)
        torch.manual_seed(1)
        now = (images + self.EPS * (2 * torch.rand_like(images) - 1)).clamp(0, 1)
        for _ in range(4):
            leaf = now.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(self.divergence(source, others, leaf).sum(), leaf)
            moved = now + self.STEP * gradient.sign()
            now = torch.minimum(torch.maximum(moved, images - self.EPS), images + self.EPS).clamp(0, 1)
        torch.testing.assert_close(self.run(source, others, steps=4), now)

    def test_images_stay_in_the_ball_and_lead_away_from_the_teacher(self) -> None:
        source, teacher, (images, _) = mlp(0), mlp(1), pixels(6)
        found = self.run(source, [teacher], steps=10)
        assert (found - images).abs().max() <= self.EPS + 1e-6 and found.min() >= 0 and found.max() <= 1
        assert not found.requires_grad
        assert (self.divergence(source, [teacher], found) > self.divergence(source, [teacher], images)).all()

    def test_losses_count_by_their_weights_and_places_by_their_own(self) -> None:
        """SAA: kappa (L_global + omega L_local), where the clean images have gamma for the local loss."""
        losses = {"kl": torch.tensor(2.0), "local": torch.tensor(30.0), "hint": torch.tensor(500.0)}
        weights = {"kl": 1.0, "local": 0.2, "hint": 0.1}
        at = at_of(mlp(0), *pixels(6), lambda _, __: losses, weights, lambda images: [mlp(1)(images)])
        assert self_adversarial(at, local=0.02, eps=0.1, step=0.1, steps=1).item() == pytest.approx(2 + 0.6 + 50)

    def test_the_network_is_attacked_in_eval_mode_and_left_as_it_was(self) -> None:
        images, labels = grey()
        net, teacher = partly_evaluated(), cnn(1).eval()
        before = watched(net)
        met: list[Tensor] = []
        for attacked in (net, copy.deepcopy(net).eval()):

            def towards(images_BCHW: Tensor, labels_B: Tensor) -> dict[str, Tensor]:
                met.append(images_BCHW)
                return {"kl": images_BCHW.sum()}

            at = at_of(attacked, images, labels, towards, {"kl": 1.0}, lambda own: [teacher(own).detach()])
            torch.manual_seed(0)
            self_adversarial(at, local=0.02, eps=0.1, step=0.03, steps=3)
        assert watched(net) == before
        assert torch.equal(*met)
