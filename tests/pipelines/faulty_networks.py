"""A network on which the device fails, as CUDA says it, before it fails no more."""

import os
from pathlib import Path
from typing import Any

import torch
from hand_made_networks import linear
from torch import nn

from pipelines.recipes.digit_models import cnn

ERROR = "CUDA error: device-side assert triggered\nCUDA kernel errors might be reported at some other API call"


def failing(width: int, marker: str, times: int, spared: int) -> nn.Module:
    """Fails at the first `times` passes; each adds a line with its process to the file `marker`.

    In the process `spared` it does not fail: there the experiment is inspected.
    """
    network = linear(width)

    def fail(module: nn.Module, inputs: Any) -> None:
        file = Path(marker)
        before = file.read_text().splitlines() if file.exists() else []
        if os.getpid() != spared and len(before) < times:
            with file.open("a") as lines:
                lines.write(f"{os.getpid()}\n")
            raise torch.AcceleratorError(ERROR) if len(before) % 2 else RuntimeError(ERROR)

    network.register_forward_pre_hook(fail)
    return network


def failing_at(times: dict[str, int], marker: str, **arguments: int) -> nn.Module:
    """A network for digits that fails at the first passes of some numbers of images, as often as `times` says of each.

    Each adds a line with its process to a file, whose name is `marker` and the number of images.
    """
    network = cnn(**arguments)

    def fail(module: nn.Module, inputs: Any) -> None:
        rows = str(len(inputs[0]))
        file = Path(f"{marker}{rows}")
        before = file.read_text().splitlines() if file.exists() else []
        if len(before) < times.get(rows, 0):
            with file.open("a") as lines:
                lines.write(f"{os.getpid()}\n")
            raise torch.AcceleratorError(ERROR)

    network.register_forward_pre_hook(fail)
    return network


def failing_on(width: int, bad: str) -> nn.Module:
    """Fails when it is trained by a worker that Ray has given a GPU whose id is among those of `bad`."""
    network = linear(width)

    def fail(module: nn.Module, inputs: Any) -> None:
        import ray

        if module.training and set(ray.get_runtime_context().get_accelerator_ids().get("GPU", [])) & set(
            bad.split(",")
        ):
            raise torch.AcceleratorError(ERROR)

    network.register_forward_pre_hook(fail)
    return network
