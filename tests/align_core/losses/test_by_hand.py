"""Alignment losses in cases small enough for a pencil, and what they are blind to."""

import math

import pytest
import torch
from plain_losses import loss_of, normal, seen
from torch import Tensor

LINE = torch.tensor([[0.0, 0.0], [1.0, 0.0], [3.0, 0.0]])
TRIANGLE = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, math.sqrt(3) / 2]])
SIDES = torch.tensor([[1.0, 0.0], [0.0, 1.0]])


def features(name: str, source: Tensor, witness: Tensor, labels: list[int] | None = None, **settings: float) -> Tensor:
    labels_B = None if labels is None else torch.tensor(labels)
    return loss_of(name, **settings)(seen(source, "features", labels_B), seen(witness, "features"))


class TestLogits:
    def test_symkl(self) -> None:
        # At T = 2 the witness predicts (3/4, 1/4), the source (1/2, 1/2): (1/4) log(3/2) - (1/4) log(1/2), times 4.
        source, witness = torch.tensor([[1.0, 1.0]]), torch.tensor([[2 * math.log(3), 0.0]])
        assert loss_of("symkl", 2.0)(seen(source, "logits"), seen(witness, "logits")).item() == pytest.approx(
            math.log(3)
        )

    @pytest.mark.parametrize(("name", "expected"), [("mse", [0.5, 8.0]), ("l1", [0.5, 2.0])])
    def test_differences(self, name: str, expected: list[float]) -> None:
        source, witness = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[0.0, 2.0], [3.0, 0.0]])
        assert loss_of(name)(seen(source, "logits"), seen(witness, "logits")).tolist() == expected

    def test_symkl_sees_no_constant_and_mse_and_l1_do(self) -> None:
        logits = normal(0, 5, 4)
        moved, same = seen(logits + 2, "logits"), seen(logits, "logits")
        assert loss_of("symkl")(moved, same).abs().max() < 1e-5
        assert loss_of("mse")(moved, same).tolist() == pytest.approx([4.0] * 5)
        assert loss_of("l1")(moved, same).tolist() == pytest.approx([2.0] * 5)

    def test_the_temperature_is_that_of_the_losses_that_soften(self) -> None:
        pair = seen(normal(0, 5, 4), "logits"), seen(normal(1, 5, 4), "logits")
        for name, softens in {"kl": True, "symkl": True, "mse": False, "l1": False}.items():
            assert torch.equal(loss_of(name, 1.0)(*pair), loss_of(name, 8.0)(*pair)) != softens


