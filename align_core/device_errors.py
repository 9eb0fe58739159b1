"""Which exceptions mean that a device is broken: for the process that meets one it computes nothing more."""

import re

import torch

_PARTS = re.compile(r"(?:CUBLAS|CUDNN|CUSOLVER|CUSPARSE|CUFFT)_STATUS_(\w+)")
# The errors of CUDA's libraries that say something of the device, and not of what they were asked for.
_BREAKING = ("NOT_INITIALIZED", "INTERNAL_ERROR", "EXECUTION_FAILED", "MAPPING_ERROR")
_DEVICE = re.compile(r"\b(CUDA|HIP)( driver| runtime| unknown)? error\b|No CUDA GPUs are available", re.IGNORECASE)
# What is refused before it reaches the device, which goes on working.
_REFUSED = re.compile(
    r"out of memory|invalid argument|invalid configuration argument|too many resources requested", re.IGNORECASE
)


def device_error(problem: BaseException) -> BaseException | None:
    """The error of a device behind an exception: the exception itself or what caused it; None where there is none.

    After an illegal memory access, a failed assertion or a hardware fault, CUDA answers every further call of the
    process with an error, until the process ends. torch raises AcceleratorError, or a RuntimeError with CUDA's text
    where one of its libraries (cuBLAS, cuDNN) failed. Memory that is short is no such error: less may fit.
    """
    cause: BaseException | None = problem
    met: list[BaseException] = []
    while cause is not None and cause not in met:  # nothing keeps an exception from being its own cause
        met.append(cause)
        if isinstance(cause, RuntimeError) and not isinstance(cause, torch.OutOfMemoryError) and _is_broken(cause):
            return cause
        cause = cause.__cause__
    return None


def _is_broken(problem: RuntimeError) -> bool:
    said = str(problem)
    if part := _PARTS.search(said):
        return part[1].startswith(_BREAKING)
    if _REFUSED.search(said):
        return False
    return isinstance(problem, torch.AcceleratorError) or _DEVICE.search(said) is not None
