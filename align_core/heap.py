"""How far tensors spread over the heap of a process: a model of how the C library lays them out.

torch asks the C library for memory whose address is a multiple of 64. For that glibc (2.36) looks for a hole that is
larger by 96 bytes, and gives back what is left of it: a hole that a tensor of the same size has left is not filled
again, unless another one beside it makes it larger. In a transformer, whose blocks all have the same sizes, the heap
grows to 1.3 times what lives in it; in convolutional networks, whose maps become smaller, tensors fit the holes.
"""

from bisect import bisect_left, insort

_MORE = 96  # bytes that a hole must have more than what is put into it: the alignment, and glibc's smallest chunk


class Heap:
    """A heap from address 0 on. What is taken lies in the smallest hole that holds it, or else at the top.

    Attributes:
        top: bytes up to the end of the last thing in it.
    """

    def __init__(self) -> None:
        self.top = 0
        self._holes: list[tuple[int, int]] = []  # size and address, ordered; none of them ends at the top
        self._from: dict[int, int] = {}  # address -> size, of each hole
        self._until: dict[int, int] = {}  # the end of each hole -> its address

    def take(self, size: int) -> int:
        """Puts something of so many bytes into it; returns its address."""
        number = bisect_left(self._holes, (size + _MORE, 0))
        if number == len(self._holes):
            self.top += size
            return self.top - size
        hole, address = self._holes[number]
        self._fill(address)
        if hole > size:
            self._open(address + size, hole - size)
        return address

    def free(self, address: int, size: int) -> None:
        """Frees what lies there: it becomes a hole, with those beside it, or the top comes down."""
        if (before := self._until.get(address)) is not None:
            size += self._fill(before)
            address = before
        if address + size in self._from:
            size += self._fill(address + size)
        if address + size == self.top:
            self.top = address
        else:
            self._open(address, size)

    def _open(self, address: int, size: int) -> None:
        insort(self._holes, (size, address))
        self._from[address], self._until[address + size] = size, address

    def _fill(self, address: int) -> int:
        """Takes a hole away; returns its size."""
        size = self._from.pop(address)
        del self._until[address + size], self._holes[bisect_left(self._holes, (size, address))]
        return size
