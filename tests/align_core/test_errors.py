"""Which line of an exception says what happened."""

import pytest

from align_core.errors import InputError, reason_of

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
        # No line of a traceback, although such a word occurs in them.
        ("first\nError while deserializing header", "first"),
        ("first\nthe cause is a ValueError: bad", "first"),
        ("first\nValueErrors: 3", "first"),
    ],
)
def test_the_line_that_says_what_happened(text: str, reason: str) -> None:
    assert reason_of(text) == reason
    assert reason_of(RuntimeError(text)) == (reason or "RuntimeError")


def test_an_exception_without_text_is_named_by_its_type() -> None:
    assert reason_of(TimeoutError()) == "TimeoutError"
    assert reason_of(InputError("")) == "InputError"
