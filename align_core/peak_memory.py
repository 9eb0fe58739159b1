"""Measures how much memory a network takes: its weights, and what a pass through it holds at once, on a few images.

The tensors that live at one time are added up, operation by operation, which is exact and the same on every machine.
What it leaves out is what operations hold for themselves while they run, and what a C library keeps of freed memory.
"""

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from align_core.memory import PassMemory


def bytes_of_weights(network: nn.Module) -> int:
    """Bytes of all parameters and buffers; those that share memory count once."""
    storages = {own.untyped_storage().data_ptr(): own.untyped_storage().nbytes() for own in weights_of(network)}
    return sum(storages.values())


def memory_of_pass(work: Callable[[int], object], rows: int, held: Iterable[Tensor] = ()) -> PassMemory:
    """What `work(count)`, a pass of `count` images, holds at most, from passes of `rows` images and of twice as many.

    Both are compared operation by operation. Where a network is large and the images are few, the peak comes when the
    optimizer takes its step, and with many images when the forward pass ends: their sum is never too little.

    Args:
        held: tensors that were there before, as the weights; they do not count.
    """
    held = list(held)
    few, many = living_bytes(lambda: work(rows), held), living_bytes(lambda: work(2 * rows), held)
    if len(few) != len(many):  # it does other things with other images
        few, many = [max(few)], [max(many)]
    slopes = [-(-(more - less) // rows) for less, more in zip(few, many, strict=True)]
    fixed = max(less - rows * slope for less, slope in zip(few, slopes, strict=True))
    return PassMemory(max(0, fixed), max(0, *slopes))


def predicting_memory(network: nn.Module, image_1CHW: Tensor) -> PassMemory:
    """What predicting takes, for a network in eval mode."""

    def predict(count: int) -> None:
        with torch.no_grad():
            network(image_1CHW.repeat(count, 1, 1, 1))

    return memory_of_pass(predict, 1, weights_of(network))


def gradient_memory(network: nn.Module, image_1CHW: Tensor) -> PassMemory:
    """What a gradient with respect to the pixels takes, for a network in eval mode with frozen parameters."""

    def differentiate(count: int) -> None:
        images_BCHW = image_1CHW.repeat(count, 1, 1, 1).requires_grad_()
        with torch.enable_grad():
            torch.autograd.grad(network(images_BCHW).sum(), images_BCHW)

    return memory_of_pass(differentiate, 1, weights_of(network))


def living_bytes(work: Callable[[], object], held: Iterable[Tensor] = ()) -> list[int]:
    """The bytes of the tensors that `work` has made and still holds, after each operation of torch; those that share
    memory with `held` do not count.
    """
    living = _Living(held)
    with living:
        work()
    return living.bytes


def weights_of(network: nn.Module) -> list[Tensor]:
    """The tensors that a network holds whether it is used or not: its parameters and buffers."""
    return [*network.parameters(), *network.buffers()]


class _Living(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the memory of the tensors that operations return, until it is freed."""

    def __init__(self, held: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes: list[int] = []
        self._now = 0
        self._known = {own.untyped_storage()._cdata for own in held}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        returned = func(*args, **(kwargs or {}))
        for own in tree_leaves(returned):
            if isinstance(own, Tensor) and own.layout is torch.strided:
                self._add(own.untyped_storage())
        self.bytes.append(self._now)
        return returned

    def _add(self, storage: torch.UntypedStorage) -> None:
        number, size = storage._cdata, storage.nbytes()
        if number in self._known:
            return
        self._known.add(number)
        self._now += size
        weakref.finalize(storage, self._free, number, size)

    def _free(self, number: int, size: int) -> None:
        self._known.discard(number)
        self._now -= size
