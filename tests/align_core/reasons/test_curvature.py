"""The largest eigenvalue of the input Hessian: closed forms, an independent Hessian, and what convergence means."""

import pytest
import timm
import torch
from closed_forms import Quadratic, ids_of, inner_images, with_eigenvalues
from small_nets import cnn, mlp
from torch import Tensor, nn
from torch.nn import functional as F

from align_core.errors import InputError
from align_core.models import Classifier
from align_core.reasons import NoGradient, curvature


def zeros(count: int) -> Tensor:
    return torch.zeros(count, dtype=torch.int64)


def of_quadratic(values: list[float], count: int = 6, **settings: object):  # type: ignore[no-untyped-def]
    net = Quadratic(with_eigenvalues(values), torch.ones(len(values)).double())
    x_BCHW = inner_images(count, 1, 1, len(values))
    return curvature(net, x_BCHW, zeros(count), ids_of(count), 0, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("values", [[5.0, 3.0, 1.0, 0.0], [2.0, -5.0, 1.0, 0.5], [1e-6, -2e-7, 0.0, 0.0]])
def test_it_is_the_eigenvalue_of_largest_magnitude_with_its_sign(values: list[float]) -> None:
    found = of_quadratic(values, iterations=200, tolerance=1e-8)
    largest = max(values, key=abs)
    assert found.converged_B.all()
    torch.testing.assert_close(found.value_B, torch.full((6,), largest).double(), rtol=1e-6, atol=0)
    assert (found.change_B <= 1e-8).all() and (found.residual_B <= 1e-4 * abs(largest)).all()


def test_the_default_tolerance_is_kept_and_few_iterations_are_taken() -> None:
    found = of_quadratic([5.0, 1.0, -0.5, 0.1])
    assert found.converged_B.all()
    assert ((found.value_B - 5).abs() <= 0.01 * 5).all()
    assert (found.iterations_B < 10).all() and (found.iterations_B >= 2).all()


def test_some_eigenvalue_lies_within_the_residual_after_any_number_of_iterations() -> None:
    values = torch.tensor([5.0, -4.0, 1.0, 0.3, 0.0]).double()
    for iterations in (2, 3, 5):
        found = of_quadratic(values.tolist(), iterations=iterations, tolerance=1e-12)
        assert not found.converged_B.any() and (found.iterations_B == iterations).all()
        nearest_B = (found.value_B[:, None] - values).abs().amin(dim=1)
        assert (nearest_B <= found.residual_B + 1e-9).all()


def test_two_largest_eigenvalues_of_opposite_sign_never_count_as_converged() -> None:
    found = of_quadratic([3.0, -3.0, 0.0, 0.0], iterations=30)
    assert (found.change_B < 0.01).all()  # by the change alone they would have
    assert not found.converged_B.any()
    assert (found.residual_B > 0.1 * found.value_B.abs()).all()


def test_a_flat_loss_has_curvature_zero_and_has_converged() -> None:
    for net in (Quadratic(torch.zeros(4, 4).double(), torch.ones(4).double()), saturated()):
        found = curvature(net, inner_images(2, 1, 2, 2), zeros(2), ids_of(2), 0)
        assert found.value_B.tolist() == [0.0, 0.0] and found.converged_B.all()
        assert found.residual_B.tolist() == [0.0, 0.0] and found.change_B.tolist() == [0.0, 0.0]


def saturated() -> nn.Module:
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).double()
    with torch.no_grad():
        net[1].bias.copy_(torch.tensor([2000.0, 0.0, 0.0]))
    return net


def true_largest(net: nn.Module, x_CHW: Tensor, label: int) -> tuple[float, Tensor]:
    """By the whole Hessian of torch's own cross-entropy, in float64: the eigenvalue, and all of them."""

    def loss(x_P: Tensor) -> Tensor:
        return F.cross_entropy(net(x_P.view(1, *x_CHW.shape)), torch.tensor([label]))

    hessian_PP = torch.autograd.functional.hessian(loss, x_CHW.flatten())
    values_P = torch.linalg.eigvalsh(hessian_PP)
    return float(values_P[values_P.abs().argmax()]), values_P


@pytest.mark.parametrize(("make", "shape", "classes"), [(mlp, (3, 2, 2), 5), (cnn, (1, 8, 8), 10)])
def test_it_is_that_of_the_whole_hessian(make, shape: tuple[int, ...], classes: int) -> None:  # type: ignore[no-untyped-def]
    net = make(0).double().eval()
    with torch.no_grad():
        for own in net.parameters():
            own.mul_(2)  # steeper, so that the tanh bends too
    x_BCHW, labels_B = inner_images(6, *shape), torch.arange(6) % classes
    found = curvature(net, x_BCHW, labels_B, ids_of(6), 0, iterations=500, tolerance=1e-9)
    assert found.converged_B.all()
    for value, x_CHW, label in zip(found.value_B.tolist(), x_BCHW, labels_B.tolist(), strict=True):
        expected, values_P = true_largest(net, x_CHW, label)
        assert value == pytest.approx(expected, rel=1e-5)
        if make is cnn:  # ReLU and max pooling: J^T (diag(p) - p p^T) J, without a negative eigenvalue
            assert values_P.min() > -1e-9
            assert int((values_P > 1e-9 * values_P.max()).sum()) <= classes - 1


