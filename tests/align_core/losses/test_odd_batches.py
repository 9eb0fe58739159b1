"""Alignment losses where formulas divide by zero, and what they refuse."""

import pytest
import torch
from plain_losses import loss_of, normal, seen
from torch import Tensor

from align_core.losses import LOSSES, compares
from align_core.losses.known import read_loss, read_losses
from align_core.losses.seen import unit

OF_FEATURES = [name for name, loss in LOSSES.items() if loss.sees == "features"]
NORMAL = normal(0, 4, 6)
BATCHES = {
    "zero": torch.zeros(4, 6),
    "constant": torch.full((4, 6), 0.3),
    "one image is zero": torch.cat([torch.zeros(1, 6), NORMAL[1:]]),
    "one image is constant": torch.cat([torch.full((1, 6), 2.0), NORMAL[1:]]),
    "two images are one": NORMAL[[0, 0, 1, 2]],
    "two images are opposite": torch.cat([NORMAL[:1], -NORMAL[:1], NORMAL[2:]]),
    "tiny": 1e-15 * NORMAL,
    "large": 1e6 * NORMAL,
}


def value_and_gradient(name: str, source: Tensor, witness: Tensor, labels: list[int]) -> tuple[Tensor, Tensor]:
    leaf = source.clone().requires_grad_()
    value = loss_of(name)(seen(leaf, "features", torch.tensor(labels)), seen(witness, "features"))
    return value, torch.autograd.grad(value.sum(), leaf)[0]


@pytest.mark.parametrize("whose", ["source", "witness", "both"])
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", OF_FEATURES)
def test_features_without_directions_leave_everything_finite(name: str, batch: str, whose: str) -> None:
    odd, usual = BATCHES[batch], normal(1, 4, 6)
    source, witness = {"source": (odd, usual), "witness": (usual, odd), "both": (odd, odd)}[whose]
    value, gradient = value_and_gradient(name, source, witness, [0, 1, 0, 1])
    assert value.isfinite().all()
    assert gradient.isfinite().all()
    # A single image without a direction must not decide the step of all: only tiny features have steep slopes.
    if not (batch == "tiny" and whose != "witness") and batch != "large":
        assert gradient.norm() < 100


@pytest.mark.parametrize("name", ["pkt", "nce", "ega"])
def test_an_image_whose_features_are_zero_gets_no_gradient(name: str) -> None:
    """They have no direction, and a slope of 1 / length would outweigh all others, or overflow."""
    _, gradient = value_and_gradient(name, BATCHES["one image is zero"], normal(1, 4, 6), [0, 1, 0, 1])
    assert gradient[0].abs().max() == 0
    assert gradient[1:].abs().max() > 0


@pytest.mark.parametrize("name", OF_FEATURES)
def test_a_batch_of_one_image(name: str) -> None:
    value, gradient = value_and_gradient(name, normal(0, 1, 6), normal(1, 1, 6), [3])
    assert value.isfinite().all() and gradient.isfinite().all()
    if name in ("pkt", "rkd"):  # there is no other image to be compared with
        assert value.item() == 0 and gradient.abs().max() == 0


def test_nce_of_a_batch_of_one_class_contrasts_nothing() -> None:
    """What is left is the mean of -log P over all images, of which the witness's can be told apart but not chosen."""
    source, witness = normal(0, 4, 6), normal(1, 4, 6)
    value, gradient = value_and_gradient("nce", source, witness, [2, 2, 2, 2])
    cosines = torch.nn.functional.cosine_similarity(source[:, None], witness[None], dim=2)
    expected = -torch.log_softmax(cosines.double() / 0.1, dim=1).clamp_min(-23).mean()
    assert value.item() == pytest.approx(expected.item(), rel=1e-3)
    assert gradient.isfinite().all()


def test_nce_where_one_image_is_picked_with_certainty() -> None:
    value, gradient = value_and_gradient("nce", normal(0, 4, 6), normal(0, 4, 6), [0, 1, 2, 3])
    sharp = loss_of("nce", sharpness=0.001)(
        seen(normal(0, 4, 6), "features", torch.arange(4)), seen(normal(0, 4, 6), "features")
    )
    assert value.isfinite() and gradient.isfinite().all() and sharp.isfinite()


