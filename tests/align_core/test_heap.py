"""The model of the heap: by hand, and against the C library's own account of what torch takes from it."""

import os
import subprocess
import sys

from align_core.heap import Heap


def test_a_hole_is_filled_by_what_is_smaller_and_not_by_what_is_as_large() -> None:
    heap = Heap()
    first, second = heap.take(1000), heap.take(500)
    assert (first, second, heap.top) == (0, 1000, 1500)
    heap.free(first, 1000)
    assert heap.take(1000) == 1500  # at the top: the hole would have to be larger by 96
    assert heap.take(904) == 0
    assert heap.top == 2500


def test_the_smallest_hole_that_fits_is_filled_and_the_rest_of_it_stays() -> None:
    heap = Heap()
    sizes = [3000, 10, 1000, 10, 2000, 10]
    places = [heap.take(size) for size in sizes]
    for number in (0, 2, 4):
        heap.free(places[number], sizes[number])
    assert heap.take(1500) == places[4]
    assert heap.take(404) == places[4] + 1500


def test_holes_beside_each_other_are_one_and_the_top_comes_down() -> None:
    heap = Heap()
    places = [heap.take(1000) for _ in range(4)]
    heap.free(places[0], 1000)
    heap.free(places[2], 1000)
    heap.free(places[1], 1000)
    assert heap.take(2900) == 0
    heap.free(places[3], 1000)
    assert heap.top == 2900


IN_TORCH = """
import ctypes

import torch

from align_core.heap import Heap


class Account(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena a b c hblkhd d e f g h".split()]


library = ctypes.CDLL("libc.so.6")
library.mallinfo2.restype = Account
heap, kept, held, most = Heap(), [], 0, 0
before = library.mallinfo2().arena
for _ in range(12):  # as the blocks of a transformer: 3 and 1 are kept, and 1 and 4 go when the block ends
    taken = [(torch.empty(size * 2**20, dtype=torch.uint8), size * 2**20) for size in (1, 3, 1, 4)]
    places = [heap.take(size) for _, size in taken]
    most = max(most, heap.top)
    kept += [taken[1][0], taken[2][0]]
    for number in (0, 3):
        heap.free(places[number], taken[number][1])
    del taken
    held += 4 * 2**20
print(library.mallinfo2().arena - before, most, held)
"""


def test_the_c_library_spreads_tensors_no_further() -> None:
    in_one_heap = {"MALLOC_TRIM_THRESHOLD_": str(2**30), "MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_ARENA_MAX": "1"}
    command, environment = [sys.executable, "-c", IN_TORCH], os.environ | in_one_heap
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    spread, counted, held = map(int, done.stdout.split())
    assert 0.95 * held <= spread <= 1.2 * counted  # a fifth more, as `witness plan` allows for