def test_of_relus_it_is_that_of_the_softmax_through_the_jacobian() -> None:
    net, x_BCHW = cnn(1).double().eval(), inner_images(1, 1, 8, 8)
    jacobian_KP = torch.autograd.functional.jacobian(lambda x: net(x)[0], x_BCHW).reshape(10, -1)
    p_K = net(x_BCHW).detach().softmax(dim=1)[0]
    hessian_PP = jacobian_KP.T @ (torch.diag(p_K) - torch.outer(p_K, p_K)) @ jacobian_KP
    found = curvature(net, x_BCHW, torch.tensor([3]), ["a"], 0, iterations=500, tolerance=1e-10)
    assert found.value_B.item() == pytest.approx(torch.linalg.eigvalsh(hessian_PP).max().item(), rel=1e-6)


def test_an_image_counts_by_itself_and_by_its_id() -> None:
    net = mlp(2).double().eval()
    x_BCHW, labels_B, ids = inner_images(9, 3, 2, 2), torch.arange(9) % 5, ids_of(9)
    together = curvature(net, x_BCHW, labels_B, ids, 7)
    in_passes = curvature(net, x_BCHW, labels_B, ids, 7, pass_rows=2)
    one = curvature(net, x_BCHW[4:5], labels_B[4:5], ids[4:5], 7)
    for whole, parts, own in zip(together, in_passes, one, strict=True):
        torch.testing.assert_close(whole, parts)
        torch.testing.assert_close(whole[4:5], own)
    other = curvature(net, x_BCHW, labels_B, [f"x{own}" for own in ids], 7)
    assert not torch.equal(other.residual_B, together.residual_B)


def test_images_end_one_by_one() -> None:
    class Mixed(nn.Module):
        """Of images whose first pixel is above 0.5, the two largest eigenvalues are close to each other."""

        def forward(self, x_BCHW: Tensor) -> Tensor:
            x_BP = x_BCHW.flatten(1)
            second_B = torch.where(x_BP[:, 0].detach() > 0.5, 4.5, 0.01)
            q_B = 20 + (5 * x_BP[:, 0] ** 2 + second_B * x_BP[:, 1] ** 2) / 2
            return torch.stack([torch.zeros_like(q_B), q_B + torch.log(-torch.expm1(-q_B))], dim=1)

    x_BCHW = torch.full((8, 1, 1, 3), 0.4).double()
    x_BCHW[::4, :, :, 0] = 0.6
    found = curvature(Mixed(), x_BCHW, zeros(8), ids_of(8), 1, iterations=100, tolerance=1e-6)
    slow_B = torch.arange(8) % 4 == 0
    assert found.converged_B.all()
    assert found.iterations_B[slow_B].min() > found.iterations_B[~slow_B].max()
    torch.testing.assert_close(found.value_B, torch.full((8,), 5.0).double(), rtol=1e-4, atol=0)


def test_attention_and_a_resized_input_are_differentiated_twice() -> None:
    torch.manual_seed(0)
    net = timm.create_model("test_vit", num_classes=5, img_size=32).double().eval()
    classifier = Classifier(net, (0.5,) * 3, (0.2,) * 3, input_size=32).double()
    with torch.no_grad():
        net.head.weight.mul_(20)
    classifier.forward = lambda x, ids=None: classifier.output(x)  # type: ignore[method-assign]  # stays in float64
    x_BCHW, labels_B = inner_images(2, 3, 24, 24), torch.tensor([0, 3])
    found = curvature(classifier, x_BCHW, labels_B, ids_of(2), 0, iterations=60, tolerance=1e-5)

    def gradient(at_BCHW: Tensor) -> Tensor:
        leaf_BCHW = at_BCHW.clone().requires_grad_()
        loss = F.cross_entropy(classifier.output(leaf_BCHW), labels_B, reduction="sum")
        return torch.autograd.grad(loss, leaf_BCHW)[0]

    v_BCHW, values_B = torch.randn(x_BCHW.shape, dtype=torch.float64), torch.zeros(2)
    for _ in range(80):  # the same iteration, by finite differences of the gradient
        v_BCHW = v_BCHW / v_BCHW.flatten(1).norm(dim=1)[:, None, None, None]
        hv_BCHW = (gradient(x_BCHW + 1e-4 * v_BCHW) - gradient(x_BCHW - 1e-4 * v_BCHW)) / 2e-4
        values_B, v_BCHW = (v_BCHW * hv_BCHW).flatten(1).sum(dim=1), hv_BCHW
    torch.testing.assert_close(found.value_B, values_B, rtol=0.01, atol=0)


def test_what_cannot_be_differentiated_twice_says_so() -> None:
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):  # type: ignore[no-untyped-def]
            return x * x

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, g):  # type: ignore[no-untyped-def]
            return 2 * g

    class Net(nn.Module):
        def forward(self, x_BCHW: Tensor) -> Tensor:
            return Once.apply(x_BCHW).flatten(1)[:, :3]

    with pytest.raises(NoGradient, match="cannot differentiate target7 twice"):
        curvature(Net(), inner_images(1, 1, 2, 2), zeros(1), ["a"], 0, whose="target7")


@pytest.mark.parametrize("settings", [{"iterations": 1}, {"tolerance": 0.0}, {"tolerance": float("nan")}])
def test_other_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(InputError, match="at least 2 iterations"):
        of_quadratic([1.0, 2.0], **settings)
