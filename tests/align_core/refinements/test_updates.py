"""Gradients of several passes: SAM and the gradient norm written out, and what the passes leave behind."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from looks import grey
from small_nets import cnn, mlp, random_batches, tensors_of
from torch import Tensor, nn
from torch.nn import functional as F

from align_core.align_config import AlignConfig, OptimizerConfig
from align_core.alignment import Alignment
from align_core.refinements.gradient_norm import gradient_norm
from align_core.refinements.moved import length_of, moved
from align_core.refinements.sam import sam

PLAIN_SGD = OptimizerConfig(lr=0.1, momentum=0.0, nesterov=False, weight_decay=0.0, schedule="constant")
(BATCH,) = random_batches(1, 3, 2, 2, classes=5)


def left_by(
    update: Callable[..., Any], net: nn.Module, loss: Callable[[], Tensor]
) -> tuple[list[Tensor | None], float]:
    """The gradients that an update leaves, and the value that it returns."""

    def gradients() -> dict[str, Tensor]:
        net.zero_grad()
        value = loss()
        value.backward()
        return {"loss": value.detach()}

    parameters = [own for own in net.parameters() if own.requires_grad]
    value = update(gradients, parameters)["loss"].item()
    return [own.grad for own in parameters], value


def at_weights(net: nn.Module, weights: list[Tensor], create_graph: bool = False) -> tuple[Tensor, list[Tensor]]:
    """The cross-entropy of BATCH and its gradient, with other weights in the network's place."""
    leaves = [own.detach().clone().requires_grad_() for own in weights]
    names = [name for name, _ in net.named_parameters()]
    logits = torch.func.functional_call(net, dict(zip(names, leaves, strict=True)), BATCH[0])
    loss = F.cross_entropy(logits, BATCH[1])
    return loss, list(torch.autograd.grad(loss, leaves, create_graph=create_graph))


def length(values: list[Tensor]) -> Tensor:
    return torch.cat([own.flatten() for own in values]).double().square().sum().sqrt().float()


class TestSam:
    @pytest.mark.parametrize("rho", [0.05, 0.5])
    def test_equals_two_gradients_written_out(self, rho: float) -> None:
        net = mlp(0)
        weights = [own.detach().clone() for own in net.parameters()]
        loss, first = at_weights(net, weights)
        _, expected = at_weights(net, [w + rho * g / length(first) for w, g in zip(weights, first, strict=True)])
        found, value = left_by(lambda *own: sam(*own, rho=rho), net, lambda: F.cross_entropy(net(BATCH[0]), BATCH[1]))
        assert value == pytest.approx(loss.item(), rel=1e-6)
        for own, wanted in zip(found, expected, strict=True):
            torch.testing.assert_close(own, wanted, rtol=1e-4, atol=1e-7)
        for own, before in zip(net.parameters(), weights, strict=True):
            assert torch.equal(own, before)

    def test_by_hand(self) -> None:
        # Loss w1^2 + 2 w2^2 at (3, 1): gradient (6, 4) of length sqrt(52), and point is (3, 1) + 0.1 (6, 4) / sqrt(52).
        net = nn.Linear(2, 1, bias=False)
        net.weight.data = torch.tensor([[3.0, 1.0]])
        found, value = left_by(
            lambda *own: sam(*own, rho=0.1), net, lambda: (net.weight.square() * torch.tensor([1.0, 2.0])).sum()
        )
        point = (3 + 0.6 / 52**0.5, 1 + 0.4 / 52**0.5)
        assert value == 11
        assert found[0].flatten().tolist() == pytest.approx([2 * point[0], 4 * point[1]])


class TestGradientNorm:
    @pytest.mark.parametrize(("weight", "gamma"), [(1.0, 0.1), (0.3, 0.02)])
    def test_equals_two_gradients_written_out(self, weight: float, gamma: float) -> None:
        net = mlp(0)
        weights = [own.detach().clone() for own in net.parameters()]
        _, first = at_weights(net, weights)
        _, second = at_weights(net, [w + gamma * g / length(first) for w, g in zip(weights, first, strict=True)])
        found, _ = left_by(
            lambda *own: gradient_norm(*own, weight=weight, gamma=gamma),
            net,
            lambda: F.cross_entropy(net(BATCH[0]), BATCH[1]),
        )
        for own, g, away in zip(found, first, second, strict=True):
            torch.testing.assert_close(own, g + weight / gamma * (away - g), rtol=1e-3, atol=1e-6)
        for own, before in zip(net.parameters(), weights, strict=True):
            assert torch.equal(own, before)

    def test_is_the_gradient_of_the_loss_plus_its_gradients_length(self) -> None:
        """By double differentiation in float64, which finite differences approach as gamma falls."""
        net = mlp(0).double()
        batch = BATCH[0].double()
        loss = F.cross_entropy(net(batch), BATCH[1])
        first = torch.autograd.grad(loss, list(net.parameters()), create_graph=True)
        whole = loss + 0.7 * torch.cat([own.flatten() for own in first]).norm()
        expected = torch.autograd.grad(whole, list(net.parameters()))
        found, _ = left_by(
            lambda *own: gradient_norm(*own, weight=0.7, gamma=1e-5), net, lambda: F.cross_entropy(net(batch), BATCH[1])
        )
        for own, wanted in zip(found, expected, strict=True):
            torch.testing.assert_close(own, wanted, rtol=1e-3, atol=1e-5)