class TestFeatures:
    def test_hint(self) -> None:
        source, witness = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[0.0, 2.0], [3.0, 0.0]])
        assert features("hint", source, witness).tolist() == [0.5, 8.0]

    def test_pkt(self) -> None:
        # Cosines 0 and -1, shifted to 1/2 and 0: the source picks (2/3, 1/3), the witness (1, 0). Divided by 2^2.
        value = features("pkt", SIDES, torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
        assert value.item() == pytest.approx(2 * math.log(1.5) / 4, rel=1e-5)

    def test_rkd(self) -> None:
        # Distances 1, 2, 3 over their mean 2, and 1, 1, 1: differences of 1/2, 0 and 1/2, each met twice in 3^2.
        assert features("rkd", LINE, TRIANGLE, angle=0).item() == pytest.approx(4 * (0.5**2 / 2) / 9, rel=1e-5)
        # Cosines 1, -1, 1 at the three images, and 1/2: differences of 1/2, -3/2 and 1/2, each met twice in 3^3.
        by_angle = 2 * (0.5**2 / 2 + (1.5 - 0.5) + 0.5**2 / 2) / 27
        assert features("rkd", LINE, TRIANGLE, distance=0, angle=1).item() == pytest.approx(by_angle, rel=1e-5)

    def test_nce(self) -> None:
        # P_ii = e / (e + 1), and P_ij = 1 / (e + 1) of the other class.
        value = features("nce", SIDES, SIDES, [0, 1], sharpness=1.0)
        assert value.item() == pytest.approx(2 * math.log(1 + 1 / math.e), rel=1e-5)

    def test_ega(self) -> None:
        # N = [[1, -1], [1, -1]], so that N - I has squares 0, 1, 1, 4; E differs by 2 off the diagonal.
        one = [2.0, 0.0]
        value = features("ega", torch.tensor([one, one]), torch.tensor([one, [0.0, 5.0]]))
        assert value.item() == pytest.approx(0.8 * math.sqrt(6) + 0.24 * math.sqrt(8), rel=1e-5)

    @pytest.mark.parametrize("name", ["hint", "pkt", "rkd"])
    def test_is_zero_with_zero_gradient_at_equal_features(self, name: str) -> None:
        source = normal(0, 5, 6).requires_grad_()
        value = features(name, source, source.detach())
        assert value.abs().max() < 1e-7
        (gradient,) = torch.autograd.grad(value.sum(), source)
        assert gradient.abs().max() < 1e-6

    def test_ega_at_equal_features_is_what_makes_images_alike(self) -> None:
        source = normal(0, 5, 6)
        alike = torch.corrcoef(source.double())
        assert features("ega", source, source).item() == pytest.approx(
            0.8 * (alike - torch.eye(5)).norm().item(), rel=1e-5
        )
        assert features("ega", source, source, node=0).item() == pytest.approx(0, abs=1e-6)

    def test_rkd_sees_no_turn_shift_or_scale(self) -> None:
        turn, _ = torch.linalg.qr(normal(2, 6, 6))
        witness = normal(1, 5, 6)
        assert features("rkd", 3 * witness @ turn + 7, witness).item() == pytest.approx(0, abs=1e-6)
        assert features("rkd", witness**3, witness).item() > 1e-2

    def test_pkt_sees_no_turn_and_no_lengths_and_ega_no_lengths_and_no_shift_of_an_image(self) -> None:
        turn, _ = torch.linalg.qr(normal(2, 6, 6))
        witness, lengths = normal(1, 5, 6), normal(3, 5, 1).abs() + 0.1
        assert features("pkt", lengths * witness @ turn, witness).item() == pytest.approx(0, abs=1e-7)
        same = features("ega", witness, witness).item()
        assert features("ega", lengths * witness + normal(4, 5, 1), witness).item() == pytest.approx(same, rel=1e-5)


class TestPlaces:
    def local(self, source: Tensor, witness: Tensor) -> Tensor:
        return loss_of("local")(seen(source, "places"), seen(witness, "places"))

    def test_of_a_source_that_knows_nothing_it_is_the_logarithm_of_the_classes(self) -> None:
        assert self.local(torch.zeros(2, 3, 2, 2), normal(0, 2, 3, 2, 2)).tolist() == pytest.approx([math.log(3)] * 2)

    @pytest.mark.parametrize("is_source", [True, False])
    def test_the_finer_grid_is_averaged_down(self, is_source: bool) -> None:
        fine, coarse = normal(0, 2, 3, 4, 4), normal(1, 2, 3, 2, 2)
        down = torch.stack(
            [fine[:, :, y : y + 2, x : x + 2].mean(dim=(2, 3)) for y in (0, 2) for x in (0, 2)], dim=2
        ).view(2, 3, 2, 2)
        got = self.local(fine, coarse) if is_source else self.local(coarse, fine)
        expected = self.local(down, coarse) if is_source else self.local(coarse, down)
        torch.testing.assert_close(got, expected)

    def test_grids_that_are_no_multiple_of_each_other(self) -> None:
        """A 7 x 7 map of a convolutional network, and the 14 x 14 patches of a transformer at another stride."""
        assert self.local(normal(0, 2, 3, 7, 7), normal(1, 2, 3, 5, 5)).isfinite().all()

    def test_at_equal_predictions_it_is_their_entropy_and_its_gradient_is_zero(self) -> None:
        witness = normal(0, 2, 3, 2, 2)
        source = (witness + 5).requires_grad_()
        value = self.local(source, witness)
        p = witness.softmax(dim=1)
        torch.testing.assert_close(value, -(p * p.log()).sum(dim=1).mean(dim=(1, 2)))
        (gradient,) = torch.autograd.grad(value.sum(), source)
        assert gradient.abs().max() < 1e-6
