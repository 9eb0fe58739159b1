"""Calls the user's own code, such as a factory, so that nothing which it does reaches further than its result."""

import importlib
import os
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Lock
from typing import Any, TextIO, cast

import numpy as np
import torch

from align_core.errors import InputError, named


@contextmanager
def own_code(what: str) -> Iterator[None]:
    """Runs the block as code of the user.

    What it prints goes to standard error, because standard output may be a command's result. Random states, torch's
    default type, its number of threads and its gradient mode are afterwards as they were.

    Args:
        what: says what is done, as the beginning of a message such as "factory a:b: calling it".

    Raises InputError for whatever the block raises, `sys.exit` among it; KeyboardInterrupt is the user's own.
    """
    kept = (random.getstate(), np.random.get_state(), torch.get_rng_state())
    dtype, threads, gradients = torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()
    try:
        _APART.begin()
        try:
            yield
        finally:
            _APART.end()
    except (InputError, KeyboardInterrupt):
        raise
    except BaseException as problem:
        raise InputError(f"{what} raises {named(problem)}") from problem
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])
        torch.set_rng_state(kept[2])
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(gradients)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)


def imported(path: str, what: str) -> Any:
    """What `module:callable` names.

    Args:
        path: `module:callable`. The module is imported, which runs it.
        what: what it is, as the beginning of a message: "factory", for example.

    Raises InputError where it cannot be imported.
    """
    module_name, _, name = path.partition(":")
    with own_code(f"{what} {path}: importing it"):
        try:
            return getattr(importlib.import_module(module_name), name)
        except (ImportError, AttributeError) as problem:
            raise InputError(
                f"{what} {path}: {problem}. The module is looked for beside the experiment file, then on PYTHONPATH"
            ) from problem


class _StandardError:
    """Stands for whatever `sys.stderr` is at the time: others may exchange it, and close what it was, meanwhile."""

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


class _StandardOutputApart:
    """Sends standard output to standard error, what C libraries print too, while any thread is in a block.

    The first thread to begin takes it away and the last to end puts it back, in whatever order they end: each putting
    back what it found would leave it with standard error for good.
    """

    def __init__(self) -> None:
        self._lock, self._within = Lock(), 0
        self._stream: TextIO = sys.stdout
        self._descriptor: int | None = None

    def begin(self) -> None:
        """Takes it away, unless another thread has."""
        with self._lock:
            self._within += 1
            if self._within > 1:
                return
            self._stream, sys.stdout = sys.stdout, cast("TextIO", _StandardError())
            with suppress(OSError):  # there is no standard output, or no standard error
                self._descriptor = os.dup(1)
                os.dup2(2, 1)

    def end(self) -> None:
        """Puts it back, unless another thread is still within."""
        with self._lock:
            self._within -= 1
            if self._within:
                return
            sys.stdout = self._stream
            if self._descriptor is not None:
                os.dup2(self._descriptor, 1)
                os.close(self._descriptor)
                self._descriptor = None


_APART = _StandardOutputApart()
