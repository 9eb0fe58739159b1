"""A GPU that is not there: tensors of its devices, shapes and types that hold nothing, and a network to compute on."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode


@contextmanager
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tensors are fake in the block, and autocast believes that there is a GPU.

    Without a driver, torch's autograd makes no backward pass of CUDA tensors: that is for the test to replace.
    """
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)  # else no autocast
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    with FakeTensorMode():
        yield


class Seen(nn.Module):
    """A network that notes the type in which its last layer computes."""

    def __init__(self, side: int) -> None:
        super().__init__()
        inner = (side - 1) // 2
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
        self.head = nn.Linear(4 * inner * inner, 10)
        self.types: set[torch.dtype] = set()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(images))
        self.types.add(logits.dtype)
        return logits
