"""The memory of a pass: against counts by hand, and against what autograd itself says that it saves."""

import pytest
import torch
from torch import Tensor, nn

from align_core.align_config import Training
from align_core.memory import Memory, PassMemory, memory_from
from align_core.models import Classifier
from align_core.peak_memory import bytes_of_weights, gradient_memory, living_bytes, memory_of_pass, predicting_memory
from align_core.trial import try_model

SIDE = 8
FLOAT = 4


def image() -> Tensor:
    return torch.rand(1, 3, SIDE, SIDE)


def convolutions() -> nn.Sequential:
    """Every layer keeps the size, so that a map of C channels takes C x 8 x 8 floats."""
    torch.manual_seed(0)
    body = [nn.Conv2d(3, 16, 3, padding=1), nn.Sigmoid(), nn.Conv2d(16, 8, 3, padding=1), nn.Sigmoid()]
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(8 * SIDE * SIDE, 5)).eval().requires_grad_(False)


def maps(channels: int) -> int:
    return channels * SIDE * SIDE * FLOAT


def test_what_lives_is_counted_until_it_is_freed() -> None:
    def work() -> Tensor:
        first = torch.zeros(100)  # 400 bytes
        second = first + 1  # 800
        del first  # 400
        third = second.view(10, 10)  # the same memory
        return third * 2  # 800

    assert living_bytes(work) == [400, 800, 400, 800]


def test_weights_do_not_count_nor_what_shares_memory_with_them() -> None:
    weights = torch.zeros(50)
    assert living_bytes(lambda: weights.view(5, 10).add_(1), [weights]) == [0, 0]


def test_predicting_holds_the_image_and_the_widest_two_maps() -> None:
    """The maps of 16 channels before and after the first sigmoid live at one time, beside the image."""
    network = convolutions()
    assert predicting_memory(network, image()) == PassMemory(0, maps(3) + 2 * maps(16))
    assert bytes_of_weights(network) == FLOAT * (16 * 3 * 9 + 16 + 8 * 16 * 9 + 8 + 8 * SIDE * SIDE * 5 + 5)


def test_a_gradient_holds_what_autograd_saves_and_a_map_or_two() -> None:
    network, saved = convolutions(), dict[int, int]()

    def pack(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    leaf_1CHW = image().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        logits_1K = network(leaf_1CHW)
    of_weights = {own.untyped_storage().data_ptr() for own in network.parameters()}
    activations = sum(size for pointer, size in saved.items() if pointer not in of_weights)
    assert logits_1K.shape == (1, 5) and activations == maps(3) + maps(16) + maps(8)
    found = gradient_memory(network, leaf_1CHW.detach())
    assert activations <= found.per_image <= activations + 2 * maps(16)
    assert found.fixed <= 2 * FLOAT  # the sum of the logits, and its gradient


def test_a_pass_of_many_images_holds_no_more_than_is_extrapolated() -> None:
    network = convolutions()
    found = gradient_memory(network, image())

    def differentiate() -> None:
        images_BCHW = torch.rand(50, 3, SIDE, SIDE, requires_grad=True)
        torch.autograd.grad(network(images_BCHW).sum(), images_BCHW)

    assert 0.95 * found.of(50) <= max(living_bytes(differentiate, network.parameters())) <= found.of(50)


def test_what_is_large_with_few_images_does_not_hide_what_grows_with_them() -> None:
    """As the step of an optimizer with a large network: it holds more than two images do, and less than fifty."""

    def work(count: int) -> None:
        activations = torch.zeros(count, 1_000)
        del activations
        torch.zeros(100_000)

    assert memory_of_pass(work, 2) == PassMemory(400_000, 4_000)


def test_the_trial_measures_a_model_as_it_is_used() -> None:
    shape = (3, SIDE, SIDE)
    network = Classifier(convolutions().requires_grad_(True), mean=(0.5,) * 3, std=(0.5,) * 3)
    target = try_model(network, "a", shape, 5).memory
    surrogate = try_model(network, "a", shape, 5, crafted_on=True, trainings=[Training("sgd", "update", 32)]).memory
    assert target is not None and surrogate is not None
    assert target.gradient is target.training is None
    assert surrogate.weights == target.weights == bytes_of_weights(network)
    assert surrogate.gradient is not None and surrogate.gradient.per_image > surrogate.predicting.per_image / 2
    assert surrogate.training is not None and surrogate.training.fixed >= 2 * bytes_of_weights(network.net)
    assert surrogate.training.per_image >= maps(16) + maps(8)


class Refusing(nn.Module):
    """A network that cannot be watched."""

    def forward(self, images: Tensor) -> Tensor:
        if torch.utils._python_dispatch._get_current_dispatch_mode() is not None:
            raise RuntimeError("not while somebody looks")
        return images.flatten(1)[:, :5].clone()


def test_what_cannot_be_measured_is_unknown_and_no_failure() -> None:
    network = Classifier(Refusing(), mean=(0.5,) * 3, std=(0.5,) * 3)
    assert try_model(network, "a", (3, SIDE, SIDE), 5).memory is None


def test_it_is_read_as_it_was_written() -> None:
    from dataclasses import asdict

    memory = Memory(1, PassMemory(2, 3), None, PassMemory(4, 5))
    assert memory_from(asdict(memory)) == memory
    for damaged in ({}, {"weights": 1, "predicting": None, "gradient": None, "training": None}, {"weights": "x"}):
        with pytest.raises((KeyError, TypeError, ValueError)):
            memory_from(damaged)
