"""Every alignment loss and its gradient, against loops over numbers in float64 and their finite differences."""

from collections.abc import Callable

import numpy as np
import plain_losses
import pytest
import torch
from plain_losses import Array, loss_of, normal, numbers, seen, slope
from torch import Tensor

from align_core.losses import LOSSES

LABELS = [0, 1, 0, 2, 1]
Plain = Callable[[Array, Array], float]

LOGITS = normal(0, 5, 4, scale=4), normal(1, 5, 4, scale=4)
FEATURES = normal(0, 5, 6), normal(1, 5, 6)
OTHER_WIDTHS = normal(0, 5, 6), normal(1, 5, 3)
PLACES = normal(0, 3, 4, 2, 2, scale=2), normal(1, 3, 4, 2, 2, scale=2)

# name, its settings, what source and witness make of a few images, and the loss as loops
CASES: list[tuple[str, dict[str, float], tuple[Tensor, Tensor], Plain]] = [
    ("kl", {"temperature": 3.0}, LOGITS, lambda s, w: plain_losses.kl(s, w, 3)),
    ("symkl", {"temperature": 3.0}, LOGITS, lambda s, w: plain_losses.symkl(s, w, 3)),
    ("mse", {}, LOGITS, plain_losses.mse),
    ("l1", {}, LOGITS, plain_losses.l1),
    ("hint", {}, FEATURES, plain_losses.hint),
    ("pkt", {}, OTHER_WIDTHS, plain_losses.pkt),
    ("rkd", {"distance": 0.7, "angle": 1.6}, OTHER_WIDTHS, lambda s, w: plain_losses.rkd(s, w, 0.7, 1.6)),
    ("rkd", {"distance": 0.0}, OTHER_WIDTHS, lambda s, w: plain_losses.rkd(s, w, 0, 2)),
    ("rkd", {"angle": 0.0}, OTHER_WIDTHS, lambda s, w: plain_losses.rkd(s, w, 1, 0)),
    ("nce", {"sharpness": 0.3}, FEATURES, lambda s, w: plain_losses.nce(s, w, LABELS, 0.3)),
    ("nce", {}, FEATURES, lambda s, w: plain_losses.nce(s, w, LABELS, 0.1)),
    ("ega", {"node": 0.5, "edge": 1.5}, FEATURES, lambda s, w: plain_losses.ega(s, w, 0.5, 1.5)),
    ("ega", {}, FEATURES, lambda s, w: plain_losses.ega(s, w, 0.8, 0.24)),
    ("local", {}, PLACES, plain_losses.local),
]
NAMES = [f"{name}-{'-'.join(settings)}" for name, settings, *_ in CASES]


def test_every_loss_is_among_the_cases() -> None:
    assert {name for name, *_ in CASES} == set(LOSSES)


def value(name: str, settings: dict[str, float], source: Tensor, witness: Tensor) -> Tensor:
    """The loss of each image, or of the batch."""
    kind, labels = LOSSES[name].sees, torch.tensor(LABELS[: len(source)])
    found = loss_of(name, **settings)(seen(source, kind, labels), seen(witness, kind))
    assert found.dtype == torch.float32
    assert found.shape == ((len(source),) if LOSSES[name].per_image else ())
    return found


@pytest.mark.parametrize(("name", "settings", "pair", "plain"), CASES, ids=NAMES)
class TestLoss:
    def test_equals_the_loops(
        self, name: str, settings: dict[str, float], pair: tuple[Tensor, Tensor], plain: Plain
    ) -> None:
        source, witness = pair
        expected = plain(numbers(source), numbers(witness))
        assert value(name, settings, source, witness).mean().item() == pytest.approx(expected, rel=1e-5)

    def test_computes_in_float32_whatever_it_is_given(
        self, name: str, settings: dict[str, float], pair: tuple[Tensor, Tensor], plain: Plain
    ) -> None:
        source, witness = (own.bfloat16() for own in pair)
        expected = plain(numbers(source), numbers(witness))
        assert value(name, settings, source, witness.double()).mean().item() == pytest.approx(expected, rel=1e-5)

    def test_which_of_both_teaches_counts_where_it_does_in_the_loops(
        self, name: str, settings: dict[str, float], pair: tuple[Tensor, Tensor], plain: Plain
    ) -> None:
        source, witness = pair
        forth, back = plain(numbers(source), numbers(witness)), plain(numbers(witness), numbers(source))
        assert (forth == pytest.approx(back)) == (name in ("symkl", "mse", "l1", "hint", "rkd", "ega"))
        assert value(name, settings, witness, source).mean().item() == pytest.approx(back, rel=1e-5)

    def test_gradient_equals_finite_differences_of_the_loops(
        self, name: str, settings: dict[str, float], pair: tuple[Tensor, Tensor], plain: Plain
    ) -> None:
        source, witness = pair
        leaf = source.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(value(name, settings, leaf, witness).mean(), leaf)
        expected = slope(lambda s: plain(s, numbers(witness)), source)
        np.testing.assert_allclose(numbers(gradient), expected, atol=1e-5 * np.abs(expected).max(), rtol=1e-3)


@pytest.mark.parametrize(("name", "settings", "pair", "plain"), [own for own in CASES if LOSSES[own[0]].per_image])
def test_an_images_own_loss_is_that_of_a_batch_of_one(
    name: str, settings: dict[str, float], pair: tuple[Tensor, Tensor], plain: Plain
) -> None:
    source, witness = map(numbers, pair)
    alone = [plain(source[i : i + 1], witness[i : i + 1]) for i in range(len(source))]
    assert value(name, settings, *pair).tolist() == pytest.approx(alone, rel=1e-5)