def test_unit_of_nothing_is_nothing_without_a_gradient() -> None:
    features = torch.tensor([[3.0, 4.0], [0.0, 0.0]], requires_grad=True)
    found = unit(features)
    assert found.tolist() == [pytest.approx([0.6, 0.8]), [0.0, 0.0]]
    (gradient,) = torch.autograd.grad(found[:, 0].sum(), features)
    assert gradient.tolist() == [pytest.approx([0.128, -0.096]), [0.0, 0.0]]  # (1 - 0.36) / 5, and -0.48 / 5


@pytest.mark.parametrize("name", ["symkl", "mse", "l1"])
def test_logits_of_two_shapes_are_refused_rather_than_broadcast(name: str) -> None:
    with pytest.raises(ValueError, match=r"logits of one shape \[B, K\], not \(4, 3\) and \(1, 3\)"):
        loss_of(name)(seen(torch.zeros(4, 3), "logits"), seen(torch.zeros(1, 3), "logits"))


@pytest.mark.parametrize("name", [name for name in OF_FEATURES if LOSSES[name].projected])
def test_features_of_two_widths_are_refused(name: str) -> None:
    labels = torch.tensor([0, 1])
    with pytest.raises(ValueError, match=r"features of widths 3 and 1 have no (difference|cosine|correlation)"):
        loss_of(name)(seen(torch.zeros(2, 3), "features", labels), seen(torch.zeros(2, 1), "features"))


@pytest.mark.parametrize("name", [name for name, loss in LOSSES.items() if loss.sees != "logits"])
@pytest.mark.parametrize("whose", ["source", "witness"])
def test_what_is_compared_must_be_there(name: str, whose: str) -> None:
    there, not_there = (
        seen(normal(0, 2, 3, *((1, 1) if name == "local" else ())), LOSSES[name].sees),
        seen(torch.zeros(2, 3), "logits"),
    )
    pair = (not_there, there) if whose == "source" else (there, not_there)
    with pytest.raises(ValueError, match=r"compares (features|predictions at places of the image), and .* not there"):
        loss_of(name)(*pair)


def test_nce_without_labels() -> None:
    with pytest.raises(ValueError, match="nce compares images by their labels, and there are none"):
        loss_of("nce")(seen(NORMAL, "features"), seen(NORMAL, "features"))


class TestReading:
    def test_settings_are_completed(self) -> None:
        assert read_loss("rkd") == {"name": "rkd", "weight": 1.0, "distance": 1.0, "angle": 2.0}
        assert read_losses(["kl", {"name": "nce", "weight": 0.5}]) == [
            {"name": "kl", "weight": 1.0},
            {"name": "nce", "weight": 0.5, "sharpness": 0.1},
        ]

    @pytest.mark.parametrize(
        ("written", "message"),
        [
            ("rdk", "there is no alignment loss 'rdk'; did you mean 'rkd'. There are: kl, symkl"),
            ({"name": "rkd", "angel": 1}, "loss rkd has no setting 'angel'; did you mean 'angle'"),
            ({"name": "kl", "weight": -1}, "weight of loss kl must be from 0 to 1e\\+06, not -1"),
            (
                {"name": "kl", "weight": "1"},
                "weight of loss kl must be a number, not the text '1'; leave the quotes out",
            ),
            ({"name": "nce", "sharpness": 0}, "sharpness of loss nce must be from 0.001 to 100"),
            (
                {"weight": 1},
                "the alignment loss must be a name, or keys and values with a name, not keys and values without",
            ),
            (3, "the alignment loss must be a name, or keys and values with a name, not the number 3"),
            ([], "must name at least one loss"),
            (["kl", {"name": "kl", "weight": 2}], "each of them once"),
            (
                [{"name": "kl", "weight": 0}, {"name": "pkt", "weight": 0}],
                "all weights are 0; .* set align.weight to 0",
            ),
        ],
    )
    def test_refusals(self, written: object, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            read_losses(written)

    def test_what_losses_compare(self) -> None:
        losses = read_losses(["kl", "hint"])
        assert compares(losses, "features") and not compares(losses, "places")
        assert compares(read_losses("local"), "places") and not compares(read_losses("local"), "features")
