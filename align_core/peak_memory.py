"""Measures how much memory a network takes: its weights, and what a pass through it holds at once, on a few images.

Operation by operation it is known which tensors live, and so how far they spread over the heap (`align_core.heap`): the
same on every machine. What it leaves out is what operations hold for themselves while they run.
"""

import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from align_core.heap import Heap
from align_core.memory import PassMemory
from align_core.reasons import NoGradient, curvature, gradients

_ALIKE = 0.02  # by how much of what two images take it may differ from twice what one takes


def bytes_of_weights(network: nn.Module) -> int:
    """Bytes of all parameters and buffers; those that share memory count once."""
    storages = {own.untyped_storage().data_ptr(): own.untyped_storage().nbytes() for own in weights_of(network)}
    return sum(storages.values())


class Measured(NamedTuple):
    """What a pass takes: what lives at one time, and how far that spreads over the heap of a process on CPUs."""

    living: PassMemory
    spread: PassMemory


def memory_of_pass(work: Callable[[int], object], rows: int, held: Iterable[Tensor] = ()) -> Measured:
    """What `work(count)`, a pass of `count` images, holds at most, from passes of `rows` images and of twice as many.

    Both are compared operation by operation. Where a network is large and the images are few, the peak comes when the
    optimizer takes its step, and with many images when the forward pass ends: their sum is never too little.

    torch copies some tensors of several images that it need not copy of one. Where it then holds another share for one
    image, passes of two and of three are compared.

    Args:
        held: tensors that were there before, as the weights; they do not count.
    """
    held, counts = list(held), (rows, 2 * rows)
    few, many = _watched(lambda: work(rows), held), _watched(lambda: work(2 * rows), held)
    is_other = abs(2 * max(few.bytes) - max(many.bytes)) > _ALIKE * max(many.bytes)
    if rows == 1 and len(few.bytes) != len(many.bytes) and is_other:
        counts = (2, 3)
        few, many = many, _watched(lambda: work(3), held)
    return Measured(_from(few.bytes, many.bytes, counts), _from(few.spread, many.spread, counts))


def _from(few: list[int], many: list[int], counts: tuple[int, int]) -> PassMemory:
    """What a pass of any number of images holds, from what two hold after each operation."""
    if len(few) != len(many):  # it does other things with other images
        few, many = [max(few)], [max(many)]
    slopes = [-(-(more - less) // (counts[1] - counts[0])) for less, more in zip(few, many, strict=True)]
    fixed = max(less - counts[0] * slope for less, slope in zip(few, slopes, strict=True))
    return PassMemory(max(0, fixed), max(0, *slopes))


def predicting_memory(network: nn.Module, image_1CHW: Tensor) -> Measured:
    """What predicting takes, for a network in eval mode."""

    def predict(count: int) -> None:
        with torch.no_grad():
            network(image_1CHW.repeat(count, 1, 1, 1))

    return memory_of_pass(predict, 1, weights_of(network))


def gradient_memory(network: nn.Module, image_1CHW: Tensor) -> Measured:
    """What a gradient with respect to the pixels takes, for a network in eval mode with frozen parameters."""

    def differentiate(count: int) -> None:
        images_BCHW = image_1CHW.repeat(count, 1, 1, 1).requires_grad_()
        with torch.enable_grad():
            torch.autograd.grad(network(images_BCHW).sum(), images_BCHW)

    return memory_of_pass(differentiate, 1, weights_of(network))


def reasons_memory(network: nn.Module, image_1CHW: Tensor, derivatives: int) -> Measured:
    """What a pass of the reasons takes, for a network that is not trained: a gradient, or with two `derivatives` the
    curvature, as far as it can be had.
    """

    def differentiate(count: int) -> None:
        labels_B, ids = torch.zeros(count, dtype=torch.int64), [str(number) for number in range(count)]
        given = (network, image_1CHW.repeat(count, 1, 1, 1), labels_B, ids)
        with suppress(NoGradient, FloatingPointError):
            if derivatives < 2:
                gradients(*given, pass_rows=count)
            else:
                curvature(*given, seed=0, iterations=2, pass_rows=count)

    return memory_of_pass(differentiate, 1, weights_of(network))


def fuses_attention(network: nn.Module, image_1CHW: Tensor) -> bool:
    """Whether torch computes attention in it by a fused kernel, which saves less than the plain form does."""
    called = _Called()
    with torch.no_grad(), called:
        network(image_1CHW)
    return any("_scaled_dot_product_" in name for name in called.names)


def living_bytes(work: Callable[[], object], held: Iterable[Tensor] = ()) -> list[int]:
    """The bytes of the tensors that `work` has made and still holds, after each operation of torch; those that share
    memory with `held` do not count.
    """
    return _watched(work, held).bytes


def spread_bytes(work: Callable[[], object], held: Iterable[Tensor] = ()) -> list[int]:
    """The same with the holes between these tensors: how far they spread over the heap after each operation."""
    return _watched(work, held).spread


def _watched(work: Callable[[], object], held: Iterable[Tensor]) -> "_Living":
    living = _Living(held)
    with living:
        work()
    return living


def weights_of(network: nn.Module) -> list[Tensor]:
    """The tensors that a network holds whether it is used or not: its parameters and buffers."""
    return [*network.parameters(), *network.buffers()]


class _Called(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the names of the operations that are called."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.name())
        return func(*args, **(kwargs or {}))


class _Living(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the memory of the tensors that operations return, until it is freed, and sees how far they spread."""

    def __init__(self, held: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes: list[int] = []
        self.spread: list[int] = []
        self._now, self._heap = 0, Heap()
        # What was freed since the last operation: Python frees at any time, also while the heap is being changed.
        self._freed: list[tuple[int, int, int]] = []
        self._known = {own.untyped_storage()._cdata for own in held}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        returned = func(*args, **(kwargs or {}))
        self._take_freed()
        for own in tree_leaves(returned):
            if isinstance(own, Tensor) and own.layout is torch.strided:
                self._add(own.untyped_storage())
        self.bytes.append(self._now)
        self.spread.append(self._heap.top)
        return returned

    def _add(self, storage: torch.UntypedStorage) -> None:
        self._take_freed()  # a storage may have the number of one that was freed just now
        number, size = storage._cdata, storage.nbytes()
        if number in self._known or not size:
            return
        self._known.add(number)
        self._now += size
        weakref.finalize(storage, self._freed.append, (number, self._heap.take(size), size))

    def _take_freed(self) -> None:
        while self._freed:
            number, address, size = self._freed.pop(0)
            self._known.discard(number)
            self._now -= size
            self._heap.free(address, size)
