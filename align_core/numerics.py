"""One numeric policy for every process that computes: float32 means float32, and kernels are deterministic.

It is set here and nowhere else. What it cannot make deterministic on a GPU is named in `align_core/README.md`.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from align_core.model_config import Precision


def set_policy(threads: int, precision: Precision) -> None:
    """Sets how this process computes.

    Args:
        threads: CPU threads of torch.
        precision: with `tf32`, GPUs may round the factors of float32 products to 10 bits; with the others they do not.
            `bf16` is autocast, which the networks themselves enter.

    On a GPU, kernels are deterministic where there are such, and are never chosen by a timing. Operations that have
    none warn.
    """
    torch.set_num_threads(threads)
    products = "tf32" if precision == "tf32" else "ieee"
    torch.backends.cuda.matmul.fp32_precision = products
    torch.backends.cudnn.conv.fp32_precision = products  # type: ignore[attr-defined]
    torch.backends.cudnn.rnn.fp32_precision = products  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    if torch.cuda.is_available():
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it, cuBLAS is not deterministic
        torch.use_deterministic_algorithms(True, warn_only=True)
        # The gradients of fused attention are not deterministic, and with `warn_only` torch computes them all the same.
        torch.backends.cuda.enable_math_sdp(True)
        torch.backends.cuda.enable_flash_sdp(False)
        torch.backends.cuda.enable_mem_efficient_sdp(False)
        torch.backends.cuda.enable_cudnn_sdp(False)
        # Filling memory that nothing has been written to costs time, and nothing here reads such memory.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


@contextmanager
def adding_whole_numbers() -> Iterator[None]:
    """Lets a GPU add integers in any order, whose sum is the same. Torch tells them from floats nowhere, and sorts."""
    was, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was, warn_only=warns)
