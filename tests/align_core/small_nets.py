"""Small networks and random batches for tests of alignment, and a comparison of two states."""

import torch
from torch import Tensor, nn

from align_core.weights import State

Batch = tuple[Tensor, Tensor]


def mlp(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 5))


def cnn(seed: int, width: int = 8) -> nn.Sequential:
    """A network for grey images of 8 x 8 pixels, with BatchNorm and Dropout, which behave differently in eval mode."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1),
        nn.BatchNorm2d(2 * width),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(32 * width, 10),
    )


def random_batches(count: int, *shape: int, classes: int) -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.rand((8, *shape), generator=generator), torch.randint(classes, (8,), generator=generator))
        for _ in range(count)
    ]


def tensors_of(net: nn.Module) -> State:
    return {name: value.clone() for name, value in net.state_dict().items()}


def assert_identical(state: State, expected: State) -> None:
    assert state.keys() == expected.keys()
    for name in expected:
        assert torch.equal(state[name], expected[name]), name
