"""Losses and input gradients at points: against closed forms and autograd, and what is refused."""

from collections.abc import Sequence

import pytest
import torch
from closed_forms import Quadratic, ids_of, inner_images, with_eigenvalues
from small_nets import cnn
from torch import Tensor, nn
from torch.nn import functional as F

from align_core.errors import InputError
from align_core.models import Classifier, Ensemble
from align_core.reasons import NoGradient, gradient_norm, gradients, losses


def constant(value: float) -> nn.Module:
    class Constant(nn.Module):
        def forward(self, x_BCHW: Tensor) -> Tensor:
            return torch.full((len(x_BCHW), 3), value)

    return Constant()


def test_loss_and_gradient_of_a_quadratic_are_its_closed_forms() -> None:
    a_PP, b_P = with_eigenvalues([3.0, -2.0, 1.0, 0.5]), torch.tensor([1.0, -2.0, 0.0, 4.0], dtype=torch.float64)
    x_BCHW, labels_B = inner_images(5, 1, 2, 2), torch.zeros(5, dtype=torch.int64)
    found = gradients(Quadratic(a_PP, b_P), x_BCHW, labels_B, ids_of(5))
    gradient_BP = x_BCHW.flatten(1) @ a_PP + b_P
    torch.testing.assert_close(found.loss_B, Quadratic(a_PP, b_P).loss(x_BCHW))
    assert found.gradient_BCHW is not None
    torch.testing.assert_close(found.gradient_BCHW.flatten(1), gradient_BP)
    norm = gradient_norm(found.gradient_BCHW)
    torch.testing.assert_close(norm.l1_B, torch.tensor([sum(map(abs, row)) for row in gradient_BP.tolist()]).double())
    torch.testing.assert_close(
        norm.l2_B, torch.tensor([sum(v * v for v in row) ** 0.5 for row in gradient_BP.tolist()]).double()
    )


def test_a_network_gets_what_autograd_says_in_whatever_passes_and_is_left_as_it_was() -> None:
    net = cnn(0).train()
    x_BCHW, labels_B = inner_images(7, 1, 8, 8).float(), torch.arange(7)
    state = {name: value.clone() for name, value in net.state_dict().items()}
    found = gradients(net, x_BCHW, labels_B, ids_of(7), pass_rows=3)
    assert net.training and all(own.requires_grad for own in net.parameters())
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    double = cnn(0).double().eval()
    leaf_BCHW = x_BCHW.double().requires_grad_()
    loss = F.cross_entropy(double(leaf_BCHW), labels_B, reduction="sum")
    (expected_BCHW,) = torch.autograd.grad(loss, leaf_BCHW)
    assert found.gradient_BCHW is not None
    torch.testing.assert_close(found.gradient_BCHW.double(), expected_BCHW, atol=1e-6, rtol=1e-4)
    assert found.loss_B.dtype == torch.float64
    torch.testing.assert_close(found.loss_B.sum(), loss.detach(), rtol=1e-5, atol=0)
    without = losses(net, x_BCHW, labels_B, ids_of(7))
    torch.testing.assert_close(without.loss_B, found.loss_B)
    assert without.gradient_BCHW is None


def test_where_a_network_is_sure_its_gradient_is_no_rounding_noise() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    x_BCHW = inner_images(1, 1, 2, 2).float()
    with torch.no_grad():
        net[1].bias.copy_(torch.tensor([60.0, 0.0, 1.0]) - net[1].weight @ x_BCHW.flatten())
    found = gradients(net, x_BCHW, torch.tensor([0]), ["a"])
    odds = (torch.tensor([-60.0, -59.0]).double()).exp()  # p of the others, next to which p(label) is 1
    weight_KP = net[1].weight.detach().double()
    expected_P = odds[0] * (weight_KP[1] - weight_KP[0]) + odds[1] * (weight_KP[2] - weight_KP[0])
    assert found.gradient_BCHW is not None
    torch.testing.assert_close(found.gradient_BCHW.double().flatten(), expected_P, rtol=1e-4, atol=0)
    torch.testing.assert_close(gradient_norm(found.gradient_BCHW).l2_B[0], expected_P.norm(), rtol=1e-4, atol=0)


def test_a_zero_gradient_has_the_norm_zero() -> None:
    net = Quadratic(torch.zeros(4, 4).double(), torch.zeros(4).double())
    found = gradients(net, inner_images(1, 1, 2, 2), torch.tensor([0]), ["a"])
    assert found.gradient_BCHW is not None
    assert gradient_norm(found.gradient_BCHW) == (torch.zeros(1).double(), torch.zeros(1).double())


