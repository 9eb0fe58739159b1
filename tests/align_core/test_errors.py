"""Which line of an exception says what happened."""

import argparse
import pickle
from pathlib import Path

import pytest
import torch

from align_core.errors import InputError, named, reason_of

# As Ray passes on what a worker raised: the traceback, and its own exception around it.
FROM_A_WORKER = """
ray::MapWorker(MapBatches(Crafter)).submit() (pid=77, ip=10.0.0.2)
  File "/site-packages/ray/data/map_operator.py", line 912, in _map_task
    raise UserCodeException("UDF failed to process a data block.") from e
ray.exceptions.UserCodeException: UDF failed to process a data block.

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/site-packages/torch/nn/modules/module.py", line 1775, in _call_impl
    raise ValueError("not this one")
torch.OutOfMemoryError: CUDA out of memory.
See the documentation for memory management.
"""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", ""),
        (" \n\t\n", ""),
        ("the disk is full", "the disk is full"),
        ("\n  the disk is full  \n\nfree some space\n", "the disk is full"),  # the first line, without its margins
        (FROM_A_WORKER, "torch.OutOfMemoryError: CUDA out of memory."),
        ("KeyError: 'a'\nadvice\nValueError: bad weights\nmore advice", "ValueError: bad weights"),  # the last raised
        ("advice first\npyarrow.lib.ArrowInvalid: not Parquet", "pyarrow.lib.ArrowInvalid: not Parquet"),
        ("advice first\nmy.module.BrokenException", "my.module.BrokenException"),  # raised without a message
        ("ray.exceptions.UserCodeException: failed\nhint", "ray.exceptions.UserCodeException: failed"),
        ("\x1b[36mthe disk\x1b[0m is \x1b[1;31mfull\x1b[0m", "the disk is full"),
        # No line of a traceback, although such a word occurs in them.
        ("first\nError while deserializing header", "first"),
        ("first\nthe cause is a ValueError: bad", "first"),
        ("first\nValueErrors: 3", "first"),
    ],
)
def test_the_line_that_says_what_happened(text: str, reason: str) -> None:
    assert reason_of(text) == reason
    assert reason_of(RuntimeError(text)) == (reason or "RuntimeError")


def test_what_torch_refuses_to_unpickle_is_named(tmp_path: Path) -> None:
    """Below advice whose first line is bold and leads on to the next."""
    torch.save({"a": argparse.Namespace()}, tmp_path / "a.pt")
    with pytest.raises(pickle.UnpicklingError) as refusal:
        torch.load(tmp_path / "a.pt")
    said = named(refusal.value)
    assert said.startswith(
        "UnpicklingError: WeightsUnpickler error: Unsupported global: GLOBAL argparse.Namespace was "
    )
    assert said.endswith(".")


def test_an_exception_without_text_is_named_by_its_type() -> None:
    assert reason_of(TimeoutError()) == "TimeoutError"
    assert reason_of(InputError("")) == "InputError"