UPDATES = [lambda *own: sam(*own, rho=0.1), lambda *own: gradient_norm(*own, weight=1.0, gamma=0.1)]


@pytest.mark.parametrize("update", UPDATES, ids=["sam", "gradient_norm"])
class TestBoth:
    def test_parameters_without_a_gradient_are_left_alone(self, update: Any) -> None:
        net = nn.ModuleList([nn.Linear(2, 1), nn.Linear(2, 1)])
        found, _ = left_by(update, net, lambda: net[0](torch.ones(1, 2)).square().sum())
        assert [own is None for own in found] == [False, False, True, True]

    def test_a_gradient_of_zero_moves_nothing(self, update: Any) -> None:
        net = nn.Linear(2, 1)
        found, _ = left_by(update, net, lambda: (0 * net(torch.ones(1, 2))).sum())
        assert all(own.abs().max() == 0 for own in found)

    def test_weights_come_back_after_an_error(self, update: Any) -> None:
        net, passes = nn.Linear(2, 1), []
        before = tensors_of(net)

        def loss() -> Tensor:
            passes.append(None)
            if len(passes) == 2:
                raise RuntimeError("out of memory")
            return net(torch.ones(1, 2)).square().sum()

        with pytest.raises(RuntimeError, match="out of memory"):
            left_by(update, net, loss)
        for name, value in net.state_dict().items():
            assert torch.equal(value, before[name])


SMALL: list[dict[str, Any]] = [{"name": "sam", "rho": 1e-6}, {"name": "gradient_norm", "weight": 1e-6}]


def test_all_passes_of_a_step_draw_alike() -> None:
    """A small step away is none, though units are dropped: SAM takes the second gradient, the other the first."""
    states = []
    for update in SMALL:
        config = AlignConfig(optimizer=PLAIN_SGD, update=update, mix="mixup", inputs="random", label_weight=0.5)
        alignment = Alignment(cnn(0), [cnn(1)], config, total_steps=2, seed=0)
        reports = alignment.step(*grey()), alignment.step(*grey())
        states.append((tensors_of(alignment.source), *reports))
    (first, *reports), (second, *others) = states
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-3, atol=1e-5)
    for report, expected in zip(others, reports, strict=True):
        assert report == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("update", ["sam", "gradient_norm"])
def test_the_first_pass_alone_moves_batchnorm_statistics(update: str) -> None:
    ends = []
    for own in ("plain", update):
        alignment = Alignment(cnn(0), [cnn(1)], AlignConfig(update=own), total_steps=2, seed=0)
        alignment.step(*grey())
        ends.append({name: value for name, value in alignment.source.named_buffers()})
    for name, value in ends[0].items():
        assert torch.equal(ends[1][name], value), name


def test_sam_in_an_alignment_is_the_step_written_out() -> None:
    """Its values are those at the weights themselves, its gradient norm that of the gradient that is taken."""
    net = mlp(0)
    config = AlignConfig(weight=0.0, label_weight=1.0, optimizer=PLAIN_SGD, update={"name": "sam", "rho": 0.3})
    alignment = Alignment(net, [], config, total_steps=2, seed=0)
    weights = [own.detach().clone() for own in net.parameters()]
    loss, first = at_weights(net, weights)
    _, second = at_weights(net, [w + 0.3 * g / length(first) for w, g in zip(weights, first, strict=True)])
    report = alignment.step(*BATCH)
    assert report["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert report["grad_norm"] == pytest.approx(length(second).item(), rel=1e-4)
    for own, before, gradient in zip(net.parameters(), weights, second, strict=True):
        torch.testing.assert_close(own, before - 0.1 * gradient, rtol=1e-4, atol=1e-6)


def test_moved_weights_come_back_to_the_bit() -> None:
    net = mlp(0)
    before = tensors_of(net)
    parameters = list(net.parameters())
    with moved(parameters, [torch.full_like(parameters[0], 1e-3), None, *[torch.ones_like(p) for p in parameters[2:]]]):
        torch.testing.assert_close(parameters[0].detach(), before["1.weight"] + 1e-3)
        assert torch.equal(parameters[1], before["1.bias"])
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])


def test_length_of_all_together() -> None:
    assert length_of([torch.tensor([3.0]), torch.tensor([[4.0, 12.0]])]).item() == pytest.approx(13)
    assert length_of([torch.zeros(3)]).item() > 0
