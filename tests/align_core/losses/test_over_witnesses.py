"""How the losses to several witnesses become one."""

import pytest
import torch

from align_core.losses.over_witnesses import OVER_WITNESSES, over_witnesses

# Four images, two witnesses: the first is the farther one of images 0 and 2.
FIRST, SECOND = torch.tensor([4.0, 1.0, 6.0, 0.0]), torch.tensor([2.0, 3.0, 5.0, 7.0])


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("mean", (4 + 1 + 6 + 0 + 2 + 3 + 5 + 7) / 8),
        ("max", (4 + 3 + 6 + 7) / 4),
        ("min", (2 + 1 + 5 + 0) / 4),
        ([1.0, 1.0], 3.5),
        ([3.0, 1.0], (3 * 2.75 + 4.25) / 4),
        ([0.5, 0.0], 2.75),
    ],
)
def test_by_hand(how: str | list[float], expected: float) -> None:
    assert over_witnesses([FIRST, SECOND], how).item() == pytest.approx(expected)


@pytest.mark.parametrize(("how", "to_first"), [("max", [1, 0, 1, 0]), ("min", [0, 1, 0, 1])])
def test_the_gradient_flows_through_the_witness_that_an_image_chose(how: str, to_first: list[int]) -> None:
    first, second = FIRST.clone().requires_grad_(), SECOND.clone().requires_grad_()
    gradients = torch.autograd.grad(over_witnesses([first, second], how), (first, second))
    assert (4 * gradients[0]).tolist() == to_first
    assert (4 * gradients[1]).tolist() == [1 - own for own in to_first]


def test_weights_count_by_their_shares_alone() -> None:
    losses = [FIRST, SECOND, FIRST * SECOND]
    expected = over_witnesses(losses, [0.2, 0.3, 0.5])
    torch.testing.assert_close(over_witnesses(losses, [20, 30, 50]), expected)
    torch.testing.assert_close(over_witnesses(losses, [1, 1, 1]), over_witnesses(losses, "mean"))


def test_losses_of_a_whole_batch() -> None:
    losses = [torch.tensor(2.0), torch.tensor(5.0)]
    assert over_witnesses(losses, "mean").item() == 3.5
    assert over_witnesses(losses, [1.0, 2.0]).item() == 4.0


@pytest.mark.parametrize("how", [*OVER_WITNESSES, [2.0]])
def test_of_one_witness_it_is_the_mean_over_images(how: str | list[float]) -> None:
    assert over_witnesses([FIRST], how).item() == 2.75


def test_without_a_witness_it_is_zero() -> None:
    for how in OVER_WITNESSES:
        assert over_witnesses([], how).item() == 0
