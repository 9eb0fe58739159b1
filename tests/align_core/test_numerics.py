"""The numeric policy of every process that computes."""

from collections.abc import Iterator

import pytest
import torch

from align_core.model_config import Precision
from align_core.numerics import set_policy


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Restores the threads and flags that a test sets."""
    threads = torch.get_num_threads()
    yield
    set_policy(threads, "fp32")


@pytest.mark.parametrize(("precision", "products"), [("fp32", "ieee"), ("tf32", "tf32"), ("bf16", "ieee")])
def test_float32_is_rounded_only_where_that_is_asked_for(precision: Precision, products: str) -> None:
    other = "ieee" if products == "tf32" else "tf32"
    torch.backends.cuda.matmul.fp32_precision = torch.backends.cudnn.conv.fp32_precision = other
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = False, True
    set_policy(1, precision)
    assert torch.get_num_threads() == 1
    assert torch.backends.cuda.matmul.fp32_precision == products
    assert torch.backends.cudnn.conv.fp32_precision == products
    assert torch.backends.cudnn.deterministic and not torch.backends.cudnn.benchmark
