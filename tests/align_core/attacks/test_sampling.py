"""The resizing of images in two taps, and its gradient, against the plain product of matrices."""

import pytest
import torch
from torch import Tensor

from align_core.attacks.sampling import Resampled, shrunk_axis


def bilinear(first: int, side: int, length: int) -> Tensor:
    """Outputs by inputs: `side` pixels from `first` on, each of which lies between two of `length` inputs."""
    matrix = torch.zeros(length, length, dtype=torch.float64)
    for output in range(first, first + side):
        place = (output - first + 0.5) * length / side - 0.5
        for pixel in range(length):
            matrix[output, pixel] = max(0.0, 1 - abs(place - pixel))
    return matrix


def every_way(length: int) -> tuple[Tensor, Tensor]:
    """First pixel and side of every way in which an axis can be shrunk and put on one of its length."""
    ways = [(first, side) for side in range(1, length + 1) for first in range(length - side + 1)]
    first_N, side_N = torch.tensor(ways, dtype=torch.float32).T
    return first_N, side_N


@pytest.mark.parametrize(("height", "width"), [(1, 2), (7, 7), (9, 12)])
def test_images_and_their_gradients_are_shrunk_as_by_matrices(height: int, width: int) -> None:
    down, across = every_way(height), every_way(width)
    count = max(len(down[0]), len(across[0]))
    ways = [[axis.repeat(count)[:count] for axis in axes] for axes in (down, across)]
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((count, 2, height, width), generator=generator, dtype=torch.float64).requires_grad_()
    towards = torch.randn(images.shape, generator=generator, dtype=torch.float64)
    ours = Resampled.apply(images, shrunk_axis(*ways[0], height), shrunk_axis(*ways[1], width))
    rows, columns = (
        torch.stack([bilinear(int(first), int(side), length) for first, side in zip(*axes, strict=True)])
        for axes, length in zip(ways, (height, width), strict=True)
    )
    plain = torch.einsum("nyh,nchw,nxw->ncyx", rows, images, columns)
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-12)
    for gradient in zip(*(torch.autograd.grad((of * towards).sum(), images) for of in (ours, plain)), strict=True):
        torch.testing.assert_close(*gradient, rtol=0, atol=1e-12)


def test_the_gradient_of_shrinking_is_the_one_of_differences() -> None:
    images = torch.rand(2, 1, 6, 2, dtype=torch.float64, requires_grad=True)
    first_N, long_N, short_N = torch.tensor([[1.0, 0.0], [4.0, 5.0], [1.0, 2.0]])
    axes = shrunk_axis(first_N, long_N, 6), shrunk_axis(first_N, short_N, 2)
    assert torch.autograd.gradcheck(lambda images: Resampled.apply(images, *axes), images)


@pytest.mark.parametrize("length", [32, 224])
def test_an_axis_that_keeps_its_length_keeps_every_bit(length: int) -> None:
    images = torch.rand(2, 3, length, length) - 0.3
    axis = shrunk_axis(torch.zeros(2), torch.full((2,), float(length)), length)
    assert torch.equal(Resampled.apply(images, axis, axis), images)


def test_every_input_of_a_large_axis_is_seen_with_all_its_weight() -> None:
    """At 224 pixels, where rounding could leave out an output at the border of what shows an input."""
    sides = torch.arange(1.0, 225.0)
    axis = shrunk_axis(torch.zeros(224), sides, 224)
    forward, back = torch.zeros(224, 224, 224, dtype=torch.float64), torch.zeros(224, 224, 224, dtype=torch.float64)
    for taps, matrix in ((axis.outputs, forward), (axis.inputs, back)):
        for pixel, weight in zip(taps.pixel_2NL, taps.weight_2NL, strict=True):
            matrix.scatter_add_(2, pixel[..., None], weight[..., None])
    torch.testing.assert_close(forward, back.transpose(1, 2), rtol=0, atol=1e-10)