def test_logits_that_are_not_finite_name_network_and_images() -> None:
    class Broken(nn.Module):
        def forward(self, x_BCHW: Tensor) -> Tensor:
            logits_BK = x_BCHW.flatten(1)[:, :3].clone()
            logits_BK[1, 0] = torch.nan
            return logits_BK

    for measure in (losses, gradients):
        with pytest.raises(FloatingPointError, match="logits of resnet are not finite for 00001"):
            measure(Broken(), inner_images(3, 1, 2, 2), torch.zeros(3, dtype=torch.int64), ids_of(3), whose="resnet")


def test_a_gradient_that_is_not_finite_names_the_images() -> None:
    class Root(nn.Module):
        def forward(self, x_BCHW: Tensor) -> Tensor:
            return (x_BCHW.flatten(1)[:, :3] - x_BCHW.flatten(1)[:, :3].detach()).abs().sqrt() + 0 * x_BCHW.sum()

    with pytest.raises(FloatingPointError, match="gradient of the network is not finite for 2 images"):
        gradients(Root(), inner_images(2, 1, 2, 2), torch.zeros(2, dtype=torch.int64), ids_of(2))


def test_a_network_without_a_gradient_says_so_and_still_has_a_loss() -> None:
    x_BCHW, labels_B = inner_images(2, 1, 2, 2), torch.tensor([0, 2])
    with pytest.raises(NoGradient, match="target7 has no gradient"):
        gradients(constant(1.0), x_BCHW, labels_B, ids_of(2), whose="target7")
    torch.testing.assert_close(
        losses(constant(1.0), x_BCHW, labels_B, ids_of(2)).loss_B, torch.full((2,), 3.0).double().log()
    )


def test_defences_get_the_ids_and_half_precision_is_put_aside() -> None:
    seen: list[object] = []
    net = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), (0.0,), (1.0,))
    net.precision = "bf16"

    def defence(images_BCHW: Tensor, ids: Sequence[str] | None) -> Tensor:
        seen.append((tuple(ids or ()), net.precision))
        return images_BCHW

    net.defences = (defence,)
    x_BCHW, labels_B = inner_images(2, 1, 2, 2).float(), torch.tensor([0, 2])
    losses(net, x_BCHW, labels_B, ["a", "b"])
    losses(Ensemble([net, net]), x_BCHW, labels_B, ["a", "b"])
    assert seen == [(("a", "b"), "fp32")] * 3
    assert net.precision == "bf16"


def test_where_memory_does_not_hold_a_pass_it_is_halved() -> None:
    sizes: list[int] = []

    class Narrow(nn.Module):
        rows = 4

        def forward(self, x_BCHW: Tensor) -> Tensor:
            sizes.append(len(x_BCHW))
            if len(x_BCHW) > self.rows:
                raise torch.OutOfMemoryError("too many")
            return x_BCHW.flatten(1)[:, :3]

    x_BCHW, labels_B = inner_images(9, 1, 2, 2), torch.zeros(9, dtype=torch.int64)
    expected = F.cross_entropy(x_BCHW.flatten(1)[:, :3], labels_B, reduction="none")
    net = Narrow()
    torch.testing.assert_close(gradients(net, x_BCHW, labels_B, ids_of(9), pass_rows=12).loss_B, expected)
    assert sizes == [9, 6, 3, 3, 3]
    net.rows = 0
    with pytest.raises(torch.OutOfMemoryError):
        gradients(net, x_BCHW, labels_B, ids_of(9))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"points_BCHW": torch.zeros(2, 1, 2, 2, dtype=torch.uint8)}, "float .* not uint8"),
        ({"points_BCHW": torch.zeros(0, 1, 2, 2)}, "at least one"),
        ({"labels_B": torch.tensor([0])}, r"int64 \[2\]"),
        ({"labels_B": torch.tensor([0, -1])}, "from 0"),
        ({"labels_B": torch.tensor([0, 3])}, "below the 3 classes"),
        ({"image_ids": ["a"]}, "an id for each"),
        ({"pass_rows": 0}, "at least 1"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(changed: dict[str, object], said: str) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    arguments = {"points_BCHW": torch.zeros(2, 1, 2, 2), "labels_B": torch.tensor([0, 1]), "image_ids": ["a", "b"]}
    with pytest.raises(InputError, match=said):
        gradients(net, **{**arguments, **changed})  # type: ignore[arg-type]


def test_a_network_of_one_class_is_refused() -> None:
    with pytest.raises(InputError, match="classes"):
        losses(nn.Sequential(nn.Flatten(), nn.Linear(4, 1)), torch.zeros(1, 1, 2, 2), torch.tensor([0]), ["a"])
