"""Which exceptions are those of a broken device: by torch's types and CUDA's texts, however they are wrapped."""

import pytest
import torch

from align_core.attacks.foreign import Misbehaved
from align_core.device_errors import device_error
from align_core.errors import InputError
from align_core.own_code import own_code
from align_core.reasons.passes import NoGradient, loss_and_gradient, second_derivatives


@pytest.mark.parametrize(
    ("problem", "is_broken"),
    [
        (torch.AcceleratorError("CUDA error: device-side assert triggered"), True),
        (torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered"), True),
        (torch.AcceleratorError("CUDA error: out of memory"), False),
        (torch.AcceleratorError("CUDA error: invalid configuration argument"), False),
        (RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with TORCH_USE_CUDA_DSA"), True),
        (RuntimeError("CUDA error: unspecified launch failure"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), False),
        (RuntimeError("CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling `cublasGemmEx`"), False),
        (RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED_CUDART"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_BAD_PARAM"), False),
        (RuntimeError("HIP error: the operation cannot be performed in the present state"), True),
        (RuntimeError("CUDA unknown error - this may be due to an incorrectly set up environment"), True),
        (RuntimeError("No CUDA GPUs are available"), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied (1x3 and 4x5)"), False),
        (ValueError("CUDA error: unspecified launch failure"), False),
    ],
    ids=str,
)
def test_what_breaks_a_process_and_what_does_not(problem: Exception, is_broken: bool) -> None:
    assert device_error(problem) is (problem if is_broken else None)


def test_it_is_found_behind_what_the_code_of_others_raises() -> None:
    error = torch.AcceleratorError("CUDA error: unspecified launch failure")
    with pytest.raises(InputError) as caught, own_code("attack mine"):
        raise error
    misbehaved = Misbehaved(str(caught.value))
    misbehaved.__cause__ = caught.value
    assert device_error(misbehaved) is error


class Broken(torch.autograd.Function):
    """The identity, whose backward pass meets a device error."""

    @staticmethod
    def forward(ctx, values):
        return values.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise torch.AcceleratorError("CUDA error: unspecified launch failure")


def test_it_is_not_taken_for_a_network_without_a_gradient() -> None:
    """Reasons that need a gradient that a network has not are blank, which a broken device must not make them."""
    leaf_NK = torch.zeros(2, 3, requires_grad=True)
    with pytest.raises(torch.AcceleratorError):
        loss_and_gradient(Broken.apply(leaf_NK), torch.tensor([0, 1]), leaf_NK, "it")
    with pytest.raises(torch.AcceleratorError), second_derivatives("it"):
        raise torch.AcceleratorError("CUDA error: unspecified launch failure")
    with pytest.raises(NoGradient), second_derivatives("it"):
        raise RuntimeError("trace_backward_not_implemented")


def test_an_exception_that_is_its_own_cause_is_looked_at_once() -> None:
    alone, one, other = RuntimeError("odd"), RuntimeError("one"), RuntimeError("other")
    alone.__cause__, one.__cause__, other.__cause__ = alone, other, one
    assert device_error(alone) is None and device_error(one) is None
    other.__cause__ = RuntimeError("CUDA error: unspecified launch failure")
    assert device_error(one) is other.__cause__
