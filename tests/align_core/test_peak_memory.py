"""The memory of a pass: against counts by hand, and against what autograd itself says that it saves."""

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from align_core.align_config import Training
from align_core.memory import Memory, PassMemory, memory_from
from align_core.models import Classifier
from align_core.peak_memory import (
    bytes_of_weights,
    fuses_attention,
    gradient_memory,
    living_bytes,
    memory_of_pass,
    predicting_memory,
    reasons_memory,
    weights_of,
)
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


def saved_bytes(network: nn.Module, images_BCHW: Tensor, derivatives: int = 1) -> int:
    """What autograd says that it saves for so many derivatives in the pixels: bytes beside those of the weights."""
    saved: dict[int, Tensor] = {}  # held, so that no other tensor comes to lie where one was

    def pack(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    leaf_BCHW = images_BCHW.requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        logits_BK = network(leaf_BCHW)
        if derivatives == 2:
            torch.autograd.grad(logits_BK.logsumexp(dim=1).sum(), leaf_BCHW, create_graph=True)
    of_weights = {own.untyped_storage().data_ptr() for own in weights_of(network)}
    return sum(own.untyped_storage().nbytes() for pointer, own in saved.items() if pointer not in of_weights)


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
    assert predicting_memory(network, image()).living == PassMemory(0, maps(3) + 2 * maps(16))
    assert bytes_of_weights(network) == FLOAT * (16 * 3 * 9 + 16 + 8 * 16 * 9 + 8 + 8 * SIDE * SIDE * 5 + 5)


def test_a_gradient_holds_what_autograd_saves_and_a_map_or_two() -> None:
    network = convolutions()
    activations = saved_bytes(network, image())
    assert activations == maps(3) + maps(16) + maps(8)
    found = gradient_memory(network, image()).living
    assert activations <= found.per_image <= activations + 2 * maps(16)
    assert found.fixed <= 2 * FLOAT  # the sum of the logits, and its gradient


SIDE_OF_PHOTOS = 96
TOKENS, HEADS, BLOCKS = 145, 3, 2
SCORES = HEADS * TOKENS**2 * FLOAT
"""Bytes of one image's attention, a number for each head and pair of tokens, in one block."""


def transformer() -> nn.Module:
    torch.manual_seed(0)
    settings = {"img_size": SIDE_OF_PHOTOS, "patch_size": 8, "depth": BLOCKS, "num_classes": 5}
    network: nn.Module = timm.create_model("vit_tiny_patch16_224", **settings)
    return network.eval().requires_grad_(False)


def residual() -> nn.Module:
    torch.manual_seed(0)
    network: nn.Module = timm.create_model("resnet18", num_classes=5)
    return network.eval().requires_grad_(False)


@pytest.mark.parametrize("derivatives", [1, 2])
@pytest.mark.parametrize("network", [residual(), transformer()], ids=["ResNet-18", "ViT-tiny"])
def test_a_pass_holds_what_autograd_saves_and_little_more(network: nn.Module, derivatives: int) -> None:
    image_1CHW = torch.rand(1, 3, SIDE_OF_PHOTOS, SIDE_OF_PHOTOS)
    measured = gradient_memory(network, image_1CHW) if derivatives == 1 else reasons_memory(network, image_1CHW, 2)
    with sdpa_kernel([SDPBackend.MATH] if derivatives == 2 else [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]):
        saved = saved_bytes(network, image_1CHW, derivatives)
    assert saved <= measured.living.of(1)
    assert (
        measured.living.per_image <= (1.5 if derivatives == 1 else 2.5) * saved
    )  # products with the Hessian hold more
    assert measured.living.of(1) <= measured.spread.of(1)


def test_attention_in_its_plain_form_holds_all_scores_of_all_blocks() -> None:
    """As on a GPU. The fused kernel of the CPU holds none; the plain one saves them after the softmax."""
    shape, images_BCHW = (3, SIDE_OF_PHOTOS, SIDE_OF_PHOTOS), torch.rand(2, 3, SIDE_OF_PHOTOS, SIDE_OF_PHOTOS)
    network = transformer()
    memory = try_model(classifier_of(network), "a", shape, 5, crafted_on=True).memory
    assert memory is not None and memory.on_gpu is not None and memory.on("cuda") is memory.on_gpu
    fused, plain = gradient_memory(network, images_BCHW[:1]).living, memory.on_gpu.gradient
    assert plain is not None and plain.per_image >= fused.per_image + BLOCKS * SCORES / 2
    with sdpa_kernel(SDPBackend.MATH):
        saved = saved_bytes(network, images_BCHW)
    assert saved <= plain.of(2) <= 1.5 * saved
    assert fuses_attention(network, images_BCHW) and not fuses_attention(residual(), images_BCHW)


def classifier_of(network: nn.Module) -> Classifier:
    return Classifier(network, mean=(0.5,) * 3, std=(0.5,) * 3)


def test_a_network_without_a_second_derivative_is_measured_as_far_as_it_goes() -> None:
    class Once(torch.autograd.Function):
        """The identity, which can be differentiated once."""

        @staticmethod
        def forward(context: Any, images: Tensor) -> Tensor:
            return images.clone()

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(context: Any, gradient: Tensor) -> Tensor:
            return gradient.clone()

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = convolutions()

        def forward(self, images_BCHW: Tensor) -> Tensor:
            return self.body(Once.apply(images_BCHW))

    network = Network().eval()
    found = reasons_memory(network, image(), 2).living
    assert found.per_image >= gradient_memory(network, image()).living.per_image


def test_a_pass_of_many_images_holds_no_more_than_is_extrapolated() -> None:
    network = convolutions()
    found = gradient_memory(network, image()).living

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

    assert memory_of_pass(work, 2).living == PassMemory(400_000, 4_000)


def test_the_trial_measures_a_model_as_it_is_used() -> None:
    shape = (3, SIDE, SIDE)
    network = Classifier(convolutions().requires_grad_(True), mean=(0.5,) * 3, std=(0.5,) * 3)
    target = try_model(network, "a", shape, 5).memory
    surrogate = try_model(network, "a", shape, 5, crafted_on=True, trainings=[Training("sgd", "update", 32)]).memory
    assert target is not None and surrogate is not None
    assert target.gradient is target.training is target.reasons is None
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

    plain = Memory(1, PassMemory(2, 4), None, PassMemory(4, 6))
    memory = Memory(1, PassMemory(2, 3), None, PassMemory(4, 5), PassMemory(6, 7), plain)
    assert memory_from(asdict(memory)) == memory
    of_an_earlier_version = {
        "weights": 1,
        "predicting": {"fixed": 2, "per_image": 3},
        "gradient": None,
        "training": None,
    }
    assert memory_from(of_an_earlier_version) is None
    for damaged in ({}, asdict(memory) | {"predicting": None}, asdict(memory) | {"weights": "x"}, {"weights": 1}):
        with pytest.raises((KeyError, TypeError, ValueError)):
            memory_from(damaged)
