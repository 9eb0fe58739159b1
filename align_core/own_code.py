"""Calls the user's own code, such as a factory, so that nothing which it does reaches further than its result."""

import importlib
import os
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

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
        with _standard_output_apart():
            yield
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


@contextmanager
def _standard_output_apart() -> Iterator[None]:
    """Sends standard output to standard error within the block, what C libraries print too."""
    with redirect_stdout(sys.stderr):
        try:
            kept = os.dup(1)
        except OSError:  # there is no standard output
            yield
            return
        try:
            os.dup2(2, 1)
            yield
        finally:
            os.dup2(kept, 1)
            os.close(kept)
